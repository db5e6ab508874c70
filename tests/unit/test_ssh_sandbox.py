"""
The script that makes and removes an ssh target's sandboxes, dying at each of its lines.

No connection takes part: the same argv runs here, as it would on the target.
"""

import os
import shutil
from pathlib import Path

import pytest

from leasehold.provider import (
    Acquired,
    Budget,
    Command,
    ExecutionState,
    ExecutionUnknownError,
    HealthState,
    LeaseRef,
    Polled,
    PollItem,
    ProviderError,
    ReleaseMode,
    SandboxGoneError,
    SandboxState,
    StaleFenceError,
    Target,
    UnavailableError,
    run_here,
    supervisor,
)
from leasehold.provider.supervisor import EffectLine, effect_lines, with_kill, with_trace
from leasehold_ssh import sandbox
from leasehold_ssh.channel import Answer
from leasehold_ssh.connections import Call, Connections
from leasehold_ssh.provider import SshProvider
from supervised import TTL, budget, until

LEASE = LeaseRef(id="lease-1", number=4, deployment="my tests")
MARKED = effect_lines(sandbox.script())


class Here(Connections):
    """Carries each call to this host itself, into a shell of our choice."""

    def __init__(self, shell: str = "/bin/sh") -> None:
        super().__init__()
        self._shell = shell

    def run_all(self, calls: list[Call], *, budget: Budget) -> list[Answer | ProviderError]:
        return [
            Answer(*run_here([self._shell, *c.argv[1:]], stdin=c.stdin, budget=budget))
            for c in calls
        ]


def config_for(path: Path) -> dict[str, str]:
    login = {"host": "here", "user": "me", "private_key": "none", "known_hosts": "none"}
    return {**login, "path": str(path)}


class Life:
    """One lease below a root, through providers that may run scripts that die."""

    def __init__(self, root: Path, own: str | None = None) -> None:
        self.root = root
        self.config = config_for(root)
        self.provider = SshProvider({}, own_script=own, connections=Here())
        self.handle: dict[str, object] = {}

    @property
    def target(self) -> Target:
        return Target(lease=LEASE, handle=self.handle, config=self.config)

    def acquire(self, *, fence: int = 1, known: bool = False) -> Acquired:
        made = self.provider.acquire(
            LEASE,
            self.config,
            known=self.handle if known else None,
            ttl=TTL,
            fence=fence,
            budget=budget(),
        )
        self.handle = dict(made.handle)
        return made.outcome

    def release(self, mode: ReleaseMode = ReleaseMode.DESTROY, *, fence: int = 1) -> None:
        self.provider.release(self.target, fence=fence, mode=mode, budget=budget())

    def whole(self) -> None:
        """Live from the first call to the last, ending a command on the way."""
        self.acquire()
        self.provider.renew(self.target, fence=1, ttl=TTL, budget=budget())
        self.start("x1")
        self.release()

    def start(self, name: str) -> None:
        command = Command(argv=("sleep", "60"))
        self.provider.start(
            self.target, fence=1, execution_id=name, command=command, budget=budget()
        )

    def names(self) -> list[str]:
        return sorted(os.listdir(self.root)) if self.root.exists() else []


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path / "root")


def test_a_life_passes_every_line_that_has_an_effect(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    Life(tmp_path / "root", with_trace(sandbox.script(), str(trace))).whole()
    assert {int(line) for line in trace.read_text().split()} == set(range(len(MARKED)))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("effect", MARKED, ids=lambda effect: f"{effect.index}-{effect.name}")
def test_a_script_that_dies_is_repeated_to_the_same_end(
    tmp_path: Path, effect: EffectLine, when: str
) -> None:
    root = tmp_path / "root"
    dying = Life(root, with_kill(sandbox.script(), effect.index, when))
    with pytest.raises(UnavailableError):
        dying.whole()
    after = Life(root)
    listed = list(
        after.provider.list_owned(LEASE.deployment, config=after.config, budget=budget())
    )
    for owned in listed:
        assert (owned.lease_id, owned.lease_number, owned.fence) == (LEASE.id, 4, 1)
    handle = dying.handle
    expected = Acquired.ADOPTED if listed else Acquired.CREATED
    assert after.acquire(fence=2) is expected
    if handle and listed:
        assert after.handle == handle
    seen = after.provider.inspect(after.target, budget=budget())
    assert seen.state is SandboxState.READY
    assert [name for name in after.names() if not name.startswith(".new-")] == ["sb-lease-1"]
    after.release(fence=3)
    assert after.names() == []
    after.release(fence=3)


def test_a_destroy_alone_removes_what_a_dead_acquire_left(tmp_path: Path) -> None:
    for effect in MARKED:
        dying = Life(tmp_path / "root", with_kill(sandbox.script(), effect.index, "after"))
        with pytest.raises(UnavailableError):
            dying.whole()
        Life(tmp_path / "root").release(fence=9)
        assert Life(tmp_path / "root").names() == []


def test_the_unfinished_sandbox_of_a_living_maker_is_left_to_it(life: Life) -> None:
    life.root.mkdir()
    mine = life.root / f".new-lease-1.{os.getpid()}.abc"
    dead = life.root / ".new-lease-1.999999999.abc"
    another = life.root / ".new-lease-1-2.999999999.abc"
    for path in (mine, dead, another):
        path.mkdir()
    life.acquire()
    assert life.names() == sorted([mine.name, another.name, "sb-lease-1"])
    life.release()
    assert life.names() == [another.name]


def test_another_deployments_sandbox_of_the_same_name_is_not_ours(life: Life) -> None:
    life.acquire()
    copy = Target(
        lease=LeaseRef(id=LEASE.id, number=4, deployment="a copy"),
        handle={},
        config=life.config,
    )
    with pytest.raises(UnavailableError) as refused:
        life.provider.acquire(
            copy.lease, life.config, known=None, ttl=TTL, fence=99, budget=budget()
        )
    assert not refused.value.retryable
    life.provider.release(copy, fence=99, mode=ReleaseMode.DESTROY, budget=budget())
    assert life.provider.inspect(life.target, budget=budget()).state is SandboxState.READY
    assert not list(life.provider.list_owned("a copy", config=life.config, budget=budget()))
    life.release()


def test_what_stands_in_the_way_without_a_label_is_left_alone(life: Life) -> None:
    (life.root / "sb-lease-1" / "precious").mkdir(parents=True)
    with pytest.raises(UnavailableError) as refused:
        life.acquire()
    assert not refused.value.retryable
    life.release()
    assert (life.root / "sb-lease-1" / "precious").exists()


def test_an_old_handle_leads_nowhere(life: Life) -> None:
    life.acquire()
    old = life.handle
    life.release()
    life.acquire(fence=2)
    new, life.handle = life.handle, old
    with pytest.raises(SandboxGoneError):
        life.start("x1")
    with pytest.raises(SandboxGoneError):
        life.release(ReleaseMode.KEEP, fence=9)
    life.release(fence=9)
    life.handle = new
    assert life.provider.inspect(life.target, budget=budget()).state is SandboxState.READY
    life.release(fence=2)


def test_a_stale_holder_is_refused_by_each_verb(life: Life) -> None:
    life.acquire(fence=5)
    with pytest.raises(StaleFenceError):
        life.acquire(fence=4)
    for mode in ReleaseMode:
        with pytest.raises(StaleFenceError):
            life.release(mode, fence=4)
    with pytest.raises(StaleFenceError):
        life.provider.renew(life.target, fence=4, ttl=TTL, budget=budget())
    life.release(fence=5)


def test_an_odd_id_and_an_odd_path_are_names_all_the_same(tmp_path: Path) -> None:
    config = config_for(tmp_path / "a b'c$d\"e")
    provider = SshProvider({}, connections=Here())
    lease = LeaseRef(id="../odd id\n%41=", number=1, deployment="x y=%20")
    made = provider.acquire(lease, config, known=None, ttl=TTL, fence=1, budget=budget())
    (owned,) = provider.list_owned("x y=%20", config=config, budget=budget())
    assert owned.lease_id == lease.id
    target = Target(lease=lease, handle=made.handle, config=config)
    provider.start(
        target,
        fence=1,
        execution_id="x1",
        command=Command(argv=("echo", "hello")),
        budget=budget(),
    )
    item = PollItem(target=target, execution_id="x1", handle={})

    def ended() -> bool:
        (polled,) = provider.poll([item], limit_bytes=99, budget=budget())
        return polled.state is ExecutionState.EXITED and polled.stdout == b"hello\n"

    until(lambda: ended() or None)
    provider.release(target, fence=1, mode=ReleaseMode.DESTROY, budget=budget())
    assert list(Path(config["path"]).iterdir()) == []


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_each_shell_that_a_target_may_have_does_it_all(tmp_path: Path, shell: str) -> None:
    program, path = shutil.which(shell), "/usr/local/bin:/usr/bin:/bin"
    if program is None:
        pytest.skip(f"no {shell} on this machine")
    if shell == "busybox":
        applets = tmp_path / "applets"
        applets.mkdir()
        run_here([program, "--install", "-s", str(applets)], stdin=b"", budget=budget())
        program = path = str(applets)
        program += "/sh"
    own, text = (
        f"PATH={path}\n{part}".replace("/bin/sh", program)
        for part in (sandbox.script(), supervisor.script())
    )
    life = Life(tmp_path / "root")
    life.provider = SshProvider({}, script=text, own_script=own, connections=Here(program))
    assert life.provider.probe(life.config, budget=budget()).state is HealthState.HEALTHY
    assert life.acquire() is Acquired.CREATED
    assert life.acquire(fence=2) is Acquired.ADOPTED
    life.release(ReleaseMode.SUSPEND, fence=3)
    assert life.acquire(fence=4, known=True) is Acquired.RESUMED
    for name, script in (
        ("x1", "echo out; echo err >&2; exit 3"),
        ("x2", ":"),
        ("x3", "exec cat"),
    ):
        life.provider.start(
            life.target,
            fence=4,
            execution_id=name,
            command=Command(argv=("sh", "-c", script), stdin=b"\0\n" * 5),
            budget=budget(),
        )
    items = [PollItem(target=life.target, execution_id=f"x{n}", handle={}) for n in range(1, 5)]

    def poll() -> list[Polled]:
        return list(life.provider.poll(items, limit_bytes=7, budget=budget()))

    until(lambda: [one.state for one in poll()[:3]] == [ExecutionState.EXITED] * 3 or None)
    one, two, three, four = poll()
    assert one.exit is not None
    assert (one.exit.code, one.stdout, one.stderr) == (3, b"out\n", b"err\n")
    assert (two.stdout, two.stderr) == (b"", b"")
    assert three.stdout == (b"\0\n" * 5)[:7]
    assert isinstance(four.error, ExecutionUnknownError)
    (owned,) = life.provider.list_owned(LEASE.deployment, config=life.config, budget=budget())
    assert (owned.lease_id, owned.fence) == (LEASE.id, 4)
    life.release(fence=5)
    assert life.names() == []


def test_what_a_command_locked_is_removed_all_the_same(life: Life) -> None:
    life.acquire()
    work = life.root / "sb-lease-1" / str(life.handle["incarnation"]) / "work"
    (work / "a" / "b").mkdir(parents=True)
    (work / "a" / "b" / "file").touch()
    (work / "link").symlink_to("/")
    (work / "a" / "b").chmod(0)
    (work / "a").chmod(0)
    life.release()
    assert life.names() == []


def test_a_sandbox_whose_control_files_were_removed_can_be_destroyed(life: Life) -> None:
    """A command has the account's rights, these files included."""
    life.acquire()
    control = life.root / "sb-lease-1" / str(life.handle["incarnation"]) / "control"
    (control / "x").rmdir()
    assert life.provider.inspect(life.target, budget=budget()).state is SandboxState.GONE
    life.release()
    assert life.names() == []


def test_a_listing_that_was_cut_short_is_no_listing(life: Life) -> None:
    life.acquire()
    told = life.provider._ask(
        life.config, "list", str(life.root), sandbox.word(LEASE.deployment), budget=budget()
    )
    assert len(list(sandbox.owned(told, life.config, "here"))) == 1
    for size in range(len(told.out)):
        cut = Answer(0, told.out[:size], b"")
        with pytest.raises(UnavailableError):
            list(sandbox.owned(cut, life.config, "here"))
    life.release()
