"""The monitor as it is, but it kills itself where the plan says: `python -m tests.chaos.dying_monitor --state DIR`.

Its points: before and after the first appends to the segments, in the middle of them (half of it written), around what
it first publishes, and around what it tells the ledger.
"""

from __future__ import annotations

import contextlib
import os
import sys
from itertools import count
from pathlib import Path
from typing import Any

from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.observations import segments
from gyrostat.processes import monitor

from .plan import Plan

MOST = 4


def lay(plan: Plan) -> None:
    """Put the points where the traces are made."""
    extend, store, tell = segments.Segments.append, monitor.write_atomic, SqliteLedger.append
    write, appends, pictures = segments.os.write, count(1), count(1)

    def extending(self: Any, lines: Any, mark: Any) -> Any:
        n = next(appends)
        with plan.around(f"append {n}") if n <= MOST else contextlib.nullcontext():
            return extend(self, lines, mark)

    def writing(file: int, data: Any) -> int:
        if plan.doing.startswith("append"):
            n = write(file, bytes(data)[: max(1, len(data) // 2)])
            plan.middle("half")
            return n
        return write(file, data)

    def storing(path: Path, *more: Any) -> None:
        n = next(pictures)
        with plan.around(f"publishing {n}") if n <= MOST else contextlib.nullcontext():
            store(path, *more)

    def telling(self: Any, stream: str, draft: Any, **more: Any) -> Any:
        with plan.around(f"entry {draft.kind} {draft.key}"):
            return tell(self, stream, draft, **more)

    segments.Segments.append, SqliteLedger.append = extending, telling  # type: ignore[method-assign]
    monitor.write_atomic = storing  # type: ignore[attr-defined]
    segments.os = type(sys)("os")  # type: ignore[attr-defined]
    vars(segments.os).update({**vars(os), "write": writing})


if __name__ == "__main__":
    lay(Plan(Path(sys.argv[sys.argv.index("--state") + 1]).parents[1], "monitor"))
    sys.exit(monitor.main())
