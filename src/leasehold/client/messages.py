"""
Server-Sent Events out of the bytes of an answer: what the API sends, and no more of the format.

Lines end at a line feed and nowhere else: the JSON in them holds other characters that Python
takes for ends of lines.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message; one without `data` says only that the other side lives."""

    name: str
    place: str | None
    """Its `id`: with which to come back."""

    data: str | None


def messages(pieces: Iterable[bytes]) -> Iterator[Message]:
    """Yield messages as they are complete; what is cut off at the end is left out."""
    fields: dict[str, str] = {}
    for line in _lines(pieces):
        if line.startswith(b":"):
            yield Message("", None, None)
        elif line:
            name, _, value = line.partition(b":")
            fields[name.decode()] = value.removeprefix(b" ").decode("utf-8", "replace")
        else:
            if "data" in fields:
                yield Message(fields.get("event", ""), fields.get("id"), fields["data"])
            fields = {}


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    for piece in pieces:
        first, *more = piece.split(b"\n")
        rest.append(first)
        for line in more:
            yield b"".join(rest).removesuffix(b"\r")
            rest = [line]
