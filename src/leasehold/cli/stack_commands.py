"""``leasehold db``, and what runs until it is told to stop: `up`, `worker`, `clock`."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from leasehold.cli import codes
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, HostLabels, pairs, patience

if TYPE_CHECKING:
    from leasehold.embedded.stack import Where
    from leasehold.settings import Settings

database_group = typer.Typer(no_args_is_help=True, help="The database's schema.")
_LOOK_S: Final = 0.2


def add_to(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(worker)
    app.command()(clock)
    app.add_typer(database_group, name="db")


@database_group.command()
def upgrade(*, as_json: AsJson = False) -> None:
    """Bring the schema up to this program; nothing happens if it is there already."""
    from leasehold.cli import door, output
    from leasehold.errors import BadInputError
    from leasehold.store import schema
    from leasehold.store.database import Database

    found = door.settings()
    if found.database_url is None:
        try:
            found.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(
                f"LEASEHOLD_HOME: {found.home} cannot be written: {error.strerror}"
            ) from None
    database = Database(found.database_address)
    try:
        what, patience_s = database.where(), patience.get()
        before = door.patiently(what, lambda: schema.state(database), patience_s=patience_s)
        door.patiently(what, lambda: schema.upgrade(database), patience_s=patience_s)
    finally:
        database.close()
    if as_json:
        output.emit({"database": what, "from": before.current, "to": before.head})
    elif before.ready:
        say(f"{what} is at {before.head} already")
    else:
        say(f"{what} went from {before.current or 'nothing'} to {before.head}")


@database_group.command()
def check(*, as_json: AsJson = False) -> None:
    """Say whether the schema is the one that this program needs; exit 6 if not."""
    from leasehold.cli import door, output
    from leasehold.store import schema
    from leasehold.store.database import Database

    found = door.settings()
    database = Database(found.database_address)
    try:
        state = door.patiently(
            database.where(), lambda: schema.state(database), patience_s=patience.get()
        )
    finally:
        database.close()
    if as_json:
        shape = {
            "ok": state.ready,
            "database": state.where,
            "current": state.current,
            "head": state.head,
            "problem": state.problem(),
        }
        output.emit(shape)
    else:
        say(state.problem() or f"{state.where} is at {state.head}")
    if not state.ready:
        raise typer.Exit(codes.SCHEMA)


def up(
    *,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Where its broker listens on the loopback; 0: a free port."
        ),
    ] = 0,
    processes: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each.")] = None,
    label: HostLabels = None,
    api_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Where its REST API listens on the loopback; 8321, or a free port.",
        ),
    ] = None,
    no_api: Annotated[bool, typer.Option("--no-api", help="Serve no REST API.")] = False,
    cancel_on_exit: Annotated[
        bool, typer.Option("--cancel-on-exit", help="End running commands with it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Run everything on this machine until Ctrl-C: broker, database, workers, clock, REST API.

    Ctrl-C drains: running commands go on by themselves, and the next `up` takes them up again.
    A second `up` in the same LEASEHOLD_HOME joins the first.
    """
    from leasehold import log
    from leasehold.cli import output
    from leasehold.cli.door import settings
    from leasehold.embedded import stack as stacks
    from leasehold.errors import BrokerUnavailableError, ConflictError

    found = _labelled(settings(), label)
    log.configure(level=found.log_level, as_json=found.log_json)
    stop = _Stop()
    stack = stacks.Stack(
        found,
        port=port,
        processes=processes,
        threads=threads,
        cancel_on_exit=cancel_on_exit,
        api=not no_api,
        api_port=api_port,
    )
    try:
        where = stack.start()
    except ConflictError:
        if label:
            say("--label: has no effect on a stack that runs already")
        _join(found, stop, as_json=as_json)
        return
    except BaseException:
        stack.stop()
        raise
    try:
        try:
            stack.wait_ready()
        except BrokerUnavailableError as error:
            say(f"{error}; still trying")
        shape = _where(where, found, joined=False)
        if as_json:
            output.emit(shape)
        else:
            output.facts(shape.items())
            say("ready; Ctrl-C drains and ends it")
        if alarm := stack.alarm():
            say(f"ALARM: {alarm}")
        stack.serve(stop.is_set)
    finally:
        ending = "is ended" if cancel_on_exit else "goes on by itself"
        say(f"draining: what runs {ending}")
        stack.stop()


def _where(where: "Where", found: "Settings", *, joined: bool) -> dict[str, object]:
    from leasehold.cli import inviting

    home = found.home
    return {
        "home": str(home.absolute()),
        "database": where.database,
        "broker": where.broker,
        "api": where.api or None,
        "monitor": inviting.link(found, where.api),
        "pid": where.pid,
        "joined": joined,
    }


def _join(found: "Settings", stop: "_Stop", *, as_json: bool) -> None:
    """Follow the stack that was there first, until it or we are stopped."""
    import time

    from leasehold.cli import output
    from leasehold.embedded import stack as stacks

    told = False
    while not stop.is_set() and (where := stacks.running(found.home)) is not None:
        if not told and where.pid:
            shape = _where(where, found, joined=True)
            if as_json:
                output.emit(shape)
            else:
                output.facts(shape.items())
            say(f"a stack runs here already (pid {where.pid}); following it")
            told = True
        time.sleep(_LOOK_S)
    if not stop.is_set():
        say("the stack that was followed has ended")


class _Stop:
    """Set by SIGINT or SIGTERM; the second one changes nothing, draining is bounded."""

    def __init__(self) -> None:
        import signal

        self._set = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _signal: int, _frame: object) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set


def worker(
    *,
    processes: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each.")] = None,
    label: HostLabels = None,
    cancel_on_exit: Annotated[
        bool, typer.Option("--cancel-on-exit", help="End running commands with it.")
    ] = False,
) -> None:
    """Run a host agent with its workers and a clock, until SIGTERM or Ctrl-C drains it."""
    import os

    from leasehold import log
    from leasehold import settings as knobs
    from leasehold.agent import agent
    from leasehold.agent.agent import report
    from leasehold.cli.door import await_database, settings

    found = settings()
    log.configure(level=found.log_level, as_json=found.log_json)
    if found.database_url is None:
        # It joins an embedded home, whose workers all serve the same plugins.
        os.environ["LEASEHOLD_ALLOW_FAKE"] = "true"
        found = knobs.load()
    found = _labelled(found, label)
    await_database(found)
    plan = agent.Plan(
        processes=processes or found.worker_processes,
        threads=threads or found.worker_threads,
        cancel_on_exit=cancel_on_exit,
    )
    report(agent.run(found, plan))


def _labelled(found: "Settings", label: list[str] | None) -> "Settings":
    """
    Return the settings with these labels beside those of the environment.

    Raises:
        BadInputError: One of them is no label.
    """
    from leasehold import settings as knobs
    from leasehold.errors import BadInputError

    if not label:
        return found
    labels = {**found.host_labels, **pairs(label, option="--label")}
    try:
        return knobs.load(host_labels=labels)
    except BadInputError as error:
        words = str(error).partition("Value error, ")[2] or str(error)
        raise BadInputError(f"--label: {words}", field="--label") from None


def clock() -> None:
    """Run a clock alone: it sends what is due, admits, observes sessions, tells webhooks."""
    import time

    from leasehold import bootstrap, log, transport
    from leasehold.cli.door import await_database, settings
    from leasehold.ids import new_id
    from leasehold.runtime import courier
    from leasehold.runtime.ticker import Ticker

    found = settings()
    log.configure(level=found.log_level, as_json=found.log_json)
    await_database(found)
    app = bootstrap.build(found)
    context = app.context(
        publish=transport.Publisher(transport.make(found)), worker_id=f"clock-{new_id()}"
    )
    ticker = Ticker(
        context,
        batch=found.clock_batch,
        session_id=None,
        courier=courier.make(app, context),
    )
    context.nudge = ticker.nudge
    stop = _Stop()
    ticker.start()
    try:
        while not stop.is_set():
            time.sleep(_LOOK_S)
    finally:
        ticker.stop()
        app.database.close()
