"""What a config says of an allow-list, the same for every plugin that keeps one."""

from collections.abc import Iterator
from typing import Final

from leasehold.provider.contract import Json, Network, Problem
from leasehold.provider.way_out import allowing
from leasehold.provider.way_out.door import PORT

SCHEMA: Final[Json] = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": 300},
    "minItems": 1,
    "maxItems": 256,
    "description": "With network allow_list: host:port, *.domain:port, "
    "address:port, block:port.",
}
"""The config's field `allow`."""


def wanted(config: Json) -> bool:
    return bool(config.get("network") == Network.ALLOW_LIST)


def problems(config: Json) -> Iterator[Problem]:
    """Say what is wrong with the list of a config that has its defaults."""
    allow = config.get("allow")
    if wanted(config) and allow is None:
        text = "network allow_list needs a list of what is allowed"
        yield Problem(path="allow", code="required", message=text)
    if allow is not None and not wanted(config):
        text = f"only network allow_list has a list; network is {config['network']}"
        yield Problem(path="allow", code="not_enforced", message=text)
    for number, entry in enumerate(allow or ()):
        try:
            allowing.parse(entry)
        except ValueError as error:
            text = f"{entry!r}: {error}"
            yield Problem(path=f"allow.{number}", code="malformed", message=text)


def variables(config: Json) -> dict[str, str]:
    """Return what a command needs to be told to find its way out; its own variables win."""
    if not wanted(config):
        return {}
    proxy, inside = f"http://127.0.0.1:{PORT}", "localhost,127.0.0.1"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {**dict.fromkeys(names, proxy), "no_proxy": inside, "NO_PROXY": inside}
