"""`client.schedules`: runs that a clock makes."""

from collections.abc import Iterator, Mapping
from typing import Any

from leasehold.client.paging import given, items, part
from leasehold.client.shapes import Schedule
from leasehold.client.wire import Wire
from leasehold.domain.fields import RunFields, as_json, body


class Schedules:
    """`client.schedules`; each is named by its name or its id."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(
        self,
        name: str,
        *,
        environment: str,
        run: RunFields | Mapping[str, Any],
        cron: str | None = None,
        at: str | None = None,
        timezone: str | None = None,
        misfire: str | None = None,
        overlap: str | None = None,
    ) -> Schedule:
        """
        Make a run each time that the cron line, or once when the moment, is due.

        Args:
            run: What its runs do: `command` or `commands`, and what else a run has.
        """
        fields: dict[str, Any] = dict(run)
        argv = fields.pop("command", None)
        more: RunFields = fields  # type: ignore[assignment]  # the API checks its fields
        asked = given(
            name=name,
            environment=environment,
            cron=cron,
            at=at,
            timezone=timezone,
            misfire=misfire,
            overlap=overlap,
            run=body(argv, more),
        )
        return self.save(as_json(asked))

    def save(self, body: Mapping[str, Any]) -> Schedule:
        """Make a schedule from a body as the API takes it."""
        return Schedule.read(self._wire.post("schedules", body))

    def get(self, name: str, *, times: int = 5) -> Schedule:
        """Return one schedule; `raw["next_times"]` has so many of its next times."""
        return Schedule.read(self._wire.get(f"schedules/{part(name)}", times=times))

    def list(self) -> Iterator[Schedule]:
        """Yield schedules, by name."""
        return map(Schedule.read, items(self._wire, "schedules", pages=False))

    def change(self, name: str, fields: Mapping[str, Any]) -> Schedule:
        """Merge fields into a schedule: None removes, what is not named stays."""
        path = f"schedules/{part(name)}"
        return Schedule.read(self._wire.ask("PATCH", path, body=as_json(fields)))

    def pause(self, name: str) -> Schedule:
        """Make no runs until it is resumed."""
        return Schedule.read(self._wire.post(f"schedules/{part(name)}/pause"))

    def resume(self, name: str) -> Schedule:
        """Make runs again; what was due meanwhile is not made up for."""
        return Schedule.read(self._wire.post(f"schedules/{part(name)}/resume"))

    def delete(self, name: str) -> Schedule:
        """Delete it; the runs that it has made go on."""
        return Schedule.read(self._wire.ask("DELETE", f"schedules/{part(name)}"))
