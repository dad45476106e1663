"""Old segments of a prediction log become rows of its table, in a process of their own that may be killed at any moment.

`python -m gyrostat.processes.compacting --state DIR --model NAME --passed JSON --before TIME`, started by the monitor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from gyrostat import predictionlog


class Compactor:
    """Starts that process where there is something to do, one at a time; asking costs a look at the folder."""

    def __init__(self, state: Path, model: str) -> None:
        self._state, self._model = state, model
        self._child: subprocess.Popen[bytes] | None = None

    def look(self, passed: Mapping[str, int], *, now: float, before: float) -> None:
        """Start it if something is due.

        Args:
            passed: By writer, the last segment that the monitor never reads again.
            before: Rows from before this time go.
        """
        if self.is_running or not predictionlog.is_due(
            self._state, self._model, passed, now, before=before
        ):
            return
        self._child = subprocess.Popen([
            *(sys.executable, "-m", "gyrostat.processes.compacting", "--state", str(self._state), "--model", self._model),
            *("--passed", json.dumps(dict(passed)), "--before", repr(before)),
        ])  # fmt: skip

    @property
    def is_running(self) -> bool:
        """Whether it is at work now."""
        return self._child is not None and self._child.poll() is None

    def end(self) -> None:
        """Kill what runs: nothing is lost by it."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 3 where the disk did not take it, which the next time does."""
    parser = argparse.ArgumentParser(prog="gyrostat-compacting")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--passed", type=json.loads, default={})
    parser.add_argument("--before", type=float, default=0.0)
    asked = parser.parse_args(arguments)
    os.nice(10)  # predictions and decisions come first
    try:
        with contextlib.suppress(BlockingIOError):  # one that outlived its monitor is at it
            predictionlog.prune(asked.state, asked.model, asked.before)
            predictionlog.compact(asked.state, asked.model, asked.passed, time.time())
    except OSError as error:
        sys.stderr.write(f"{asked.model}: the prediction log was not compacted: {error}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
