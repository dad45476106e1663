"""Servers that die or hang with requests in their hands: what clients lost is counted against the arm that had it."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gyrostat_runtime import flight, log
from gyrostat_runtime.log import Writer
from serving.bench import WINE, Bench, arm, until

from gyrostat.observations import read
from gyrostat.processes import supervisor
from gyrostat.processes.monitor import Watcher
from gyrostat.processes.supervisor import Child, Supervisor, bind
from gyrostat.serving.arms import draw

HANGS, KILLS, LOOPS = 98.0, 99.0, 1e15
FINE = [2.0, 3.0, "kim"]


def native(folder: Path, *, is_shadow: bool = False):
    """A model that hangs where a row says so (a shadow: at `FINE`), or waits for `go` and then kills its server."""
    go = folder / "go"

    class Moody:
        def predict(self, frame):
            import os
            import signal
            import time

            first = float(np.asarray(frame, dtype=float)[0, 0])
            hangs = first == HANGS or (is_shadow and first == FINE[0])
            while hangs or (first == KILLS and not go.exists()):
                time.sleep(0.01)
            if first == KILLS:
                os.kill(os.getppid(), signal.SIGKILL)
            return np.full(len(frame), 5.0)

    return Moody()


def looping() -> bytes:
    """A graph whose time grows with its input: at ones it answers at once, at `LOOPS` never."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "axis": np.array([1], np.int64),
        "none": np.array(0.0, np.float32),
        "step": np.array(0.0, np.float32),
    }
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Add", ["before", "step"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["num"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["times"], to=TensorProto.INT64),
        helper.make_node("Loop", ["times", "", "none"], ["looped"], body=body),
        helper.make_node("ReduceSum", ["num", "axis"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "looped"], ["output"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "looping",
            [helper.make_tensor_value_info("num", TensorProto.FLOAT, [None, len(WINE.features)])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 1])],
            [numpy_helper.from_array(v, k) for k, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    return model.SerializeToString()


def keys_of(role: str, n: int) -> list[str]:
    """Client keys that have the candidate, or the champion, at half and half."""
    wanted = role == "candidate"
    names = (f"key {i}" for i in range(10_000))
    return [k for k in names if (draw("s", k.encode()) < 0.5) == wanted][:n]


class Client(threading.Thread):
    """One request over a connection of its own; `status` 0: it was never answered."""

    def __init__(self, port: int, row: list, key: str) -> None:
        super().__init__(daemon=True)
        self.port, self.row, self.key, self.status = port, row, key, -1
        self.start()

    def run(self) -> None:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json", "X-Gyrostat-Key": self.key}
        try:
            link.request("POST", "/invocations", json.dumps({"instances": [self.row]}), headers)
            self.status = link.getresponse().status
        except (OSError, http.client.HTTPException):
            self.status = 0
        finally:
            link.close()


@contextlib.contextmanager
def kept(state: Path) -> Iterator[tuple[int, list[str]]]:
    """A server under a supervisor: its port, and what the supervisor says."""
    listener, said = bind("127.0.0.1", 0, setting="", option=""), []
    settings = {"server": {"log_sync_s": 0.05}, "models": {"wine": {}}}
    arguments = ["--state", str(state), "--worker", "server-0", "--fd", str(listener.fileno()), "--settings", json.dumps(settings)]  # fmt: skip
    child = Child("server-0", "gyrostat.processes.server", arguments, (listener,))
    keeper = Supervisor(state, [child], said.append)
    thread = threading.Thread(target=keeper.run)
    thread.start()
    try:
        yield listener.getsockname()[1], said
    finally:
        keeper.stop.set()
        thread.join(60)
        listener.close()


def in_hand(state: Path, worker: str) -> Counter[str]:
    """By arm: what a worker has in its hands now, as its file says."""
    file = state / "log" / "wine" / f"{worker}.flight"
    with contextlib.suppress(OSError, ValueError):
        found = flight._read(file.read_bytes())
        return Counter({debt.arm: debt.n for debt in found.debts} if found else {})
    return Counter()


def counted(state: Path) -> dict[str, tuple[int, int]]:
    """By arm: requests and errors in the observations, written by a monitor that looks now."""
    import time

    watcher = Watcher(state, "wine")
    for _ in range(2):
        watcher.turn(time.time() + 60.0)
    found: dict[str, tuple[int, int]] = {}
    for line, _ in read(state / "observations" / "wine"):
        n, errors = found.get(line["arm"], (0, 0))
        found[line["arm"]] = (n + line["n"], errors + line["errors"])
    return found


def answers(port: int) -> bool:
    client = Client(port, FINE, keys_of("champion", 1)[0])
    client.join(60)
    return client.status == 200


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A state folder; servers that a test starts without a supervisor are ended with it."""
    bench = Bench(tmp_path)
    yield bench
    for server in bench.servers:
        server.close()


@pytest.mark.slow  # native models start several times
@pytest.mark.parametrize("keeper", ["supervisor", "next up"])
def test_what_clients_lose_when_a_candidate_kills_the_server_is_each_arms_error(bench, keeper):
    state = bench.state
    champion, candidate = (bench.bundle(n, estimator=native(state)) for n in (1.0, 2.0))
    shadow = bench.bundle(3.0, estimator=native(state, is_shadow=True))
    bench.route(
        arm(champion, share=0.5),
        arm(candidate, 2, role="candidate", share=0.5),
        arm(shadow, 3, role="candidate", share=0.0, shadow=True),
    )
    with contextlib.ExitStack() as stack:
        if keeper == "supervisor":
            worker, (port, said) = "server-0", stack.enter_context(kept(state))
        else:
            server = bench.serve()
            worker, port, said = "w0", server.port, []
        until(lambda: answers(port), seconds=120)
        until(
            lambda: in_hand(state, worker)["shadow"] == 1
        )  # the copy of an answer, which it never makes
        clients = [Client(port, [HANGS, 3.0, "kim"], k) for k in keys_of("champion", 3)]
        clients += [Client(port, [KILLS, 3.0, "kim"], k) for k in keys_of("candidate", 5)]
        until(lambda: in_hand(state, worker) == {"champion": 3, "candidate": 5, "shadow": 1})
        (state / "go").touch()
        for client in clients:
            client.join(60)
        assert [client.status for client in clients] == [0] * 8
        if keeper == "supervisor":
            until(lambda: any("had 9 requests in its hands" in line for line in said))
            (state / "go").unlink()
            # The one that comes in its place answers, and owes nothing of before.
            until(lambda: answers(port), seconds=120)
        else:
            server.process.wait(60)
            assert supervisor.settle(state) == 9
            assert supervisor.settle(state) == 0
    found = counted(state)
    n_fine = 2 if keeper == "supervisor" else 1
    assert found["champion"] == (n_fine + 3, 3)
    assert found["candidate"] == (5, 5)
    assert found["shadow"][1] >= 1


def test_a_server_that_hangs_in_its_own_process_is_ended_and_what_it_had_in_hand_counted(
    bench, monkeypatch
):
    monkeypatch.setattr(supervisor, "HUNG_LOOKS", 3)
    monkeypatch.setattr(supervisor, "REFRESH_S", 0.5)
    bench.route(arm(bench.bundle(1.0, onnx=looping())))
    with kept(bench.state) as (port, said):
        until(lambda: answers(port), seconds=120)
        assert not [line for line in said if "killed" in line]
        hung = Client(port, [LOOPS, 3.0, "kim"], "")
        until(lambda: in_hand(bench.state, "server-0")["champion"] == 1)
        # These it never reads. Nobody knows what they ask, or of whom; so they are in no count.
        unread = [Client(port, FINE, "") for _ in range(3)]
        hung.join(60)
        assert hung.status == 0
        until(lambda: any("had 1 requests in its hands" in line for line in said))
        assert any("server-0 has not answered for 3 s; it is killed" in line for line in said)
        until(lambda: answers(port), seconds=120)
        for client in unread:
            client.join(60)
        n_answered = 2 + [client.status for client in unread].count(200)
    assert counted(bench.state) == {"champion": (n_answered + 1, 1)}


def test_a_full_disk_when_a_server_died_ends_nothing_and_what_it_owed_is_said_later(
    tmp_path, monkeypatch
):
    writer = Writer(tmp_path / "log" / "wine", "server-0", sync_s=60)
    writer.in_flight.slot(1, "b1", "champion").begin()
    file = tmp_path / "log" / "wine" / "server-0.flight"
    left = file.read_bytes()
    writer.close()
    file.write_bytes(left)  # as a process leaves it that did not end like this one
    child = Child("server-0", "", [], process=subprocess.Popen(["false"]))
    keeper = Supervisor(tmp_path, [child], (said := []).append)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(log.os, "fsync", full)
        until(lambda: keeper._keep(child) or child.process is None)
    assert said[-1] == "server-0's log cannot be sealed: No space left on device"
    assert supervisor.settle(tmp_path) == 1
