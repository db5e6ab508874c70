"""
What `doctor` looks at, one finding each; it changes nothing.

A check never stops the next one: whoever calls a doctor has something broken. `wrong` must be
mended, `note` is worth knowing, `ok` is ok.
"""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Literal

from leasehold.cli.footing import is_deployment
from leasehold.embedded import stack as stacks
from leasehold.errors import LeaseholdError, StoreUnavailableError
from leasehold.settings import Settings
from leasehold.store import hosts, restored, schema, secrets
from leasehold.store.database import Database
from leasehold.vault import keys

PYTHON_MIN: Final = (3, 11)
_UP: Final = "`leasehold up` starts one"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "note", "wrong"]
    summary: str
    mend: str | None = None


def examine() -> Iterator[Finding]:
    """Look at everything, the machine first."""
    from leasehold.cli.door import settings

    yield _platform()
    yield _python()
    yield _cgroups()
    try:
        found = settings()
    except LeaseholdError as error:
        yield Finding("settings", "wrong", str(error), "correct or unset that variable")
        return
    yield Finding("settings", "ok", f"home {found.home.absolute()}")
    try:
        yield from _timers(found)
        yield _home(found)
        yield from _stack(found)
        yield from _database(found)
        yield _broker(found)
    except StoreUnavailableError as error:
        yield Finding("database", "wrong", str(error), "look whether it is up")


def _platform() -> Finding:
    words = f"{platform.system()} {platform.release()} {platform.machine()}"
    if platform.system() == "Linux":
        return Finding("platform", "ok", words)
    return Finding("platform", "wrong", words, "hosts are Linux machines; run workers on one")


def _python() -> Finding:
    words = f"Python {platform.python_version()}"
    if sys.version_info[:2] >= PYTHON_MIN:
        return Finding("python", "ok", words)
    return Finding("python", "wrong", words, "install Python 3.11 or newer")


def _cgroups() -> Finding:
    """Without cgroups a tree is contained by its session only; that is no error."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        kind = "v2"
    elif (root / "unified" / "cgroup.procs").exists():
        kind = "v1 and v2 (hybrid)"
    elif (root / "memory").is_dir() or (root / "pids").is_dir():
        kind = "v1"
    else:
        mend = "mount cgroup2 on /sys/fs/cgroup, so that escaped processes are found as well"
        return Finding("cgroups", "note", "none: a tree is known by its session only", mend)
    if os.access(root, os.W_OK):
        return Finding("cgroups", "ok", f"{kind}, writable")
    mend = "run the worker with a delegated cgroup (systemd: Delegate=yes) for hard limits"
    return Finding("cgroups", "note", f"{kind}, not writable by us", mend)


def _timers(found: Settings) -> Iterator[Finding]:
    from leasehold.bootstrap import timers_of

    try:
        timers_of(found)
    except LeaseholdError as error:
        yield Finding("timers", "wrong", str(error), "correct LEASEHOLD_TIMERS")


def _home(found: Settings) -> Finding:
    home = found.home.absolute()
    there = home
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        mend = "set LEASEHOLD_HOME to a directory that you may write to"
        return Finding("home", "wrong", f"{there} cannot be written", mend)
    space = os.statvfs(there)
    free_mib = space.f_bavail * space.f_frsize // 1024**2
    if free_mib < 100:  # noqa: PLR2004  output of a few commands fills that
        return Finding("home", "wrong", f"{free_mib} MiB free in {there}", "make room there")
    words = "writable" if there == home else "made on first use"
    return Finding("home", "ok", f"{home}: {words}, {free_mib} MiB free")


def _stack(found: Settings) -> Iterator[Finding]:
    if is_deployment(found):
        return
    running = stacks.running(found.home)
    if running is None:
        yield Finding("stack", "note", "no stack runs in this home", _UP)
    else:
        yield Finding("stack", "ok", f"pid {running.pid}, broker {running.broker}")


def _database(found: Settings) -> Iterator[Finding]:
    with closing(Database(found.database_address)) as database:
        try:
            state = schema.state(database)
        except StoreUnavailableError as error:
            words = f"{database.where()} does not answer: {error}"
            yield Finding("database", "wrong", words, "look whether it is up and its URL right")
            return
        if state.current is None and not is_deployment(found):
            yield Finding("database", "note", "none in this home yet; a stack makes it", _UP)
            yield _installed()
            return
        if not state.ready:
            problem = state.problem() or ""
            yield Finding("database", "wrong", problem, f"run `{schema.UPGRADE_COMMAND}`")
            return
        yield Finding("database", "ok", f"{state.where} at {state.current}")
        with database.read() as tx:
            alarm = restored.alarm(tx)
        if alarm is not None:
            mend = f"is this the database to go on with? Then `{restored.COMMAND}`"
            yield Finding("restored", "wrong", alarm, mend)
        yield from _secrets(found, database)
        yield from _fleet(found, database)


def _secrets(found: Settings, database: Database) -> Iterator[Finding]:
    """Whether this process could read the secrets that there are."""
    with database.read() as tx:
        used = secrets.keys_in_use(tx)
    path = found.secret_keys_path
    if not used and not path.exists():
        return
    mend = f"give this machine the file of keys and name it in {keys.SETTING}"
    if not path.exists():
        words = f"{sum(used.values())} values are encrypted, and there is no {path}"
        yield Finding("secrets", "wrong", words, mend)
        return
    try:
        ring = keys.Keys.load(path)
    except LeaseholdError as error:
        yield Finding("secrets", "wrong", str(error), mend)
        return
    missing = sum(count for key, count in used.items() if key not in ring.ids)
    old = sum(count for key, count in used.items() if key != ring.first) - missing
    if missing:
        yield Finding("secrets", "wrong", f"{missing} values have a key not in {path}", mend)
    elif old:
        words = f"{old} values are under an older key"
        yield Finding("secrets", "note", words, "run `leasehold secrets rotate`")
    else:
        yield Finding("secrets", "ok", f"{sum(used.values())} values, key {ring.first}")


def _fleet(found: Settings, database: Database) -> Iterator[Finding]:
    with database.read() as tx:
        ready = hosts.ready_workers(tx)
        providers = hosts.providers(tx)
    kinds = {row["kind"] for row in ready}
    expected = is_deployment(found) or stacks.running(found.home) is not None
    if {"steps", "beats"} <= kinds:
        where = len({row["host_id"] for row in ready})
        yield Finding("workers", "ok", f"{len(ready)} alive on {where} hosts")
    elif expected:
        missing = ", ".join(sorted({"steps", "beats"} - kinds))
        mend = "start `leasehold worker` on a host, and look at its log"
        yield Finding("workers", "wrong", f"none is ready for: {missing}", mend)
    else:
        yield _installed()
        return
    for row in providers:
        if not row["live"]:
            continue
        name, words = "provider", f"{row['key']} on {row['host']}: {row['health']}"
        if row["health"] == "healthy":
            yield Finding(name, "ok", words)
        else:
            words = f"{words}: {row['summary']}"
            yield Finding(name, "note", words, "mend that on its host, or uninstall the plugin")


def _installed() -> Finding:
    names = sorted(entry.name for entry in entry_points(group="leasehold.providers"))
    if names:
        return Finding("providers", "ok", f"installed here: {', '.join(names)}")
    mend = "install a plugin, e.g. `pip install -e workers/local`"
    return Finding("providers", "wrong", "no provider plugin is installed here", mend)


def _kind_of(connection: Any) -> str:
    """Return what an AMQP server says of itself; Redis is not asked."""
    says = getattr(connection.connection, "server_properties", None) or {}
    return f": {says['product']} {says.get('version', '')}" if "product" in says else ""


def _broker(found: Settings) -> Finding:
    from leasehold import transport

    if found.broker_url is None and (
        is_deployment(found) or stacks.running(found.home) is None
    ):
        if is_deployment(found):
            mend = "set LEASEHOLD_BROKER_URL; without it work waits for the workers' clocks"
            return Finding("broker", "wrong", "none is set", mend)
        from leasehold.embedded import broker

        kind = broker.choose(found.embedded_broker).name
        return Finding("broker", "ok", f"a stack here would start {kind}")
    try:
        app = transport.make(found)
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=3)
            kind = _kind_of(connection)
            return Finding("broker", "ok", f"{connection.as_uri()} answers{kind}")
    except Exception as error:  # noqa: BLE001  every transport has errors of its own
        mend = "look whether it is up and LEASEHOLD_BROKER_URL right; work waits, none is lost"
        return Finding("broker", "wrong", f"it does not answer: {error}", mend)
