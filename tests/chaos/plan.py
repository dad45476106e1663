"""Where a process kills itself: it passes points, and at those whose turn it is, it dies.

A point is a name; it kills once: what was passed stands in a file that outlives the process. The plan is
`chaos.WHO.json` in the project: `{"every": 3, "phase": 0, "only": [""]}` kills at each third point, as points come up, of
those with one of `only` in their name. No file, no kills; the points are noted all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


class Plan:
    """Which points kill in one kind of process."""

    def __init__(self, project: Path, who: str) -> None:
        self.plan, self.seen = project / f"chaos.{who}.json", project / f"chaos.{who}.seen"
        self.doing = ""

    def at(self, point: str) -> None:
        """Note a point, and die there if it is its turn and it has not killed before."""
        known, plan = self.points(), {"every": 0, "only": [""]}
        with contextlib.suppress(FileNotFoundError):
            plan = json.loads(self.plan.read_text())
        if point in known or not any(word in point for word in plan["only"]):
            return
        with self.seen.open("a") as file:
            file.write(f"{point}\n")
            file.flush()
            os.fsync(file.fileno())
        if plan["every"] and (len(known) - plan["phase"]) % plan["every"] == 0:
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

    def in_the(self, where: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """A call within another, with a point after it."""

        def doing(*arguments: Any, **more: Any) -> Any:
            result = real(*arguments, **more)
            self.middle(where)
            return result

        return doing

    def points(self) -> list[str]:
        """What was passed."""
        return self.seen.read_text().splitlines() if self.seen.exists() else []

    def kills(self) -> list[str]:
        """The points that killed."""
        path = self.seen.with_suffix(".kills")
        return path.read_text().splitlines() if path.exists() else []

    def make(self, every: int, phase: int = 0, only: Sequence[str] = ("",)) -> None:
        """Kill at each `every`-th point from now on, whatever was passed before; 0: no more."""
        if every:
            self.seen.unlink(missing_ok=True)
            self.plan.write_text(json.dumps({"every": every, "phase": phase, "only": only}))
        else:
            self.plan.unlink(missing_ok=True)
