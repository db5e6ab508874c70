"""
Requests and their answers: where to, as whom, and what is done again.

**What may be repeated.** A connection that broke, or a 502, 503 or 504, does not say whether
the request was done. So only that is sent again which means the same the second time: what
reads, what asks for an end, and what carries an `Idempotency-Key`, which stays the same over
all tries. Everything else is repeated only if it surely was not done: it never left, or was
refused with 429.

**The token** is in one header, and in no message and no `repr`. Over plain HTTP it goes to
this machine only, and by no proxy.
"""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import httpx

from leasehold import seams
from leasehold.client import answers
from leasehold.errors import ApiUnavailableError, BadInputError, FullError, LeaseholdError

FIRST_S: Final = 0.1
LONGEST_S: Final = 5.0
"""How long is waited before a second try, and before a later one at most."""

_AWAY: Final = frozenset({502, 503, 504})
_FULL: Final = 429
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_FILE_S: Final = 600.0
_PART_BYTES: Final = 256 * 1024
_CONNECT_S: Final = 5.0
_ERRORS_FROM: Final = 400
_SILENT_S: Final = 45.0
"""For how long a stream may say nothing: the API gives three signs of life meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """For how long a person waits for an API that is away, and how that is told them."""

    seconds: float
    told: Callable[[str], None]
    """Called once for each request that has to be sent again, with the reason."""


class Wire:
    """One API, one token, a pool of connections."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float,
        tries: int,
        allow_plain_http: bool,
        patience: Patience | None = None,
    ) -> None:
        self.url = _checked(url, allow_plain_http=allow_plain_http)
        self.tries = tries
        self.date: str | None = None
        """The server's clock in its last answer, as HTTP writes it."""

        self._patience, self._timeout_s = patience, timeout_s
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers={"Authorization": f"Bearer {_word(token)}"},
            timeout=httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            trust_env=not is_loopback(httpx.URL(self.url).host),
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of what is there."""
        return self.send("GET", path, query=query, repeat=True).json()

    def post(self, path: str, body: Any = None, *, key: str = "", repeat: bool = False) -> Any:
        """Ask for something; return the JSON of the answer."""
        return self.send("POST", path, body=body, key=key, repeat=repeat or bool(key)).json()

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Ask for something in another way; return the JSON of the answer."""
        return self.send(method, path, **more).json()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        key: str = "",
        repeat: bool = False,
        more_s: float = 0.0,
    ) -> httpx.Response:
        """
        Send a request, again if that is safe and may help; return the answer.

        Args:
            method: Of HTTP.
            path: Below the API's own.
            body: Sent as JSON.
            query: Its parameters; those that are None are left out.
            key: An idempotency key.
            repeat: It may be sent again though it may have been done.
            more_s: How much longer than others its answer may take.

        Raises:
            LeaseholdError: What the API refuses it with, by its code.
            ApiUnavailableError: It does not answer.
        """
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        headers = {"Idempotency-Key": key} if key else {}
        timeout = httpx.Timeout(
            self._timeout_s + more_s, connect=min(_CONNECT_S, self._timeout_s)
        )
        request = self._http.build_request(
            method, path, json=body, params=asked, headers=headers, timeout=timeout
        )
        response = self._sent(request, repeat=repeat, stream=False)
        self.date = response.headers.get("Date", self.date)
        return response

    @contextmanager
    def open(
        self, path: str, query: Mapping[str, Any], *, last_event_id: str | None
    ) -> Iterator[httpx.Response]:
        """
        Open a stream; what breaks while it is read is the reader's to mend.

        Raises:
            FullError: All streams of the API are taken; not asked for again.
        """
        asked = {name: value for name, value in query.items() if value is not None}
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        timeout = httpx.Timeout(_SILENT_S, connect=_CONNECT_S)
        request = self._http.build_request(
            "GET", path, params=asked, headers=headers, timeout=timeout
        )
        response = self._sent(request, repeat=True, stream=True)
        try:
            yield response
        finally:
            response.close()

    def put(self, path: str, file: BinaryIO, *, size: int) -> Any:
        """Send a file from its beginning, again if need be; return the JSON of the answer."""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        timeout = httpx.Timeout(_FILE_S, connect=min(_CONNECT_S, self._timeout_s))
        request = self._http.build_request(
            "PUT", path, content=_FromStart(file), headers=headers, timeout=timeout
        )
        return self._sent(request, repeat=True, stream=False).json()

    def save(
        self, path: str, query: Mapping[str, Any], write: Callable[[bytes], object]
    ) -> str:
        """
        Write the bytes of an answer somewhere, part by part; return its `ETag`.

        Raises:
            ApiUnavailableError: It does not answer, or breaks off in the middle.
        """
        request = self._http.build_request("GET", path, params=query)
        response = self._sent(request, repeat=True, stream=True)
        try:
            for part in response.iter_bytes():
                write(part)
        except httpx.TransportError as cause:
            raise self._away(cause) from cause
        finally:
            response.close()
        return str(response.headers.get("ETag", "")).strip('"')

    def _sent(self, request: httpx.Request, *, repeat: bool, stream: bool) -> httpx.Response:
        """Send a request until it is answered or must not be sent again."""
        began, failures = seams.boot_time(), 0
        while True:
            wait_s: float | None = None
            last = self._is_last(failures, since=began)
            error: LeaseholdError
            try:
                response = self._http.send(request, stream=stream)
            except httpx.TransportError as cause:
                if last or not (repeat or isinstance(cause, _UNSENT)):
                    raise self._away(cause) from cause
                error = self._away(cause)
            else:
                status = response.status_code
                if status < _ERRORS_FROM:
                    return response
                response.read()
                error = answers.error_of(response)
                if last or not self._again(status, error, repeat=repeat, stream=stream):
                    raise error
                wait_s = answers.retry_after_s(response)
            if failures == 0 and self._patience is not None:
                self._patience.told(str(error))
            pause = pause_s(failures, asked_s=wait_s)
            # Without a count of tries, "Retry-After: 0" would be asked as fast as it comes.
            seams.sleep(pause if self._patience is None else max(pause, FIRST_S))
            failures += 1

    def _is_last(self, failures: int, *, since: float) -> bool:
        if self._patience is not None:
            return seams.boot_time() - since >= self._patience.seconds
        return failures + 1 >= self.tries

    def _again(self, status: int, error: LeaseholdError, *, repeat: bool, stream: bool) -> bool:
        """Say whether a request that was refused may be sent again, and that may help."""
        if status == _FULL:
            # Who waits for a person's command, or can read pages, is told at once.
            full = isinstance(error, FullError)
            return not (full and (stream or self._patience is not None))
        return repeat and status in _AWAY

    def _away(self, error: httpx.TransportError) -> ApiUnavailableError:
        why = str(error) or type(error).__name__
        return ApiUnavailableError(f"{self.url} does not answer: {why}")


class _FromStart:
    """A file's bytes, each time from its beginning: a request may be sent again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while part := self._file.read(_PART_BYTES):
            yield part


def pause_s(failures: int, *, asked_s: float | None) -> float:
    """Return how long to wait: what the server says, else longer each time, with jitter."""
    if asked_s is not None:
        return min(asked_s, LONGEST_S)
    longest = min(LONGEST_S, FIRST_S * 2.0**failures)
    return longest * (0.5 + seams.entropy(1)[0] / 512)


def _checked(url: str, *, allow_plain_http: bool) -> str:
    """
    Return the API's address without a slash at its end.

    Raises:
        BadInputError: It is no address, or a token would be readable on its way there.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        raise BadInputError(
            "url: must be http:// or https:// with a host and without a password"
            " (the argument or LEASEHOLD_API_URL)",
            field="url",
        )
    if parsed.scheme == "http" and not (allow_plain_http or is_loopback(parsed.host)):
        raise BadInputError(
            f"url: the token would go to {parsed.host} in clear text; use https://, or say"
            " allow_plain_http=True",
            field="url",
        )
    return str(parsed).rstrip("/")


def is_readable(url: str) -> bool:
    """Say whether others could read a token on its way to this address."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return False  # refused elsewhere
    return parsed.scheme == "http" and bool(parsed.host) and not is_loopback(parsed.host)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _word(token: str) -> str:
    """
    Return a token that can be sent.

    Raises:
        BadInputError: It cannot; does not show it.
    """
    word = token.strip()
    if not word or not word.isascii() or not word.isprintable() or " " in word:
        raise BadInputError(
            "token: must be an API key, `lh_…` (the argument or LEASEHOLD_API_TOKEN)",
            field="token",
        )
    return word
