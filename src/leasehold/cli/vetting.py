"""What `env create` and `env update` say of the check of a config by a worker."""

from collections.abc import Iterator
from contextlib import contextmanager

from leasehold.cli.codes import say
from leasehold.cli.ports import Shape
from leasehold.errors import CheckTimeoutError, NoWorkerError, ProviderNotReadyError


@contextmanager
def advising() -> Iterator[None]:
    """Where nobody can answer now, say how to save the config unchecked."""
    try:
        yield
    except (ProviderNotReadyError, NoWorkerError, CheckTimeoutError) as error:
        raise type(error)(f"{error} (--unchecked saves it without being asked)") from None


def tell(shape: Shape) -> None:
    """Say warnings, and that nobody was asked."""
    if "warnings" not in shape:  # nothing of it had to be checked
        return
    for warning in shape["warnings"]:
        say(f"warning: {warning}")
    if shape["checked"]["by"] is None:
        say("UNCHECKED: no worker was asked whether its provider takes this config")
