"""The monitor as a person meets it: live, without a script, on a phone, by keyboard."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import Deployment, Open

pytestmark = pytest.mark.timeout(300)
SLEEPER = ("--", "sh", "-c", "while ! test -e go; do sleep 0.1; done")


def run_page(open_: Open, run_id: str, **how: object) -> Page:
    return open_(f"/runs/{run_id}", **how)


def test_output_comes_while_it_is_written_with_its_colours(
    open_: Open, deployment: Deployment
) -> None:
    script = (
        "printf '\\033[31mfirst\\033[0m\\n'; sleep 3; printf 'half \\033['; sleep 1;"
        " printf '32mgreen\\033[0m <b>not bold</b>\\n'; echo on stderr >&2; sleep 2; exit 4"
    )
    page = run_page(open_, deployment.start_run("--", "sh", "-c", script))
    out = page.locator(".stream.stdout pre")
    expect(out).to_contain_text("first")
    expect(out.locator("span.c1")).to_have_text("first")
    expect(out.locator("span.c2")).to_have_text("green")
    expect(out).to_contain_text("<b>not bold</b>")
    expect(page.locator(".stream.stderr pre")).to_have_text("on stderr\n")
    expect(page.locator("h1 .status")).to_have_text("failed")
    expect(page.locator("h3 small")).to_contain_text("exit code 4")


def test_output_is_searched_across_colours_and_while_it_comes(
    open_: Open, deployment: Deployment
) -> None:
    script = (
        "printf 'a nee\\033[31mdle\\033[0m here\\n<i>Needle</i>\\n';"
        " while ! test -e go; do sleep 0.1; done"
    )
    run_id = deployment.start_run("--", "sh", "-c", script)
    page = run_page(open_, run_id)
    expect(page.locator(".stream.stdout pre")).to_contain_text("Needle")
    search = page.get_by_label("Search")
    search.fill("needle")
    count = page.locator("#search-tool output")
    expect(count).to_have_text("1 of 2")
    search.press("Enter")
    expect(count).to_have_text("2 of 2")
    words = "[...CSS.highlights.get('found')].map(range => range.toString())"
    assert page.evaluate(words) == ["needle", "Needle"]
    search.fill("nothing like it")
    expect(count).to_have_text("0 of 0")
    assert page.locator(".stream.stdout pre span").all_inner_texts() == ["dle"]
    deployment.call("runs", "cancel", run_id)


def test_a_change_appears_by_itself_and_nothing_jumps(
    open_: Open, deployment: Deployment
) -> None:
    run_id = deployment.start_run(*SLEEPER)
    page = open_("/runs", viewport={"width": 900, "height": 300})
    row = page.locator(f"#r-{run_id}")
    expect(row.locator(".status")).to_have_text("running")
    expect(page.locator("#connection")).to_have_attribute("data-state", "on")
    page.evaluate("window.scrollTo(0, 120); window.marked = true")
    page.get_by_label("Environment").fill("typed")
    row.evaluate("element => { element.marked = true }")
    # Another window does it.
    other = run_page(open_, run_id)
    other.get_by_role("button", name="Cancel").click()
    expect(other.get_by_role("status")).to_contain_text("asked to end")
    expect(row.locator(".status")).to_have_text("cancelled")
    assert page.evaluate("[window.marked, window.scrollY]") == [True, 120]
    assert row.evaluate("element => element.marked"), "the row was made anew"
    assert page.get_by_label("Environment").input_value() == "typed"


def test_what_was_opened_stays_open(open_: Open, deployment: Deployment) -> None:
    run_id = deployment.start_run(*SLEEPER)
    page = run_page(open_, run_id)
    expect(page.locator("h1 .status")).to_have_text("running")
    page.locator("summary").click()
    page.get_by_label("Events").get_by_text("run.running").wait_for()
    other = run_page(open_, run_id)
    other.get_by_role("button", name="Cancel").click()
    page.get_by_label("Events").get_by_text("run.cancelled").wait_for()


def test_times_are_in_the_viewers_zone_and_exact_on_hover(
    open_: Open, deployment: Deployment
) -> None:
    run_id = deployment.start_run("--", "true")
    page = run_page(open_, run_id)
    time = page.locator("dl.facts time").first
    expect(time).to_have_text(re.compile(r"ago|now|in \d"))
    title = time.get_attribute("title") or ""
    assert "(Asia/Tokyo)" in title
    assert (time.get_attribute("datetime") or "?") in title


def test_everything_can_be_done_without_a_script(open_: Open, deployment: Deployment) -> None:
    run_id = deployment.start_run(*SLEEPER)
    page = run_page(open_, run_id, java_script_enabled=False)
    expect(page.locator("dl.facts time").first).to_have_text(re.compile(r"UTC$"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_contain_text("asked to end")
    page.get_by_role("link", name="Runs").first.click()
    page.get_by_label("succeeded").check()
    page.get_by_role("button", name="Show").click()
    assert "status=succeeded" in page.url
    page.get_by_role("link", name="Environments").click()
    page.get_by_role("link", name="New environment").click()
    page.get_by_role("link", name=re.compile("^local")).click()
    page.get_by_label("Name required").fill("by-hand")
    page.get_by_label("memory_mb").fill("64")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("saved")
    page.get_by_role("button", name="Archive").click()
    expect(page.locator("h1 .status")).to_have_text("archived")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()


def test_a_run_is_started_from_its_page(open_: Open) -> None:
    page = open_("/new-run")
    page.get_by_label("Command required").fill("echo started by hand")
    page.get_by_text("Labels, variables").click()
    page.get_by_label("Labels", exact=True).fill("by=hand")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("status")).to_contain_text("submitted")
    expect(page.locator(".stream.stdout pre")).to_contain_text("started by hand")
    expect(page.locator("h1 .status")).to_have_text("succeeded")
    page.get_by_role("link", name="Start one like it").click()
    expect(page.get_by_label("Command required")).to_have_value("echo started by hand")
    expect(page.get_by_label("Labels", exact=True)).to_have_value("by=hand")


def test_an_environment_is_made_probed_changed_and_deleted(open_: Open) -> None:
    page = open_("/new-environment?provider=local")
    page.get_by_label("Name required").fill("looked-at")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Probe").click()
    # Its page says by itself how it goes on.
    expect(page.locator("h1 .status")).to_have_text("works")
    expect(page.locator("main")).to_contain_text("is destroyed")
    page.get_by_role("link", name="looked-at").click()
    page.get_by_role("link", name="Change").click()
    page.get_by_label("Description").fill("only looked at")
    page.get_by_role("button", name="Save changes").click()
    expect(page.get_by_role("status")).to_contain_text("changes are saved")
    expect(page.locator("main")).to_contain_text("only looked at")
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete looked-at").click()
    expect(page.get_by_role("status")).to_contain_text("is deleted")


def test_many_runs_are_cancelled_after_a_preview(open_: Open, deployment: Deployment) -> None:
    for _ in range(2):
        deployment.start_run("--label", "many=yes", "--require", "gpu=yes", "--", "true")
    page = open_("/runs?label=many%3Dyes")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("main")).to_contain_text("2 runs would be cancelled")
    page.get_by_role("button", name="Cancel them").click()
    expect(page.get_by_role("status")).to_contain_text("2 asked to end")
    page.get_by_role("link", name="Back to the runs").click()
    expect(page.locator("td .status")).to_have_text(["cancelled", "cancelled"])


def test_a_lease_is_destroyed_by_its_button(open_: Open, deployment: Deployment) -> None:
    made = deployment.call("leases", "create", "--env", "local", "--json")
    assert made.code == 0, made.err
    lease = made.json()["id"]
    page = open_("/leases")
    row = page.locator(f"#l-{lease}")
    expect(row.locator("progress")).to_be_visible()
    row.get_by_role("button", name="Destroy").click()
    expect(page.locator("h1 .status")).to_have_text("released")


def test_the_keyboard_is_enough(open_: Open, deployment: Deployment) -> None:
    run_id = deployment.start_run("--", "true")
    page = open_("/runs")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    link = page.locator(f"#r-{run_id} th a")
    for _ in range(40):
        page.keyboard.press("Tab")
        if link.evaluate("element => element === document.activeElement"):
            break
    outline = link.evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(run_id))


def test_hostile_output_is_text_and_the_page_goes_on(
    open_: Open, deployment: Deployment
) -> None:
    script = (
        "sleep 3; printf '<script>window.hit = 1</script><img src=x onerror=window.hit=1>\\n';"
        " printf '\\377\\376\\033]0;title\\007\\033[2J after\\n';"
        " head -c 1000000 /dev/zero | tr '\\0' x; echo; echo the end"
    )
    page = run_page(open_, deployment.start_run("--", "sh", "-c", script))
    out = page.locator(".stream.stdout pre")
    expect(out).to_contain_text("the end")
    expect(out).to_contain_text("<script>window.hit = 1</script>")
    assert page.evaluate("window.hit") is None
    assert page.title().startswith("Run ")
    assert len(out.inner_text()) < 100_000
    expect(page.locator("h1 .status")).to_have_text("succeeded")
    page.reload()
    assert page.evaluate("window.hit") is None


def test_a_phone_scrolls_one_way_only(
    open_: Open, deployment: Deployment, shot: Callable[[Page, str], None]
) -> None:
    run_id = deployment.start_run("--", "sh", "-c", "seq 30")
    for path in ("", "/runs", "/trouble", "/failures", "/leases", "/hosts",
                 "/providers/local", "/new-run", f"/runs/{run_id}",
                 "/new-environment?provider=ssh"):  # fmt: skip
        page = open_(path, viewport={"width": 360, "height": 740})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, (path, wide)
        shot(page, f"phone{re.sub('[^a-z]+', '-', path.partition('?')[0][:12]) or '-overview'}")
