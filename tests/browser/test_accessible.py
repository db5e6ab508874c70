"""Every page, light and dark, against axe's rules for WCAG A and AA; and its picture."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Page

from browser.conftest import Deployment, Open

pytestmark = pytest.mark.timeout(600)
AXE: Final = (Path(__file__).with_name("axe") / "axe.min.js").read_text()
TAGS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def violations(page: Page) -> list[str]:
    # Evaluated from outside, so that the page's policy needs no exception for it.
    page.evaluate(AXE)
    found: dict[str, Any] = page.evaluate("tags => axe.run(document, {runOnly: tags})", TAGS)
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


@pytest.fixture(scope="module")
def paths(deployment: Deployment) -> dict[str, str]:
    """One page of each kind, with something on it."""
    colours = (
        'for i in 31 32 33 34 35 36 91 92; do printf "\\033[${i}mcolour $i\\033[0m\\n"; done'
    )
    failed = deployment.start_run(
        "--label", "team=core", "--", "sh", "-c", f"{colours}; echo oh no >&2; exit 3"
    )
    waiting = deployment.start_run("--require", "gpu=yes", "--", "nvidia-smi")
    for number in range(3):
        deployment.start_run("--", "echo", str(number))
    deployment.call("runs", "wait", failed)
    deployment.call("env", "create", "kept", "--provider", "local")
    lease = deployment.call("leases", "create", "--env", "local", "--json").json()["id"]
    return {
        "overview": "",
        "runs": "/runs",
        "runs-none": "/runs?status=parked",
        "run-failed": f"/runs/{failed}",
        "run-waiting": f"/runs/{waiting}",
        "run-new": "/new-run",
        "run-like": f"/new-run?like={failed}",
        "failures": "/failures",
        "trouble": "/trouble",
        "leases": "/leases",
        "lease": f"/leases/{lease}",
        "hosts": "/hosts",
        "providers": "/providers",
        "provider": "/providers/local",
        "environments": "/environments",
        "environment": "/environments/local",
        "environment-new": "/new-environment",
        "environment-form": "/new-environment?provider=ssh",
        "problem": "/nowhere",
        "signed-out": "/sign-in",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_a_rule(
    open_: Open,
    deployment: Deployment,
    paths: dict[str, str],
    shot: Callable[[Page, str], None],
    scheme: str,
) -> None:
    page = open_(color_scheme=scheme)
    found = {}
    for name, path in paths.items():
        page.goto(deployment.url + path)
        page.wait_for_timeout(300)
        shot(page, f"{name}-{scheme}")
        if problems := violations(page):
            found[name] = problems
    assert found == {}
    assert os.listdir(Path(__file__).parents[2] / "build" / "screenshots")


def test_the_rules_are_looked_at(open_: Open) -> None:
    page = open_("/runs")
    # An input that nothing names.
    page.evaluate("document.querySelector('#live').append(document.createElement('input'))")
    assert any(problem.startswith("label:") for problem in violations(page))
