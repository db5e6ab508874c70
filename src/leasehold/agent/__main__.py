"""``python -m leasehold.agent``: the host agent as a process of its own."""

import argparse
import sys

from leasehold import log
from leasehold import settings as knobs
from leasehold.agent.agent import Plan, report, run
from leasehold.agent.child import tie_to
from leasehold.errors import LeaseholdError


def main() -> int:
    """Serve until TERM or INT; then drain and say what goes on."""
    parser = argparse.ArgumentParser(prog="leasehold.agent", allow_abbrev=False)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cancel-on-exit", action="store_true")
    parser.add_argument("--parent", type=int, help="drain when this process dies")
    options = parser.parse_args()
    if options.parent:
        tie_to(options.parent)
    try:
        settings = knobs.load()
        log.configure(level=settings.log_level, as_json=settings.log_json)
        plan = Plan(
            processes=options.processes or settings.worker_processes,
            threads=options.threads or settings.worker_threads,
            cancel_on_exit=options.cancel_on_exit,
        )
        report(run(settings, plan))
    except LeaseholdError as error:
        sys.stderr.write(f"leasehold: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
