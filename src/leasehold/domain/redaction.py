"""
Hiding the values of secrets in what sandboxes say: output, metadata, errors (P7).

Output is stored at byte offsets, and whoever comes next goes on from the stored offset, in
another process perhaps. So a value is replaced by as many asterisks as it has bytes, and
nothing is remembered between two looks: each one reads again a *context*, the bytes before the
stored offset that a value may have begun in, and *holds back* an end that may be the beginning
of one (it is not stored, the offset stays before it). A byte is stored only once every value
that could cover it has been seen whole or ruled out; a death between two looks changes nothing.
Once no more can follow, the rest is stored as it is: it was no value.

Looked for are the value, its lines (a key printed by `cat` may be cut by a terminal's words),
its base64 in all three alignments, plain and URL-safe, its URL encodings, and its escapes in
JSON. What is shorter than `SHORTEST` is not looked for: it would blot out everything.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final
from urllib.parse import quote, quote_plus

SHORTEST: Final = 4
_WORD: Final = re.compile(rb"[0-9a-zA-Z]+")
_LINE: Final = 12
"""A line of a value counts by itself from this length on; shorter ones are words."""


def _base64(value: bytes) -> Iterator[bytes]:
    """Yield what any base64 text has in it that has the value in it, wherever it begins."""
    for lead in range(3):
        padded = b"\0" * lead + value
        encoded = base64.b64encode(padded)
        # The first characters hold bits of what stands before, the last of what comes after.
        begin = (0, 2, 3)[lead]
        end = len(padded) * 8 // 6
        # What ends with the value ends in bits that are known, too.
        for text in (encoded[begin:end], encoded[begin:].rstrip(b"=")):
            yield text
            yield text.translate(_URL_SAFE)


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def needles_of(value: str) -> set[bytes]:
    """Return every form of a value that is looked for."""
    raw = value.encode(errors="surrogateescape")
    if len(raw.strip()) < SHORTEST:
        return set()
    forms = {raw, raw.strip()}
    forms.update(line.strip() for line in raw.splitlines() if len(line.strip()) >= _LINE)
    for form in {raw, raw.strip()}:
        forms.update(_base64(form))
        text = form.decode(errors="replace")
        for one in (quote(form, safe=""), quote(form), quote_plus(form)):
            forms |= {one.encode(), _lower(one).encode()}
        escaped = json.dumps(text)[1:-1]
        forms |= {escaped.encode(), escaped.replace("/", "\\/").encode()}
        forms.add(json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="replace"))
    return {form for form in forms if len(form) >= SHORTEST}


def _lower(quoted: str) -> str:
    """Return a URL-encoded text with its hexadecimal digits in lower case."""
    parts = quoted.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


def _borders(needle: bytes) -> list[int]:
    """Return, for each prefix, the length of its longest proper prefix that also ends it."""
    table = [0] * len(needle)
    length = 0
    for index in range(1, len(needle)):
        while length and needle[index] != needle[length]:
            length = table[length - 1]
        if needle[index] == needle[length]:
            length += 1
        table[index] = length
    return table


@dataclass(frozen=True)
class Redactor:
    """What must not be seen; made once for a set of values."""

    needles: tuple[bytes, ...] = ()
    _tables: dict[bytes, list[int]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, values: Iterable[str]) -> "Redactor":
        found: set[bytes] = set()
        for value in values:
            found |= needles_of(value)
        return cls(tuple(sorted(found, key=lambda one: (-len(one), one))))

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return tuple(one.decode(errors="replace") for one in self.needles)

    @cached_property
    def _signs(self) -> tuple[bytes, ...]:
        """Few texts: where none of these is, no needle is; most output has none."""
        signs: list[bytes] = []
        words = (max(_WORD.findall(one), key=len, default=b"") for one in self.needles)
        likely = (
            word if len(word) >= SHORTEST else one
            for word, one in zip(words, self.needles, strict=True)
        )
        for sign in sorted(likely, key=len):
            if not any(shorter in sign for shorter in signs):
                signs.append(sign)
        return tuple(signs)

    def beside(self, other: "Redactor") -> "Redactor":
        """Return what hides what either of them hides."""
        if set(other.needles) <= set(self.needles):
            return self
        both = {*self.needles, *other.needles}
        made = Redactor(tuple(sorted(both, key=lambda one: (-len(one), one))))
        # This is made anew for each look, and what it is made of is not.
        vars(made)["_signs"] = (*self._signs, *other._signs)
        return made

    def hide(self, data: bytes) -> bytes:
        """Return the bytes with every value in them covered, one asterisk for each byte."""
        if not any(sign in data for sign in self._signs):
            return data
        spans = [
            (at, at + len(needle)) for needle in self.needles for at in _all_of(data, needle)
        ]
        if not spans:
            return data
        hidden = bytearray(data)
        for begin, end in spans:
            hidden[begin:end] = b"*" * (end - begin)
        return bytes(hidden)

    def hide_text(self, text: str) -> str:
        """Return a text for people with every value in it replaced by ``***``."""
        for needle in self._texts:
            if needle in text:
                text = text.replace(needle, "***")
        return text

    def hide_json(self, value: object) -> object:
        """Return a JSON value with every text in it hidden, names of fields too."""
        match value:
            case str():
                return self.hide_text(value)
            case dict():
                return {
                    self.hide_text(str(name)): self.hide_json(part)
                    for name, part in value.items()
                }
            case list() | tuple():
                return [self.hide_json(part) for part in value]
            case _:
                return value

    def held_back(self, data: bytes) -> int:
        """Return how many bytes at the end may be the beginning of a value."""
        return max((self._open_end(data, needle) for needle in self.needles), default=0)

    def _open_end(self, data: bytes, needle: bytes) -> int:
        tail = data[-(len(needle) - 1) :]
        if needle[:1] not in tail:
            return 0
        table = self._tables.get(needle)
        if table is None:
            table = self._tables[needle] = _borders(needle)
        length = 0
        for byte in tail:
            while length and byte != needle[length]:
                length = table[length - 1]
            if byte == needle[length]:
                length += 1
        return length

    @cached_property
    def context(self) -> int:
        """Return how many bytes before the stored offset a look must read again."""
        return max(map(len, self.needles), default=1) - 1

    def stored(self, data: bytes, *, skip: int, final: bool) -> bytes:
        """
        Return what may be stored of new output.

        Args:
            data: From the context on.
            skip: How many of its bytes are context, and stored already.
            final: Nothing can follow: then nothing is held back.
        """
        if not self.needles or len(data) <= skip:
            return data[skip:]
        keep = len(data) if final else len(data) - self.held_back(data)
        return self.hide(data)[skip : max(skip, keep)]


NOTHING: Final = Redactor()


def _all_of(data: bytes, needle: bytes) -> Iterator[int]:
    at = data.find(needle)
    while at >= 0:
        yield at
        at = data.find(needle, at + 1)
