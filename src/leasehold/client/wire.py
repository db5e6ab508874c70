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
from collections.abc import Mapping
from typing import Any, Final

import httpx

from leasehold import seams
from leasehold.client import answers
from leasehold.errors import ApiUnavailableError, BadInputError

FIRST_S: Final = 0.1
LONGEST_S: Final = 5.0
"""How long is waited before a second try, and before a later one at most."""

_AWAY: Final = frozenset({502, 503, 504})
_FULL: Final = 429
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_CONNECT_S: Final = 5.0
_ERRORS_FROM: Final = 400


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
    ) -> None:
        self.url = _checked(url, allow_plain_http=allow_plain_http)
        self._tries = tries
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers={"Authorization": f"Bearer {_word(token)}"},
            timeout=httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            trust_env=not _is_loopback(httpx.URL(self.url).host),
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of what is there."""
        return self.send("GET", path, query=query, repeat=True).json()

    def post(self, path: str, body: Any = None, *, key: str = "", repeat: bool = False) -> Any:
        """Ask for something; return the JSON of the answer."""
        return self.send("POST", path, body=body, key=key, repeat=repeat or bool(key)).json()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        key: str = "",
        repeat: bool = False,
    ) -> httpx.Response:
        """
        Send a request, again if that is safe and may help; return the answer.

        Raises:
            LeaseholdError: What the API refuses it with, by its code.
            ApiUnavailableError: It does not answer.
        """
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        headers = {"Idempotency-Key": key} if key else {}
        for left in range(self._tries - 1, -1, -1):
            wait_s: float | None = None
            try:
                response = self._http.request(
                    method, path, json=body, params=asked, headers=headers
                )
            except httpx.TransportError as error:
                again = repeat or isinstance(error, _UNSENT)
                if not (again and left):
                    raise self._away(error) from error
            else:
                status = response.status_code
                if status < _ERRORS_FROM:
                    return response
                if not left or not (status == _FULL or (repeat and status in _AWAY)):
                    raise answers.error_of(response)
                wait_s = answers.retry_after_s(response)
            seams.sleep(_pause_s(self._tries - 1 - left, asked_s=wait_s))
        raise AssertionError("the last try returns or raises")

    def _away(self, error: httpx.TransportError) -> ApiUnavailableError:
        why = str(error) or type(error).__name__
        return ApiUnavailableError(f"{self.url} does not answer: {why}")


def _pause_s(failures: int, *, asked_s: float | None) -> float:
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
    if parsed.scheme == "http" and not (allow_plain_http or _is_loopback(parsed.host)):
        raise BadInputError(
            f"url: the token would go to {parsed.host} in clear text; use https://, or say"
            " allow_plain_http=True",
            field="url",
        )
    return str(parsed).rstrip("/")


def _is_loopback(host: str) -> bool:
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
