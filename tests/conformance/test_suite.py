"""The suite itself: a provider that breaks a rule is found, and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leasehold.errors import SandboxGoneError, UnsupportedError
from leasehold.provider import (
    Json,
    Provider,
    ReleaseMode,
    Started,
    StartOutcome,
    Validation,
)
from leasehold.provider.conformance import (
    AREAS,
    CheckResult,
    Harness,
    Outcome,
    all_checks,
    installed,
    run_checks,
)
from leasehold.provider.fake import FakeProvider
from leasehold.provider.fake_world import World


def harness(tmp_path: Path, kind: Callable[[World], Provider]) -> Harness:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Harness(
        provider=lambda _deployment: kind(World(tmp_path / "root")),
        config={"image": "x"},
        scratch=scratch,
        posix_commands=False,
        short_ttl_s=0.2,
        limit_s=3,
    )


def failed(results: list[CheckResult]) -> set[str]:
    return {result.name for result in results if result.outcome is Outcome.FAILED}


class Forgetful(FakeProvider):
    """Installs no fence."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        world.install = lambda box, fence: None  # type: ignore[method-assign]  # the fault


class Eager(FakeProvider):
    """Says that each start was its own."""

    def start(self, *args: Any, **more: Any) -> Started:
        super().start(*args, **more)
        return Started(outcome=StartOutcome.STARTED, handle={})


class Leaky(FakeProvider):
    """Destroys nothing, and says that it did."""

    def release(self, *args: Any, **more: Any) -> None:
        return


class Maker(FakeProvider):
    """Makes a known sandbox again that is gone."""

    def acquire(self, *args: Any, **more: Any) -> Any:
        try:
            return super().acquire(*args, **more)
        except SandboxGoneError:
            return super().acquire(*args, **{**more, "known": None})


class Restless(FakeProvider):
    """Suspends a sandbox, and lets go on what runs there."""

    def release(self, *args: Any, **more: Any) -> None:
        if more["mode"] is ReleaseMode.SUSPEND:
            more["mode"] = ReleaseMode.KEEP
        super().release(*args, **more)


class Agreeable(FakeProvider):
    """Takes any config, and does nothing about it."""

    def validate(self, config: Json, **_: Any) -> Validation:
        return Validation(config=config)


class Crasher(FakeProvider):
    """Raises what no contract knows."""

    def inspect(self, *args: Any, **more: Any) -> Any:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("kind", "area", "found"),
    [
        (Forgetful, "fences", "a stale holder is refused everywhere and changes nothing"),
        (Eager, "idempotency", "eight that start one execution start it once"),
        (Leaky, "ownership", "what is listed is enough to destroy it"),
        (Maker, "contract", "a known sandbox that is gone is not made again"),
        (Restless, "lifetime", "what ran has ended when only the disk is kept"),
        (Agreeable, "limits", "a limit that is not declared is refused"),
        (Crasher, "contract", "what is not there is said to be gone"),
    ],
)
def test_a_provider_that_breaks_a_rule_is_found(
    tmp_path: Path, kind: Callable[[World], Provider], area: str, found: str
) -> None:
    results = run_checks(harness(tmp_path, kind), areas=[area])
    assert found in failed(results)
    assert all(result.reason for result in results if result.outcome is not Outcome.PASSED)


def test_without_pytest_every_check_has_a_result(tmp_path: Path) -> None:
    areas = ["contract", "execution", "output"]
    results = run_checks(harness(tmp_path, FakeProvider), areas=areas)
    assert failed(results) == set()
    assert {result.area for result in results} == set(areas)
    skipped = {result.reason for result in results if result.outcome is Outcome.SKIPPED}
    assert "needs real commands" in skipped


def test_each_check_has_a_name_of_its_own_and_an_area() -> None:
    checks = all_checks()
    assert len({one.name for one in checks}) == len(checks)
    assert {one.area for one in checks} == set(AREAS)


def test_an_installed_plugin_is_checked_by_its_key(tmp_path: Path) -> None:
    for key in ("fake", "fake_plugin", "local"):
        results = run_checks(installed(key, scratch=tmp_path / key), areas=["contract"])
        assert failed(results) == set()
    with pytest.raises(UnsupportedError, match="installed: .*fake"):
        installed("nobody", scratch=tmp_path / "nobody")
