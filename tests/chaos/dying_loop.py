"""The loop as it is, but it kills itself where the plan says: `python -m tests.chaos.dying_loop --project DIR`.

Every call that leaves a trace (an entry, a job, routes, a floor) is a point three times: before it, in the middle of it
and after it. A point kills once: what has killed stands in a file that outlives this process.

The plan is `chaos.json` in the project: `{"every": 3, "phase": 0}` kills at each third point, as points come up. No file, no
kills; the points are noted all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gyrostat.adapters.local import workers
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop import assemble
from gyrostat.processes import loop


class Plan:
    """Which points kill."""

    def __init__(self, project: Path) -> None:
        self.plan, self.seen = project / "chaos.json", project / "chaos.seen"
        self.doing = ""

    def at(self, point: str) -> None:
        """Note a point, and die there if it is its turn and it has not killed before."""
        known = self.seen.read_text().splitlines() if self.seen.exists() else []
        if point in known:
            return
        with self.seen.open("a") as file:
            file.write(f"{point}\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            plan = json.loads(self.plan.read_text())
            if (len(known) - plan["phase"]) % plan["every"] == 0:
                with self.seen.with_suffix(".kills").open("a") as file:
                    file.write(f"{point}\n")
                os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def around(self, what: str) -> Iterator[None]:
        """Two of the three points; the one in the middle finds what is going on by `doing`."""
        self.doing = what
        self.at(f"before {what}")
        yield
        self.at(f"after {what}")
        self.doing = ""

    def middle(self, where: str) -> None:
        """A point within a call."""
        if self.doing:
            self.at(f"{where} of {self.doing}")


def lay(plan: Plan) -> None:
    """Put the points where the traces are made."""
    append, start, show = SqliteLedger.append, assemble.LocalWorld.start, assemble.LocalWorld.show
    write, popen, store = SqliteLedger._write, workers.subprocess.Popen, workers.write_atomic

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

    def in_the(where: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def doing(*arguments: Any, **more: Any) -> Any:
            result = real(*arguments, **more)
            plan.middle(where)
            return result

        return doing

    SqliteLedger.append = appending  # type: ignore[method-assign]
    assemble.LocalWorld.start = starting  # type: ignore[method-assign]
    assemble.LocalWorld.show = showing  # type: ignore[method-assign]
    SqliteLedger._write = in_the("uncommitted write", write)  # type: ignore[method-assign]
    workers.write_atomic = in_the("spec", store)  # type: ignore[attr-defined]

    class Spawning(popen):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            plan.middle("just before the spawn")
            super().__init__(*arguments, **more)

    workers.subprocess = type(sys)("subprocess")  # type: ignore[attr-defined]
    vars(workers.subprocess).update({**vars(sys.modules["subprocess"]), "Popen": Spawning})


if __name__ == "__main__":
    lay(Plan(Path(sys.argv[sys.argv.index("--project") + 1])))
    sys.exit(loop.main())
