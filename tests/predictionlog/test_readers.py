"""Who reads predictions gets the same from the table as from segments: the door, training, why, labels that come late."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from gyrostat_runtime import log
from gyrostat_runtime.log import Label, LabelWriter, Writer
from loop.records import Records
from monitoring.builders import a_frame, a_reference, a_schema
from processes.projects import AtRest

import gyrostat
from gyrostat import backup, predictionlog
from gyrostat.backup import cut
from gyrostat.data import traffic
from gyrostat.observations import Segments
from gyrostat.predictionlog import table
from gyrostat.processes.compacting import Compactor
from gyrostat.processes.monitor import COMPACT_S, Watcher

BUNDLE = f"{1:064x}"
DAY = 86400.0


@pytest.fixture
def wine(tmp_path):
    """A project whose version 1 answered 40 rows two days ago, half of them labelled, in many segments."""
    (tmp_path / "project").mkdir()
    found = AtRest(tmp_path / "project")
    folder = found.state / "bundles" / BUNDLE
    folder.mkdir()
    manifest = {"schema": a_schema().as_json(), "reference": "reference.json"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "reference.json").write_text(json.dumps(a_reference()))
    start = time.time() - 2 * DAY
    writer = Writer(found.state / "log" / "wine", "server-0", sync_s=60, segment_bytes=500)
    labels = LabelWriter(found.state / "labels" / "wine", "server-0", sync_s=60)
    found.frames = [a_frame(n, at=start + n, bundle=BUNDLE, value=n / 10) for n in range(40)]
    for n, frame in enumerate(found.frames):
        writer.append(frame)
        writer.heartbeat(frame.at)
        writer.sync()
        if n % 2:
            labels.append(Label(frame.id, 1.0, frame.at))
    writer.close()
    labels.close()
    for _, path in log.segments(found.state / "log" / "wine")["server-0"]:
        os.utime(path, (start + 40, start + 40))
    return found


def seen(wine: AtRest) -> list:
    """What readers say."""
    project = gyrostat.Project(wine.root)
    if not project.ledger.tail("run/wine/1"):
        Records(project.ledger).event("run/wine/1", "run_asked", barred=[])
    rows, cut = traffic.labelled(wine.state, "wine", a_schema(), until=time.time())
    cut["at"] = cut["log"]["until"] = cut["labels"]["until"] = 0
    return [
        project.predictions(since="3d").to_dicts(),
        rows, cut,
        [str(project.why(f"prediction/wine/{frame.id}")) for frame in wine.frames[::9]],
        project.why("version/wine/1", forward=True).facts["chain"][1:],
    ]  # fmt: skip


def test_readers_say_the_same_before_and_after(wine):
    before = seen(wine)
    assert (len(before[0]), len(before[1])) == (40, 20)
    now = time.time()
    assert predictionlog.compact(wine.state, "wine", {"server-0": 100}, now) > 10
    assert seen(wine) == before
    predictionlog.compact(wine.state, "wine", {}, now + table.GRACE_S)
    assert len(list((wine.state / "log" / "wine").glob("*.seg"))) == 1
    assert seen(wine) == before


def test_a_label_finds_its_prediction_in_the_table(wine):
    now = time.time()
    Watcher(wine.state, "wine", now=now).turn(now)
    predictionlog.compact(wine.state, "wine", {"server-0": 100}, now)
    predictionlog.compact(wine.state, "wine", {}, now + table.GRACE_S)
    late = LabelWriter(wine.state / "labels" / "wine", "late", sync_s=60)
    for frame in wine.frames[0:10:2]:
        late.append(Label(frame.id, 1.0, now))
    late.close()
    watcher = Watcher(wine.state, "wine", now=now + 1)
    watcher.turn(now + 10)
    watcher.turn(now + 20)
    assert watcher.live.as_json(now + 20)["arms"][0]["n_labels"] == 25
    assert watcher.monitor.counts["unknown"] == 0


class Asked(Compactor):
    """Writes down what it is asked."""

    def __init__(self):
        self.passed = []

    def look(self, passed, *, now, before):
        self.passed.append((passed, before))

    def end(self): ...


def test_the_monitor_gives_away_only_what_it_never_reads_again(wine):
    now, asked = time.time(), Asked()
    watcher = Watcher(wine.state, "wine", now=now, compactor=asked)
    watcher.turn(now)
    for at in (now + COMPACT_S / 2, now + COMPACT_S):
        watcher.turn(at)
    (first, before), (second, _) = asked.passed
    assert before == now - watcher.monitoring.keep_s
    marked, _ = Segments(watcher.folder).mark["log"]["server-0"]
    assert second == {"server-0": marked - 1}
    assert marked == log.segments(wine.state / "log" / "wine")["server-0"][-1][0]
    # A monitor that is started again reads all that was not given away.
    again = Watcher(wine.state, "wine", now=now)
    assert again.tail.position["server-0"][0] > second["server-0"] >= first.get("server-0", 0)


def test_it_is_done_in_a_process_of_its_own_when_it_is_due(wine):
    before = seen(wine)
    compactor = Compactor(wine.state, "wine")
    compactor.look({"server-0": 100}, now=time.time(), before=0.0)
    assert compactor.is_running
    compactor._child.wait(60)
    n_rows = table.State.read(wine.state / "log" / "wine").runs[0].rows
    assert n_rows >= 30
    assert seen(wine) == before
    compactor.look({"server-0": 100}, now=time.time(), before=0.0)
    assert not compactor.is_running
    compactor.look({"server-0": 100}, now=time.time(), before=time.time())
    compactor._child.wait(60)
    left = gyrostat.Project(wine.root).predictions(since="3d").height
    assert left == 40 - n_rows
    compactor.end()


def test_a_backup_holds_the_table_as_of_its_instant(wine, tmp_path):
    now = time.time()
    predictionlog.compact(wine.state, "wine", {"server-0": 100}, now)
    predictionlog.compact(wine.state, "wine", {}, now + table.GRACE_S)
    before = seen(wine)
    held = {Path(s.name).name for s in cut.state_files(wine.root, wine.state) if s.held is not None}
    assert (
        "table.json" in held
    )  # read at the instant; the table itself may be large, and is copied afterwards
    assert not {name for name in held if name.endswith((".lance", ".manifest"))}
    saved = backup.save(wine.root, wine.state, tmp_path / "b.zip")
    backup.restore(saved.file, tmp_path / "back", actor="kim")
    wine.root = tmp_path / "back"
    wine.state = gyrostat.Project(wine.root).state
    assert seen(wine)[:3] == before[:3]
