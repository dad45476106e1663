"""The door, as a notebook comes in by it."""

import json
import time

import pandas as pd
import polars as pl
import pytest
from gyrostat_runtime import log
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


def answered(at_rest, n):
    """Predictions of version 1, just now."""
    bundle = f"{1:064x}"
    (at_rest.state / "bundles" / bundle).mkdir(exist_ok=True)
    manifest = {"schema": a_schema().as_json()}
    (at_rest.state / "bundles" / bundle / "manifest.json").write_text(json.dumps(manifest))
    writer = log.Writer(at_rest.state / "log" / "wine", "w0")
    frames = [a_frame(i, at=time.time() - 60, bundle=bundle) for i in range(n)]
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
