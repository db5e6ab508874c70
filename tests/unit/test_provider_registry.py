"""Plugins are found by entry point; one that is broken is told, and stops nobody."""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from leasehold.errors import UnsupportedError
from leasehold.provider import Info, Provider
from leasehold.provider.fake import FakeProvider
from leasehold.provider.registry import GROUP, Registry, make_one


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that installs a plugin: its key, and the text of its module."""

    def one(key: str, text: str) -> None:
        name = f"plugin_{key}_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{key} = {name}:make\n")

    monkeypatch.syspath_prepend(tmp_path)
    return one


numbers = count()

MINE = """
from dataclasses import replace
from leasehold.provider.fake import FakeProvider
from leasehold.provider.fake_world import World

class Mine(FakeProvider):
    def describe(self):
        return replace(super().describe(), key={key!r}, api_version={version})

def make(settings):
    return Mine(World(settings["root"]))
"""


def settings(tmp_path: Path) -> Callable[[str], Mapping[str, Any]]:
    return lambda key: {
        "root": str(tmp_path / key),
        "deployment": "deployment-1",
        "host_id": "host-1",
    }


def test_an_installed_plugin_is_loaded_with_its_settings(
    tmp_path: Path, install: Callable[[str, str], None]
) -> None:
    install("mine", MINE.format(key="mine", version=1))
    registry = Registry.load(settings(tmp_path))
    assert registry.keys() == sorted(registry.keys())
    provider = registry.require("mine")
    assert registry.get("mine") is provider
    assert isinstance(provider, FakeProvider)
    assert provider.world.root == tmp_path / "mine"
    assert provider.describe().key == "mine"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("make = None", "TypeError"),
        ("def make(settings): raise RuntimeError('no daemon')", "no daemon"),
        ("def other(): ...", "make"),
        (MINE.format(key="broken", version=2), "version 2 of the provider contract"),
        (MINE.format(key="else", version=1), "calls itself 'else'"),
        ("syntax error here", "SyntaxError"),
    ],
)
def test_a_broken_plugin_is_told_with_its_reason_and_stops_nobody(
    tmp_path: Path, install: Callable[[str, str], None], text: str, reason: str
) -> None:
    install("broken", text)
    install("good", MINE.format(key="good", version=1))
    registry = Registry.load(settings(tmp_path))
    assert registry.get("good") is not None
    assert registry.get("broken") is None
    assert reason in registry.failures["broken"]
    with pytest.raises(UnsupportedError, match="could not be loaded") as caught:
        registry.require("broken")
    assert reason in str(caught.value)


def test_fake_is_there_only_where_it_is_allowed(tmp_path: Path) -> None:
    assert Registry.load(settings(tmp_path)).get("fake") is None
    allowed = Registry.load(settings(tmp_path), allow_fake=True)
    assert allowed.require("fake").describe().key == "fake"


def test_the_plugins_of_this_project_are_found(tmp_path: Path) -> None:
    registry = Registry.load(settings(tmp_path))
    assert {"local", "fake_plugin"} <= set(registry.keys())
    assert not registry.failures


def test_an_unknown_key_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    registry = Registry.load(settings(tmp_path), allow_fake=True)
    assert registry.get("nobody") is None
    with pytest.raises(UnsupportedError, match=r"'nobody' is not loaded here.*fake.*local"):
        registry.require("nobody")
    with pytest.raises(UnsupportedError, match=r"no provider 'nobody' is installed.*local"):
        make_one("nobody", {})


def test_one_provider_is_made_anew_for_each_that_asks(tmp_path: Path) -> None:
    made = [make_one(key, settings(tmp_path)(key)) for key in ("fake", "fake", "fake_plugin")]
    assert [one.describe().key for one in made] == ["fake", "fake", "fake_plugin"]
    assert made[0] is not made[1]
    assert isinstance(made[0], Provider)
    assert isinstance(made[0].describe(), Info)


def test_entry_points_are_what_a_plugin_declares() -> None:
    entry = EntryPoint("x", "leasehold_local:make", GROUP)
    assert callable(entry.load())
