"""The loop as it is, but it kills itself where the plan says: `python -m tests.chaos.dying_loop --project DIR`.

Every call that leaves a trace (an entry, a job, routes, a floor) is a point three times: before it, in the middle of it
and after it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from gyrostat.adapters.local import workers
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop import assemble, reconcile
from gyrostat.processes import loop

from .plan import Plan


def lay(plan: Plan, project: Path) -> None:
    """Put the points where the traces are made."""
    append, start, show = SqliteLedger.append, assemble.LocalWorld.start, assemble.LocalWorld.show
    write, popen, store = SqliteLedger._write, workers.subprocess.Popen, workers.write_atomic
    tend = reconcile.Runner._tend

    def appending(self: Any, stream: str, draft: Any, **more: Any) -> Any:
        place = draft.key if more["expect_seq"] is None else more["expect_seq"]
        with plan.around(f"entry {draft.kind} of {stream} {place}"):
            return append(self, stream, draft, **more)

    def starting(self: Any, stream: str, what: str, key: str, *more: Any) -> Any:
        with plan.around(f"start {what} {key}"):
            return start(self, stream, what, key, *more)

    def showing(self: Any, stream: str, receiver: str, seq: int, value: Any) -> Any:
        with plan.around(f"show {receiver} {stream} {seq}"):
            return show(self, stream, receiver, seq, value)

    def tending(self: Any) -> None:
        tend(self)
        (project / "chaos.loop.acts").write_text(str(os.getpid()))

    SqliteLedger.append = appending  # type: ignore[method-assign]
    assemble.LocalWorld.start = starting  # type: ignore[method-assign]
    assemble.LocalWorld.show = showing  # type: ignore[method-assign]
    reconcile.Runner._tend = tending  # type: ignore[method-assign]
    SqliteLedger._write = plan.in_the("uncommitted write", write)  # type: ignore[method-assign]
    workers.write_atomic = plan.in_the("spec", store)  # type: ignore[attr-defined]

    class Spawning(popen):  # type: ignore[misc, valid-type]
        def __init__(self, command: list[str], *arguments: Any, **more: Any) -> None:
            plan.middle("just before the spawn")
            named = ["tests.chaos.dying_training" if c == "gyrostat.loop.worker" else c for c in command]  # fmt: skip
            super().__init__(named, *arguments, **more)

    workers.subprocess = type(sys)("subprocess")  # type: ignore[attr-defined]
    vars(workers.subprocess).update({**vars(sys.modules["subprocess"]), "Popen": Spawning})


if __name__ == "__main__":
    project = Path(sys.argv[sys.argv.index("--project") + 1])
    lay(Plan(project, "loop"), project)
    sys.exit(loop.main())
