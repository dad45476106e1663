"""Real processes and real traffic while the disk is full, and while the ledger is locked, gone or damaged: no prediction fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from chaos.rig import Rig, make
from gyrostat_runtime import log

from gyrostat.observations import read
from gyrostat.processes import runfiles

SIZE = 200_000_000
HOLD = """
import sys, time
from gyrostat.ledger.sqlite import sqlite3
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A project with a champion, on a small disk of its own where this may be made."""
    folder = tmp_path_factory.mktemp("faults") / "homes"
    make(folder)
    found = Rig(folder)
    disk = folder / ".gyrostat"
    disk.mkdir()
    is_mounted = _mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk))
    try:
        with found.running():
            found.wait("version 1", lambda: found.version() == 1 and found.is_at_rest())
            yield found
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)


def _mount(*arguments: str) -> bool:
    """Whether this machine lets us."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        return False
    return subprocess.run([mount, *arguments], check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def full(rig: Rig) -> Iterator[None]:
    """The disk without a byte left."""
    filler = rig.folder / ".gyrostat" / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1_000_000, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    try:
        yield
    finally:
        filler.unlink()


def answers(rig: Rig, n: int) -> None:
    """Wait for so many answers more."""
    wanted = rig.n_asked + n
    rig.wait(f"{n} answers", lambda: rig.n_asked >= wanted)


def told(rig: Rig, *arguments: str) -> tuple[int, str]:
    """What a person reads: the command line's status and words."""
    done = subprocess.run(
        [sys.executable, "-m", "gyrostat.cli.main", *arguments],
        cwd=rig.folder, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def killed(rig: Rig, name: str) -> int:
    """End one process and wait until that was seen; its pid."""
    pid, n = runfiles.alive(rig.state)[name].pid, len(rig.said)
    os.kill(pid, signal.SIGKILL)
    rig.wait(f"the end of {name}", lambda: any(line.startswith(name) for line in rig.said[n:]))
    return pid


def is_back(rig: Rig, name: str, old: int) -> bool:
    """Whether another one runs in its place."""
    return (run := runfiles.alive(rig.state).get(name)) is not None and run.pid != old


def unlogged(rig: Rig, ids: set[str]) -> set[str]:
    """Of the predictions that were answered, those that are not in the log."""
    return ids - {frame.id for frame in log.read(rig.state / "log" / "homes")}


def counted(rig: Rig) -> int:
    """Predictions in all closed seconds."""
    return sum(line["n"] for line, _ in read(rig.state / "observations" / "homes") if "n" in line)


@pytest.mark.slow
def test_a_full_disk_fails_no_prediction_loses_none_and_heals_when_space_returns(rig: Rig) -> None:
    if not os.path.ismount(rig.folder / ".gyrostat"):
        pytest.skip("no file system may be mounted here: no disk was filled")
    before, version = rig.project.ledger.position(), rig.version()
    rig.ask_for(2.0)
    rig.wait("the run", lambda: "run" in rig.kinds(before))
    rig.ids.clear()
    with full(rig):
        status, words = told(rig, "status")
        assert status == 0, words
        assert "the disk is full (0.0 MB free)" in words
        status, words = told(rig, "hold", "homes", "--reason", "a full disk")
        assert status == 3, words
        assert "full" in words
        old = {name: killed(rig, name) for name in ("monitor", "loop")}
        answers(rig, 100)
        assert rig.version() == version
    rig.wait("the processes", lambda: all(is_back(rig, name, pid) for name, pid in old.items()))
    rig.wait("the release", lambda: rig.version() > version and rig.is_at_rest())
    ids = set(rig.ids)
    rig.wait("the log", lambda: not unlogged(rig, ids))
    rig.wait("the counts", lambda: counted(rig) >= len(ids))
    assert rig.failed == []
    assert not list(rig.state.rglob("*.tmp"))
    assert rig.project.audit_verify().facts["is_whole"]
    assert "the disk is full" not in told(rig, "status")[1]
