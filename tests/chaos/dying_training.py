"""The runner of a job as it is, but it kills itself where the plan says: `python -m tests.chaos.dying_training FOLDER`.

Its points: before and after its heartbeat, its child's birth, and its result.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gyrostat.loop import worker

from .plan import Plan


def lay(plan: Plan, job: str) -> None:
    """Put the points where the traces are made."""
    held, popen, store = worker._asked_by, worker.subprocess.Popen, worker.write_atomic

    def held_and_asked(folder: Path) -> str:
        plan.at(f"before the heartbeat of {job}")
        return held(folder)

    class Spawning(popen):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            plan.at(f"after the heartbeat of {job}")
            super().__init__(*arguments, **more)
            plan.at(f"after the child's birth of {job}")

    def storing(path: Path, *more: Any) -> None:
        plan.at(f"before the result of {job}")
        store(path, *more)
        plan.at(f"after the result of {job}")

    worker._asked_by, worker.write_atomic = held_and_asked, storing  # type: ignore[assignment]
    worker.subprocess = type(sys)("subprocess")  # type: ignore[attr-defined]
    vars(worker.subprocess).update({**vars(sys.modules["subprocess"]), "Popen": Spawning})


if __name__ == "__main__":
    folder = Path(sys.argv[1])  # PROJECT/.gyrostat/ENV/jobs/STREAM/SEQ-WHAT
    lay(
        Plan(folder.parents[4], "training"), f"{folder.parent.name} {folder.name.partition('-')[2]}"
    )
    sys.exit(worker.main(sys.argv[1:]))
