"""What people and programs are shown of schedules; as in `store.views`."""

from leasehold.domain.schedules import coming
from leasehold.store.database import Row
from leasehold.store.sql import load
from leasehold.store.views import Shape, iso


def schedule_view(row: Row, *, times: int = 0) -> Shape:
    """
    Return what is shown of one schedule; of variables only their names.

    Args:
        times: So many of its next times are shown as well.
    """
    spec = load(row["spec"])
    shape: Shape = {
        "id": row["id"],
        "name": row["name"],
        "status": row["status"],
        "cron": row["cron"],
        "at": iso(row["at"]),
        "timezone": row["timezone"],
        "environment": row["environment"],
        "misfire": row["misfire"],
        "overlap": row["overlap"],
        "next_at": iso(row["next_at"]),
        "last_at": iso(row["last_at"]),
        "last_run_id": row["last_run_id"],
        "last_error": row["last_error"],
        "fired": row["fired"],
        "run": _run(spec),
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }
    if times:
        shape["next_times"] = [iso(at) for at in _coming(row, times)]
    return shape


def _coming(row: Row, count: int) -> list[int]:
    return coming(row, now_us=row["now_us"], count=count)


def _run(spec: Shape) -> Shape:
    shown = {name: value for name, value in spec.items() if name not in {"env", "setup"}}
    shown["commands"] = [
        {"argv": one["argv"], "cwd": one.get("cwd"), "env_names": sorted(one.get("env") or {})}
        for one in spec["commands"]
    ]
    return shown | {"env_names": sorted(spec.get("env") or {})}
