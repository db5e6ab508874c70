"""A small Celery application for the broker's tests; a worker process loads it by name."""

import os
import threading
from pathlib import Path

from celery import Celery


def make(url: str | None) -> Celery:
    """Build an application on one broker."""
    made = Celery("broker_probe", broker=url, set_as_current=False)
    made.conf.update(
        broker_transport_options={
            "visibility_timeout": 2,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
        },
        broker_connection_retry_on_startup=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
    )
    return made


app = make(os.environ.get("PROBE_BROKER_URL"))


@app.task(name="probe.write")
def write(path: str, word: str) -> None:
    """Append one line to a file, which is all that the tests look at."""
    with Path(path).open("a", encoding="utf-8") as out:
        out.write(f"{word}\n")


@app.task(name="probe.hold", acks_late=True)
def hold(path: str, *, first_only: str) -> None:
    """Say that we began; the first one to come holds its message for ever."""
    write(path, "began")
    try:
        Path(first_only).touch(exist_ok=False)
    except FileExistsError:
        write(path, "ended")
    else:
        threading.Event().wait()
