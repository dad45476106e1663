"""Segments become a table: every reader sees the same predictions before, while and after, each once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import pytest
from gyrostat_runtime import log
from gyrostat_runtime.log import Frame, Writer

from gyrostat import predictionlog
from gyrostat.predictionlog import table

T0 = time.time() - 40 * 86400
PASSED = dict.fromkeys(("w0", "w1", "w2", "w3"), 10**6)


def a_frame(id: str, at: float, **changes) -> Frame:
    """With every kind of value that a request can hold."""
    values = {
        "routes_seq": 7, "bundle": "ab" * 32, "arm": "candidate", "status": 200, "latency_s": 0.0004, "key": "k1", "n": 2,
        "inputs": [[1.5, -0.0, 1e-300, 3, True, None], ["서울", "", "\ud83d'", 2**70, {"a": [1]}]],
        "outputs": [5.62, "yes"], "scores": [5.62, 0.9], "new": {"city": 1}, "missing": {"온도": 2}, "error": "",
        "is_asked": True,
    }  # fmt: skip
    return Frame(id, at, **values | changes)


class Log:
    """A model's prediction log whose servers write small segments."""

    def __init__(self, state: Path) -> None:
        self.state, self.folder = state, state / "log" / "wine"
        self.frames: list[Frame] = []
        self._n = 0

    def write(
        self, n: int, *, start: float, step: float = 1.0, names: tuple[str, str] = ("w0", "w1")
    ) -> None:
        """Two servers, whose predictions lie between each other; all but the newest segment of each is closed, and old."""
        writers = [Writer(self.folder, w, sync_s=60, segment_bytes=2000) for w in names]
        for i in range(n):
            self._n += 1
            writer, at = writers[i % 2], start + i * step
            frame = a_frame(writer.next_id(at), at, arm=("champion", "shadow")[self._n % 5 == 0], inputs=[] if self._n % 7 == 0 else [[float(self._n), "x"]])  # fmt: skip
            writer.append(frame)
            writer.heartbeat(at)
            self.frames.append(frame)
            if i % 4 == 3:
                for one in writers:
                    one.sync()
        for one in writers:
            one.close()
        for mine in log.segments(self.folder).values():
            for _, path in mine:
                os.utime(path, (start + n * step, start + n * step))

    def read(self, **span) -> list[Frame]:
        return list(predictionlog.read(self.state, "wine", **span))

    def compact(self, now: float = T0 + 86400, **changes) -> int:
        return predictionlog.compact(self.state, "wine", changes.get("passed", PASSED), now)

    @property
    def n_segments(self) -> int:
        return sum(map(len, log.segments(self.folder).values()))


@pytest.fixture
def wine(tmp_path):
    found = Log(tmp_path)
    found.write(60, start=T0)
    return found


def test_every_value_reads_back_as_it_was_logged(tmp_path):
    writer = Writer(tmp_path / "log" / "wine", "w0", sync_s=60, segment_bytes=100)
    odd = [a_frame(writer.next_id(T0), T0), a_frame(writer.next_id(T0), T0 + 1, inputs=[], outputs=[], scores=[], status=503, error="model.died", is_asked=False)]  # fmt: skip
    for frame in odd:
        writer.append(frame)
        writer.sync()
    writer.close()
    before = list(log.read(tmp_path / "log" / "wine"))
    assert predictionlog.compact(tmp_path, "wine", PASSED, time.time() + 3600) >= 2
    for path in (tmp_path / "log" / "wine").glob("*.seg"):
        path.unlink()
    after = list(predictionlog.read(tmp_path, "wine"))
    assert after == before == odd
    types = [[type(v) for row in f.inputs for v in row] for f in (*after, *before)]
    assert types[:2] == types[2:]


def test_readers_see_the_same_whichever_of_both_holds_a_prediction(wine):
    before = wine.n_segments
    assert wine.compact() == before - 2  # the newest of each server stays
    assert wine.n_segments == before  # for who reads them now
    assert wine.read() == wine.frames
    wine.compact(T0 + 86400 + table.GRACE_S)
    assert wine.n_segments == 2
    assert wine.read() == wine.frames
    wine.write(60, start=T0 + 30.5, names=("w2", "w3"))  # among what is in the table
    wanted = sorted(wine.frames, key=lambda f: f.at)
    assert wine.read() == wanted
    wine.compact(T0 + 2 * 86400)
    assert wine.read() == wanted
    span = {"since": T0 + 10, "until": T0 + 50}
    assert wine.read(**span) == [f for f in wanted if T0 + 10 <= f.at < T0 + 50]
    for frame in wanted[::7]:
        assert predictionlog.find(wine.state, "wine", frame.id + ".0") == [frame]
    assert predictionlog.find(wine.state, "wine", wanted[0].id[:-1] + "'") == []
    with pytest.raises(ValueError, match="is no prediction id"):
        predictionlog.find(wine.state, "wine", "7")


def test_what_the_monitor_has_not_passed_and_what_is_young_stays_a_segment(wine):
    assert wine.compact(passed={"w0": 2}) == 2
    assert table.State.read(wine.folder).segments == {"w0": 2}
    assert wine.compact(T0 + 60 + table.AGE_S / 2) == 0
    assert wine.read() == wine.frames


def test_it_is_due_by_size_or_by_age(wine, monkeypatch):
    now = T0 + 60 + table.AGE_S + 1
    due = lambda at: predictionlog.is_due(wine.state, "wine", PASSED, at)  # noqa: E731
    assert (due(now), due(now + table.ENOUGH_S)) == (False, True)
    monkeypatch.setattr(table, "ENOUGH_BYTES", 3000)
    assert due(now)
    wine.compact(now)
    assert (due(now), due(now + table.GRACE_S)) == (False, True)  # then segments can go
    wine.compact(now + table.GRACE_S)
    assert not due(now + 2 * table.GRACE_S)


def test_rows_that_are_too_old_go_and_the_others_stay(wine):
    wine.compact()
    wine.write(60, start=T0 + 86400)
    wine.compact(T0 + 2 * 86400)
    wine.compact(T0 + 2 * 86400 + table.GRACE_S)
    assert predictionlog.prune(wine.state, "wine", T0) == 0
    assert predictionlog.prune(wine.state, "wine", T0 + 40000) == 1
    left = [f for f in wine.frames if f.at >= T0 + 86400]
    assert wine.read() == left
    wine.write(60, start=T0 + 2 * 86400)
    wine.compact(T0 + 3 * 86400)
    assert wine.read() == wine.frames[60:]


def test_one_process_at_a_time(wine):
    with table._alone(wine.folder), pytest.raises(BlockingIOError):
        wine.compact()
    assert wine.compact()


KILLED = """
import os, signal, sys
from pathlib import Path
import lance
from gyrostat import predictionlog
from gyrostat.predictionlog import table

left = int(sys.argv[2])

def killable(owner, name):
    real = getattr(owner, name)
    def step(*args, **kwargs):
        global left
        if left == 0:  # behind a step the disk is as before the next one
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*args, **kwargs)
    setattr(owner, name, step)

killable(lance, "write_dataset")
killable(lance.LanceDataset, "restore")
killable(lance.LanceDataset, "delete")
killable(lance.LanceDataset, "cleanup_old_versions")
killable(table, "write_atomic")
killable(Path, "unlink")
state, now = Path(sys.argv[1]), float(sys.argv[3])
predictionlog.prune(state, "wine", now - 30 * 86400)
predictionlog.compact(state, "wine", {"w0": 10**6, "w1": 10**6}, now)
"""


def run(state: Path, now: float, *, left: int) -> bool:
    """Prune and compact in a process that is killed at its next durable step but `left`; whether it was."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(state), str(left), str(now)], check=False)  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def standing(state: Path) -> tuple[list[Frame], int, int]:
    """What readers see, rows in the version that counts, and rows that its runs speak of."""
    said = table.State.read(state / "log" / "wine")
    rows = 0
    if said.version:
        uri = str(state / "log" / "wine" / table.TABLE)
        rows = lance.dataset(uri, version=said.version).count_rows()
    return list(predictionlog.read(state, "wine")), rows, sum(run.rows for run in said.runs)


@pytest.mark.slow
@pytest.mark.parametrize("story", ["made", "grown", "pruned"])
def test_killed_at_each_point_it_loses_nothing_and_doubles_nothing(tmp_path, story):
    wine = Log(tmp_path / "base")
    wine.write(24, start=T0)
    now = T0 + 86400
    if story != "made":  # segments that are rows go, others become rows
        wine.compact(now)
        wine.write(24, start=T0 + 20 * 86400)
        now = T0 + 21 * 86400
    if story == "pruned":
        wine.compact(now)
        wine.compact(now + table.GRACE_S)
        now = T0 + 40 * 86400
    all_, n_kills = wine.read(), 0
    young = [frame for frame in all_ if frame.at >= now - 30 * 86400]
    undisturbed = shutil.copytree(wine.state, tmp_path / "undisturbed")
    assert not run(undisturbed, now, left=10**9)
    assert standing(undisturbed)[0] == young
    while True:
        state = shutil.copytree(wine.state, tmp_path / f"killed-{n_kills}")
        if not run(state, now, left=n_kills):
            break
        kept, _, _ = standing(state)
        assert kept in (all_, young)
        assert not run(state, now, left=10**9)
        assert standing(state) == standing(undisturbed)
        n_kills += 1
    assert n_kills >= {"made": 2, "grown": 3, "pruned": 3}[story]


def test_predictions_of_a_clock_that_was_set_back_are_found_in_their_time(wine):
    wine.write(60, start=T0 - 500)  # by new processes of the same names
    wine.compact()
    wine.compact(T0 + 86400 + table.GRACE_S)
    wanted = [f for f in wine.frames if f.at < T0]
    assert len(wanted) == 60
    assert {f.id for f in wine.read(until=T0)} >= {f.id for f in wanted[:40]}
