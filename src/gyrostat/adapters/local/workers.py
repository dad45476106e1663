"""Starts jobs as processes on this machine and says how they stand.

A job is a folder `jobs/<stream>/<seq>-<what>/`. It is started once for each key: whoever asks again asks for the same.
Its lock is taken before its runner is born and handed over, and the runner's first act is its heartbeat: "lock free, a
heartbeat and no result" means lost, and without a heartbeat nothing has begun.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gyrostat_runtime.files import write_atomic

from gyrostat import __version__

ROOM_BYTES = 20_000_000
"""Free space without which no job begins: it would only use up its tries."""
COPIED = ("src", "config", "requirements.txt", "pyproject.toml")


class LocalWorkers:
    """Jobs of one project. Safe to use from several processes; each job has one runner."""

    def __init__(self, state: Path, python: str = sys.executable) -> None:
        self.jobs, self.python = state / "jobs", python
        self._runners: list[subprocess.Popen[bytes]] = []

    def folder(self, stream: str, seq: int, what: str) -> Path:
        """Where the job is, or would be."""
        return self.jobs / stream.replace("/", ".") / f"{seq}-{what}"

    def start(
        self, stream: str, seq: int, what: str, spec: dict[str, Any], *, project: Path | None = None
    ) -> None:
        """Start it, unless it was started, is over, or lies below the floor. `project`: its code is copied into the job.

        Raises:
            OSError: the disk is full, or nearly; nothing has begun.
        """
        self.reap()
        folder = self.folder(stream, seq, what)
        if seq < self.floor(stream) or (folder / "result.json").exists():
            return
        self.raise_floor(stream, seq)  # whoever calls for this has given up what came before it
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < ROOM_BYTES:
            raise OSError(errno.ENOSPC, f"less than {ROOM_BYTES / 1e6:g} MB are free")
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            if (folder / "result.json").exists() or (folder / "heartbeat").exists():
                return  # over, or lost: what a runner has begun is never begun again under the same key
            if project is not None:
                _copy_code(project, folder / "code")
            write_atomic(
                folder / "spec.json",
                json.dumps(
                    spec | {"stream": stream, "seq": seq, "what": what, "release": __version__},
                    default=str,
                ).encode(),
            )
            runner = subprocess.Popen(
                [self.python, "-m", "gyrostat.loop.worker", str(folder), "--lock-fd", str(lock)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(folder / "runner.log").open("ab"),
                pass_fds=[lock], start_new_session=True,
            )  # fmt: skip
            self._runners.append(runner)
        finally:
            os.close(lock)

    def look(self, stream: str, seq: int, what: str) -> dict[str, Any]:
        """`{}` not there, `running` with its silence in seconds, `lost`, or the result."""
        self.reap()
        folder = self.folder(stream, seq, what)
        if result := _result(folder):
            return result
        if not (folder / "spec.json").exists():
            return {}
        is_locked = _is_locked(folder / "lock")
        try:
            beat = (folder / "heartbeat").stat().st_mtime
        except FileNotFoundError:
            if not is_locked:
                return {}  # whoever started it died before a runner lived: nothing has begun
            beat = time.time()
        if not is_locked:
            return _result(folder) or {"status": "lost"}  # it may have ended between the two looks
        return {"status": "running", "silent_s": round(max(0.0, time.time() - beat), 1)}

    def floor(self, stream: str) -> int:
        """Jobs below this seq are over."""
        try:
            return int((self.jobs / stream.replace("/", ".") / "floor").read_text())
        except (OSError, ValueError):
            return 0

    def raise_floor(self, stream: str, seq: int) -> None:
        """Only upwards, and durably."""
        if seq > self.floor(stream):
            folder = self.jobs / stream.replace("/", ".")
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / "floor", str(seq).encode())

    def reap(self) -> None:
        """Take notice of runners that ended, so that none stays a zombie."""
        self._runners = [r for r in self._runners if r.poll() is None]


def _result(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / "result.json").read_bytes())
    except (OSError, ValueError):
        return None


def _is_locked(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(file)


def _copy_code(project: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    skip = shutil.ignore_patterns("__pycache__", "*.pyc", ".git")
    scripts = sorted(path.name for path in project.glob("*.py"))
    for name in (*COPIED, *scripts):
        source = project / name
        with contextlib.suppress(FileNotFoundError):
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=skip, ignore_dangling_symlinks=True)
            elif source.is_file():
                shutil.copy2(source, target / name)
