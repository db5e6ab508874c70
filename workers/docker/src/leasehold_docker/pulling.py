"""
Fetching an image: the one call that may take minutes.

A thread reads the engine's progress, line by line; the caller waits for it as long as its
budget does. When nobody wants the image any more the connection is closed, upon which the
engine stops fetching; what it has is kept, so the next try goes on from there.
"""

import json
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from leasehold.provider import (
    Budget,
    ConfigRejectedError,
    ProviderError,
    UnavailableError,
    boot_time,
)

if TYPE_CHECKING:
    from docker import APIClient

_log = logging.getLogger(__name__)
_TELL_EACH_S: Final = 2.0
_FOR_EVER: Final = (
    "not found",
    "manifest unknown",
    "denied",
    "invalid reference",
    "unauthorized",
)


class Pull:
    def __init__(self, client: "APIClient", image: str) -> None:
        self._client, self._image = client, image
        self._over = threading.Event()
        self._error = ""
        self._layers: dict[str, tuple[int, int]] = {}
        self._told_at = 0.0
        self._response: Any = None

    def follow(self, budget: Budget) -> None:
        """Wait for the end; see `Engine.pull`."""
        thread = threading.Thread(target=self._read, name="docker-pull", daemon=True)
        thread.start()
        try:
            while not budget.wait(1.0, event=self._over):
                pass
        finally:
            self._hang_up()
        if self._error:
            raise self._judged()

    def _judged(self) -> ProviderError:
        text = f"image {self._image} cannot be fetched: {self._error}"
        if any(word in self._error.lower() for word in _FOR_EVER):
            return ConfigRejectedError(text)
        return UnavailableError(text)

    def _hang_up(self) -> None:
        # The socket itself: closing the response would first wait for all of it.
        with suppress(Exception):
            self._response.raw._fp.fp.raw._sock.shutdown(2)  # noqa: SLF001  nothing public does it
        with suppress(Exception):
            self._client.close()

    def _read(self) -> None:
        from docker.errors import APIError
        from docker.utils import parse_repository_tag

        name, tag = parse_repository_tag(self._image)
        try:
            self._response = self._client.post(
                self._client._url("/images/create"),  # type: ignore[attr-defined]  # noqa: SLF001  pull() hides the connection
                params={"fromImage": name, "tag": tag or "latest"},
                stream=True,
                timeout=None,
            )
            self._client._raise_for_status(self._response)  # type: ignore[attr-defined]  # noqa: SLF001  as above
            for line in self._response.iter_lines():
                self._hear(json.loads(line))
        except APIError as error:
            self._error = str(error.explanation or error)
        except Exception as error:  # noqa: BLE001  the caller is told, whatever it is
            self._error = f"{type(error).__name__}: {error}"
        finally:
            self._over.set()

    def _hear(self, line: dict[str, Any]) -> None:
        if "error" in line:
            self._error = str(line["error"])
        detail = line.get("progressDetail") or {}
        if "total" in detail:
            self._layers[line.get("id", "")] = (detail.get("current", 0), detail["total"])
        if boot_time() - self._told_at >= _TELL_EACH_S:
            self._told_at = boot_time()
            done, whole = (
                (sum(part) for part in zip(*self._layers.values(), strict=True))
                if self._layers
                else (0, 0)
            )
            _log.info(
                "docker.pull %s: %s, %d of %d bytes",
                self._image,
                line.get("status"),
                done,
                whole,
            )
