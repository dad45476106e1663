"""The supervisor keeps its processes where the disk takes nothing, and writes down who runs as soon as it can."""

import errno
import os
import signal
import threading
import time

import pytest

from gyrostat.processes import runfiles, supervisor
from gyrostat.processes.supervisor import Child, Supervisor


def until(is_so):
    deadline = time.monotonic() + 60
    while not (found := is_so()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)
    return found


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A supervisor with one process that only waits."""
    (tmp_path / "waits.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(supervisor, "RESTART_AFTER_S", (0.01,))
    (tmp_path / "log" / "wine").mkdir(parents=True)
    made = Supervisor(tmp_path, [Child("server-0", "waits", [])], lambda _: None)
    thread = threading.Thread(target=made.run)
    thread.start()
    until(lambda: runfiles.read(tmp_path, "server-0"))
    yield made
    made.stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_process_that_ends_on_a_full_disk_is_started_again_and_written_down_when_there_is_room(
    kept, monkeypatch
):
    (child,) = kept.children
    first = child.process.pid
    with monkeypatch.context() as disk:
        disk.setattr(runfiles, "write_atomic", full)
        disk.setattr(supervisor.log, "seal", full)
        disk.setattr(kept.__class__, "_log", lambda *_: open(os.devnull, "ab"))  # noqa: SIM115, PTH123
        os.kill(first, signal.SIGKILL)
        second = until(lambda: child.process and child.process.pid != first and child.process.pid)
        assert runfiles.read(kept.state, "server-0").pid == first
    until(lambda: runfiles.read(kept.state, "server-0").pid == second)
    assert runfiles.alive(kept.state)["server-0"].pid == second


def test_the_seconds_of_a_writer_that_stays_away_are_closed_when_there_is_room(kept, monkeypatch):
    (child,) = kept.children
    sealed = kept.state / "log" / "wine" / "server-0.00000001.seg"
    with monkeypatch.context() as disk:
        disk.setattr(supervisor.log, "seal", full)
        disk.setattr(supervisor.subprocess, "Popen", full)
        os.kill(child.process.pid, signal.SIGKILL)
        until(lambda: child.process is None and kept._unsealed)
        assert not sealed.exists()
        disk.undo()
        disk.setattr(supervisor.subprocess, "Popen", full)
        until(sealed.exists)
    until(lambda: child.process is not None)
