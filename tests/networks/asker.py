"""
One worker that carries one run to its end, wherever it is started; a program of its own.

It is given a cell, settings and what to run, as JSON; it says, as JSON, what came of it.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from crash.harness import SETTINGS, Cell, Engine
from leasehold import reaching
from leasehold.domain.specs import EnvironmentSpec, parse
from leasehold.orchestrator import submit
from leasehold.store import executions, reports
from leasehold.store.sql import load

REPORT = """
if [ -n "$LEASEHOLD_API_URL" ]; then
    curl -fsS -m 20 "$LEASEHOLD_API_URL/api/v1/run/helper.sh" >helper.sh
    sh helper.sh progress 7 >said
fi
echo "url=$LEASEHOLD_API_URL"
"""


def carry(asked: dict[str, Any]) -> dict[str, Any]:
    """Run what is asked for; return how it ended and what its sandbox was asked."""
    cell, name = Cell(Path(asked["cell"])), asked["name"]
    engine = Engine(cell, name)
    home = {"home": cell.path / "elsewhere"}
    engine.context.reach = reaching.of(SETTINGS.model_copy(update=asked["settings"] | home))
    engine.boot()
    with engine.database.write("test") as tx:
        spec = {"name": name, "provider": asked["provider"], "config": asked["config"]}
        submit.create_environment(tx, parse(EnvironmentSpec, spec), tenant_id="default")
    began = time.monotonic()
    engine.submit(name, [["sh", "-c", REPORT]], environment=name)
    engine.until(lambda: engine.over(name) and engine.quiet(), within_s=90)
    took_s = time.monotonic() - began
    run = engine.run(name)
    assert run is not None
    with engine.database.read() as tx:
        report = reports.find(tx, run["id"])
        starts = executions.of_run(tx, run["id"])
        said = executions.output(
            tx, starts[-1]["id"], stream="stdout", offset=0, limit_bytes=1000
        )
        facts = load(tx.value("SELECT facts FROM leases WHERE run_id = :run", run=run["id"]))
    engine.bury(name)
    engine.close()
    return {
        "status": run["status"],
        "code": run["code"],
        "runtime": facts.get("runtime"),
        "stdout": said.decode(),
        "percent": report and report["percent"],
        "took_s": took_s,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(carry(json.loads(sys.argv[1]))))
