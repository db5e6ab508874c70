"""
What viewers of a run want next, and what they get for it: all in one look, in a thread.

A **want** is a run and a place in its history or its output. Viewers who want the same thing
get the same bytes: they are read and written as Server-Sent Events once. A place is also the
`id` of a message, from which a viewer who comes back goes on. So it has to say all:

- In output it is the execution and how far each of its streams was sent.
- In history it is the id of an event, and those of newer ones that were sent already. The
  database numbers events when they are written, and shows them when they are committed: one
  may come to light behind a newer one of the same run (a lease of its last attempt is released
  meanwhile). What is older than `SETTLED_US` has all its elders, since no transaction
  of ours lives as long.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from leasehold.domain.lifecycle import EXECUTION_ENDS, RUN_ENDS
from leasehold.domain.specs import SETUP
from leasehold.errors import BadInputError
from leasehold.store import views, watching
from leasehold.store.database import Row, Tx

SETTLED_US: Final = 20_000_000
PIECE_BYTES: Final = 64 * 1024
EVENTS: Final = 200
FAR: Final = 1000
"""Events of others that may stand between a tenant's newest one and the newest of all."""

TURN_WANTS: Final = 64
"""Pieces that one look reads at most: 8 MiB of output. The others come with the next one."""

_NEW_MAX: Final = 100
_LETTER_BYTES: Final = 4
_NUMBER: Final = r"\d{1,18}"
_EVENTS_PLACE: Final = re.compile(rf"({_NUMBER})((?:\.{_NUMBER}){{0,{_NEW_MAX}}})")
_OUTPUT_PLACE: Final = re.compile(rf"(\d{{1,9}})\.({_NUMBER})\.({_NUMBER})")
OVER: Final = ":end"
"""Behind the place of the last message: who comes back with it has seen everything."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a want came to: bytes to send, what is wanted after them (None: that was all)."""

    data: bytes
    following: "Want | None"


@dataclass(frozen=True, slots=True)
class EventsWant:
    run_id: str
    after: int = 0
    seen: tuple[int, ...] = ()
    """Events behind `after` that were sent already."""

    @property
    def place(self) -> str:
        return ".".join(map(str, (self.after, *self.seen)))

    @property
    def glimpse(self) -> tuple[str, int, int]:
        return self.run_id, self.after, -1


@dataclass(frozen=True, slots=True)
class OutputWant:
    run_id: str
    start: int = 0
    """`number` of the execution; the next one if there is none of it."""

    stdout: int = 0
    stderr: int = 0
    streams: tuple[str, ...] = ("stdout", "stderr")

    @property
    def place(self) -> str:
        return f"{self.start}.{self.stdout}.{self.stderr}"

    @property
    def glimpse(self) -> tuple[str, int, int]:
        return self.run_id, -1, self.start

    def upto(self, stream: str, offset: int) -> "OutputWant":
        """Return what is wanted once a stream is sent up to this offset."""
        if stream == "stdout":
            return replace(self, stdout=offset)
        return replace(self, stderr=offset)


@dataclass(frozen=True, slots=True)
class ChangeWant:
    """
    Whether anything happened to what is a tenant's: its pages are asked for again then.

    It may miss an event that is committed behind a newer one; pages also ask from time to time.
    """

    tenant_id: str
    after: int

    @property
    def place(self) -> str:
        return str(self.after)


RunWant: TypeAlias = EventsWant | OutputWant
Want: TypeAlias = RunWant | ChangeWant
_Part: TypeAlias = tuple[str, str, int, int]
"""Execution, stream, first byte, the one behind the last."""

_Glimpses: TypeAlias = Mapping[tuple[str, int, int], Row]


def from_place(want: RunWant, place: str) -> RunWant:
    """
    Return a want that goes on where the message with this `id` ended.

    Raises:
        BadInputError: It is no id of ours.
    """
    if isinstance(want, EventsWant) and (found := _EVENTS_PLACE.fullmatch(place)):
        seen = tuple(int(text) for text in found[2].split(".")[1:])
        return replace(want, after=int(found[1]), seen=seen)
    if isinstance(want, OutputWant) and (found := _OUTPUT_PLACE.fullmatch(place)):
        start, stdout, stderr = map(int, found.groups())
        return replace(want, start=start, stdout=stdout, stderr=stderr)
    raise BadInputError(
        "Last-Event-ID: take the `id` of a message of this stream, as it is",
        field="Last-Event-ID",
    )


def message(data: Any, *, name: str = "", place: str = "") -> bytes:
    """Return one Server-Sent Event; JSON has no line breaks, so `data` is one line."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    lines = [f"event: {name}"] * bool(name) + [f"id: {place}"] * bool(place)
    return "\n".join([*lines, f"data: {text}", "", ""]).encode("utf-8", "backslashreplace")


def look(tx: Tx, wants: Sequence[Want]) -> tuple[dict[Want, Piece | None], bool]:
    """
    Return what there is for each want (None: its run is gone), and whether there is more.

    What has nothing new is not in the answer. Four statements, however many wants.
    """
    changes = [want for want in wants if isinstance(want, ChangeWant)]
    found, more = _of_runs(tx, [want for want in wants if not isinstance(want, ChangeWant)])
    return found | _changes(tx, changes), more


def _changes(tx: Tx, wants: Sequence[ChangeWant]) -> dict[Want, Piece | None]:
    if not wants:
        return {}
    newest = watching.newest_events(tx, after=min(want.after for want in wants))
    last = max(newest.values(), default=0)
    found: dict[Want, Piece | None] = {}
    for want in wants:
        mine = newest.get(want.tenant_id, 0)
        if mine > want.after:
            following = replace(want, after=max(mine, last - FAR))
            data = message({"changed": mine}, place=following.place)
            found[want] = Piece(data, following)
        elif last - want.after > FAR:
            # Others' events: no look shall have to read more and more of them.
            found[want] = Piece(b": others\n\n", replace(want, after=last))
    return found


def _of_runs(tx: Tx, wants: Sequence[RunWant]) -> tuple[dict[Want, Piece | None], bool]:
    if not wants:
        return {}, False
    glimpses = watching.glimpses(tx, [want.glimpse for want in wants])
    found: dict[Want, Piece | None] = {
        want: None for want in wants if want.glimpse not in glimpses
    }
    lines: list[EventsWant] = []
    output: list[tuple[OutputWant, list[_Part]]] = []
    for want, glimpse in ((one, glimpses[one.glimpse]) for one in wants if one not in found):
        if isinstance(want, OutputWant) and (parts := _parts(want, glimpse)):
            output.append((want, parts))
        elif isinstance(want, EventsWant) and glimpse["lines"] > len(want.seen):
            lines.append(want)
        elif (piece := _without_more(want, glimpse)) is not None:
            found[want] = piece
    more = max(len(lines), len(output)) > TURN_WANTS
    return found | _histories(tx, glimpses, lines[:TURN_WANTS]) | _outputs(
        tx, glimpses, output[:TURN_WANTS]
    ), more


def _histories(tx: Tx, glimpses: _Glimpses, wants: Sequence[EventsWant]) -> dict[Want, Piece]:
    rows = watching.events(tx, [(want.run_id, want.after) for want in wants], limit=EVENTS)
    return {
        want: _history(want, glimpses[want.glimpse], rows[want.run_id, want.after])
        for want in wants
    }


def _outputs(
    tx: Tx, glimpses: _Glimpses, wants: Sequence[tuple[OutputWant, list[_Part]]]
) -> dict[Want, Piece]:
    stored = watching.output(tx, [part for _, parts in wants for part in parts])
    pieces = (
        (want, _output(want, glimpses[want.glimpse], parts, stored)) for want, parts in wants
    )
    return {want: piece for want, piece in pieces if piece is not None}


def _without_more(want: Want, glimpse: Row) -> Piece | None:
    """Return what there is to say once all that is stored was sent."""
    if isinstance(want, OutputWant) and glimpse["x_id"] is not None:
        return _exit(want, glimpse)
    return _end(want, glimpse) if glimpse["status"] in RUN_ENDS else None


def _end(want: Want, glimpse: Row) -> Piece:
    shown = {name: glimpse[name] for name in ("status", "code", "message", "exit_code")}
    return Piece(message(shown, name="end", place=want.place + OVER), None)


def _history(want: EventsWant, glimpse: Row, rows: list[Row]) -> Piece:
    settled = {row["id"] for row in rows if row["at"] < glimpse["now_us"] - SETTLED_US}
    parts: list[bytes] = []
    for row in rows:
        if row["id"] in want.seen:
            continue
        want = _seen(want, row["id"], settled)
        shown = {"id": row["id"], **views.event_view(row)}
        parts.append(message(shown, place=want.place))
    return Piece(b"".join(parts), want)


def _seen(want: EventsWant, event_id: int, settled: set[int]) -> EventsWant:
    """Note that an event is sent; what has all its elders need not be named any more."""
    seen, after = sorted({*want.seen, event_id}), want.after
    while seen and (seen[0] in settled or len(seen) > _NEW_MAX):
        after = seen.pop(0)
    return replace(want, after=after, seen=tuple(seen))


def _parts(want: OutputWant, glimpse: Row) -> list[_Part]:
    """Return what of the output is to be read now."""
    parts = []
    for stream in want.streams:
        first, stored = _offset(want, glimpse, stream), glimpse[f"x_{stream}"] or 0
        if first < stored:
            behind = min(stored, first + PIECE_BYTES)
            parts.append((glimpse["x_id"], stream, first, behind))
    return parts


def _offset(want: OutputWant, glimpse: Row, stream: str) -> int:
    """Return how far a stream was sent; nothing of another execution than was thought."""
    return int(getattr(want, stream)) if glimpse["x_number"] == want.start else 0


def _exit(want: OutputWant, glimpse: Row) -> Piece | None:
    if glimpse["x_status"] not in EXECUTION_ENDS:
        return None
    following = replace(want, start=glimpse["x_number"] + 1, stdout=0, stderr=0)
    shown = {
        **_execution(glimpse),
        "status": glimpse["x_status"],
        "exit_code": glimpse["x_exit_code"],
        "signal": glimpse["x_signal"],
        "stdout_dropped": glimpse["x_stdout_dropped"],
        "stderr_dropped": glimpse["x_stderr_dropped"],
    }
    return Piece(message(shown, name="exit", place=following.place), following)


def _execution(glimpse: Row) -> Row:
    command = glimpse["x_command"]
    return {"start": glimpse["x_number"], "command": command, "setup": command == SETUP}


def _output(
    want: OutputWant, glimpse: Row, parts: list[_Part], stored: dict[_Part, bytes]
) -> Piece | None:
    over = glimpse["x_status"] in EXECUTION_ENDS
    if glimpse["x_number"] != want.start:
        want = replace(want, start=glimpse["x_number"], stdout=0, stderr=0)
    before = want
    sent: list[bytes] = []
    for part in parts:
        _, stream, first, behind = part
        data = stored.get(part, b"")
        if not data:
            # Retention has pruned it: nobody waits for it.
            want = want.upto(stream, behind)
            continue
        if not (over and behind == glimpse[f"x_{stream}"]):
            data = whole_letters(data)
        if not data:
            continue
        want = want.upto(stream, first + len(data))
        shown = {**_execution(glimpse), "stream": stream, "offset": first, **_text(data)}
        sent.append(message(shown, place=want.place))
    return Piece(b"".join(sent), want) if want != before else None


def _text(data: bytes) -> Row:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        exact = base64.b64encode(data).decode()
        return {"text": data.decode(errors="replace"), "base64": exact}


def whole_letters(data: bytes) -> bytes:
    """Return `data` without the beginning of a letter whose other bytes may still come."""
    for back in range(1, min(_LETTER_BYTES, len(data) + 1)):
        byte = data[-back]
        if byte < 0x80:  # noqa: PLR2004  a letter of its own
            return data
        if byte >= 0xC0:  # noqa: PLR2004  the first byte of a longer one
            wanted = 2 + (byte >= 0xE0) + (byte >= 0xF0)  # noqa: PLR2004
            return data[:-back] if back < wanted else data
    return data
