"""
The same commands through both doors, SQL and REST, on one stack: same words, JSON and codes.

The door over HTTP has an empty home: what it knows it has from the API.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from command_line import Live, Said, call, submitted
from leasehold.cli.local_only import WHY
from leasehold.cli.main import app

pytestmark = pytest.mark.slow
ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?")
TOKEN: Final = re.compile(r"lh_[0-9a-f]{16}(_[A-Za-z0-9_-]{43})?")
AGE: Final = re.compile(r"\b\d+[smhd]\b|\bnow\b")
ACTOR: Final = re.compile(r'"(by|actor)": "(cli[^"]*|key:[^"]*|probe)"|actor=\S+|by=\S+')
NOISE: Final = re.compile(r'"(took_s|number|prefix|fired)": ("[^"]*"|[0-9.]+)|took_s +[0-9.]+')


@dataclass(frozen=True)
class Doors:
    """Both doors of one stack, and rows that are there."""

    live: Live
    http: dict[str, str]
    root: dict[str, str]
    run: str
    lease: str

    def sql(self, *arguments: str, stdin: bytes = b"") -> Said:
        return self.live.call(*arguments, stdin=stdin)

    def rest(self, *arguments: str, stdin: bytes = b"", root: bool = False) -> Said:
        return call(*arguments, stdin=stdin, env=self.root if root else self.http)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    room = tmp_path_factory.mktemp("doors")
    live = Live(room / "home", LEASEHOLD_API_REQUESTS_PER_S="0")
    url = live.up("--api-port", "0")["api"]
    try:
        admin = live.call("keys", "create", "admin", "--role", "admin").out.strip()
        root = live.call("keys", "create", "root", "--role", "root").out.strip()
        live.call("env", "create", "held", "--provider", "local")
        lease = live.call("leases", "create", "--env", "held").out.strip()
        script = "echo out; echo err >&2; printf '\\377'; exit 3"
        said = live.call(
            *("run", "--json", "--label", "of=both", "--artifacts", "*.txt"),
            *("--cmd", "sh -c 'echo first > a.txt; echo first'", "--cmd", f'sh -c "{script}"'),
        )
        assert said.code == 3, said.err
        live.call("secrets", "set", "shared", stdin=b"correct horse\n")
        live.call(
            *("schedules", "create", "yearly", "--cron", "0 0 1 1 *"),
            *("--environment", "local", "--", "true"),
        )
        away = {"LEASEHOLD_HOME": str(room / "nothing"), "LEASEHOLD_API_URL": url}
        yield Doors(
            live,
            away | {"LEASEHOLD_API_TOKEN": admin},
            away | {"LEASEHOLD_API_TOKEN": root},
            said.json()["id"],
            lease,
        )
        assert not (room / "nothing").exists()
        live.call("leases", "release", lease)
        assert live.call("verify").code == 0
    finally:
        live.down()


def plain(text: str) -> str:
    """Return what was said without what differs from one look, or one row, to the next."""
    for pattern, word in (
        (TOKEN, "KEY"),
        (ID, "ID"),
        (TIME, "TIME"),
        (ACTOR, '"ACTOR": 0'),
        (NOISE, '"NOISE": 0'),
    ):
        text = pattern.sub(word, text)
    return text


def ageless(text: str) -> str:
    """Return a table without ages, and without the columns' widths that hang on them."""
    return re.sub(" +", " ", AGE.sub("AGE", text))


READS: Final = [
    ("runs", "list"),
    ("runs", "list", "--status", "failed", "--label", "of=both", "--env", "local"),
    ("runs", "list", "--status", "nonsense"),
    ("runs", "list", "--label", "nonsense"),
    ("runs", "list", "-n", "1"),
    ("runs", "show", "RUN"),
    ("runs", "show", "SHORT"),
    ("runs", "show", "0"),
    ("runs", "show", "nothing"),
    ("runs", "logs", "RUN"),
    ("runs", "logs", "RUN", "-f"),
    ("runs", "logs", "RUN", "--command", "1"),
    ("runs", "logs", "RUN", "--command", "9"),
    ("runs", "wait", "RUN"),
    ("runs", "wait", "nothing"),
    ("runs", "artifacts", "RUN"),
    ("runs", "cancel", "RUN"),
    ("runs", "resume", "RUN"),
    ("runs", "extend", "RUN", "--deadline", "2h"),
    ("runs", "extend", "RUN"),
    ("explain", "RUN"),
    ("explain", "SHORT"),
    ("explain", "LEASE"),
    ("explain", "nothing"),
    ("leases", "list"),
    ("leases", "list", "--live", "-n", "1"),
    ("leases", "list", "--status", "nonsense"),
    ("leases", "show", "LEASE"),
    ("leases", "show", "nothing"),
    ("leases", "create", "--env", "nowhere"),
    ("env", "list"),
    ("env", "list", "--all"),
    ("env", "show", "held"),
    ("env", "show", "nowhere"),
    ("env", "delete", "held"),
    ("env", "delete", "held", "--dry-run"),
    ("env", "create", "held", "--provider", "local"),
    ("env", "create", "bad name", "--provider", "local"),
    ("env", "create", "new", "--provider", "local", "--set", "nonsense=1"),
    ("env", "create", "new", "--provider", "nobody"),
    ("env", "update", "held", "--unset", "nonsense"),
    ("env", "update", "held", "--set", "nonsense=1"),
    ("providers", "list"),
    ("providers", "show", "local"),
    ("providers", "show", "nobody"),
    ("workers", "list"),
    ("secrets", "list"),
    ("secrets", "delete", "nothing"),
    ("schedules", "list"),
    ("schedules", "show", "yearly", "--next", "3"),
    ("schedules", "show", "nothing"),
    ("schedules", "resume", "yearly"),
    ("keys", "revoke", "nothing"),
    ("retention", "show"),
    ("retention", "set", "--runs", "1m"),
    ("run", "--env", "nowhere", "--", "true"),
    ("run", "--lease", "nothing", "--", "true"),
    ("run", "--timeout", "soon", "--", "true"),
    ("run", "-e", "B", "--", "true"),
    ("exec", "nothing", "--", "true"),
]


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_what_changes_nothing_says_the_same(
    doors: Doors, command: tuple[str, ...], *, as_json: bool
) -> None:
    names = {"RUN": doors.run, "SHORT": doors.run[-12:], "LEASE": doors.lease}
    typed = [names.get(word, word) for word in command]
    if as_json:
        place = typed.index("--") if "--" in typed else len(typed)
        typed.insert(place, "--json")
    sql, rest = doors.sql(*typed), doors.rest(*typed)
    assert (rest.code, ageless(rest.out), rest.err) == (sql.code, ageless(sql.out), sql.err)
    if as_json and sql.code == 0:
        assert rest.json() == sql.json()


PLATFORM: Final = [
    ("hosts", "list"),
    ("workers", "list", "--all"),
    ("tenants", "list"),
    ("tenants", "show", "default"),
    ("tenants", "show", "nobody"),
    ("keys", "list"),
    ("keys", "list", "--root"),
    ("keys", "list", "--tenant", "nobody"),
    ("keys", "create", "x", "--role", "root", "--tenant", "default"),
    ("workers", "drain", "nothing"),
    ("hosts", "forget", "nothing"),
]


@pytest.mark.parametrize("command", PLATFORM, ids=" ".join)
def test_a_key_of_the_platform_is_shown_what_sql_shows(
    doors: Doors, command: tuple[str, ...]
) -> None:
    sql, rest = doors.sql(*command, "--json"), doors.rest(*command, "--json", root=True)
    assert (rest.code, plain(rest.err)) == (sql.code, plain(sql.err))
    assert plain(rest.out) == plain(sql.out)


STORIES: Final[dict[str, list[tuple[str, ...]]]] = {
    "a run": [
        ("run", "--", "sh", "-c", "echo out; echo err >&2; exit 3"),
        ("run", "--json", "-e", "WHO=me", "--", "sh", "-c", "echo $WHO; exit 3"),
        ("run", "--", "no-such-command"),
        ("run", "--", "sh", "-c", "kill -9 $$"),
        ("run", "--timeout", "0.5s", "--grace", "0", "--", "sleep", "60"),
        ("run", "--output-cap", "10", "--", "echo", "a" * 100),
        ("run", "--cmd", "echo one", "--cmd", "echo two", "--label", "a=b"),
        ("run", "--json", "--key", "DOOR-k", "--", "true"),
        ("run", "--json", "--key", "DOOR-k", "--", "true"),
        ("run", "--json", "--key", "DOOR-k", "--", "false"),
        ("run", "--secret", "A=nothing-there", "--", "true"),
        ("run", "--lease", "LEASE", "--", "echo", "held"),
        ("exec", "LEASE", "--", "echo", "visit"),
    ],
    "an environment": [
        ("env", "create", "DOOR", "--provider", "local", "-e", "A=b", "--max-concurrent", "2"),
        ("env", "update", "DOOR", "--description", "another", "--unset", "env.A"),
        ("env", "update", "DOOR", "--description", "another"),
        ("env", "probe", "DOOR"),
        ("env", "archive", "DOOR"),
        ("run", "--env", "DOOR", "--", "true"),
        ("env", "archive", "DOOR", "--undo"),
        ("env", "delete", "DOOR", "--yes"),
    ],
    "a lease": [
        ("leases", "create", "--env", "held", "--ttl", "10m"),
        ("leases", "retain", "LAST"),
        ("exec", "LAST", "--json", "--", "echo", "looked"),
        ("leases", "destroy", "LEASE2"),
    ],
    "secrets": [
        ("secrets", "set", "DOOR"),
        ("secrets", "set", "DOOR"),
        ("run", "--secret", "S=DOOR", "--", "sh", "-c", "echo $S"),
        ("secrets", "delete", "DOOR"),
    ],
    "schedules": [
        (
            *("schedules", "create", "DOOR", "--cron", "0 0 1 1 *"),
            *("--environment", "local", "-e", "A=b", "--", "echo", "x"),
        ),
        ("schedules", "pause", "DOOR"),
        ("schedules", "resume", "DOOR"),
        ("schedules", "delete", "DOOR"),
        (
            *("schedules", "create", "DOOR", "--at", "2099-12-24T18:00", "--timezone"),
            *("Europe/Berlin", "--environment", "local", "--", "echo", "x"),
        ),
        ("schedules", "delete", "DOOR"),
    ],
    "keys": [
        ("keys", "create", "DOOR", "--role", "operator", "--expires", "1d"),
        ("keys", "create", "DOOR"),
        ("keys", "create", "other", "--role", "nonsense"),
        ("keys", "revoke", "DOOR"),
    ],
    "retention": [("retention", "set", "--runs", "20d", "--output", "2d")],
}


@pytest.mark.parametrize("name", STORIES)
def test_what_changes_something_says_the_same_of_it(doors: Doors, name: str) -> None:
    told: list[list[tuple[int, str, str]]] = []
    for door, ask in (("by-sql", doors.sql), ("by-api", doors.rest)):
        lines, last, second = [], "", ""
        for command in STORIES[name]:
            names = {"LEASE": doors.lease, "LAST": last, "LEASE2": second}
            typed = [names.get(word, word.replace("DOOR", door)) for word in command]
            said = ask(*typed, stdin=b"correct horse battery\n")
            last = said.out.strip() or last
            second = last if ID.fullmatch(last) else second
            words = [plain(text).replace(door, "DOOR") for text in (said.out, said.err)]
            lines.append((said.code, *map(ageless, words)))
        told.append(lines)  # type: ignore[arg-type]
    for sql, rest in zip(*told, strict=True):
        if sql[1].startswith("{"):
            shapes = [steady(json.loads(one[1])) for one in (sql, rest)]
            assert (rest[0], shapes[1], rest[2]) == (sql[0], shapes[0], sql[2])
        else:
            assert rest == sql


def steady(shape: Any) -> Any:
    """Return a run without what depends on which worker was how quick."""
    return {name: shape[name] for name in shape if name not in {"events", "worker_id"}}


def test_tenants_are_managed_by_both(doors: Doors) -> None:
    told = []
    for door, root in (("by-sql", False), ("by-api", True)):
        lines = []
        for command in (
            ("tenants", "create", door, "--max-concurrent", "3"),
            ("tenants", "limits", door, "--max-queued", "5", "--max-concurrent", "none"),
            ("keys", "create", "first", "--role", "admin", "--tenant", door),
            ("keys", "list", "--tenant", door),
            ("tenants", "archive", door),
            ("tenants", "archive", door, "--undo"),
        ):
            typed = (*command, "--json")
            said = doors.rest(*typed, root=True) if root else doors.sql(*typed)
            lines.append((said.code, plain(said.out + said.err).replace(door, "DOOR")))
        told.append(lines)
    assert told[0] == told[1]


def test_a_detached_run_is_waited_for_cancelled_and_retried(doors: Doors) -> None:
    for ask in (doors.sql, doors.rest):
        said = ask("run", "-d", "--", "sh", "-c", "echo on; exec sleep 600")
        assert said.code == 0, said.err
        run = said.out.strip()
        gave_up = ask("runs", "wait", run, "--timeout", "0.3s")
        assert (gave_up.code, gave_up.out) == (124, "")
        extended = ask("runs", "extend", run, "--deadline", "30d", "--json")
        assert (
            extended.json()["deadline_at"]
            > ask("runs", "show", run, "--json").json()["created_at"]
        )
        assert ask("runs", "cancel", run).err == f"leasehold: run {run} is to end (cancel)\n"
        assert ask("runs", "wait", run).code == 255
        again = ask("runs", "retry", run, "--key", f"again-{run}")
        assert again.code == 0, again.err
        assert ask("runs", "retry", run, "--key", f"again-{run}").out == again.out
        ask("runs", "cancel", again.out.strip())


@pytest.mark.parametrize("door", ["sql", "rest"])
def test_ctrl_c_cancels_or_leaves_the_run(doors: Doors, door: str) -> None:
    environ = doors.live.environ() | (doors.http if door == "rest" else {})
    for how, code, status in (("ask", 255, "cancelled"), ("detach", 130, "running")):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "leasehold", "run", "--on-interrupt", how),
                *("--", "sh", "-c", "echo first; read x < /dev/null; exec sleep 600"),
            ],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        newest = doors.sql("runs", "list", "-n", "1", "--json").json()[0]
        assert newest["status"] == status
        assert how == "ask" or newest["id"] in err
        doors.sql("runs", "cancel", newest["id"])


def test_a_closed_pipe_cancels_the_run_over_http(doors: Doors) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "leasehold", "run", "--", "sh", "-c"),
            "while :; do echo line; sleep .01; done",
        ],
        env=doors.live.environ() | doors.http,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.wait(60) == 141
    process.stderr.close()


def commands(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


HERE_IN_ANY_CASE: Final = {("simulate",), ("secrets", "new-key"), ("providers", "check")}
"""They ask no deployment."""


def test_every_command_goes_through_both_doors_or_says_why_not() -> None:
    import typer

    stories = [line for story in STORIES.values() for line in story]
    tried = {line[:n] for line in [*READS, *PLATFORM, *stories] for n in (1, 2)}
    tried |= {("runs", "retry"), ("tenants", "create"), ("tenants", "limits")}
    tried |= {("tenants", "archive"), ("secrets", "rotate"), ("leases", "release")}
    there = set(commands(typer.main.get_command(app)))
    assert there - tried == set(WHY) | HERE_IN_ANY_CASE


@pytest.mark.parametrize("path", WHY, ids=" ".join)
def test_what_cannot_go_over_http_says_so_in_a_line(
    doors: Doors, path: tuple[str, ...], tmp_path: Path
) -> None:
    more = ["x", "y:z"] if path == ("cp",) else []
    said = doors.rest(*path, *more)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"leasehold: {' '.join(path)} does not go over HTTP: ")
    assert said.err.count("\n") == 1
    assert "unset LEASEHOLD_API_URL" in said.err


def test_files_are_refused_before_they_are_packed(doors: Doors, tmp_path: Path) -> None:
    for command in (
        ("run", "--workspace", str(tmp_path), "--", "true"),
        ("runs", "artifacts", doors.run, "--get", "a.txt"),
    ):
        said = doors.rest(*command)
        assert (said.code, said.out) == (2, "")
        assert "no route for the bytes" in said.err


def test_keys_that_are_refused_have_a_code_of_their_own(doors: Doors) -> None:
    nobody = doors.http | {"LEASEHOLD_API_TOKEN": f"lh_{'0' * 16}_{'A' * 43}"}
    said = call("runs", "list", env=nobody)
    assert (said.code, said.out, said.err) == (7, "", "leasehold: the API key is not valid\n")
    viewer = doors.sql("keys", "create", "looker", "--role", "viewer").out.strip()
    looks = doors.http | {"LEASEHOLD_API_TOKEN": viewer}
    assert call("runs", "list", env=looks).code == 0
    said = call("run", "--", "true", env=looks)
    assert (said.code, said.err) == (
        7,
        "leasehold: this key has the role viewer; this needs at least operator\n",
    )
    assert call("hosts", "list", env=looks).code == 0
    assert viewer not in said.err
    other = call("runs", "list", "--tenant", "other", env=looks)
    assert other.code == 7
    assert "of tenant default, not of other" in other.err


def test_an_api_that_is_away_is_named_and_tried_for_a_while(doors: Doors) -> None:
    away = doors.http | {"LEASEHOLD_API_URL": "http://127.0.0.1:1"}
    said = call("--patience", "0.4s", "runs", "list", env=away)
    assert said.code == 5
    first, last = said.err.splitlines()
    assert first.startswith("leasehold: http://127.0.0.1:1 does not answer: ")
    assert first.endswith("; trying for 0 s")
    assert last.startswith("leasehold: http://127.0.0.1:1 does not answer: ")
    token = doors.http["LEASEHOLD_API_TOKEN"]
    assert token not in said.err


def test_a_key_in_clear_text_to_elsewhere_is_warned_of(doors: Doors) -> None:
    elsewhere = doors.http | {"LEASEHOLD_API_URL": "http://192.0.2.1:1"}
    said = call("--patience", "0", "runs", "list", env=elsewhere)
    assert said.err.startswith("leasehold: http://192.0.2.1:1: the API key goes there in clear")


def test_without_a_key_the_address_means_nothing_to_commands(doors: Doors) -> None:
    half = {"LEASEHOLD_HOME": str(doors.live.home), "LEASEHOLD_API_URL": "http://127.0.0.1:1"}
    assert call("runs", "list", env=half).code == 0


def test_the_own_tenant_may_be_named(doors: Doors) -> None:
    assert doors.rest("runs", "list", "--tenant", "default").code == 0


def test_a_submit_over_http_needs_no_database(doors: Doors, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in doors.http.items():
            patch.setenv(name, value)
        assert submitted("--", "true")["status"] in {"queued", "running"}
