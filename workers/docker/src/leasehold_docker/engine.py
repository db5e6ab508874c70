"""
The engine's API, as far as it is needed, with the contract's errors and the budget's time.

One client library speaks to Docker Engine and to Podman's service; where the two differ, the
answer is looked up instead of believed: a duplicate name is 409 here and 500 there, so after
any failed `create` the name is asked for again.

A failure of the socket is `UnavailableError`: it says nothing about a container. "Not found" is
an answer of the engine, and None here.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from leasehold.provider import (
    Budget,
    ConfigRejectedError,
    DeadlineExceededError,
    SandboxGoneError,
    UnavailableError,
    effect,
)

if TYPE_CHECKING:
    from docker import APIClient

_log = logging.getLogger(__name__)
_MOST_S: Final = 60.0
_LEAST_S: Final = 0.5
_PAUSE_S: Final = 0.02
_SOCKETS: Final = ("/var/run/docker.sock", "/run/podman/podman.sock")


def find_socket(setting: str | None) -> str:
    """
    Return the address of the engine: the setting, else DOCKER_HOST, else a usual place.

    Raises:
        ConfigRejectedError: It is not a socket of this host.
    """
    address = setting or os.environ.get("DOCKER_HOST") or ""
    if not address:
        address = next((path for path in _SOCKETS if os.path.exists(path)), _SOCKETS[0])
    if address.startswith("/"):
        address = f"unix://{address}"
    if not address.startswith("unix:///"):
        text = f"the engine must be a socket of this host (unix:///...), not {address!r}"
        raise ConfigRejectedError(text)
    return address


class Engine:
    """One engine; safe for threads: a client is lent to one call at a time."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._version: str | None = None
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._idle: list[APIClient] = []

    @property
    def path(self) -> str:
        return self.address.removeprefix("unix://")

    # ---- asking ----------------------------------------------------------------------------

    def info(self, budget: Budget) -> Mapping[str, Any]:
        with self._calling("asking the engine", budget) as api:
            answer: Mapping[str, Any] = api.info()
            return answer

    def container(self, name: str, budget: Budget) -> Mapping[str, Any] | None:
        """Return all about a container, by name or id; None if there is none."""
        with self._calling(f"looking at {name}", budget) as api:
            seen: Mapping[str, Any] | None = self._found(lambda: api.inspect_container(name))
            return seen

    def containers(self, labels: Sequence[str], budget: Budget) -> list[Mapping[str, Any]]:
        """List the containers with these labels, running or not."""
        with self._calling("listing containers", budget) as api:
            listed: list[Mapping[str, Any]] = api.containers(
                all=True, filters={"label": list(labels)}
            )
            return listed

    def has_image(self, image: str, budget: Budget) -> bool:
        with self._calling(f"looking for image {image}", budget) as api:
            return self._found(partial(api.inspect_image, image)) is not None

    # ---- doing -----------------------------------------------------------------------------

    def create(self, name: str, spec: Mapping[str, Any], budget: Budget) -> None:
        """
        Make a container of this name, if it can be; the caller looks what is there.

        Raises:
            ConfigRejectedError: The engine does not take the specification.
        """
        from docker.errors import APIError

        with self._calling(f"creating {name}", budget) as api:
            host = api.create_host_config(**spec["host"])
            while True:
                try:
                    with effect("docker:create"):
                        api.create_container(name=name, host_config=host, **spec["container"])
                except APIError as error:
                    if self._found(lambda: api.inspect_container(name)) is not None:
                        return
                    text = str(error.explanation or error)
                    if error.status_code == 400:  # noqa: PLR2004  bad request
                        refused = f"the engine refuses the container: {text}"
                        raise ConfigRejectedError(refused) from error
                    if "in use" not in text:
                        raise
                    # Somebody else has the name already and the container not yet.
                    budget.wait(_PAUSE_S)
                else:
                    return

    def start(self, container_id: str, budget: Budget) -> None:
        """Start a container; one that runs is left as it is."""
        from docker.errors import APIError

        with self._calling(f"starting {container_id[:12]}", budget) as api:
            try:
                with effect("docker:start"):
                    api.start(container_id)
            except APIError as error:
                seen = self._found(lambda: api.inspect_container(container_id))
                if seen is None or not seen["State"]["Running"]:
                    raise self._judged(error, container_id) from error

    def _judged(self, error: Any, container_id: str) -> Exception:
        text = str(error.explanation or error)
        if "/bin/sh" in text:
            return ConfigRejectedError(f"the image has no /bin/sh that runs: {text}")
        return UnavailableError(f"{container_id[:12]} does not start: {text}")

    def spawn(self, container_id: str, argv: Sequence[str], user: str, budget: Budget) -> None:
        """
        Start a process in a container, detached; nothing else of it is asked of the engine.

        Raises:
            SandboxGoneError: The container is not there, or does not run.
        """
        from docker.errors import APIError

        with self._calling(f"starting a process in {container_id[:12]}", budget) as api:
            try:
                with effect("docker:exec"):
                    made = api.exec_create(
                        container_id, list(argv), user=user, stdout=False, stderr=False
                    )
                    api.exec_start(made["Id"], detach=True)
            except APIError as error:
                seen = self._found(lambda: api.inspect_container(container_id))
                if seen is None or not seen["State"]["Running"]:
                    raise SandboxGoneError(f"{container_id[:12]} does not run") from error
                raise

    def stop(self, container_id: str, budget: Budget) -> None:
        """Stop a container; process 1 heeds TERM at once, so the grace is never waited for."""
        with (
            self._calling(f"stopping {container_id[:12]}", budget) as api,
            effect("docker:stop"),
        ):
            self._found(lambda: api.stop(container_id, timeout=2))

    def remove(self, container_id: str, budget: Budget) -> None:
        """Kill and remove a container, and see that it is gone."""
        from docker.errors import APIError

        with self._calling(f"removing {container_id[:12]}", budget) as api:
            while True:
                try:
                    with effect("docker:remove"):
                        self._found(
                            lambda: api.remove_container(container_id, force=True, v=True)
                        )
                except APIError as error:
                    # Somebody else removes it: then it is soon gone.
                    _log.debug("removing %s: %s", container_id[:12], error)
                if self._found(lambda: api.inspect_container(container_id)) is None:
                    return
                budget.wait(_PAUSE_S)

    def pull(self, image: str, budget: Budget) -> None:
        """
        Fetch an image, telling how far it is; given up at once when nobody wants it any more.

        Raises:
            ConfigRejectedError: The registry says that there is no such image for us.
            UnavailableError: It cannot be reached.
        """
        from leasehold_docker.pulling import Pull

        pull = Pull(self.connect(_MOST_S), image)
        with effect("docker:pull"):
            pull.follow(budget)

    # ---- the connection --------------------------------------------------------------------

    def connect(self, timeout_s: float) -> "APIClient":
        """Open a client of its own; the version is asked for once."""
        from docker import APIClient

        if self._version is None:
            self._version = self._ask_version(timeout_s)
        else:
            self._knock(timeout_s).close()
        return APIClient(base_url=self.address, version=self._version, timeout=ceil(timeout_s))

    def _knock(self, timeout_s: float) -> socket.socket:
        """See that somebody listens: the library leaves a socket open where nobody does."""
        trial = socket.socket(socket.AF_UNIX)
        try:
            trial.settimeout(timeout_s)
            trial.connect(self.path)
        except OSError:
            trial.close()
            raise
        return trial

    def _ask_version(self, timeout_s: float) -> str:
        """
        Return the newest version of the API that the engine speaks, as a ping tells it.

        The library would ask for everything about the engine, for which Podman runs half a
        dozen programs: a third of a second.
        """
        asking = HTTPConnection("localhost")
        asking.sock = self._knock(timeout_s)
        try:
            asking.request("GET", "/_ping")
            return asking.getresponse().getheader("Api-Version") or "auto"
        except HTTPException as error:
            raise ConnectionError(f"not an engine: {error!r}") from error
        finally:
            asking.close()

    @contextmanager
    def _calling(self, what: str, budget: Budget) -> Iterator["APIClient"]:
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException, Timeout

        budget.check()
        timeout_s = min(_MOST_S, max(_LEAST_S, budget.left_s()))
        try:
            with self._lent(timeout_s) as api:
                yield api
        except (Timeout, TimeoutError) as error:
            budget.check()
            raise DeadlineExceededError(f"{what}: the engine did not answer in time") from error
        except APIError as error:
            text = f"{what}: {error.explanation or error}"
            raise UnavailableError(text) from error
        except (RequestException, DockerException, OSError) as error:
            text = f"{what}: no answer at {self.address}: {error}"
            raise UnavailableError(text) from error

    @contextmanager
    def _lent(self, timeout_s: float) -> Iterator["APIClient"]:
        with self._lock:
            if self._owner != os.getpid():
                # A forked process must not talk into its parent's connections.
                self._owner, self._idle = os.getpid(), []
            client = self._idle.pop() if self._idle else None
        if client is None:
            client = self.connect(timeout_s)
        try:
            self._knock(timeout_s).close()
            client.timeout = ceil(timeout_s)
            yield client
        finally:
            with self._lock:
                self._idle.append(client)

    @staticmethod
    def _found(call: Any) -> Any:
        """Call; None if the engine knows no such thing."""
        from docker.errors import NotFound

        try:
            return call()
        except NotFound:
            return None

    def close(self) -> None:
        if self._owner == os.getpid():
            with self._lock:
                while self._idle:
                    self._idle.pop().close()
