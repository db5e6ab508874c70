"""Gathers what the checks look at: the store's rows, the marks, the disks, the processes."""

from collections import defaultdict
from typing import Any, Final

from chaos import checks
from chaos.checks import Breach, Execution, Facts
from chaos.play import Stage
from chaos.work import marks_of, strangers
from leasehold.store import executions, history, invariants
from leasehold.store.database import Row, Tx

PAGE: Final = 200


def facts(stage: Stage) -> list[Facts]:
    """Read all runs with their executions, outputs and marks."""
    quota = {host.id for host in stage.hosts if host.quota is not None}
    stage.feeder.reconcile()
    found: list[Facts] = []
    ids = sorted(stage.feeder.pieces)
    for start in range(0, len(ids), PAGE):
        # A transaction a page: a backlog of history must not meet a statement's time limit.
        with stage.app.database.read() as tx:
            found += [_facts(tx, stage, run_id, quota) for run_id in ids[start : start + PAGE]]
    return found


def _facts(tx: Tx, stage: Stage, run_id: str, quota: set[str]) -> Facts:
    row = tx.one("SELECT status, code, message FROM runs WHERE id = :id", id=run_id)
    assert row is not None
    piece = stage.feeder.pieces[run_id]
    made = executions.of_run(tx, run_id)
    host_of = {}
    for lease_id in {x["lease_id"] for x in made}:
        host_of[lease_id] = tx.value("SELECT host_id FROM leases WHERE id = :id", id=lease_id)
    return Facts(
        run_id=run_id,
        piece=piece,
        status=row["status"],
        code=row["code"],
        message=row["message"],
        executions=tuple(_execution(tx, x, host_of[x["lease_id"]] in quota) for x in made),
        marks=marks_of(stage.marks, piece.name, len(piece.argvs)),
    )


def _execution(tx: Tx, row: Row, on_quota: bool) -> Execution:
    return Execution(
        command=row["command_index"],
        attempt=row["attempt"],
        lease_id=row["lease_id"],
        status=row["status"],
        exit_code=row["exit_code"],
        output=executions.output(tx, row["id"], stream="stdout", offset=0, limit_bytes=1 << 30),
        dropped=row["stdout_dropped"],
        on_quota=on_quota,
    )


def judge(stage: Stage, found: list[Facts]) -> dict[str, list[Breach]]:
    """Check every promise; return what was looked at → what is wrong."""
    live = stage.live_leases()
    with stage.app.database.read() as tx:
        violations = invariants.check(tx)
        differences = history.verify(tx)
    boxes = [path for host in stage.hosts for path in checks.sandboxes_of(host.place)]
    runs = {piece.name for piece in stage.feeder.pieces.values()}
    answered = set(stage.feeder.answered)
    return {
        f"P1 ended: {len(found)} runs": checks.ended(found)
        + checks.nothing_unknown([], answered - runs),
        f"P2 once: {sum(len(x.executions) for x in found)} executions": checks.once(found)
        + checks.nothing_unknown(strangers(stage.marks, sorted(runs)), []),
        f"P2 output: {sum(len(x.output) for f in found for x in f.executions)} bytes":
            checks.whole(found),
        f"P3 no orphan: {len(boxes)} sandboxes on {len(stage.hosts)} disks":
            checks.no_orphan(boxes, live=live) + checks.no_debt(live),
        "P4 nothing of a run is left running": checks.nothing_runs(stage.commands()),
        "P3 P4 P5 P8 P9 invariants and history": checks.rows(violations, differences),
        "the workload itself was accepted": [
            Breach("submit", text) for text in stage.feeder.refused
        ],
    }  # fmt: skip


def throughput(stage: Stage, window: tuple[int, int]) -> float:
    """Return how many runs a second came to their end in a window."""
    with stage.app.database.read() as tx:
        count = tx.value(
            "SELECT count(*) FROM runs WHERE finished_at >= :a AND finished_at < :b",
            a=window[0],
            b=window[1],
        )
    seconds = (window[1] - window[0]) / 1e6
    return float(count) / seconds if seconds else 0.0


def work_done(found: list[Facts]) -> dict[str, Any]:
    """Count the runs by kind, and what they went through."""
    kinds: dict[str, int] = defaultdict(int)
    for each in found:
        kinds[each.piece.kind] += 1
    overlapping = sum(
        1 for f in found for lines in f.marks
        if f.piece.idempotent and sum(not x.startswith("end ") for x in lines) > 1
    )  # fmt: skip
    return {
        "runs": len(found),
        "kinds": dict(sorted(kinds.items())),
        "executions": sum(len(each.executions) for each in found),
        "idempotent_started_again": overlapping,
        "outputs_cut_by_a_full_disk": checks.cut_short(found),
    }
