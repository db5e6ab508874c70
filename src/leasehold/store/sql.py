"""
SQL written once and sent ready.

Building statements with Core costs more than a millisecond of CPU per move and event; sending
a ready string costs a quarter of that. So hot SQL is text with ``:name`` parameters and a few
``{marks}``, turned into the driver's own form once per dialect:

    {now}      microseconds since the epoch on the database's clock, our offset included
    {skip}     FOR UPDATE SKIP LOCKED on PostgreSQL; nothing on SQLite (one writer)
    {lock}     FOR UPDATE on PostgreSQL; nothing on SQLite
    {share}    FOR KEY SHARE on PostgreSQL; nothing on SQLite
    {true} {false}  booleans
    {spec_config} {facts_config}  the config in an environment's spec, in a lease's facts
    {idempotent}  whether the spec of the run ``r`` says so
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

_PARAM: Final = re.compile(r"(?<![:\w]):([a-z_]\w*)")
_MARKS: Final = {
    "postgresql": {
        "now": "leasehold_now()",
        "skip": "FOR UPDATE SKIP LOCKED",
        "lock": "FOR UPDATE",
        "share": "FOR KEY SHARE",
        "spec_config": "spec->'config'",
        "facts_config": "facts->'config'",
        "true": "TRUE",
        "false": "FALSE",
        "idempotent": "r.spec->>'idempotent' = 'true'",
    },
    "sqlite": {
        # As a subquery it is asked once, and not for each row that is compared with it.
        "now": "(SELECT leasehold_now() + CAST(value AS INTEGER) FROM facts"
        " WHERE name = 'clock_offset_us')",
        "skip": "",
        "lock": "",
        "share": "",
        "spec_config": "json_extract(spec, '$.config')",
        "facts_config": "json_extract(facts, '$.config')",
        "true": "1",
        "false": "0",
        "idempotent": "json_extract(r.spec, '$.idempotent')",
    },
}


@cache
def ready(text: str, dialect: str) -> tuple[str, tuple[str, ...]]:
    """
    Return `text` in the driver's own form, and its parameters in their order.

    PostgreSQL takes ``$1``, so that nothing is left for its driver to translate; SQLite takes
    the names.
    """
    for mark, value in _MARKS[dialect].items():
        text = text.replace("{" + mark + "}", value)
    names = tuple(dict.fromkeys(_PARAM.findall(text)))
    if dialect == "postgresql":
        numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
        text = _PARAM.sub(lambda match: numbers[match[1]], text)
    return text, names


@cache
def combined(texts: tuple[str, ...]) -> str:
    """
    Return one PostgreSQL statement that makes several writes and counts the rows of each.

    The parameters of the nth text are named ``:wn_name``. All see the same snapshot and run
    in no order, so no two may touch the same table.
    """
    named = [_PARAM.sub(rf":w{n}_\1", text) for n, text in enumerate(texts)]
    parts = [f"w{n} AS ({text} RETURNING 1)" for n, text in enumerate(named)]
    counts = ", ".join(f"(SELECT count(*) FROM w{n})" for n in range(len(texts)))
    return f"WITH {', '.join(parts)} SELECT {counts}"


def dump(value: Any) -> str:
    """Return JSON text for a JSON column."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if "\\u0000" in text or plain(text) is not text:
        text = json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)
    return text


def plain(text: str) -> str:
    """
    Return a text without what no database takes: NUL and halves of characters.

    Words of a plugin may have them, and a record that is refused would be tried for ever.
    """
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _plain(value: Any) -> Any:
    match value:
        case str():
            return plain(value)
        case dict():
            return {plain(str(name)): _plain(one) for name, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case _:
            return value


def load(value: Any) -> Any:
    """Return the value of a JSON column, which comes as text, or of one made in memory."""
    return json.loads(value) if isinstance(value, str | bytes) else value


def numbered(prefix: str, values: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """Return ``:p0, :p1`` and its parameters, for a short ``IN (...)`` list."""
    if not values:
        # An empty list is no SQL; nothing is equal to NULL.
        return "NULL", {}
    params = {f"{prefix}{index}": value for index, value in enumerate(values)}
    return ", ".join(f":{name}" for name in params), params
