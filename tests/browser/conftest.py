"""
A real browser before a real deployment: Debian's Chromium, driven by Playwright.

One home with a running stack serves all tests here; each gets a fresh profile, signed in by a
link as a person would be. Screenshots go to `build/screenshots`, which CI keeps.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from command_line import Live
from leasehold.orchestrator import signing
from leasehold.store.database import Database

SHOTS: Final = Path(__file__).parents[2] / "build" / "screenshots"
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
REQUIRED: Final = bool(os.environ.get("CI") or os.environ.get("LEASEHOLD_REQUIRE_SERVICES"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        if REQUIRED:
            pytest.fail("chromium is missing (Debian: apt-get install chromium)")
        pytest.skip("chromium is missing (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        # Tests run as root in containers, where Chromium's own sandbox cannot be made.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Deployment(Live):
    """A home with a stack; `url` is where its monitor is."""

    url: str

    def link(self) -> str:
        database = Database(f"sqlite:///{self.home / 'leasehold.db'}")
        try:
            with database.write("test") as tx:
                secret = signing.make_link(tx, tenant_id="default", actor="test")
        finally:
            database.close()
        return f"{self.url}/sign-in?link={secret}"

    def start_run(self, *arguments: str) -> str:
        said = self.call("run", "--detach", *arguments)
        assert said.code == 0, said.err
        return said.out.strip()


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    live = Deployment(tmp_path_factory.mktemp("browser") / "home")
    shape = live.up("--api-port", "0")
    try:
        live.url = f"{shape['api']}/monitor"
        yield live
    finally:
        live.down()


Open = Callable[..., Page]


@pytest.fixture
def open_(chromium: Browser, deployment: Deployment) -> Iterator[Open]:
    """Return what opens a page of the monitor, signed in; its script makes no error."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def made(path: str = "", **how: Any) -> Page:
        options = {"viewport": {"width": 1280, "height": 900}, "timezone_id": "Asia/Tokyo"}
        context = chromium.new_context(**(options | how))
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda said: (
                problems.append(said.text) if "Content Security" in said.text else None
            ),
        )
        page.goto(deployment.link())
        page.goto(deployment.url + path)
        return page

    yield made
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def shot() -> Callable[[Page, str], None]:
    SHOTS.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> None:
        page.screenshot(path=SHOTS / f"{name}.png", full_page=True)

    return take
