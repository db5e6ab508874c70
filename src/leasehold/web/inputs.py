"""
A provider's JSON schema as fields of a form, and a form as a config; pure.

What a field cannot say is written as JSON. Whether a config is right, the provider's schema
decides where it is saved; here only texts become values.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from leasehold.domain.secrets import is_ref
from leasehold.errors import BadInputError

PREFIX: Final = "config."
SECRET_MARK: Final = "x-leasehold-secret"  # noqa: S105  a schema's word
_TYPES: Final = {"integer": "integer", "number": "number", "boolean": "boolean"}


@dataclass(frozen=True, slots=True)
class Input:
    """One property of a config."""

    name: str
    kind: str
    """text, choice, integer, number, boolean, lines, pairs, secret or json."""

    label: str
    help: str
    required: bool
    default: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None

    @property
    def field(self) -> str:
        return PREFIX + self.name


def of(schema: Mapping[str, Any]) -> list[Input]:
    """Return the inputs of an object's schema, those that are required first."""
    required = set(schema.get("required") or ())
    properties: Mapping[str, Any] = schema.get("properties") or {}
    found = [_input(name, part, name in required) for name, part in properties.items()]
    return sorted(found, key=lambda one: not one.required)


def _input(name: str, schema: Mapping[str, Any], required: bool) -> Input:  # noqa: FBT001  as it came
    kind = _kind(schema)
    return Input(
        name=name,
        kind=kind,
        label=str(schema.get("title") or name),
        help=str(schema.get("description") or ""),
        required=required,
        default=_text(kind, schema["default"]) if "default" in schema else "",
        choices=tuple(map(str, schema.get("enum") or ())),
        least=schema.get("minimum"),
        most=schema.get("maximum"),
    )


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if schema.get(SECRET_MARK):
        return "secret"
    if "enum" in schema and all(isinstance(value, str) for value in schema["enum"]):
        return "choice"
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == "string":
        return "text"
    if kind == "array" and (schema.get("items") or {}).get("type") == "string":
        return "lines"
    more = schema.get("additionalProperties")
    if kind == "object" and isinstance(more, Mapping) and more.get("type") == "string":
        return "pairs"
    return "json"


def _text(kind: str, value: Any) -> str:
    match kind, value:
        case "lines", list():
            return "\n".join(map(str, value))
        case "pairs", dict():
            return "\n".join(f"{name}={text}" for name, text in value.items())
        case "boolean", bool():
            return "true" if value else "false"
        case "json", _:
            return json.dumps(value)
        case _:
            return str(value)


def config(schema: Mapping[str, Any], form: Mapping[str, list[str]]) -> dict[str, Any]:
    """
    Return the config that a form says; a field that is left empty is not in it.

    Raises:
        BadInputError: A text is not what its field is for.
    """
    found: dict[str, Any] = {}
    for one in of(schema):
        text = "".join(form.get(one.field, [])[:1]).replace("\r\n", "\n")
        if text.strip():
            found[one.name] = _value(one, text)
    return found


def values(schema: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the fields of a form that says this config."""
    return {
        one.field: [_shown(one.kind, config[one.name])]
        for one in of(schema)
        if one.name in config
    }


def _shown(kind: str, value: Any) -> str:
    if kind == "secret" and isinstance(value, Mapping):
        return str(value.get("secret", ""))
    fits = {"lines": list, "pairs": dict, "json": object}.get(kind, (str, int, float))
    return _text(kind, value) if isinstance(value, fits) else json.dumps(value)


def patch(old: Any, new: Any) -> Any:
    """
    Return what merged into `old` makes it `new`: objects by their keys, null removes.

    A reference to a secret counts as a value.
    """
    if (
        not (isinstance(old, Mapping) and isinstance(new, Mapping))
        or is_ref(old)
        or is_ref(new)
    ):
        return new
    gone = dict.fromkeys(name for name in old if name not in new)
    return {**gone, **{name: patch(old.get(name), value) for name, value in new.items()}}


def config_patch(
    schema: Mapping[str, Any], old: Mapping[str, Any], form: Mapping[str, list[str]]
) -> dict[str, Any]:
    """
    Return what a form changes of a config; what has no field of its own stays.

    Raises:
        BadInputError: A text is not what its field is for.
    """
    named = {one.name for one in of(schema)}
    return dict(patch({k: v for k, v in old.items() if k in named}, config(schema, form)))


def _value(one: Input, text: str) -> Any:
    plain = text.strip()
    try:
        match one.kind:
            case "integer":
                return int(plain)
            case "number":
                return float(plain)
            case "boolean":
                return plain == "true"
            case "lines":
                return [line for line in text.split("\n") if line.strip()]
            case "pairs":
                return pairs(text)
            case "secret":
                return {"secret": plain}
            case "json":
                return json.loads(text)
            case _:
                return text if "\n" in plain else plain
    except (ValueError, RecursionError):
        raise BadInputError(
            f"config.{one.name}: is no {one.kind}, got {plain[:80]!r}", field=one.field
        ) from None


def seconds(value: float | None) -> str:
    """Return a duration as it may be typed, or nothing."""
    if value is None:
        return ""
    return str(int(value)) if value == int(value) else str(value)


def pairs(text: str) -> dict[str, str]:
    """
    Return lines of ``NAME=VALUE``.

    Raises:
        ValueError: A line is none.
    """
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if not line.strip():
            continue
        name, separator, value = line.partition("=")
        if not separator or not name.strip():
            raise ValueError(line)
        found[name.strip()] = value
    return found
