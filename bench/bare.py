"""
The yardstick: a bare Celery chain of five tasks that do nothing, at its best setting.

`solo` workers, one message each, no results, no gossip: nothing durable, nothing leased. Its
workers wait on an empty queue first, so that their start is not measured; then the chains lie
ready and the workers are told to consume them.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Final

import redis
from celery import Celery, chain

import meter

STEPS: Final = 5
QUEUE: Final = "bench"
WARM: Final = "warm"
TASK: Final = "bare.step"
BROKER: Final = "BENCH_BROKER_URL"
_GIVE_UP_S: Final = 600.0


def make(url: str) -> Celery:
    """Return the application; a driver makes one per broker, since it keeps connections."""
    made = Celery("bare", broker=url)
    made.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        result_backend=None,
        task_default_queue=WARM,
        task_acks_late=False,
        worker_prefetch_multiplier=4,
        worker_hijack_root_logger=False,
    )
    return made


app: Final = make(os.environ.get(BROKER, "memory://"))
"""The workers' own."""


@app.task(name=TASK)
def step() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Bare:
    """What one bare drain did."""

    workers: int
    chains: int
    chains_per_s: float
    worker_cpu_ms: float
    broker_cpu_ms: float


def measure(url: str, broker_pid: int, *, workers: int, chains: int) -> Bare:
    """Let `workers` processes drain so many chains; the broker's database is emptied."""
    os.environ[BROKER] = url
    driver = make(url)
    client = redis.Redis.from_url(url)
    client.flushdb()
    started = [_start(number) for number in range(workers)]
    try:
        _wait_ready(driver, workers)
        _fill(driver, WARM, 20)
        _wait_empty(client, WARM)
        _fill(driver, QUEUE, chains)
        pids = [child.pid for child in started]
        cpu, broker = meter.cpu_s(pids), meter.cpu_s([broker_pid])
        began = monotonic()
        driver.control.add_consumer(QUEUE, reply=False)
        ended = _wait_empty(client, QUEUE)
        cpu, broker = meter.cpu_s(pids) - cpu, meter.cpu_s([broker_pid]) - broker
        _check(driver, (chains + 20) * STEPS)
    finally:
        for child in started:
            child.send_signal(signal.SIGKILL)
            child.wait()
        client.flushdb()
        client.close()
        driver.close()
    spent = ended - began
    return Bare(workers, chains, chains / spent, cpu / chains * 1e3, broker / chains * 1e3)


def _start(number: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "celery", "-A", "bare", "--quiet", "worker"]
    command += ["--pool=solo", f"--queues={WARM}", f"--hostname=bare{number}@bench"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"]
    return subprocess.Popen(
        command,
        cwd=os.path.dirname(os.path.abspath(__file__)),  # noqa: PTH100, PTH120  a plain name
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait_ready(driver: Celery, workers: int) -> None:
    until = monotonic() + 60
    while len(driver.control.ping(timeout=0.5) or ()) < workers:
        if monotonic() > until:
            raise SystemExit("bench: the bare workers did not get ready")


def _fill(driver: Celery, queue: str, chains: int) -> None:
    links = [driver.signature(TASK, immutable=True, queue=queue) for _ in range(STEPS)]
    with driver.producer_or_acquire() as producer:
        for _ in range(chains):
            chain(*links).apply_async(producer=producer)


def _wait_empty(client: "redis.Redis", queue: str) -> float:
    """Wait until nothing lies in a queue and nothing was taken from it; return when."""
    until, seen, empty_at = monotonic() + _GIVE_UP_S, 0, 0.0
    while seen < 3:
        left: Any = client.llen(queue) or client.hlen("unacked")
        if left:
            seen = 0
        elif not seen:
            empty_at = monotonic()
            seen = 1
        else:
            seen += 1
        if monotonic() > until:
            raise SystemExit(f"bench: the bare chain did not end in {_GIVE_UP_S:g} s")
        sleep(0.01)
    return empty_at


def _check(driver: Celery, tasks: int) -> None:
    """Refuse a figure of chains that did not run to their end."""
    stats = driver.control.inspect(timeout=2.0).stats() or {}
    done = sum(int(one["total"].get(TASK, 0)) for one in stats.values())
    if done != tasks:
        raise SystemExit(f"bench: the bare chain ran {done} of {tasks} tasks")
