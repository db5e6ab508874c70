"""
One chaos from beginning to end: a stack of its own, work, quiet, faults, quiet, the verdict.

Everything that is started is ended by `Stage.close`, in every case, also on Ctrl-C: agents,
commands (by the mark in their environment), servers, mounts, namespaces, cgroups, files.
"""

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from chaos.checks import sandboxes_of
from chaos.hosts import Host, end_processes
from chaos.monkey import Monkey, World
from chaos.network import Wire
from chaos.plan import WARM_S, Plan, Times
from chaos.recovery import Watch
from chaos.servers import BrokerServer, PostgresServer, real_broker
from chaos.work import Feeder, submit_context
from leasehold import bootstrap, log, transport
from leasehold import settings as knobs
from leasehold.embedded import broker
from leasehold.errors import StoreUnavailableError
from leasehold.store import hosts as host_rows
from leasehold.store import leases, schema
from leasehold.store.database import Database
from leasehold_local import cgroups

TIMERS: Final = {
    "host_grace": 15,
    "heartbeat_max": 3,
    "sweep_every": 15,
    "sweep_grace": 10,
    "cleanup_retry_max": 10,
    "retry_max": 10,
    "republish_max": 10,
}
"""The promises' own timers are the defaults; what only bounds a wait is short here."""

INTERVAL_S: Final = float(TIMERS["heartbeat_max"])
READY_S: Final = 240.0
DRAIN_S: Final = 150.0
QUOTA_MIB: Final = 256
ONLY_KILLS: Final = 0.35
"""The part of the faults' time in which nothing but workers is killed."""

_HOSTS: Final = ("plain", "cut", "quota")


@dataclass
class Stage:
    """The private stack, and what is done with it."""

    plan: Plan
    say: Callable[[str], None]
    times: Times = field(default_factory=Times)
    loud: list[str] = field(default_factory=list)
    """What could not be done here as it should."""

    at_once: int = 0
    """Runs on their way when the faults began."""

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self.root = Path(tempfile.mkdtemp(prefix="leasehold-chaos-"))
        self.root.chmod(0o711)
        self._stack.callback(self._remove)
        self._environment_before = dict(os.environ)
        self.hosts: list[Host] = []
        self.marks = self.root / "marks"
        self.marks.mkdir()
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _remove(self) -> None:
        if self.plan.keep:
            self.say(f"kept: {self.root}")
        else:
            shutil.rmtree(self.root, ignore_errors=True)

    def _build(self) -> None:
        production = self.plan.stack == "production"
        self.postgres = PostgresServer() if production else None
        if self.postgres is not None:
            self._stack.callback(self.postgres.close)
        self.broker = BrokerServer(real_broker() if production else broker.choose())
        self._stack.callback(self.broker.close)
        wire = self._wire()
        database = self._database_url()
        home = self.root / "home"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LEASEHOLD_")},
            "LEASEHOLD_HOME": str(home),
            "LEASEHOLD_ALLOW_FAKE": "true",
            "LEASEHOLD_LOG_JSON": "true",
            "LEASEHOLD_LOG_LEVEL": "INFO",
            "LEASEHOLD_TIMERS": json.dumps(TIMERS),
            "LEASEHOLD_HOST_CAPACITY": str(self.plan.load),
        }
        urls = {
            "LEASEHOLD_DATABASE_URL": database,
            "LEASEHOLD_BROKER_URL": self.broker.url(),
        }
        self._prepare(environment | urls)
        shared = self.root / "shared-world"
        shared.mkdir()
        for name in _HOSTS:
            own = dict(urls)
            if name == "cut":
                own |= self._through(wire)
            out = self._stack.enter_context((self.root / f"{name}.log").open("ab"))
            host = Host(
                name,
                self.root / name,
                environment=environment | own,
                wire=wire if name == "cut" else None,
                processes=self.plan.processes,
                log=out,
            )
            self.hosts.append(host)
            if name == "quota":
                self._limit(host)
            # The remote world: every host reaches the same one.
            (host.place / "sandboxes").mkdir()
            (host.place / "sandboxes" / "fake").symlink_to(shared)

    def _wire(self) -> Wire:
        targets = [self.broker.port]
        if self.postgres is not None:
            targets.append(self.postgres.port)
        wire = Wire(targets)
        self.say(f"the host `cut` is cut off by: {wire.kind}")
        if "proxy" in wire.kind:
            self.loud.append(f"cut off by {wire.kind}")
        return wire

    def _through(self, wire: Wire) -> dict[str, str]:
        """Return the addresses as the host on the wire sees them."""
        door = wire.door(self.broker.port)
        found = {"LEASEHOLD_BROKER_URL": self.broker.url(wire.address, door)}
        if self.postgres is not None:
            door = wire.door(self.postgres.port)
            found["LEASEHOLD_DATABASE_URL"] = self.postgres.url(wire.address, door)
        return found

    def _limit(self, host: Host) -> None:
        host.limit_disk(QUOTA_MIB)
        if host.quota is not None:
            self.say(f"the disk of the host `quota` is a tmpfs of {QUOTA_MIB} MiB")
        else:
            self.loud.append(f"no disk was filled: {host.no_quota}")
            self.say(self.loud[-1])

    def _database_url(self) -> str:
        if self.postgres is not None:
            return self.postgres.url()
        return f"sqlite:///{self.root / 'leasehold.db'}"

    def _prepare(self, environment: dict[str, str]) -> None:
        """Migrate, and build our own door."""
        for name in [name for name in os.environ if name.startswith("LEASEHOLD_")]:
            del os.environ[name]
        ours = {k: v for k, v in environment.items() if k.startswith("LEASEHOLD_")}
        ours["LEASEHOLD_HOST_ROOT"] = str(self.root / "door")
        os.environ |= ours
        log.configure(level="ERROR")
        settings = knobs.load()
        database = Database(settings.database_address)
        schema.upgrade(database)
        self.app = bootstrap.build(settings, database=database, pool_size=8)
        self._stack.callback(database.close)
        self.feeder = Feeder(
            app=self.app,
            context=submit_context(self.app, transport.publisher(settings)),
            marks=self.marks,
            rate=self.plan.rate,
            limit=self.plan.load,
            rng=random.Random(self.plan.seed),  # noqa: S311  repeatable
        )

    def look(self) -> None:
        for host in self.hosts:
            host.look()

    def wait(self, seconds: float, *, each: Callable[[], None] = lambda: None) -> None:
        """Let time pass while systemd looks after the agents."""
        until = monotonic() + seconds
        while monotonic() < until:
            self.look()
            each()
            sleep(0.02)

    def until(self, what: str, found: Callable[[], bool], *, within_s: float) -> bool:
        """Wait for a condition; false if it did not come in time."""
        until = monotonic() + within_s
        while monotonic() < until:
            self.look()
            with suppress(StoreUnavailableError):
                if found():
                    return True
            sleep(0.1)
        self.say(f"not within {within_s:g} s: {what}")
        return False

    def ready(self) -> bool:
        """Tell whether every host has workers that consume."""
        with self.app.database.read() as tx:
            rows = host_rows.ready_workers(tx)
            by_id = {row["id"]: row["host_id"] for row in host_rows.workers(tx)}
        seen = {(by_id.get(row["id"]), row["kind"]) for row in rows}
        wanted = {(host.id, kind) for host in self.hosts for kind in ("steps", "beats")}
        return wanted <= seen

    def _last_words(self) -> str:
        """Return the end of every host's log."""
        logs = [self.root / f"{host.name}.log" for host in self.hosts]
        return "\n".join(path.read_text(errors="replace")[-1500:] for path in logs)

    def now_us(self) -> int:
        with self.app.database.read() as tx:
            return tx.now()

    def play(self) -> tuple[Monkey, Watch]:
        """Play all phases; afterwards everything is quiet and every agent has drained."""
        for host in self.hosts:
            host.start()
        if not self.until("ready workers", self.ready, within_s=READY_S):
            raise TimeoutError(f"the hosts did not get ready:\n{self._last_words()}")
        self.feeder.furnish()
        self.feeder.start()
        self.say(
            f"{self.plan.rate:g} runs arrive in a second, at most {self.plan.load} at once"
        )
        self.wait(WARM_S)
        began = self.now_us()
        self.wait(self.plan.before_s)
        self.times.before = began, self.now_us()
        self.at_once = self.feeder.live()
        monkey = self._faults()
        began = self.now_us()
        self.wait(self.plan.after_s)
        self.times.after = began, self.now_us()
        self.feeder.stop()
        self.settle()
        monkey.watch.stop()
        return monkey, monkey.watch

    def _faults(self) -> Monkey:
        watch = Watch(self.app.database)
        monkey = Monkey(
            world=World(
                self.hosts,
                self.broker,
                self.postgres,
                self.app.database,
                marks=self.marks,
                may_lose=lambda name: self.feeder.named[name].idempotent,
            ),
            rng=random.Random(self.plan.seed * 7919 + 1),  # noqa: S311  repeatable
            watch=watch,
            kill_every_s=self.plan.kill_every_s,
            fault_every_s=self.plan.fault_every_s,
            only_kills_s=self.plan.faults_s * ONLY_KILLS,
            say=lambda name: self.say(f"  fault: {name}"),
        )
        watch.troubled = monkey.troubled
        watch.start()
        self.say(f"faults for {self.plan.faults_s:.0f} s")
        try:
            self.wait(self.plan.faults_s, each=monkey.turn)
        finally:
            # What was broken is mended in any case, each at its own time.
            until = monotonic() + 60
            while not monkey.is_quiet and monotonic() < until:
                self.wait(0.05, each=monkey.resume)
        for host in self.hosts:
            host.held = False
        self.say(f"quiet again: {sum(monkey.kills.values())} processes were killed")
        return monkey

    def settle(self) -> None:
        """Let every run end, every sandbox go, and every agent drain."""
        self._until_over()

        def rests() -> bool:
            with self.app.database.write("chaos.release") as tx:
                for row in leases.page(tx, tenant_id="default", live=True, limit=1000):
                    if row["status"] == "idle":
                        leases.expire_now(tx, row["id"])
            return not self.live_leases()

        self.until("the release of all leases", rests, within_s=DRAIN_S)

        def clean() -> bool:
            return not any(sandboxes_of(host.place) for host in self.hosts)

        # What a kill left half-made is the sweep's, within its interval and grace.
        swept_s = 2 * (TIMERS["sweep_every"] + TIMERS["sweep_grace"])
        self.until("clean disks", clean, within_s=float(swept_s))
        for host in self.hosts:
            if not host.stop(within_s=60):
                self.say(f"the agent of {host.name} did not drain and was killed")

    def _until_over(self) -> None:
        """Wait until all runs are over, as long as some come to their end."""
        left = self.feeder.limit * 2
        while self.until(
            f"fewer than {left} runs",
            lambda most=left: self.feeder.live() < most,  # type: ignore[misc]  # bound now
            within_s=DRAIN_S,
        ):
            left = self.feeder.live()
            if not left:
                return

    def live_leases(self) -> list[str]:
        with self.app.database.read() as tx:
            rows = leases.page(tx, tenant_id="default", live=True, limit=1000)
        return [str(row["id"]) for row in rows]

    def commands(self) -> list[str]:
        """Return the processes of commands that still run."""
        mark = f"MARKS={self.marks}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (path / "environ").read_bytes():
                    words = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(f"{path.name} {words[:80].decode(errors='replace')}")
        return found

    def close(self) -> None:
        """Leave nothing behind, however far it came."""
        if hasattr(self, "feeder"):
            self.feeder.stop()
        for host in self.hosts:
            with suppress(OSError):
                host.close()
        end_processes(f"MARKS={self.marks}".encode(), but=lambda pid: pid == os.getpid())
        if hasattr(self, "app"):
            self._remove_groups()
        self._stack.close()
        os.environ.clear()
        os.environ |= self._environment_before

    def _remove_groups(self) -> None:
        """Remove the cgroups of our hosts; they are empty if all went well."""
        for host in self.hosts:
            root = host.place / "sandboxes" / "local"
            key = f"{self.app.deployment}\0{root}".encode()
            base = cgroups.find_tree(f"leasehold-{hashlib.sha256(key).hexdigest()[:12]}")
            if base and os.path.isdir(base):  # noqa: PTH112  as the plugin names it
                cgroups.kill(base)
                until = monotonic() + 5
                while not cgroups.remove(base) and monotonic() < until:
                    sleep(0.05)
