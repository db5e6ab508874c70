"""
Both doors of one stack, SQL and REST, and what is asked of both.

The door over HTTP has an empty home: what it knows it has from the API.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from command_line import Live, Said, call

ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?")
TOKEN: Final = re.compile(r"lh_[0-9a-f]{16}(_[A-Za-z0-9_-]{43})?|whsec_[A-Za-z0-9+/]{43}=")
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


@contextmanager
def both(room: Path) -> Iterator[Doors]:
    """Start a stack, put rows into it, and open both doors; afterwards every promise held."""
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
    ("schedules", "update", "nothing", "--paused"),
    ("schedules", "update", "yearly", "--cron", "nonsense"),
    ("env", "default", "list"),
    ("env", "default", "set", "nowhere"),
    ("env", "probe", "nowhere"),
    ("webhooks", "list"),
    ("webhooks", "show", "nothing"),
    ("webhooks", "deliveries", "nothing"),
    ("webhooks", "deliveries", "nothing", "--status", "nonsense"),
    ("webhooks", "redeliver", "nothing", "RUN"),
    ("webhooks", "create", "bad", "ftp://example.test"),
    ("activity",),
    ("activity", "--noun", "secret", "--since", "1h", "-n", "3"),
    ("activity", "--since", "soon"),
    ("run", "--after", "nothing", "--", "true"),
    ("run", "--after", "RUN:nonsense", "--", "true"),
    ("keys", "revoke", "nothing"),
    ("retention", "show"),
    ("retention", "set", "--runs", "1m"),
    ("run", "--env", "nowhere", "--", "true"),
    ("run", "--lease", "nothing", "--", "true"),
    ("run", "--timeout", "soon", "--", "true"),
    ("run", "-e", "B", "--", "true"),
    ("exec", "nothing", "--", "true"),
    ("cp", "nothing:path", "-"),
]


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
        ("env", "default", "set", "DOOR", "--project", "DOOR"),
        ("run", "--label", "project=DOOR", "--json", "--", "echo", "chosen"),
        ("env", "default", "delete", "--project", "DOOR"),
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
        ("schedules", "update", "DOOR", "--cron", "0 0 2 1 *", "--json", "--", "echo", "y"),
        ("schedules", "update", "DOOR", "--cron", "0 0 2 1 *"),
        ("schedules", "delete", "DOOR"),
        (
            *("schedules", "create", "DOOR", "--at", "2099-12-24T18:00", "--timezone"),
            *("Europe/Berlin", "--environment", "local", "--", "echo", "x"),
        ),
        ("schedules", "delete", "DOOR"),
    ],
    "webhooks": [
        ("webhooks", "create", "DOOR", "https://example.test/DOOR", "--label", "no=run"),
        ("webhooks", "update", "DOOR", "--disable", "--json"),
        ("webhooks", "new-secret", "DOOR", "--json"),
        ("webhooks", "list"),
        ("webhooks", "deliveries", "DOOR"),
        ("webhooks", "delete", "DOOR"),
    ],
    "a run after another": [
        ("run", "--detach", "--", "true"),
        ("run", "--after", "LAST:any", "--json", "--", "echo", "second"),
    ],
    "a draft": [
        ("env", "probe", "--provider", "local", "-e", "A=b"),
        ("env", "probe", "--provider", "local", "--set", "nonsense=1"),
        ("leases", "create", "--env", "held", "--ttl", "10m", "--key", "DOOR-lease"),
        ("leases", "create", "--env", "held", "--ttl", "20m", "--key", "DOOR-lease"),
        ("leases", "destroy", "LEASE2"),
    ],
    "keys": [
        ("keys", "create", "DOOR", "--role", "operator", "--expires", "1d"),
        ("keys", "create", "DOOR"),
        ("keys", "create", "other", "--role", "nonsense"),
        ("keys", "revoke", "DOOR"),
    ],
    "retention": [("retention", "set", "--runs", "20d", "--output", "2d")],
}
