"""A browser without a script: cookies, forms with their tokens, nothing followed by itself."""

import html
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import httpx

from leasehold.api.serving import Service

ROOT: Final = "/monitor"


class Browser:
    """Signed in with a key, or not at all."""

    def __init__(self, client: httpx.Client, *, key: str | None) -> None:
        self.client = client
        if key is not None:
            answer = client.post(f"{ROOT}/sign-in", data={"key": key})
            assert answer.status_code == 303, answer.text

    @property
    def secret(self) -> str:
        return self.client.cookies["leasehold"]

    def get(self, path: str, **how: Any) -> httpx.Response:
        return self.client.get(ROOT + path, **how)

    def token(self) -> str:
        found = re.search(r'name="token" value="([^"]+)"', self.get("/hosts").text)
        assert found is not None
        return found[1]

    def post(self, path: str, fields: Mapping[str, Any] | None = None) -> httpx.Response:
        data = {"token": self.token(), **(fields or {})}
        return self.client.post(ROOT + path, data=data)


@contextmanager
def browsing(service: Service, key: str | None) -> Iterator[Browser]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield Browser(client, key=key)


def text_of(answer: httpx.Response) -> str:
    """Return what a page says, without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())
