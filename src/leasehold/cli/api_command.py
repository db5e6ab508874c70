"""``leasehold api``: the control plane for programs."""

import ipaddress
import signal
from typing import TYPE_CHECKING, Annotated, Final

import typer

from leasehold.cli.codes import say
from leasehold.cli.options import AsJson

if TYPE_CHECKING:
    from leasehold.api.serving import Service

PORT: Final = 8321


def add_to(app: typer.Typer) -> None:
    app.command()(api)


def api(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0: a free one.")
    ] = PORT,
    listening: Annotated[
        int, typer.Option("--fd", hidden=True, help="Listens already; `up` holds it.")
    ] = -1,
    as_json: AsJson = False,
) -> None:
    """Serve the REST API until SIGTERM or Ctrl-C; requests under way are answered first."""
    from leasehold import log
    from leasehold.api.serving import Service
    from leasehold.cli import output
    from leasehold.cli.door import await_database, settings

    found = settings()
    log.configure(level=found.log_level, as_json=found.log_json)
    await_database(found)
    service = Service(found, host=host, port=port, fd=listening)
    _stop_on_signals(service)
    if as_json:
        output.emit({"url": service.url})
    else:
        typer.echo(service.url)
        say("ready; `leasehold keys create NAME --role operator` makes a key")
    if not _is_loopback(host):
        say(f"{host} is not the loopback: without a TLS proxy, keys go in clear text")
    service.serve()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stop_on_signals(service: "Service") -> None:
    def stop(_number: int, _frame: object) -> None:
        service.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
