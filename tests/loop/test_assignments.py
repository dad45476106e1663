"""Who was given which arm, from what servers log and the monitor counts; and what came of it."""

import csv
import json
import random
import time

import pytest
from gyrostat_runtime.log import Frame, Label, LabelWriter, Writer
from monitoring.builders import a_reference, a_schema
from processes.projects import AtRest

import gyrostat
from gyrostat.errors import UsageError
from gyrostat.loop import assignments
from gyrostat.observations import Segments
from gyrostat.processes.monitor import Watcher

CHAMPION, CHALLENGER = f"{1:064x}", "b2"
STEPS = {3: 10, 4: 25}
"""Routes seq, and which of 50 keys the challenger has: the first ten, then the first twenty-five."""


class Release:
    """A champion and a challenger with growing shares, as servers and the monitor write it down."""

    def __init__(self, root):
        self.rest = AtRest(root)
        self.state = self.rest.state
        for bundle in (CHAMPION, CHALLENGER):
            folder = self.state / "bundles" / bundle
            folder.mkdir()
            manifest = {"schema": a_schema().as_json(), "reference": "reference.json"}
            (folder / "manifest.json").write_text(json.dumps(manifest))
            (folder / "reference.json").write_text(json.dumps(a_reference()))
        self.log = Writer(self.state / "log" / "wine", "w0", sync_s=60.0)
        self.labels = LabelWriter(self.state / "labels" / "wine", "w0", sync_s=60.0)
        self.at = time.time() - 60  # readers step over files that are older than what they ask for
        self.watcher = Watcher(self.state, "wine", now=self.at)
        self.rng = random.Random(1)

    def answer(self, seq, arm, *, key="", error=1.0, **changes):
        self.at += 0.001
        id = self.log.next_id(self.at)
        bundle = CHALLENGER if arm == "candidate" else CHAMPION
        value = self.rng.gauss(0, 1)
        frame = Frame(id, self.at, seq, bundle, arm, 200, 0.002, key, inputs=[[value, "a"]], outputs=[value], scores=[value], **changes)  # fmt: skip
        self.log.append(frame)
        self.labels.append(Label(id, value + self.rng.gauss(0, error), self.at))
        return id

    def close(self):
        self.log.close()
        self.labels.close()
        self.watcher.turn(self.at + 2)


@pytest.fixture
def release(tmp_path):
    """Two steps; the challenger is wrong by half as much."""
    found = Release(tmp_path)
    for n in range(40):
        found.answer(2, "champion", key=f"k{n}")  # before the release
    for seq, n_keys in STEPS.items():
        for _ in range(4):
            for n in range(50):
                is_challengers = n < n_keys
                arm = "candidate" if is_challengers else "champion"
                found.answer(seq, arm, key=f"k{n}", error=0.5 if is_challengers else 1.0)
    found.answer(4, "candidate", key="tester", error=90.0, is_asked=True)
    found.lone = found.answer(4, "champion")
    found.close()
    return found


def test_each_key_stands_with_its_arm_since_when_and_how_often(release):
    found = assignments.split(release.state, "wine")
    given = list(assignments.assignments(release.state, "wine", found))
    assert (given[0].prediction, given[0].key) == (release.lone, "")
    of = {(one.key, one.arm): one for one in given[1:]}
    stayed = {f"k{n}" for n in range(10)}
    moved = {f"k{n}" for n in range(10, 25)}
    assert {key for key, arm in of if arm == "candidate"} == stayed | moved
    assert {key for key, arm in of if arm == "champion"} == {f"k{n}" for n in range(10, 50)}
    assert {of[key, "candidate"].n for key in stayed} == {8}
    assert {of[key, arm].n for key in moved for arm in ("candidate", "champion")} == {4}
    assert all(of[key, "champion"].first_at < of[key, "candidate"].first_at for key in moved)


def test_the_arms_are_compared_by_labels_with_bounds_and_what_a_tester_chose_is_left_out(release):
    found = assignments.compared(assignments.split(release.state, "wine"), alpha=0.05)
    arms = found["arms"]
    assert (arms["champion"]["requests"], arms["challenger"]["requests"]) == (261, 140)
    assert (arms["champion"]["labels"], arms["challenger"]["labels"]) == (261, 140)
    assert arms["challenger"]["rmse"] == pytest.approx(0.5, rel=0.2)
    assert arms["champion"]["rmse"] == pytest.approx(1.0, rel=0.2)
    d = found["difference"]
    assert d["lower"] < -0.75 < d["upper"] < 0
    assert d["value"] == pytest.approx((d["lower"] + d["upper"]) / 2)


def test_a_harder_step_with_a_larger_share_is_not_held_against_the_challenger(tmp_path):
    def lines(seq, arm, n, loss):
        about = {"second": seq, "routes_seq": seq, "bundle": arm, "arm": arm}
        yield about | {"n": n, "errors": 0}
        yield about | {"n_labels": n, "loss": "squared", "loss_sum": n * loss, "loss_sq": n * loss**2}  # fmt: skip

    said = [*lines(3, "champion", 200, 1.0), *lines(3, "candidate", 40, 1.0)]
    said += [*lines(4, "champion", 100, 9.0), *lines(4, "candidate", 100, 9.0)]
    Segments(tmp_path / "observations" / "wine").append(said, {})
    found = assignments.split(tmp_path, "wine")
    assert assignments.compared(found, alpha=0.05)["difference"]["value"] == pytest.approx(0.0)


def test_the_door_shows_arms_and_one_client_and_writes_the_table(release, tmp_path):
    wine = gyrostat.Project(release.rest.root)
    told = wine.assignments()
    assert "challenger better" in str(told)
    assert told.facts["arms"]["champion"]["version"] == 1
    assert told.facts["arms"]["challenger"]["keys"] == 25
    assert len(told.facts["assignments"]) == 65
    assert "no prediction with this key" in str(wine.assignments(key="nobody"))
    file = tmp_path / "arms.csv"
    wine.assignments(csv=file)
    rows = list(csv.DictReader(file.open()))
    assert len(rows) == 66
    assert sum(int(row["predictions"]) for row in rows) == 401
    assert [row["prediction"] for row in rows if not row["key"]] == [release.lone]


def test_a_client_s_key_is_found_by_its_hash(release):
    from concurrent.futures import ThreadPoolExecutor

    from gyrostat.serving.predicting import Model
    from gyrostat.serving.settings import ServingSettings

    with ThreadPoolExecutor(1) as pool:
        server = Model(release.state, "wine", "w9", ServingSettings(), pool=pool, opener=pool, sync_s=60)  # fmt: skip
        assert server._hashed("서울 7") == assignments.hashed(release.state, "서울 7")
        server.writer.close()


def test_where_nothing_was_divided_it_is_said(tmp_path):
    AtRest(tmp_path)
    with pytest.raises(UsageError, match="No request of wine was divided between two arms"):
        gyrostat.Project(tmp_path).assignments()
    with pytest.raises(UsageError, match="There is no version/wine/9"):
        gyrostat.Project(tmp_path).assignments(version=9)
