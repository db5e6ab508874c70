"""One sandbox of the bubblewrap provider under test; in the end nothing of it may be left."""

import re
import shutil
from pathlib import Path
from typing import Any, Final

import leasehold_bubblewrap
import leasehold_local
from leasehold.provider import Polled
from leasehold.provider.conformance.leaks import names_below, processes_below
from leasehold_bubblewrap import engine, filters
from leasehold_bubblewrap.config import Ground
from leasehold_bubblewrap.provider import BubblewrapProvider
from local_world import DEPLOYMENT, World, until
from services import MissingServiceError, missing

_PACKAGES: Final = tuple(
    Path(package.__file__ or "").parent for package in (leasehold_local, leasehold_bubblewrap)
)
_MARK: Final = re.compile(r"# @ (\w+)$")


def require_bubblewrap() -> None:
    """Skip loudly where `bwrap` cannot be used; fail where services are required."""
    try:
        filters.filter_of_calls()
        why = engine.known().trouble
    except filters.NoFilterError as error:
        why = str(error)
    if why is not None:
        missing(MissingServiceError(f"bubblewrap: {why}"))


def provider(root: Path, **more: Any) -> BubblewrapProvider:
    return BubblewrapProvider(root=root, deployment=DEPLOYMENT, host_id="host-1", **more)


def bare(root: Path) -> Ground:
    """Return a host without any cgroup."""
    return Ground(
        tree=None, memory=None, pids=None, cpu=None, root=str(root), owner=engine.known().owner
    )


class Fenced(World):
    """A world whose commands run behind bubblewrap."""

    def shell(self, script: str, *, name: str | None = None, **more: Any) -> Polled:
        """Run a shell script to its end."""
        self._count = getattr(self, "_count", 0) + 1
        return self.run(name or f"sh-{self._count}", "sh", "-c", script, **more)

    def said(self, script: str, **more: Any) -> str:
        """Run a shell script; return what it wrote to both of its outputs."""
        done = self.shell(script, **more)
        return (done.stdout + done.stderr).decode()

    def end(self) -> None:
        self.destroy()
        self.provider.close()
        until(lambda: not processes_below(self.root), "no process is left")
        assert names_below(self.root) == [], "the root is empty again"
        for base in self.provider._ground.bases():
            assert not Path(base).exists(), "no cgroup of ours is left"


def marked_lines() -> list[tuple[str, int, str]]:
    """Return (file, line, name) of every effect of a supervisor and its children."""
    return [
        (f"{package.name}/{file}", number, match[1])
        for package, files in zip(
            _PACKAGES,
            (("supervisor.py", "command.py"), ("supervisor.py", "joining.py", "gate.py")),
            strict=True,
        )
        for file in files
        for number, line in enumerate((package / file).read_text().splitlines())
        if (match := _MARK.search(line))
    ]


def killing_copy(folder: Path, file: str, line: int, when: str) -> Path:
    """Return a source directory in which a process kills itself before or after one line."""
    for package in _PACKAGES:
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__py*"))
    path = folder / file
    lines = path.read_text().splitlines()
    indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
    reach = f"os.open({str(folder / 'reached')!r}, os.O_WRONLY | os.O_CREAT, 0o600)"
    inside = file.endswith("joining.py")
    # Within the sandbox's namespaces the file is out of sight: it is opened before.
    told = "os.write(os.flag, b'x')" if inside else f"os.close({reach})"
    place = line if when == "before" else line + 1
    lines.insert(place, f"{indent}{told}; os.kill(os.getpid(), 9)")
    if inside:
        first = lines.index("        os.setsid()")
        lines.insert(first, f"        os.flag = {reach}")
    path.write_text("\n".join(lines) + "\n")
    return folder
