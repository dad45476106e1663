"""What a dead `up` left behind: its listening socket is taken over, and everything that it started is ended, written down or not."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from gyrostat_runtime import keys

from gyrostat.processes import handover, runfiles, supervisor


@pytest.fixture
def started(tmp_path):
    """Starts children as `up` would; whatever is left of them is killed afterwards."""
    (tmp_path / "run").mkdir()
    keys.create_keys(tmp_path / "keys")
    found = []

    def start(name, *arguments, state=tmp_path, is_written=True, fds=()):
        command = [sys.executable, "-m", supervisor.MODULES[name.partition("-")[0]]]
        child = subprocess.Popen(
            [*command, "--state", str(state), *arguments], pass_fds=fds, start_new_session=True,
            env={**os.environ, supervisor.MARK: str(state)},
        )  # fmt: skip
        found.append(child)
        if is_written:
            runfiles.write(state, name, pid=child.pid)
        return child

    yield start
    for child in found:
        child.kill()
        child.wait()


def a_server(started, listener):
    return started("server-0", "--worker", "server-0", "--fd", str(listener.fileno()), fds=[listener.fileno()])  # fmt: skip


def test_its_socket_is_taken_over_and_nobody_is_turned_away(started, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = a_server(started, listener)
    runfiles.write(tmp_path, "up")
    refused, over, n = [], threading.Event(), 0

    def knock():
        nonlocal n
        while not over.wait(0.005):
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                n += 1
            except OSError as error:
                refused.append(error)

    knocking = threading.Thread(target=knock)
    knocking.start()
    try:
        sockets = supervisor.take_over(
            tmp_path
        )  # at once: it waits for a server that was just born
        before = n
        assert server.wait(1) in (0, -signal.SIGTERM)  # in order, or before it had begun
        assert list(sockets) == [port]
        deadline = time.monotonic() + 60
        while n < before + 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert n >= before + 5
    finally:
        over.set()
        knocking.join()
    assert refused == []
    sockets[port].close()


def test_a_socket_is_handed_to_nobody_but_the_up_that_the_run_file_names(started, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = a_server(started, listener)
        run = runfiles.alive(tmp_path)["server-0"]
        runfiles.write(tmp_path, "up")
        (one,) = handover.of_servers(tmp_path, [run]).values()
        one.close()
        for somebody in (server.pid, None):
            if somebody:
                runfiles.write(tmp_path, "up", pid=somebody)
            else:
                runfiles.remove(tmp_path, "up")
            assert handover._ask(tmp_path / "run" / "server-0.sock") is None
        assert server.poll() is None


def test_a_child_that_was_not_written_down_is_ended_and_one_of_another_project_is_not(
    started, tmp_path
):
    (tmp_path / "other").mkdir()
    mine = started("monitor", is_written=False)
    theirs = started("monitor", state=tmp_path / "other", is_written=False)
    assert supervisor.take_over(tmp_path) == {}
    assert mine.wait(1) is not None
    assert theirs.poll() is None
