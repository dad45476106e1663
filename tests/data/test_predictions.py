"""The prediction log as a table."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest
from gyrostat_runtime.log import LabelWriter, Writer
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from monitoring.builders import a_frame, a_label, a_schema

from gyrostat.data import predictions

T0 = 1_700_000_000.0


class Log:
    """The logs of one model, and the schemas its bundles logged by."""

    def __init__(self, state):
        self.state = state

    def bundle(self, name, schema):
        folder = self.state / "bundles" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"schema": schema.as_json()}))

    def write(self, frames, labels=()):
        writer = Writer(self.state / "log" / "wine", "w0")
        for frame in frames:
            writer.append(frame)
        writer.close()
        writer = LabelWriter(self.state / "labels" / "wine", "l0")
        for label in labels:
            writer.append(label)
        writer.close()

    def read(self, **changes):
        asked = {"since": T0, "limit": 1000, "versions": {"b1": 4}} | changes
        return predictions.read(self.state, "wine", **asked)


@pytest.fixture
def wine(tmp_path):
    found = Log(tmp_path)
    found.bundle("b1", a_schema())
    return found


def test_each_answer_stands_beside_its_inputs_and_its_latest_label(wine):
    first, second = a_frame(1, at=T0 + 1, value=0.5), a_frame(2, at=T0 + 2, value=0.75)
    wine.write([first, second], [a_label(first, 1.0), a_label(first, 2.0, row=0, after=9.0)])
    frame = wine.read().frame
    assert frame.columns == ["id", "time", "version", "arm", "asked", "key", "status", "inputs", "prediction", "label"]  # fmt: skip
    assert frame["id"].to_list() == [first.id, second.id]
    assert frame["time"][0] == datetime.fromtimestamp(T0 + 1, UTC)
    assert frame["version"].to_list() == [4, 4]
    assert frame["inputs"].to_list() == [{"alcohol": 0.5, "plan": "b"}, {"alcohol": 0.75, "plan": "a"}]  # fmt: skip
    assert frame["prediction"].to_list() == [0.5, 0.75]
    assert frame["label"].to_list() == [2.0, None]


def test_rows_of_one_request_are_named_and_labelled_one_by_one(wine):
    both = a_frame(1, at=T0, n=2, inputs=[[1.0, "a"], [2.0, "b"]], outputs=[3.0, 4.0])
    wine.write([both], [a_label(both, 9.0), a_label(both, 5.0, row=1)])
    frame = wine.read().frame
    assert frame["id"].to_list() == [f"{both.id}.0", f"{both.id}.1"]
    assert frame["label"].to_list() == [None, 5.0]


def test_the_newest_are_kept_and_all_are_counted(wine):
    wine.write([a_frame(n, at=T0 + n, value=float(n)) for n in range(50)])
    found = wine.read(since=T0 + 10, limit=3)
    assert found.n_all == 40
    assert found.frame["prediction"].to_list() == [47.0, 48.0, 49.0]


def test_an_error_has_no_prediction_and_a_shadow_says_that_it_is_one(wine):
    failed = a_frame(1, at=T0, status=500, outputs=[], scores=[], error="it broke")
    wine.write([failed, a_frame(2, at=T0 + 1, arm="shadow")])
    frame = wine.read().frame
    assert frame.select("arm", "status", "prediction").rows() == [("champion", 500, None), ("shadow", 200, 0.1)]  # fmt: skip


def test_columns_of_several_versions_stand_side_by_side(wine):
    wider = Schema((Column("alcohol", "category"), Column("id", "integer")), (), a_schema().output)
    wine.bundle("b2", wider)
    new = a_frame(2, at=T0 + 1, bundle="b2", inputs=[["strong", 7]])
    wine.write([a_frame(1, at=T0, value=0.5), new])
    frame = wine.read().frame
    assert frame["version"].to_list() == [4, None]
    # One is a number, the other a word: only as texts are they one column.
    assert frame["inputs"].to_list() == [
        {"alcohol": "0.5", "id": None, "plan": "b"},
        {"alcohol": "strong", "id": 7.0, "plan": None},
    ]


def test_a_personal_column_is_the_hash_that_was_logged_whatever_its_kind(wine):
    output = Output("binary", "churned", ("no", "yes"), "boolean", positive="yes")
    wine.bundle("b2", Schema((Column("phone", "number"),), (Feature("phone", "phone"),), output, ("phone",)))  # fmt: skip
    asked = a_frame(1, at=T0, bundle="b2", inputs=[["h:93af"]], outputs=["yes"])
    wine.write([asked], [a_label(asked, "no")])
    frame = wine.read().frame
    assert frame.select(pl.col("inputs").struct.field("phone"), "prediction", "label").rows() == [("h:93af", "yes", "no")]  # fmt: skip


def test_a_bundle_that_is_gone_leaves_answers_without_inputs(wine):
    wine.write([a_frame(1, at=T0, bundle="gone", value=0.5)])
    frame = wine.read().frame
    assert frame.select("id", "prediction").height == 1
    assert frame["inputs"].to_list() in ([{}], [None])


def test_an_empty_log_is_an_empty_table(wine):
    found = wine.read()
    assert (found.n_all, found.frame.height) == (0, 0)
    assert found.frame.schema["time"] == pl.Datetime("us", "UTC")
