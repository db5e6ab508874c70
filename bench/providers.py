"""
What a provider takes for one command, beside its engine's own fastest way.

    python bench/providers.py [--only KEY] [--runs 50]
    python bench/providers.py --only docker --docker-socket PATH --docker-image IMAGE
    python bench/providers.py --only ssh --ssh user@host:port --ssh-key FILE \
        --ssh-known-hosts FILE --ssh-path DIR
    python bench/providers.py --provider bubblewrap --at-once 200

Through the contract alone: one provider object in one process, no database, no broker. Each run
is a lease of its own: acquire, start `true`, see the exit, release. The engine does the same
without us in turn with it, so that both meet the same load. An exit is seen by the provider's
watch if it has one, else by polling. A provider that is not here is said to be MISSING.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from time import perf_counter, sleep
from typing import Any, Final

import crowd
import engines
import meter
import stacks
from leasehold.errors import LeaseholdError
from leasehold.provider import (
    Budget,
    Command,
    ExecutionState,
    HealthState,
    LeaseRef,
    PollItem,
    Provider,
    ReleaseMode,
    Target,
)
from leasehold.provider.registry import make_one

KEYS: Final = ("fake", "fake_plugin", "local", "bubblewrap", "docker", "ssh")
PHASES: Final = ("acquire", "start", "exit seen", "release", "all")
AIM_MS: Final = 15.0
TTL: Final = timedelta(minutes=10)
LIMIT_S: Final = 120.0


class MissingError(Exception):
    """This provider cannot be measured here; says why."""


@dataclass
class Bench:
    """One provider, ready; its sandboxes carry a deployment of their own."""

    key: str
    provider: Provider
    root: Path
    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    deployment: str
    ended: dict[str, threading.Event] = field(default_factory=dict)
    watches: bool = False

    def lease(self, number: int) -> LeaseRef:
        return LeaseRef(
            id=f"{self.deployment}-{number}", number=number, deployment=self.deployment
        )

    def acquire(self, number: int) -> Target:
        lease = self.lease(number)
        sandbox = self.provider.acquire(
            lease, self.config, known=None, ttl=TTL, fence=1, budget=Budget(LIMIT_S)
        )
        return Target(lease=lease, handle=sandbox.handle, config=self.config)

    def start(self, target: Target, *argv: str, **more: Any) -> str:
        name = f"x-{target.lease.id}"
        self.ended[name] = threading.Event()
        command = Command(argv=argv, **more)
        self.provider.start(
            target, fence=1, execution_id=name, command=command, budget=Budget(LIMIT_S)
        )
        return name

    def state(self, target: Target, name: str) -> ExecutionState | None:
        item = PollItem(target=target, execution_id=name, handle={})
        (polled,) = self.provider.poll([item], limit_bytes=4096, budget=Budget(LIMIT_S))
        if polled.error is not None:
            raise polled.error
        return polled.state

    def see_exit(self, target: Target, name: str) -> None:
        until = perf_counter() + LIMIT_S
        if self.watches:
            # A watch that tells nothing shows as this second, and not as a hang.
            self.ended[name].wait(1.0)
        while self.state(target, name) is not ExecutionState.EXITED:
            if perf_counter() > until:
                raise SystemExit(f"bench: {self.key}: no exit of {name} within {LIMIT_S:g} s")
            sleep(0.001)

    def release(self, target: Target) -> None:
        self.provider.release(target, fence=2, mode=ReleaseMode.DESTROY, budget=Budget(LIMIT_S))

    def left(self) -> list[str]:
        listed = self.provider.list_owned(
            self.deployment, config=self.config, budget=Budget(LIMIT_S)
        )
        return [one.lease_id for one in listed]

    def told(self, name: str) -> None:
        if (event := self.ended.get(name)) is not None:
            event.set()


@contextmanager
def ready(key: str, options: argparse.Namespace) -> Iterator[Bench]:
    """
    Make a provider and see that it works here.

    Raises:
        MissingError: It is not installed, not configured, or its engine is not here.
    """
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as home:
        root, deployment = Path(home, "root"), f"bench-{os.urandom(4).hex()}"
        settings = {"root": str(root), "deployment": deployment, "host_id": "bench"}
        settings |= _settings(key, options)
        try:
            provider = make_one(key, settings)
        except LeaseholdError as error:
            raise MissingError(str(error)) from error
        except Exception as error:
            raise MissingError(f"it cannot be loaded: {error!r}") from error
        try:
            config = _config(key, options)
            checked = provider.validate(config, budget=Budget(LIMIT_S))
            if not checked.ok:
                first = checked.problems[0]
                raise MissingError(f"no valid config was given: {first.path}: {first.message}")
            health = provider.probe(checked.config, budget=Budget(LIMIT_S))
            if health.state is not HealthState.HEALTHY:
                raise MissingError(f"{health.state}: {health.summary}")
            bench = Bench(key, provider, root, settings, checked.config, deployment)
            bench.watches = provider.describe().capabilities.watch
            if bench.watches:
                provider.watch(bench.told)
            yield bench
        finally:
            provider.close()


def _settings(key: str, options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = dict(options.setting.get(key, {}))
    if key == "docker" and options.docker_socket:
        found["socket"] = options.docker_socket
    return found


def _config(key: str, options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if key == "docker" and options.docker_image:
        found["image"] = options.docker_image
    if key == "ssh" and options.ssh:
        account, _, port = options.ssh.rpartition(":")
        user, _, host = account.rpartition("@")
        found = {"user": user, "host": host, "port": int(port), "path": options.ssh_path}
        found["private_key"] = Path(options.ssh_key).read_text(encoding="utf-8")
        found["known_hosts"] = Path(options.ssh_known_hosts).read_text(encoding="utf-8")
    return {**found, **options.config.get(key, {})}


def measure(bench: Bench, runs: int) -> dict[str, Any]:
    """Measure `runs` leases, in turn with the engine's own way."""
    spans: dict[str, list[float]] = {phase: [] for phase in PHASES}
    own: list[float] = []
    with engines.own_way(bench.key, bench.settings, bench.config) as way:
        for number in range(1, runs + 4):
            one = _one(bench, number)
            alone = None if way is None else _timed(way[1])
            # The first few fill caches and start what is kept.
            if number > 3:
                for phase, span in zip(PHASES, one, strict=True):
                    spans[phase].append(span)
                own += [] if alone is None else [alone]
    if left := bench.left():
        raise SystemExit(f"bench: {bench.key}: still listed: {left}")
    result: dict[str, Any] = {
        "provider": bench.key,
        "runs": runs,
        "exit_by": "watch" if bench.watches else "poll",
        "ms": {phase: _spread(found) for phase, found in spans.items()},
    }
    if way is not None:
        result["own_way"], result["own_ms"] = way[0], _spread(own)
        above = result["ms"]["all"]["p50"] - result["own_ms"]["p50"]
        result["above_ms"] = round(above, 2)
        result["ratio"] = round(result["ms"]["all"]["p50"] / result["own_ms"]["p50"], 2)
    return result


def _one(bench: Bench, number: int) -> list[float]:
    marks = [perf_counter()]
    target = bench.acquire(number)
    marks.append(perf_counter())
    name = bench.start(target, "true")
    marks.append(perf_counter())
    bench.see_exit(target, name)
    marks.append(perf_counter())
    bench.release(target)
    marks.append(perf_counter())
    spans = [after - before for before, after in pairwise(marks)]
    return [*spans, marks[-1] - marks[0]]


def _timed(call: Callable[[], None]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


def _spread(spans_s: list[float]) -> dict[str, float]:
    cuts = quantiles(spans_s, n=100, method="inclusive")
    return {"p50": round(cuts[49] * 1e3, 2), "p95": round(cuts[94] * 1e3, 2)}


def show(result: dict[str, Any]) -> None:
    """Print one provider's figures, the engine's own beside them."""
    print(f"\n{result['provider']}: {result['runs']} runs, exit seen by {result['exit_by']}")
    for phase, ms in result["ms"].items():
        print(f"  {phase:12} p50 {ms['p50']:8.2f} ms   p95 {ms['p95']:8.2f} ms")
    if "own_ms" in result:
        ms, aim = result["own_ms"], "met" if result["above_ms"] <= AIM_MS else "NOT met"
        print(f"  {'its own way':12} p50 {ms['p50']:8.2f} ms   p95 {ms['p95']:8.2f} ms"
              f"   ({result['own_way']})")  # fmt: skip
        print(f"  above it     {result['above_ms']:12.2f} ms   {result['ratio']:.2f} x"
              f"   aim {AIM_MS:g} ms {aim}")  # fmt: skip


def _pair(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, json.loads(value)


def options_of(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--only", "--provider", metavar="KEY", help="by default all")
    parser.add_argument("--at-once", type=int, metavar="N", help="so many that run at once")
    parser.add_argument("--threads", type=int, default=8, help="of --at-once")
    parser.add_argument("--config", type=_pair, action="append", default=[],
                        metavar="KEY=JSON", help="the config of a provider")  # fmt: skip
    parser.add_argument("--setting", type=_pair, action="append", default=[],
                        metavar="KEY=JSON", help="what its factory is given")  # fmt: skip
    parser.add_argument("--docker-socket", metavar="PATH")
    parser.add_argument("--docker-image", metavar="IMAGE")
    parser.add_argument("--ssh", metavar="USER@HOST:PORT")
    parser.add_argument("--ssh-key", metavar="FILE")
    parser.add_argument("--ssh-known-hosts", metavar="FILE")
    parser.add_argument("--ssh-path", metavar="DIR", help="where its sandboxes go")
    options = parser.parse_args(words)
    options.config, options.setting = dict(options.config), dict(options.setting)
    if options.ssh and not (options.ssh_key and options.ssh_known_hosts and options.ssh_path):
        parser.error("--ssh needs --ssh-key, --ssh-known-hosts and --ssh-path")
    return options


def main() -> int:
    """Measure what was asked for; print it and write it to `bench/results/providers.json`."""
    options = options_of(sys.argv[1:])
    machine = meter.machine()
    print(f"{machine['cores']} cores, load {machine['load_before']}")
    results, missing, trouble = [], {}, False
    for key in [options.only] if options.only else KEYS:
        try:
            with ready(key, options) as bench:
                if options.at_once:
                    result = crowd.at_once(bench, options.at_once, threads=options.threads)
                    trouble |= bool(result["left"])
                else:
                    result = measure(bench, options.runs)
                    show(result)
                results.append(result)
        except MissingError as error:
            missing[key] = str(error)
            print(f"\nMISSING: {key}: {error}")
    machine["load_after"] = [round(load, 2) for load in os.getloadavg()]
    name = "providers-at-once" if options.at_once else "providers"
    path = stacks.write_result(
        name, {"machine": machine, "providers": results, "missing": missing}
    )
    print(f"\nload after {machine['load_after']}; written to {path}")
    if missing:
        print(f"MISSING, and not measured: {', '.join(missing)}")
    return 1 if trouble or (options.only and missing) else 0


if __name__ == "__main__":
    sys.exit(main())
