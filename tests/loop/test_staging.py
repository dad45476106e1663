"""Staging gives a server its time and no more: one that never gets ready is a cause on record, and nothing is left running."""

import sys

import psutil
import pytest
from gyrostat_runtime import keys

from gyrostat.loop import staging


@pytest.mark.parametrize("is_hung", [False, True])
def test_a_server_that_never_gets_ready_is_given_up_and_ended(tmp_path, monkeypatch, is_hung):
    """It answers, but its bundle is not there; or it lives and says nothing."""
    keys.create_keys(tmp_path / "keys")
    (tmp_path / "bundles").mkdir()
    started, popen = [], staging.subprocess.Popen

    def starting(command, **more):
        slept = [sys.executable, "-c", "import time; time.sleep(1000)"]
        started.append(popen(slept if is_hung else command, **more))
        return started[0]

    monkeypatch.setattr(staging.subprocess, "Popen", starting)
    monkeypatch.setattr(staging, "START_S", 0.5 if is_hung else 3.0)
    report = staging.stage(
        tmp_path / "job", state=tmp_path, model="wine", bundle="ab" * 32, rows=[], expected=[]
    )
    assert report["cause"].startswith(f"not ready after {staging.START_S:g} s")
    assert not report["is_answering"]
    (server,) = started
    assert not psutil.pid_exists(server.pid)
