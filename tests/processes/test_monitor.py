"""The monitor's process on real files: nothing lost, nothing twice, whenever it is ended; and what it tells."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import psutil
import pytest
from gyrostat_runtime.log import Frame, Label, LabelWriter, Writer
from monitoring.builders import a_reference, a_schema

from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.monitoring.settings import MonitoringSettings
from gyrostat.observations import read, verify
from gyrostat.processes.monitor import Watcher
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.terms import Limit

T0 = 1_790_000_000.0  # in the past: a log does not trust what says it was written after its file
LIMITS = (Limit("rmse", max=1.0),)


@pytest.fixture
def state(tmp_path):
    """A state folder with one bundle and its reference."""
    bundle = tmp_path / "bundles" / "b1"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text(
        json.dumps({"schema": a_schema().as_json(), "reference": "reference.json"})
    )
    (bundle / "reference.json").write_text(json.dumps(a_reference()))
    return tmp_path


class Server:
    """Writes what a model server would."""

    def __init__(self, state, name="w0"):
        self.log = Writer(state / "log" / "wine", name, sync_s=60.0)
        self.labels = LabelWriter(state / "labels" / "wine", name, sync_s=60.0)
        self.rng = np.random.default_rng(0)

    def serve(self, at, n, *, label_error=None, shift=0.0):
        frames = []
        for i in range(n):
            when = at + i / n
            value = float(self.rng.normal()) + shift
            frames.append(
                Frame(
                    self.log.next_id(when), when, 1, "b1", "champion", 200, 0.002,
                    inputs=[[value, "a"]], outputs=[value], scores=[value],
                )
            )  # fmt: skip
            self.log.append(frames[-1])
            if label_error is not None:
                self.labels.append(Label(frames[-1].id, value + label_error, when + 0.5))
        self.log.heartbeat(at + 1)
        self.log.sync()
        self.labels.sync()
        return frames

    def close(self):
        self.log.close()
        self.labels.close()


@pytest.fixture
def server(state):
    """A server that writes; closed at the end."""
    found = Server(state)
    yield found
    found.close()


def a_watcher(state, now, **changes):
    return Watcher(state, "wine", limits=LIMITS, now=now, **changes)


def totals(state):
    lines = [line for line, _ in read(state / "observations" / "wine")]
    return (
        sum(line.get("n", 0) for line in lines),
        sum(line.get("n_labels", 0) for line in lines),
        [line["second"] for line in lines if "n" in line],
    )


def test_what_is_said_is_counted_and_shown(state, server):
    watcher = a_watcher(state, T0)
    for second in range(5):
        server.serve(T0 + second, 20, label_error=0.5)
        watcher.turn(T0 + second + 1.6)
    assert totals(state) == (100, 100, [int(T0) + s for s in range(5)])
    live = json.loads((state / "observations" / "wine" / "live.json").read_bytes())
    assert live["champion"] == "b1"
    assert live["quality"]["rmse"]["value"] == pytest.approx(0.5)
    assert live["service"]["requests_per_s"] == pytest.approx(20)
    assert verify(state / "observations" / "wine")[1] is None


@pytest.mark.parametrize("seed", range(4))
def test_ended_at_any_moment_it_counts_everything_once(state, server, seed):
    # A watcher that is dropped without a word is one that was killed: it holds nothing that is not on the disk.
    rng = np.random.default_rng(seed)
    now, watcher = T0, a_watcher(state, T0)
    frames = []
    for second in range(12):
        frames += server.serve(T0 + second, 10, label_error=0.3)
        if frames:
            again = frames[int(rng.integers(len(frames)))]
            server.labels.append(Label(again.id, again.outputs[0] + 0.3, now))  # doubled
        now = T0 + second + 1.0 + float(rng.random())
        for _ in range(int(rng.integers(0, 3))):
            watcher.turn(now)
        if rng.random() < 0.5:
            watcher = a_watcher(state, now)
    server.log.heartbeat(T0 + 20)
    server.log.sync()
    server.labels.sync()
    watcher.turn(T0 + 20)
    watcher.turn(T0 + 21)
    n, n_labels, seconds = totals(state)
    assert (n, n_labels) == (120, 120)
    assert all(a < b for a, b in pairwise(seconds))
    assert verify(state / "observations" / "wine")[1] is None


def test_a_full_disk_loses_nothing(state, server, monkeypatch):
    watcher = a_watcher(state, T0)
    server.serve(T0, 10, label_error=0.1)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gyrostat.observations.segments.os.write", refuse)
        with pytest.raises(OSError, match="No space"):
            watcher.turn(T0 + 1.6)
    server.serve(T0 + 1, 10, label_error=0.1)
    watcher.turn(T0 + 2.6)
    assert totals(state)[:2] == (20, 20)


def test_labels_of_before_a_restart_find_their_prediction_in_the_log(state, server):
    frames = server.serve(T0, 10)
    a_watcher(state, T0).turn(T0 + 1.6)
    watcher = a_watcher(state, T0 + 2)
    for frame in frames:
        server.labels.append(Label(frame.id, 0.0, T0 + 5))
    server.labels.append(Label("unknown", 0.0, T0 + 5))
    server.labels.sync()
    server.serve(T0 + 5, 1)
    watcher.turn(T0 + 6.6)
    server.serve(T0 + 12, 1)
    watcher.turn(T0 + 13.6)
    assert totals(state)[1] == 10
    assert watcher.monitor.counts["unknown"] == 1


def test_a_row_that_is_labelled_by_both_its_names_is_counted_once_also_after_a_restart(
    state, server
):
    (frame,) = frames = server.serve(T0, 1)
    late = Frame(server.log.next_id(T0 + 1), T0 + 1, 1, "b1", "champion", 200, 0.002, inputs=[[0.0, "a"]], outputs=[0.0], scores=[0.0])  # fmt: skip
    for name in (late.id, f"{late.id}.0", frame.id, f"{frame.id}.0"):
        server.labels.append(Label(name, 1.0, T0 + 2))
    server.labels.sync()
    a_watcher(state, T0).turn(T0 + 3)
    assert totals(state)[1] == len(frames)
    watcher = a_watcher(state, T0 + 4)
    server.log.append(late)  # its server had not written it down yet
    server.serve(T0 + 10, 1)
    watcher.turn(T0 + 11.6)
    server.serve(T0 + 20, 1)
    watcher.turn(T0 + 21.6)
    assert totals(state)[1] == 2


def test_a_restarted_monitor_shows_what_the_first_one_showed(state, server):
    watcher = a_watcher(state, T0)
    for second in range(6):
        server.serve(T0 + second, 50, label_error=0.5)
        watcher.turn(T0 + second + 1.6)

    def shown(which):
        found = which.live.as_json(T0 + 7)
        return {k: found[k] for k in ("champion", "quality", "drift", "arms", "service", "rows")}

    assert shown(a_watcher(state, T0 + 7)) == shown(watcher)


def test_decay_is_told_once_also_by_a_monitor_that_was_started_again(state, server):
    ledger = SqliteLedger(state / "ledger.db")
    settings = RetrainingSettings(triggers=("decay",))
    for second in range(6):
        server.serve(T0 + second, 50, label_error=3.0)
        watcher = a_watcher(state, T0 + second, ledger=ledger, retraining=settings)
        watcher.turn(T0 + second + 1.6)
        watcher.turn(T0 + second + 2.7)
    told = list(ledger.entries())
    assert [(e.stream, e.kind, e.actor, e.body["by"]) for e in told] == [
        ("retraining/wine", "triggered", "monitor", "decay")
    ]
    assert "limit 1" in told[0].body["why"]


def test_the_process_goes_on_after_kill_9_and_ends_cleanly_within_its_memory(state):
    server = Server(state)
    settings = {
        "models": {
            "wine": {
                "limits": [{"metric": "rmse", "max": 1.0}],
                "monitoring": {"drift": {"shift": 0.2}},
            }
        }
    }
    command = [
        sys.executable, "-m", "gyrostat.processes.monitor", "--state", str(state), "--settings", json.dumps(settings),
    ]  # fmt: skip

    def start():
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def wait_for(n):
        deadline = time.monotonic() + 30
        while totals(state)[0] < n:
            assert time.monotonic() < deadline, totals(state)
            assert process.poll() is None, process.communicate()[0].decode()
            time.sleep(0.05)

    base = float(int(time.time()) - 100)
    process = start()
    try:
        server.serve(base, 500, label_error=0.1)
        wait_for(500)
        process.send_signal(signal.SIGKILL)
        process.wait()
        server.serve(base + 2, 500, label_error=0.1)
        process = start()
        server.serve(base + 4, 500, label_error=0.1)
        wait_for(1500)
        assert psutil.Process(process.pid).memory_info().rss <= 60_000_000
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=15)
        assert (process.returncode, output) == (0, b"")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        server.close()
    assert totals(state)[:2] == (1500, 1500)


def test_what_it_writes_is_what_a_rollout_is_judged_by(state, server):
    from gyrostat.gates.settings import GateSettings
    from gyrostat.observations import Place, evidence
    from gyrostat.rollout.evidence import Evidence
    from gyrostat.rollout.judge import judge
    from gyrostat.rollout.settings import BakeSettings, RolloutSettings
    from gyrostat.terms import Answer, Margin

    settings = RolloutSettings(
        bake=BakeSettings(10, 1.0), guardrails={"error_rate": Margin.parse("+1pp")}
    )
    folded = Evidence(settings, GateSettings(LIMITS), champion="b1", candidate="b2", since_seq=1)
    watcher, place = a_watcher(state, T0), Place()
    for second in range(4):
        server.serve(T0 + second, 20, label_error=3.0)
        for i in range(20):
            at = T0 + second + 0.99 + i / 10_000
            server.log.append(
                Frame(
                    server.log.next_id(at),
                    at,
                    1,
                    "b2",
                    "candidate",
                    500,
                    0.002,
                    inputs=[[0.0, "a"]],
                )
            )
        server.log.sync()
        watcher.turn(T0 + second + 1.6)
        new = list(read(state / "observations" / "wine", place))
        folded.fold(line for line, _ in new)
        place = new[-1][1] if new else place
    traffic = folded.traffic(1, evidence=evidence(place))
    judged = judge(traffic, settings, T0, T0 + 5, step=0, n_steps=2)
    assert (judged.verdict.answer, judged.cause) == (Answer.REJECT, "errors")
    assert folded.champion_limits()["limits"]["rmse"]["broken"] > 3
    assert traffic["evidence"].startswith(place.chain)


def test_what_is_older_than_declared_goes(state, server):
    server.serve(T0, 5)
    server.close()
    old = state / "log" / "wine" / "w0.00000001.seg"
    assert old.exists()
    os.utime(old, (T0, T0))
    newer = Server(state)
    newer.serve(T0 + 1, 5)
    newer.close()
    a_watcher(state, T0, monitoring=MonitoringSettings(keep_s=100.0)).turn(T0 + 50)
    assert old.exists()
    a_watcher(state, T0, monitoring=MonitoringSettings(keep_s=100.0)).turn(T0 + 101)
    assert not old.exists()
    assert totals(state)[0] == 10
