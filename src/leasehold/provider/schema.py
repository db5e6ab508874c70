"""Check a config against a plugin's JSON schema, in words that a person can act on."""

import copy
import difflib
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from leasehold.provider.contract import Json, Problem, Validation


def check_schema(schema: Json, config: Json) -> Validation:
    """
    Return the problems of a config, or the config with the schema's defaults filled in.

    Problems name the place (``limits.memory_mb``), what came and what is allowed.
    """
    validator = Draft202012Validator(schema)
    errors = sorted(
        validator.iter_errors(dict(config)), key=lambda error: list(map(str, error.path))
    )
    # Two missing keys are two errors with one sentence.
    problems = tuple(dict.fromkeys(problem for e in errors for problem in _problems(e)))
    if problems:
        return Validation(problems=problems)
    return Validation(config=_filled(schema, config))


def _problems(error: ValidationError) -> list[Problem]:
    path = ".".join(str(part) for part in error.absolute_path)
    schema: Any = error.schema
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = sorted(schema.get("properties", {}))
        extra = sorted(set(error.instance) - set(known))
        return [_unknown(path, key, known) for key in extra]
    return [Problem(path=path, code=str(error.validator), message=_say(error))]


def _unknown(path: str, key: str, known: list[str]) -> Problem:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    allowed = ", ".join(known) or "no keys at all"
    where = f"{path}.{key}" if path else key
    return Problem(
        path=where, code="unknown_key", message=f"unknown key; {hint}allowed: {allowed}"
    )


def _say(error: ValidationError) -> str:
    """Return the library's sentence without the value: values of config are never shown."""
    kind = type(error.instance).__name__
    wanted: Any = error.validator_value
    instance: Any = error.instance
    match error.validator:
        case "type":
            names = wanted if isinstance(wanted, str) else " or ".join(wanted)
            return f"must be of type {names}, got {kind}"
        case "required":
            missing = sorted(set(wanted) - set(instance))
            return f"missing: {', '.join(missing)}"
        case "enum":
            return f"must be one of {', '.join(map(repr, wanted))}, got {kind}"
        case other:
            return f"does not fit {other} {wanted!r}"


def _filled(schema: Json, config: Json) -> dict[str, Any]:
    whole: dict[str, Any] = dict(config)
    for key, part in schema.get("properties", {}).items():
        if key not in whole and "default" in part:
            whole[key] = copy.deepcopy(part["default"])
        elif isinstance(whole.get(key), dict) and part.get("type") == "object":
            whole[key] = _filled(part, whole[key])
    return whole
