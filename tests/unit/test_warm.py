"""A spare worker has imported everything before it is needed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

PROGRAM: Final = """
import sys
from leasehold import bootstrap, settings
from leasehold.agent import child

found = settings.load()
child.warm(found)
before = set(sys.modules)
registry = bootstrap.build(found).registry("host-1")
assert {"local", "fake_plugin"} <= set(registry.keys()), registry.failures
print(*sorted(name for name in set(sys.modules) - before if name.startswith("leasehold")))
"""


def test_a_warm_worker_imports_nothing_of_its_plugins_when_it_is_needed(
    tmp_path: Path,
) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LEASEHOLD_")}
    env = kept | {
        "LEASEHOLD_HOME": str(tmp_path),
        "LEASEHOLD_BROKER_URL": "redis://127.0.0.1:1",  # nothing is connected to
    }
    said = []
    for program in (["-m", "leasehold", "db", "upgrade"], ["-c", PROGRAM]):
        done = subprocess.run(
            [sys.executable, *program], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[1].split() == []
