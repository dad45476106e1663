"""`gyrostat up` as it is, but it and its children kill themselves where their plans say.

python -m tests.chaos.dying_up PROJECT PORT CONTROL_PORT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gyrostat
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.processes import runfiles, supervisor

from .plan import Plan


def lay(plan: Plan) -> None:
    """Put points around what the supervisor does: a child's birth, its run file, what it takes over, ends, seals, declares."""
    start, seal = supervisor.Supervisor._start, supervisor.Supervisor._seal
    take_over, signal_all, stays = (
        supervisor.take_over,
        runfiles.signal_all,
        supervisor._that_answer,
    )
    forget, write, append = supervisor.receipts.forget, runfiles.write, SqliteLedger.append

    def starting(self: Any, child: Any) -> None:
        with plan.around(f"the start of {child.name.rstrip('b')}"):
            start(self, child)

    def sealing(self: Any, writer: str) -> None:
        with plan.around(f"the seal of {writer.rstrip('b')}"):
            seal(self, writer)

    def taking_over(state: Path) -> Any:
        with plan.around("taking over"):
            return take_over(state)

    def staying(state: Path, servers: Any) -> Any:
        with plan.around("choosing who stays"):
            return stays(state, servers)

    def signalling(runs: Any, number: int) -> None:
        named = {run.name.rstrip("b").partition("-")[0] for run in runs}
        with plan.around(f"signal {number} to {', '.join(sorted(named)) or 'nobody'}"):
            signal_all(runs, number)

    def forgetting(state: Path, **more: Any) -> None:
        with plan.around("forgetting the servers of before"):
            forget(state, **more)

    def writing(state: Path, name: str, **more: Any) -> Any:
        plan.at(f"before the run file of {name.rstrip('b')}")
        return write(state, name, **more)

    def appending(self: Any, stream: str, draft: Any, **more: Any) -> Any:
        with plan.around(f"entry {draft.kind}"):
            return append(self, stream, draft, **more)

    supervisor.Supervisor._start, supervisor.Supervisor._seal = starting, sealing  # type: ignore[method-assign]
    supervisor.take_over, supervisor._that_answer = taking_over, staying
    runfiles.write, runfiles.signal_all = writing, signalling
    supervisor.receipts.forget = forgetting
    SqliteLedger.append = appending  # type: ignore[method-assign]


def main(folder: Path, port: int, control_port: int) -> None:
    lay(Plan(folder, "supervisor"))
    supervisor.MODULES["loop"] = "tests.chaos.dying_loop"
    supervisor.MODULES["monitor"] = "tests.chaos.dying_monitor"
    supervisor.RESTART_AFTER_S = (0.05,)
    gyrostat.Project(folder).up(port=port, control_port=control_port)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
