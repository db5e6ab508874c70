"""
One POST to a URL that somebody else chose.

The name is looked up once for each hop, all its addresses are checked, and the connection goes
to an address that was checked: the URL that is asked for holds it, while `Host`, the name in
TLS and the certificate's are those of the URL. So nothing is one address when it is checked and
another one when it is connected to. A redirect (307 or 308, three at most) is a hop like the
first: looked up and checked, never from https to http, never to a URL with credentials. Nothing
is taken from the environment (no proxy, no netrc), no cookie is kept, the answer's body is not
read, and all of it together has one time limit, which also ends an answer that comes by drops.
"""

import asyncio
import queue
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from leasehold import seams
from leasehold.domain.webhooks import url_problem
from leasehold.outbound.addresses import Network, refusal

MAX_REDIRECTS: Final = 3
_FOLLOWED: Final = {307, 308}
_MOVED: Final = range(300, 400)
_DONE: Final = range(200, 300)
_MAX_ADDRESSES: Final = 4
_MAX_WORDS: Final = 200

Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a POST."""

    status: int | None = None
    """What was answered last; None: nothing."""

    problem: str | None = None
    """Why it does not count as delivered; names no path and no address."""

    retry_after_s: float | None = None


class _RefusedError(Exception):
    """This is not asked for at all, or was not answered; says why."""


def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name, as the system says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class Poster:
    """Posts; safe to use from several threads."""

    def __init__(
        self,
        *,
        timeout_s: float,
        allowed: Sequence[Network] = (),
        ca_file: Path | None = None,
        resolve: Resolve = look_up,
    ) -> None:
        self._timeout_s, self._allowed, self._resolve = timeout_s, tuple(allowed), resolve
        self._tls = httpx.create_ssl_context(trust_env=False)
        if ca_file is not None:
            self._tls.load_verify_locations(ca_file)

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Post `body`; every failure is a reply too."""
        until = seams.boot_time() + self._timeout_s
        place = httpx.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                reply, location = self._hop(place, headers, body, until=until)
                if location is None:
                    return reply
                place = _next(place, location)
            except _RefusedError as error:
                return Reply(problem=str(error)[:_MAX_WORDS])
        return Reply(problem=f"redirects more than {MAX_REDIRECTS} times")

    def _hop(
        self, place: httpx.URL, headers: Mapping[str, str], body: bytes, *, until: float
    ) -> tuple[Reply, str | None]:
        """Ask one place; return its answer, and where it sends us if it does."""
        addresses = self._checked(place, until=until)
        problem = "no answer"
        for address in addresses[:_MAX_ADDRESSES]:
            left = until - seams.boot_time()
            if left <= 0:
                break
            try:
                answer = asyncio.run(self._post(place, address, headers, body, within_s=left))
            except TimeoutError:
                break
            except httpx.ConnectError as error:
                problem = _words(error)
                continue
            except (httpx.HTTPError, OSError) as error:
                raise _RefusedError(_words(error)) from None
            return _read(answer)
        else:
            raise _RefusedError(problem)
        raise _RefusedError(f"no answer within {self._timeout_s:g} s")

    def _checked(self, place: httpx.URL, *, until: float) -> list[str]:
        """Return the addresses of a place that may be connected to."""
        if (problem := url_problem(str(place))) is not None:
            raise _RefusedError(f"the URL {problem}")
        host, port = place.raw_host.decode("ascii"), place.port or _port(place)
        found = self._look_up(host.strip("[]"), port, within_s=until - seams.boot_time())
        fit = [one for one in found if refusal(one, allowed=self._allowed) is None]
        if not fit:
            raise _RefusedError(
                "its address is not public; LEASEHOLD_WEBHOOK_NETWORKS names the private"
                " networks that may be reached"
            )
        return fit

    def _look_up(self, host: str, port: int, *, within_s: float) -> Sequence[str]:
        # A thread of its own: the system's resolver has no time limit that we could set.
        answer: queue.SimpleQueue[Sequence[str] | OSError] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answer.put(self._resolve(host, port))
            except (OSError, UnicodeError):
                answer.put(OSError())

        seams.thread(ask, name="resolve").start()
        try:
            found = answer.get(timeout=max(0.0, within_s))
        except queue.Empty:
            raise _RefusedError("its name was not resolved in time") from None
        if isinstance(found, OSError) or not found:
            raise _RefusedError("its name cannot be resolved")
        return found

    async def _post(
        self,
        place: httpx.URL,
        address: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        within_s: float,
    ) -> httpx.Response:
        transport = httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False, retries=0)
        client = httpx.AsyncClient(
            transport=transport, trust_env=False, follow_redirects=False, timeout=within_s
        )
        async with asyncio.timeout(within_s), client:
            request = client.build_request(
                "POST",
                place.copy_with(host=address),
                headers={**headers, "host": place.netloc.decode("ascii")},
                content=body,
                extensions={"sni_hostname": place.raw_host.decode("ascii").strip("[]")},
            )
            answer = await client.send(request, stream=True)
            await answer.aclose()
            return answer


def _port(place: httpx.URL) -> int:
    return 443 if place.scheme == "https" else 80


def _next(place: httpx.URL, location: str) -> httpx.URL:
    """Return where a redirect leads."""
    try:
        following = place.join(location)
    except (httpx.InvalidURL, ValueError):
        raise _RefusedError("redirects to what is no URL") from None
    if place.scheme == "https" and following.scheme != "https":
        raise _RefusedError("redirects from https to http")
    if following.userinfo:
        raise _RefusedError("redirects to a URL with credentials")
    return following.copy_with(fragment=None)


def _read(answer: httpx.Response) -> tuple[Reply, str | None]:
    status = answer.status_code
    location = answer.headers.get("location")
    if status in _FOLLOWED and location:
        return Reply(status=status), location
    if status in _DONE:
        return Reply(status=status), None
    problem = f"answered {status}"
    if status in _MOVED:
        problem += ": only 307 and 308 are followed; change the webhook's URL"
    return Reply(status, problem, _retry_after_s(answer)), None


def _retry_after_s(answer: httpx.Response) -> float | None:
    with suppress(ValueError):
        seconds = float(answer.headers.get("retry-after", ""))
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _words(error: Exception) -> str:
    """Return what went wrong on the wire, without where."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or 'no agreement'}"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused"
        cause = cause.__cause__ or cause.__context__
    match error:
        case httpx.ConnectError():
            return "could not connect"
        case httpx.RemoteProtocolError():
            return "what it answered is no HTTP"
        case _:
            return f"the connection broke ({type(error).__name__})"
