# `make help` lists what there is. CI runs the same targets.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
# Tests wait for real processes half of their time: one more than there are cores.
TEST_JOBS ?= 3
# Tests make ten thousands of small files and databases; a disk would double their time.
TEST_TMP ?= $(shell test -w /dev/shm && df -Pk /dev/shm | awk 'NR == 2 && $$4 > 4000000 {print "/dev/shm"}')
IN_MEMORY := $(if $(TEST_TMP),TMPDIR=$(TEST_TMP))
SEED ?= 1000
CHAOS_S ?= 600
STACK ?= production
SOAK_S ?= 1200
PLUGINS := workers/local workers/fake_plugin workers/bubblewrap workers/docker workers/ssh
CODE := src workers tests $(wildcard bench) examples

.DEFAULT_GOAL := help
.PHONY: help setup demo up test browser services engines containers lint types fmt proof soak matrix simulate chaos ci bench lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(VENV)/.ready  ## make .venv with everything, test extras too

$(VENV)/.ready: requirements.lock pyproject.toml $(PLUGINS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit("Leasehold needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "this Python has no venv: install it (Debian: apt-get install python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . $(PLUGINS:%=-e %)
	@touch $@

demo: setup  ## real commands in leased sandboxes while a worker is killed (15 s)
	@$(BIN)/python -m leasehold.demo

up: setup  ## everything on this machine, until Ctrl-C
	@$(BIN)/leasehold up

test: setup  ## all tests; PostgreSQL and Redis from wheels or the machine
	$(IN_MEMORY) $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder -m "not proof" --ignore=tests/real --ignore=tests/engines --ignore=tests/browser

browser: setup  ## the monitor in Debian's Chromium, with axe; pictures in build/screenshots (2 min)
	$(IN_MEMORY) LEASEHOLD_REQUIRE_SERVICES=1 $(BIN)/python -m pytest -n 1 tests/browser

proof: setup  ## the long tests: deaf workers, restores, deliberate faults, more kills (6 min)
	$(IN_MEMORY) $(BIN)/python -m pytest -n $(JOBS) --dist load -m proof --ignore=tests/engines --ignore=tests/browser

services: setup  ## PostgreSQL, Redis and RabbitMQ that fail under real work (6 min)
	$(IN_MEMORY) LEASEHOLD_REQUIRE_SERVICES=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile tests/real

matrix: setup  ## conformance of every provider whose engine is here; writes docs/providers.md
	@rm -rf build/conformance.json
	LEASEHOLD_CONFORMANCE_REPORT=build/conformance.json \
	$(BIN)/python -m pytest -q -n $(JOBS) --dist load -k test_provider \
	  $(wildcard tests/conformance tests/engines); status=$$?; \
	$(BIN)/python docs/generate_providers.py build/conformance.json && exit $$status

soak: setup  ## 20 minutes at constant load: memory, descriptors, query times; SOAK_S=
	$(BIN)/python bench/soak.py --seconds $(SOAK_S)

lint: setup  ## format check, ruff, floors
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/lint-imports

simulate: setup  ## 1,000 seeds of the simulator (3 min); SEED=n begins elsewhere
	$(BIN)/leasehold simulate --seed $(SEED) --runs 1000 --jobs $(JOBS)

chaos: setup  ## break everything around real runs (10 min); CHAOS_S=, SEED=, STACK=embedded
	PYTHONPATH=tests $(BIN)/python -m chaos --seconds $(CHAOS_S) --seed $(SEED) --stack $(STACK)

types: setup  ## mypy, strict
	$(BIN)/mypy $(CODE)

fmt: setup  ## format and mend what can be mended
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

engines: setup  ## sandboxes that isolate or are elsewhere: bubblewrap, ssh (5 min)
	LEASEHOLD_REQUIRE_SERVICES=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --timeout 300 \
	  --ignore-glob='*/test_docker*' tests/engines

containers: setup  ## the same on a real Docker Engine and Podman (root; 6 min)
	LEASEHOLD_REQUIRE_SERVICES=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist load --timeout 300 \
	  $(wildcard tests/engines/test_docker*.py)

ci: lint types test browser engines containers services proof simulate  ## what CI runs
	$(MAKE) chaos CHAOS_S=200

bench: setup  ## measure beside a bare Celery chain, and a thousand waiting commands (7 min)
	$(BIN)/python bench/chain.py
	$(BIN)/python bench/waiting.py

lock:  ## resolve the dependencies anew and write requirements.lock
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check "setuptools>=77,<82" -e '.[embedded,s3,test]' $(PLUGINS:%=-e %)
	.venv-lock/bin/python -m pip freeze --all --exclude-editable | grep -v '^pip==' > requirements.lock.new
	mv requirements.lock.new requirements.lock && rm -rf .venv-lock

clean:  ## remove .venv and caches
	rm -rf $(VENV) .venv-lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
