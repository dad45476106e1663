"""The door, as a notebook comes in by it."""

import json
import time

import pandas as pd
import polars as pl
import pytest
from gyrostat_runtime import log
from loop.records import Records
from monitoring.builders import a_frame, a_schema
from processes.projects import AtRest

import gyrostat
from gyrostat.errors import UsageError
from gyrostat.terms import RunTold


@pytest.fixture
def at_rest(tmp_path):
    return AtRest(tmp_path)


@pytest.fixture
def wine(at_rest):
    return gyrostat.Project(at_rest.root)


def answered(at_rest, n, **changes):
    """Predictions of version 1, just now."""
    bundle = f"{1:064x}"
    (at_rest.state / "bundles" / bundle).mkdir(exist_ok=True)
    manifest = {"schema": a_schema().as_json()}
    (at_rest.state / "bundles" / bundle / "manifest.json").write_text(json.dumps(manifest))
    writer = log.Writer(at_rest.state / "log" / "wine", "w0")
    frames = [a_frame(i, at=time.time() - 60, bundle=bundle, **changes) for i in range(n)]
    for frame in frames:
        writer.append(frame)
    writer.close()
    return [frame.id for frame in frames]


def test_predictions_have_their_version_and_the_labels_of_a_frame(wine, at_rest):
    first, second = answered(at_rest, 2)
    wine.labels(pl.DataFrame({"id": [first], "label": [5.5], "note": ["x"]}))
    wine.labels(pd.DataFrame({"label": [6], "id": [second]}))
    frame = wine.predictions(since="1h")
    assert frame.select("id", "version", "label").rows() == [(first, 1, 5.5), (second, 1, 6.0)]
    assert wine.predictions(since="10s").height == 0


def test_what_a_limit_leaves_out_is_said(wine, at_rest):
    answered(at_rest, 5)
    with pytest.warns(UserWarning, match="the newest 2 of 5 predictions"):
        assert wine.predictions(limit=2).height == 2
    with pytest.raises(UsageError, match="at least 1"):
        wine.predictions(limit=0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pl.DataFrame({"id": ["a"], "y": [1.0]}), "columns id and label is needed, got DataFrame with id, y"),
        (pl.DataFrame({"id": ["a", "b"], "label": [1.0, None]}), "frame, row 2: `id` and `label`"),
        (pd.DataFrame({"id": ["a", "b"], "label": [1.0, float("nan")]}), "frame, row 2: `id` and `label`"),
        (pl.DataFrame({"id": ["a"], "label": [float("inf")]}), "row 1: a number is needed as label, got inf"),
        (pl.DataFrame({"id": ["a"], "label": [True]}).with_columns(label=pl.lit("good")), "got 'good'"),
        ([1, 2], "got list. Nothing was stored"),
        ("none.csv", "There is no file none.csv"),
    ],
)  # fmt: skip
def test_labels_of_another_form_are_refused_whole(wine, given, said):
    with pytest.raises(UsageError, match=said):
        wine.labels(given)
    assert not (wine.state / "labels" / "wine").exists()


def test_a_snapshot_opens_as_a_frame_by_ref_by_id_and_as_the_newest(tmp_path):
    from loop.test_tasks import Project

    project = Project(tmp_path)
    made = project.do("snapshot")["made"]
    homes = gyrostat.Project(tmp_path)
    whole = homes.data.open()
    assert whole.height == 60
    for name in (made, f"snapshot/homes/{made[:6]}", f"snapshot/{made}", "homes"):
        assert homes.data.open(name).equals(whole)
    sides = [homes.data.open(side=side) for side in ("train", "heldout")]
    assert sum(part.height for part in sides) == 60
    assert set(sides[1]["_side"]) == {"heldout"}
    with pytest.raises(UsageError, match="no side 'test'"):
        homes.data.open(side="test")


def test_no_snapshot_yet_says_how_to_make_one(wine):
    with pytest.raises(UsageError, match=r"no snapshot yet\. Make one: gyrostat run"):
        wine.data.open()


def test_status_draws_quality_beside_its_limit(wine):
    told = wine.status()
    quality = {"rmse": {"value": 0.63, "lower": 0.6, "upper": 0.66, "limit": 0.7}}
    told.facts["models"]["wine"]["quality"] = quality
    shown = told._repr_html_()
    assert "<td>wine rmse</td><td>0.63</td><td>0.6 to 0.66</td><td>0.7</td><td><svg" in shown


def test_why_takes_what_a_run_answered(wine, at_rest):
    with pytest.raises(UsageError, match="run/wine/77"):
        wine.why(RunTold((), {"run": "run/wine/77"}))


def test_changes_put_what_lies_closest_before_harm_on_top(at_rest, wine):
    records = Records(wine.ledger)
    records.n = 1
    records.canary()
    assert wine.changes().facts["harm"] is None
    records.regress()
    told = wine.changes()
    assert "error rate +12.0pp" in told.lines[0]
    assert told.facts["closest"][0]["kind"] == "canary_started"
    assert "before  release" in told.lines[1]
    assert told.facts["changes"][0]["kind"] == "regressed"


def test_what_came_of_a_version_is_its_predictions_and_shadows_apart(at_rest, wine):
    answered(at_rest, 3)
    bundle = f"{1:064x}"
    writer = log.Writer(at_rest.state / "log" / "wine", "w1")
    writer.append(a_frame(9, at=time.time(), bundle=bundle, arm="shadow"))
    writer.append(a_frame(10, at=time.time(), bundle="another"))
    writer.close()
    Records(wine.ledger).event("run/wine/1", "run_asked", barred=[])
    told = wine.why("version/wine/1", forward=True)
    version = told.facts["chain"][1]
    assert (version["predictions"], version["shadow"]) == (3, 1)
    assert "1 in shadow, which answered nobody" in version["words"]
    assert told.facts["chain"][-1]["predictions"] == 3


@pytest.mark.parametrize("inputs", [[], [[0.5, "a"]]])
def test_why_says_that_the_inputs_of_a_prediction_were_not_logged(at_rest, wine, inputs):
    (id,) = answered(at_rest, 1, inputs=inputs)
    Records(wine.ledger).event("run/wine/1", "run_asked", barred=[])
    told = wine.why(f"prediction/wine/{id}")
    assert ("not logged: serving.log_sample" in str(told)) == (not inputs)
    assert wine.predictions(since="1h")["prediction"].to_list() == [0.1]


def test_what_came_of_a_snapshot_are_its_runs_and_none_is_said(tmp_path):
    from loop.records import Records
    from loop.test_tasks import Project

    project = Project(tmp_path)
    made = project.do("snapshot")["made"]
    homes = gyrostat.Project(tmp_path)
    records = Records(homes.ledger, "homes")
    records.event("run/homes/1", "run_asked", barred=[])
    records.step("run/homes/1", "opened", cause="asked")
    records.step("run/homes/1", "snapshotted", outputs=(made,), seen={"made": made})
    whole = homes.why(f"snapshot/{made[:6]}", forward=True)
    assert [link["what"] for link in whole.facts["chain"]] == ["snapshot", "run", "versions"]
    assert "run/homes/1: snapshotted" in str(whole)
    assert "none came of it" in str(whole)


@pytest.mark.parametrize("ref", ["entry/1", "prediction/wine/1"])
def test_nothing_is_made_of_other_things(wine, ref):
    with pytest.raises(UsageError, match="ask --forward of snapshot"):
        wine.why(ref, forward=True)


def test_a_page_is_opened_at_the_port_that_really_is_used(wine, monkeypatch):
    with pytest.raises(UsageError, match=r"does not run\. Start it: gyrostat up"):
        wine.open("run/7")
    from gyrostat.processes import runfiles

    run = runfiles.RunFile("control", 1, "", "0", 7123)
    monkeypatch.setattr(runfiles, "alive", lambda state: {"control": run})
    assert wine.open("run/7").facts == {"ref": "run/wine/7", "url": "http://127.0.0.1:7123/run/wine/7"}  # fmt: skip
    assert str(wine.open()) == "http://127.0.0.1:7123/"


@pytest.mark.slow
def test_a_pipeline_of_the_notebook_becomes_a_candidate_and_says_so(tmp_path):
    from loop.test_tasks import Project, a_pipeline

    Project(tmp_path).do("snapshot")
    homes, said = gyrostat.Project(tmp_path), []
    rows = homes.data.open(side="train")
    X, y = rows.select("rooms", "humidity", "city"), rows["price"]
    run = homes.offer(a_pipeline(X.to_pandas(), y.to_numpy()), X, y, actor="kim", say=said.append)
    assert (run.exit_code, run.facts["outcome"]) == (0, "offered"), said
    assert run.gates["rmse"].answer == "accept"
    assert any("Pipeline, offered from a notebook" in line for line in said)
    assert "asked by kim" in str(homes.why(run))
    # Who reads the ledger sees that nothing was trained here.
    (wanted,) = [e for e in homes.ledger.entries() if e.kind == "triggered"]
    assert wanted.body["offered"]
