"""
References to secrets: what stands in rows instead of a value (P7).

A reference is the object ``{"secret": NAME}`` and nothing else in it. Rows, messages and events
hold references and *pins* (name → version) only; the value is put in their place by a worker,
at the moment of use.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

KEY: Final = "secret"
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
MAX_BYTES: Final = 64 * 1024

Pins: TypeAlias = Mapping[str, int]
"""Name → version that is meant; 0: the one that there is when it is used."""


def is_ref(value: Any) -> bool:
    """Return whether a JSON value is a reference."""
    return isinstance(value, Mapping) and set(value) == {KEY} and isinstance(value[KEY], str)


def names_in(value: Any) -> Iterator[str]:
    """Yield the names that a JSON value refers to, however deep."""
    if is_ref(value):
        yield value[KEY]
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from names_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from names_in(part)


def filled(value: Any, values: Mapping[str, str]) -> Any:
    """
    Return a JSON value with its references replaced.

    Raises:
        KeyError: A name that `values` does not have.
    """
    if is_ref(value):
        return values[value[KEY]]
    if isinstance(value, Mapping):
        return {name: filled(part, values) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [filled(part, values) for part in value]
    return value


def plain_at(schema: Mapping[str, Any], value: Any, *, keyword: str) -> Iterator[str]:
    """
    Yield the dotted paths where a secret's value stands instead of a reference.

    Args:
        schema: JSON schema of a config; fields that hold secrets carry `keyword`.
    """
    if schema.get(keyword) and not is_ref(value):
        yield ""
        return
    properties = schema.get("properties", {})
    if isinstance(value, Mapping):
        for name, part in value.items():
            for path in plain_at(properties.get(name, {}), part, keyword=keyword):
                yield f"{name}.{path}".rstrip(".")
    items = schema.get("items")
    if isinstance(value, list | tuple) and isinstance(items, Mapping):
        for index, part in enumerate(value):
            for path in plain_at(items, part, keyword=keyword):
                yield f"{index}.{path}".rstrip(".")
