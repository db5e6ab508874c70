"""A command reports to `leasehold up`, with nothing but a shell and curl or wget."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import Live, until

pytestmark = pytest.mark.slow

ALL = r"""
set -eu
curl -fsS "$LEASEHOLD_API_URL/api/v1/run/helper.sh" >helper.sh
sh helper.sh progress 40 'half of "it" \ and	more'
sh helper.sh event loaded '{"rows": 12}'
sh helper.sh event bare
mkdir out && head -c 300000 /dev/zero >out/zeros
sh helper.sh artifact out/zeros kept/zeros
sh helper.sh artifact out/zeros
echo '{"rows": 12}' | sh helper.sh result -
sh helper.sh heartbeat
sh helper.sh show
(. ./helper.sh && leasehold_report progress 'last words')
cp helper.sh another-name && sh another-name heartbeat
if sh helper.sh event 'Not A Name'; then exit 9; fi
if sh helper.sh artifact nowhere; then exit 9; fi
if sh helper.sh dance; then exit 9; fi
env
"""

ONE_BY_ONE = r"""
set -u
curl -fsS "$LEASEHOLD_API_URL/api/v1/run/helper.sh" >helper.sh
for kind in wget busybox none; do
    mkdir $kind
    for tool in sh cat head grep mktemp rm; do ln -s "$(command -v $tool)" $kind/$tool; done
done
ln -s "$(command -v wget)" wget/wget
ln -s "$(command -v busybox)" busybox/wget
for kind in wget busybox none; do
    for what in "event $kind" "progress 1" "result 1" "artifact helper.sh $kind.sh" show; do
        PATH=$PWD/$kind sh helper.sh $what >said 2>&1
        echo "$kind ${what%% *}: $?"
    done
done
LEASEHOLD_TOKEN= sh helper.sh show; echo "nobody: $?"
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    live = Live(tmp_path_factory.mktemp("reports") / "home")
    try:
        live.up("--api-port", "0")
        until("the API has answered", (live.home / "api-url").exists)
        yield live
    finally:
        live.down()


def test_all_that_a_command_may_say_is_shown(live: Live, tmp_path: Path) -> None:
    said = live.call("run", "--detach", "--json", "--", "sh", "-c", ALL).json()
    done = live.call("runs", "wait", said["id"])
    run = live.call("runs", "show", said["id"], "--json").json()
    assert done.code == 0, live.call("runs", "logs", said["id"])
    assert run["progress"]["message"] == "last words"
    assert run["progress"]["percent"] is None
    assert run["result"] == {"rows": 12}
    events = [(e["name"], e["data"].get("rows")) for e in run["events"]]
    assert ("user.loaded", 12) in events
    assert ("user.bare", None) in events
    assert "runtime.chosen" in dict(events)
    words = live.call("runs", "show", said["id"]).out
    assert "last words" in words
    assert '{"rows": 12}' in words
    listed = live.call("runs", "artifacts", said["id"], "--json").json()
    assert {(a["path"], a["bytes"]) for a in listed} == {
        ("kept/zeros", 300_000),
        ("zeros", 300_000),
    }
    target = tmp_path / "zeros"
    live.call("runs", "artifacts", said["id"], "--get", "kept/zeros", "-o", str(target))
    assert target.read_bytes() == b"\0" * 300_000
    # The command has printed its environment: what is a token's secret is not to be read.
    logs = live.call("runs", "logs", said["id"]).out
    (line,) = [one for one in logs.splitlines() if one.startswith("LEASEHOLD_TOKEN=")]
    assert line.endswith("_" + "*" * 32)
    assert f"LEASEHOLD_RUN_ID={said['id']}\n" in logs
    lease = live.call("leases", "show", run["lease_id"], "--json").json()
    runtime = lease["metadata"]["runtime"]
    assert runtime["url"] == (live.home / "api-url").read_text()
    assert runtime["tried"][0]["answer"] == "ok"


def test_it_reports_with_whatever_there_is(live: Live) -> None:
    for tool in ("wget", "busybox"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not there")
    said = live.call("run", "--json", "--", "sh", "-c", ONE_BY_ONE).json()
    lines = said["stdout"].splitlines()
    codes = dict(line.split(": ") for line in lines)
    assert codes == {
        **{f"wget {what}": "0" for what in ("event", "progress", "result", "artifact", "show")},
        **{f"busybox {what}": "0" for what in ("event", "progress", "result", "show")},
        "busybox artifact": "4",
        **{f"none {what}": "4" for what in ("event", "progress", "result", "artifact", "show")},
        "nobody": "3",
    }, said
    names = {e["name"] for e in said["events"] if e["name"].startswith("user.")}
    assert names == {"user.wget", "user.busybox"}


def test_after_the_run_its_token_is_worth_nothing(live: Live) -> None:
    script = 'printf %s "$LEASEHOLD_TOKEN" >"$0"; chmod 644 "$0"'
    path = live.home.parent / "token"
    assert live.call("run", "--", "sh", "-c", script, str(path)).code == 0
    token, url = path.read_text(), (live.home / "api-url").read_text()
    import httpx

    headers = {"Authorization": f"Bearer {token}"}
    assert token.startswith("lht_")
    assert httpx.get(f"{url}/api/v1/run", headers=headers).status_code == 401


def test_a_stack_without_an_api_asks_nobody(tmp_path: Path) -> None:
    with Live(tmp_path / "home") as quiet:
        said = quiet.call("run", "--json", "--", "sh", "-c", "env").json()
    assert "LEASEHOLD" not in said["stdout"]
    assert "runtime.chosen" not in {e["name"] for e in said["events"]}
