"""What a dead `up` left behind: its socket is taken over, its servers answer until the new ones do, all else is ended, written down or not."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from gyrostat_runtime import keys
from processes.test_dying_server import answers
from serving.bench import Bench, arm, until

from gyrostat.processes import handover, runfiles, supervisor
from gyrostat.serving import receipts


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
    return started("server-0", *arguments_of("server-0", listener), fds=[listener.fileno()])


def arguments_of(name, listener):
    return ["--worker", name, "--fd", str(listener.fileno()), "--settings", json.dumps({"models": {"wine": {}}})]  # fmt: skip


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
        # at once: it waits for a server that was just born
        sockets, before = supervisor.take_over(tmp_path)
        assert list(sockets) == [port]
        assert [run.name for run in before] == ["server-0"]
        assert server.poll() is None
        seen = n
        until(lambda: n >= seen + 5, seconds=60)
    finally:
        over.set()
        knocking.join()
    assert refused == []
    sockets[port].close()


@pytest.fixture
def replaced(started, tmp_path):
    """A server with a champion, and what begins beside it as the next `up` would: port, both servers, what is said."""
    bench = Bench(tmp_path)
    bench.route(arm(bench.bundle(7.0)))
    listener, said = socket.create_server(("127.0.0.1", 0), backlog=64), []
    old = a_server(started, listener)
    until(lambda: receipts.is_at_work(tmp_path, "server-0", old.pid), seconds=60)
    runfiles.write(tmp_path, "up")

    @contextlib.contextmanager
    def beside():
        sockets, before = supervisor.take_over(tmp_path)
        listener.close()
        (taken,) = sockets.values()
        name = f"server-0{supervisor.next_generation(before)}"
        child = supervisor.Child(
            name, supervisor.MODULES["server"],
            ["--state", str(tmp_path), *arguments_of(name, taken)], (taken,),
        )  # fmt: skip

        def say(line):
            pid = child.process.pid if child.process else 0
            said.append((line, receipts.is_at_work(tmp_path, name, pid)))

        keeper = supervisor.Supervisor(tmp_path, [child], say, before=before)
        keeping = threading.Thread(target=keeper.run)
        keeping.start()
        try:
            yield taken.getsockname()[1], child
        finally:
            keeper.stop.set()
            keeping.join(60)
            taken.close()

    return bench, old, beside, said


def test_a_server_ends_when_the_one_that_replaces_it_answers_and_no_request_fails(
    replaced, tmp_path
):
    _, old, beside, said = replaced
    with beside() as (port, _):
        lost = 0
        while old.poll() is None:
            lost += not answers(port)
        assert lost == 0
        until(lambda: [r.server for r in receipts.receipts(tmp_path, "wine")] == ["server-0b"])
        assert runfiles.read(tmp_path, "server-0") is None
        assert answers(port)
    assert old.returncode == 0
    assert [is_ready for line, is_ready in said if "ours answers" in line] == [True]


def test_a_server_stays_where_its_successor_cannot_do_what_it_does_and_that_is_said(
    replaced, tmp_path
):
    bench, old, beside, _ = replaced
    (graph,) = (tmp_path / "bundles").glob("*/*.onnx")
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with beside() as (port, child):
        until(lambda: "refused" in bench.applied("server-0b"), seconds=60)
        assert bench.applied("server-0b")["waits"]
        assert all(answers(port) for _ in range(30))
        assert (old.poll(), child.process.poll()) == (None, None)
        assert runfiles.of_an_earlier_up(runfiles.alive(tmp_path)) == []  # all are ours here
        graph.write_bytes(whole)
        seq = bench.route(arm(bench.bundle(8.0)))
        until(lambda: old.poll() is not None, seconds=60)
        assert answers(port)
        assert bench.applied("server-0b")["seq"] == seq


def test_where_the_server_that_answers_dies_its_successor_opens_with_what_it_has(
    replaced, tmp_path
):
    bench, old, beside, _ = replaced
    (graph,) = (tmp_path / "bundles").glob("*/*.onnx")
    graph.write_bytes(b"damaged")
    with beside():
        until(lambda: "refused" in bench.applied("server-0b"), seconds=60)
        old.kill()
        old.wait()
        until(lambda: not bench.applied("server-0b").get("waits"), seconds=60)


def test_of_two_generations_the_newer_stays_once_it_is_at_work(started, tmp_path):
    bench = Bench(tmp_path)
    bench.route(arm(bench.bundle(7.0)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        runs = []
        for name in ("server-0b", "server-0"):
            process = started(name, *arguments_of(name, listener), fds=[listener.fileno()])
            until(lambda n=name, p=process: receipts.is_at_work(tmp_path, n, p.pid), seconds=60)
            runs.append(runfiles.read(tmp_path, name))
    older, newer = runs
    assert supervisor._that_answer(tmp_path, runs) == [newer]
    path = receipts.folder(tmp_path, "wine") / "server-0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"waits": True}))
    assert supervisor._that_answer(tmp_path, runs) == [older]
    assert supervisor.next_generation([older]) == ""
    assert supervisor.next_generation([newer]) == "b"
    assert supervisor.next_generation([]) == ""


def test_a_server_whose_up_is_gone_is_told_from_one_of_our_own(started, tmp_path):
    started("monitor")
    started("server-0", "--worker", "server-0", "--port", "0")
    runfiles.write(tmp_path, "up")
    assert runfiles.of_an_earlier_up(runfiles.alive(tmp_path)) == []
    runfiles.write(tmp_path, "up", pid=os.getppid())
    assert runfiles.of_an_earlier_up(runfiles.alive(tmp_path)) == ["server-0"]


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
    assert supervisor.take_over(tmp_path) == ({}, [])
    assert mine.wait(1) is not None
    assert theirs.poll() is None
