"""Have a config checked by a worker, and say what came of it, for `env create` and `update`."""

from collections.abc import Callable
from datetime import timedelta

from leasehold.cli import probing
from leasehold.cli.codes import say
from leasehold.cli.door import Door
from leasehold.domain.specs import EnvironmentSpec
from leasehold.errors import CheckTimeoutError, NoWorkerError, ProviderNotReadyError
from leasehold.orchestrator import vetting
from leasehold.orchestrator.vetting import Vetted
from leasehold.store.database import Tx


def vet(
    door: Door,
    spec: EnvironmentSpec,
    *,
    wait: str,
    unchecked: bool = False,
    first: Callable[[Tx], object] = lambda _tx: None,
) -> Vetted:
    """
    Have a config checked; where nobody can answer now, say how to save it unchecked.

    Raises:
        BadInputError: It is refused, by its schema or by the provider; names the fields.
        ProviderNotReadyError: The provider is not well where it is served.
        NoWorkerError: Nobody serves it now.
        CheckTimeoutError: There was no answer in time.
    """
    seconds = probing.seconds(wait, option="--wait")
    try:
        return vetting.vet(
            door.context,
            spec,
            tenant_id=door.tenant,
            wait=timedelta(seconds=seconds),
            unchecked=unchecked,
            first=first,
        )
    except (ProviderNotReadyError, NoWorkerError, CheckTimeoutError) as error:
        raise type(error)(f"{error} (--unchecked saves it without being asked)") from None


def tell(vetted: Vetted) -> None:
    """Say warnings, and that nobody was asked."""
    for warning in vetted.warnings:
        say(f"warning: {warning}")
    if vetted.stored["by"] is None:
        say("UNCHECKED: no worker was asked whether its provider takes this config")
