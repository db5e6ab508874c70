"""
When a schedule is due: a cron line or one moment, read in a time zone.

Times are read as Debian's cron reads them (`cronsim`), so a night in which clocks are changed
neither loses a job nor does it twice:

- A fixed time that does not exist (02:30 when clocks go from 02:00 to 03:00) is due at once
  after the gap, at 03:00; one that is there twice is due the first time only.
- With ``*`` or ``*/n`` for the minute or the hour it is due by the time that passes: what does
  not exist is left out, and what is there twice is due twice.

One moment is refused if its local time does not exist, and is the first of two.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, Final, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from leasehold.domain.specs import Name, RunSpec, Spec, Text

FIELDS: Final = 5
FEW: Final = 100
"""So many missed times are made up for at most, the newest."""

LATE: Final = timedelta(seconds=60)
"""What is found due later than this was missed: no clock turned then."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Misfire(StrEnum):
    """What becomes of times at which no clock turned."""

    SKIP = "skip"
    """Nothing."""

    ONCE = "once"
    """One run for all of them."""

    ALL = "all"
    """A run for each, the newest hundred."""


class Overlap(StrEnum):
    """What becomes of a time at which the run before is not over."""

    ALLOW = "allow"
    SKIP = "skip"


def _is_cron(text: str) -> str:
    if len(text.split()) != FIELDS:
        raise ValueError(
            "must have five fields: minute, hour, day of the month, month, day of the week"
        )
    try:
        next(CronSim(text, datetime(2000, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"is no cron line: {str(error).lower()}") from None
    except StopIteration:
        raise ValueError("is never due") from None
    return text


def _is_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ValueError('must be a time zone such as "Europe/Berlin" or "UTC"') from None
    return text


def _is_moment(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError('must be a time such as "2026-12-24T18:00"')  # noqa: TRY004  pydantic's
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError('must be a time such as "2026-12-24T18:00"') from None
    return moment.isoformat()


class ScheduleSpec(Spec):
    """What a person may ask for."""

    name: Name
    cron: Annotated[Text, Field(max_length=200), AfterValidator(_is_cron)] | None = None
    """Five fields, as in crontab(5)."""

    at: Annotated[str, BeforeValidator(_is_moment)] | None = None
    """One moment, ISO 8601; without an offset it is read in `timezone`."""

    timezone: Annotated[Text, Field(max_length=64), AfterValidator(_is_zone)] = "UTC"
    environment: Annotated[Text, Field(min_length=1, max_length=100)]
    """Its name or id; looked up each time."""

    run: RunSpec
    misfire: Misfire = Misfire.ONCE
    overlap: Overlap = Overlap.ALLOW

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.cron is None) == (self.at is None):
            raise ValueError("give a cron line or one moment (at)")
        if self.at is not None and not _exists(self.at, self.timezone):
            raise ValueError(f"at: {self.at} does not exist in {self.timezone}")
        return self

    def at_us(self) -> int | None:
        """Return the one moment in microseconds."""
        return None if self.at is None else micros_of(_local(self.at, self.timezone))


class ScheduleChange(Spec):
    """What of a schedule is to be different; what is not given stays, null removes."""

    cron: Annotated[Text, Field(max_length=200), AfterValidator(_is_cron)] | None = None
    """In the place of a moment, too."""

    at: Annotated[str, BeforeValidator(_is_moment)] | None = None
    """In the place of a cron line, too."""

    timezone: Annotated[Text, Field(max_length=64), AfterValidator(_is_zone)] = "UTC"
    environment: Annotated[Text, Field(min_length=1, max_length=100)] = ""
    run: dict[str, Any] = Field(default_factory=dict)
    """Merged into what its runs do; lists, such as `commands`, are replaced."""

    misfire: Misfire = Misfire.ONCE
    overlap: Overlap = Overlap.ALLOW
    paused: bool = False


def _local(at: str, timezone: str) -> datetime:
    moment = datetime.fromisoformat(at)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=ZoneInfo(timezone))


def _exists(at: str, timezone: str) -> bool:
    moment = _local(at, timezone)
    there = moment.astimezone(UTC).astimezone(moment.tzinfo)
    return there.replace(tzinfo=None) == moment.replace(tzinfo=None)


def micros_of(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(micros: int, timezone: str) -> datetime:
    """Return a stored time as one of a time zone."""
    return (_EPOCH + timedelta(microseconds=micros)).astimezone(ZoneInfo(timezone))


def after(cron: str, timezone: str, *, after_us: int) -> Iterator[int]:
    """Yield the times after a moment, in microseconds, each later than the one before."""
    last = after_us
    for moment in CronSim(cron, moment_of(after_us, timezone)):
        # In an hour that is there twice a fixed time comes again as that of the first.
        if (at := micros_of(moment)) > last:
            yield at
            last = at


def first_after(cron: str | None, timezone: str, *, after_us: int) -> int | None:
    """Return the first time after a moment; None: there is none any more."""
    return None if cron is None else next(after(cron, timezone, after_us=after_us), None)


def due(cron: str | None, timezone: str, *, from_us: int, now_us: int) -> list[int]:
    """Return the times from a due one until now, the oldest first: at most the newest few."""
    if cron is None:
        return [from_us]
    # Of a moment that is due itself, the one before it is asked for from just behind it.
    start = moment_of(now_us + 60_000_000, timezone)
    found: list[int] = []
    for moment in CronSim(cron, start, reverse=True):
        at = micros_of(moment)
        if at < from_us or len(found) == FEW:
            break
        if at <= now_us and (not found or at < found[-1]):
            found.append(at)
    return found[::-1] or [from_us]


def coming(row: Any, *, now_us: int, count: int) -> list[int]:
    """Return the next times of a schedule's row."""
    if row["next_at"] is None:
        return []
    if row["cron"] is None:
        return [row["next_at"]]
    rest = after(row["cron"], row["timezone"], after_us=max(row["next_at"], now_us))
    return [row["next_at"], *islice(rest, count - 1)]
