"""A pid and a birth mean one process, whatever its name is and whatever clocks do."""

import os
import shutil
import subprocess
import sys
import time

import psutil
import pytest

from gyrostat import pids
from gyrostat.processes import runfiles

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere psutil says when it began")


@linux
def test_a_clock_that_is_set_takes_no_process_for_another(tmp_path, monkeypatch):
    mine = runfiles.write(tmp_path, "up")
    later = psutil.boot_time() + 3600
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: later)
    assert runfiles.alive(tmp_path)["up"] == mine


@linux
@pytest.mark.parametrize("name", ["plain", "a) Z 1 (b"])
def test_a_process_has_its_birth_until_it_ends(tmp_path, name):
    shutil.copy(shutil.which("sleep"), tmp_path / name)
    child = subprocess.Popen([tmp_path / name, "60"])
    born = pids.birth(child.pid)
    assert pids.birth(os.getpid()) < born
    assert pids.is_living(child.pid, born)
    assert not pids.is_living(child.pid, born[:-1] + "x")
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert (pids.birth(child.pid), pids.is_living(child.pid, born)) == ("", False)
    child.wait()
    assert pids.birth(child.pid) == ""


def test_a_run_file_that_lacks_a_birth_is_nobodys(tmp_path):
    mine = runfiles.write(tmp_path, "up")
    assert mine.is_alive
    assert not runfiles.RunFile("up", os.getpid(), "", mine.release).is_alive
