"""What `gc` takes and what it leaves, each with its reason."""

import json
import os
import time

import polars as pl
import pytest

from gyrostat.data import snapshots
from gyrostat.data.settings import DataSettings, SourceSettings
from gyrostat.errors import DataError
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop import collect
from gyrostat.terms import Draft

OLD = time.time() - 7 * 86400
SETTINGS = DataSettings(source=SourceSettings("t.csv"), target="y", task="regression")


@pytest.fixture
def state(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def ledger(state):
    return SqliteLedger(state / "ledger.db")


def a_bundle(state, letter, snapshot="", at=OLD):
    place = state / "bundles" / (letter * 64)
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps({"model": "wine", "snapshot": snapshot}))
    (place / "model.onnx").write_bytes(b"x" * 1000)
    os.utime(place, (at, at))
    return letter * 64


def release(ledger, *bundles, number=1):
    """Versions that became champion one after the other."""
    stream = "production/wine"
    for n, bundle in enumerate(bundles, start=number):
        run = f"run/wine/{n}"
        offer = ledger.append(
            stream,
            Draft("offered", ledger.now(), "t", body={"bundle": bundle, "run": run, "snapshot": ""}, key=run),
            expect_seq=None, fence=None,
        )  # fmt: skip
        for kind in ("staging_started", "staging_passed", "approved", "promoted"):
            body = {"seen": {}, "now": 0.0, "release": 1, "cause": "", "declaration": ""}
            ledger.append(
                stream, Draft(kind, ledger.now(), "t", (bundle, f"{stream}#{offer.seq}"), body=body),
                expect_seq=None, fence=None,
            )  # fmt: skip


def gone(ledger, state, *, budget=10**12, is_dry=False):
    found = collect.survey(ledger, state, ["wine"])
    removed, _, entry = collect.collect(
        ledger, state, found, budget_bytes=budget, actor="kim", is_dry=is_dry
    )
    return {t.ref for t in removed}, entry


def test_a_bundle_that_no_version_names_goes_and_the_champions_stay(state, ledger):
    champions = [a_bundle(state, letter) for letter in "ab"]
    rejected = a_bundle(state, "c")
    release(ledger, *champions)
    refs, entry = gone(ledger, state)
    assert refs == {f"bundle/wine/{rejected[:12]}"}
    assert sorted(p.name for p in (state / "bundles").iterdir()) == champions
    assert (entry.kind, entry.body["n"], entry.actor) == ("collected", 1, "kim")


def test_what_answers_stays_whatever_the_record_says(state, ledger):
    bundle = a_bundle(state, "c")
    (state / "routes").mkdir()
    (state / "routes" / "wine.json").write_text(
        json.dumps({"model": "wine", "arms": [{"bundle": bundle}]})
    )
    assert gone(ledger, state) == (set(), None)


def test_what_is_young_is_left_alone(state, ledger):
    a_bundle(state, "c", at=time.time())
    assert gone(ledger, state) == (set(), None)


def test_a_dry_run_changes_nothing(state, ledger):
    a_bundle(state, "c")
    refs, entry = gone(ledger, state, is_dry=True)
    assert (len(refs), entry) == (1, None)
    assert (state / "bundles" / ("c" * 64) / "model.onnx").exists()


def test_over_the_budget_the_oldest_champions_go_but_never_the_last_ones(state, ledger):
    champions = [a_bundle(state, letter, at=OLD + n) for n, letter in enumerate("abcdef")]
    release(ledger, *champions)
    refs, _ = gone(ledger, state, budget=10**12)
    assert refs == set()
    refs, _ = gone(ledger, state, budget=1)
    assert refs == {f"bundle/wine/{b[:12]}" for b in champions[:3]}


def test_the_rows_of_a_snapshot_go_its_record_stays_and_the_same_rows_bring_it_back(
    state, ledger, tmp_path
):
    taken = []
    for n in (40, 60, 80):
        rows = "".join(f"{i},{i % 7},{i * 2.5}\n" for i in range(n))
        (tmp_path / "t.csv").write_text("a,b,y\n" + rows)
        taken.append(snapshots.take(tmp_path, state, "wine", SETTINGS)["id"])
        path = state / "snapshots" / "wine" / f"{taken[-1]}.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"made_at": OLD + n}))
    a_bundle(state, "a", snapshot=taken[1])
    release(ledger, "a" * 64)
    refs, _ = gone(ledger, state)
    assert refs == {f"snapshot/wine/{taken[0]}"}
    with pytest.raises(DataError, match="were collected"):
        snapshots.read(state, "wine", taken[0])
    assert snapshots.read(state, "wine", taken[1]).height == 60
    assert snapshots.newest(state, "wine")["id"] == taken[2]
    (tmp_path / "t.csv").write_text(
        "a,b,y\n" + "".join(f"{i},{i % 7},{i * 2.5}\n" for i in range(40))
    )
    assert snapshots.take(tmp_path, state, "wine", SETTINGS)["id"] == taken[0]
    assert isinstance(snapshots.read(state, "wine", taken[0]), pl.DataFrame)


def test_of_work_that_is_over_the_record_and_the_log_stay(state, ledger):
    job = state / "jobs" / "run.wine.1" / "5-training"
    (job / "code").mkdir(parents=True)
    for name in ("result.json", "stdout.log", "model.pkl", "code/train.py"):
        (job / name).write_text("{}")
    running = state / "jobs" / "run.wine.2" / "5-training"
    (running / "code").mkdir(parents=True)
    (running / "code" / "train.py").write_text("")
    answered = state / "jobs" / "batching.wine" / "7-scoring"
    answered.mkdir(parents=True)
    (answered / "result.json").write_text("{}")
    for folder in (job, running, answered):
        os.utime(folder, (OLD, OLD))
    refs, _ = gone(ledger, state)
    assert refs == {"job/run/wine/1/5-training", "job/batching/wine/7-scoring"}
    assert not answered.exists()
    assert sorted(p.name for p in job.iterdir()) == ["result.json", "stdout.log"]
    assert (running / "code" / "train.py").exists()


def test_over_the_budget_rows_that_only_spare_champions_used_go_before_those(
    state, ledger, tmp_path
):
    for n in (40, 60):
        (tmp_path / "t.csv").write_text(
            "a,b,y\n" + "".join(f"{i},{i % 7},{i * 2.5}\n" for i in range(n))
        )
        made = snapshots.take(tmp_path, state, "wine", SETTINGS)["id"]
        champions = [a_bundle(state, c, snapshot=made) for c in ("abc" if n == 40 else "def")]
        release(ledger, *champions, number=1 if n == 40 else 4)
    first = snapshots.records(state, "wine")[0]["id"]
    found = collect.survey(ledger, state, ["wine"])
    removed, _, _ = collect.collect(
        ledger, state, found, budget_bytes=found.size_bytes - 1, actor="kim", is_dry=True
    )
    assert [t.ref for t in removed] == [f"snapshot/wine/{first}"]


def test_a_superseded_offer_that_never_was_staged_is_not_waited_for(state, ledger):
    early, late = a_bundle(state, "a"), a_bundle(state, "b")
    for bundle in (early, late):
        ledger.append(
            "production/wine",
            Draft("offered", ledger.now(), "t", body={"bundle": bundle, "run": f"run/wine/{bundle[0]}", "snapshot": ""}, key=bundle),
            expect_seq=None, fence=None,
        )  # fmt: skip
    assert gone(ledger, state)[0] == set()
    body = {"seen": {}, "now": 0.0, "release": 1, "cause": "", "declaration": ""}
    ledger.append(
        "production/wine", Draft("superseded", ledger.now(), "t", (early, "production/wine#1"), body=body),
        expect_seq=None, fence=None,
    )  # fmt: skip
    assert gone(ledger, state)[0] == {f"bundle/wine/{early[:12]}"}


def test_all_that_is_on_disk_is_counted(state, ledger):
    a_bundle(state, "a")
    (state / "bundles" / ("e" * 64)).mkdir()
    (state / "bundles" / ("e" * 64) / "manifest.json").write_text(json.dumps({"model": "other"}))
    found = collect.survey(ledger, state, ["wine"])
    assert found.size_bytes == collect._size(state)
    assert found.other["bundles"] > 0
