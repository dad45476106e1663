"""Who runs what in a project: one lock and one small file a process, under `.gyrostat/<env>/run/`.

The lock (flock) says whether somebody lives, the file says who. A lock is never a leftover: the kernel drops it with
its holder, however that ended. A file may be one; so a pid counts only together with the time its process started.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from gyrostat_runtime.files import write_atomic

from gyrostat import __version__, pids
from gyrostat.errors import TakenError


@dataclass(frozen=True, slots=True)
class RunFile:
    """One process of a project."""

    name: str
    pid: int
    birth: str
    """Tells a reused pid from the real one."""
    release: str
    port: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return bool(self.birth) and pids.is_living(self.pid, self.birth)


def write(state: Path, name: str, *, pid: int | None = None, port: int = 0) -> RunFile:
    """Say that the process `pid` (this one, if not given) runs as `name`."""
    pid = pid or os.getpid()
    run = RunFile(name, pid, pids.birth(pid), __version__, port)
    folder = state / "run"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{name}.json", json.dumps(asdict(run)).encode())
    return run


def read(state: Path, name: str) -> RunFile | None:
    """Who last said to run as `name`; alive or not."""
    try:
        return RunFile(**json.loads((state / "run" / f"{name}.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def alive(state: Path) -> dict[str, RunFile]:
    """All processes of this project that really run, by name."""
    found = (read(state, path.stem) for path in sorted((state / "run").glob("*.json")))
    return {run.name: run for run in found if run and run.is_alive}


def of_an_earlier_up(running: dict[str, RunFile]) -> list[str]:
    """Names of servers that no `up` keeps which runs now: they answer until its own do."""
    up, found = running.get("up"), []
    for name, run in running.items():
        with contextlib.suppress(psutil.Error):
            if up and name.startswith("server") and psutil.Process(run.pid).ppid() != up.pid:
                found.append(name)
    return found


def remove(state: Path, name: str) -> None:
    """Forget who ran as `name`."""
    (state / "run" / f"{name}.json").unlink(missing_ok=True)


class Lock:
    """A lock that lives as long as its process: held from `take` until `release` or death."""

    def __init__(self, state: Path, name: str) -> None:
        self.state, self.name = state, name
        self._file: int | None = None

    def take(self) -> bool:
        """Try once; True if it is ours now."""
        folder = self.state / "run"
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / f"{self.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True

    def take_or_refuse(self, what: str) -> None:
        """Take it.

        Raises:
            TakenError: it is held; the message says by whom.
        """
        if not self.take():
            holder = read(self.state, self.name)
            who = f" (pid {holder.pid})" if holder and holder.is_alive else ""
            raise TakenError(
                f"{what} already runs in this project{who}. Nothing was started. "
                "Ask it: gyrostat status; end it: Ctrl-C there, or kill that pid.",
                pid=holder.pid if holder else None,
            )

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def end(*runs: RunFile, grace_s: float = 8.0) -> None:
    """End processes together and wait for them: SIGTERM, and SIGKILL after `grace_s`. Their own children end with them (see there)."""
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        signal_all(runs, number)
        deadline = time.monotonic() + patience_s
        while any(run.is_alive for run in runs) and time.monotonic() < deadline:
            time.sleep(0.02)


def signal_all(runs: Iterable[RunFile], number: int) -> None:
    """Send a signal to those that live."""
    for run in runs:
        if run.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(run.pid, number)
