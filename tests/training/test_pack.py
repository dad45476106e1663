"""What stands in a bundle, and that it is the same each time."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.rows import from_columns
from gyrostat_runtime.schema import Output
from gyrostat_runtime.session import Session
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits
from training.tables import a_schema, a_table, as_columns, pickled, prepared, targets

from gyrostat.errors import JobError
from gyrostat.terms import Limit
from gyrostat.training import environment
from gyrostat.training.classes import align
from gyrostat.training.pack import pack
from gyrostat.training.reference import histograms


@pytest.fixture(autouse=True)
def one_thread():
    """Small fits on a busy machine: threads that spin cost more than they help."""
    with threadpool_limits(1):
        yield


SNAPSHOT = {"id": "d3f9a1c0b1c2", "n_train": 300, "n_heldout": 100, "checks": {"n_rules": 14}}
TRAINING = {
    "metrics": {"accuracy": 0.75},
    "params": {"C": 1.0, "note": "a|b"},
    "code": {"digest": "c" * 64, "commit": "3f2c1d9" + "0" * 33, "dirty": True},
}


class Stubborn(LogisticRegression):
    """A class of the user's own: no converter knows it."""


def packed(
    folder, model, *, task="binary", table=None, y=None, code=None, training=TRAINING, lock=""
):
    if table is None:
        table, z = a_table(has_text=True)
        y = targets(z)[task]
    model.fit(table.iloc[:300], y[:300])
    folder.mkdir()
    result = pack(
        folder / "bundle",
        name="wine",
        model=model,
        model_file=pickled(model, folder / "model.pkl"),
        schema=a_schema(table, task),
        features=table.iloc[:300],
        heldout_features=table.iloc[300:],
        snapshot=SNAPSHOT,
        training=training,
        made_at=1_764_000_000.0,
        code=code,
        limits=(Limit("accuracy", min=0.7),),
        lock=lock,
    )
    return result, folder / "bundle", table


def opened(folder):
    keys.create_keys(folder.parent / "keys")
    bundle.sign(folder, keys.private_key(folder.parent / "keys"))
    return Session.open(folder, keys.keyring(folder.parent / "keys"))


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_a_packed_pipeline_answers_in_its_session_what_the_model_answers(tmp_path, task):
    model = Ridge() if task == "regression" else LogisticRegression(max_iter=500)
    table, z = a_table(has_text=True)
    model = make_pipeline(prepared(table), model)
    result, folder, _ = packed(tmp_path / "a", model, task=task, table=table, y=targets(z)[task])
    assert result.flavour == "onnx"
    session = opened(folder)
    answered = session.predict(from_columns(as_columns(table), session.schema))
    expected = model.predict(table)
    if task == "regression":
        assert np.allclose(answered.values, expected, rtol=0, atol=5e-5 * expected.std())
    else:
        assert answered.values == expected.tolist()
    session.close()


def test_a_class_without_a_converter_is_packed_as_it_is_with_the_reason(tmp_path):
    table, z = a_table(has_text=True)
    code = tmp_path / "project" / "src"
    (code / "__pycache__").mkdir(parents=True)
    (code / "train.py").write_text("SEEN = 1\n")
    (code / "__pycache__" / "train.pyc").write_bytes(b"x")
    model = make_pipeline(prepared(table), Stubborn(max_iter=500))
    result, folder, _ = packed(
        tmp_path / "a", model, table=table, y=targets(z)["binary"], code=code
    )
    assert result.flavour == "native"
    assert "Stubborn" in result.reason
    assert result.as_json()["made"] == result.digest
    names = set(bundle.read_manifest(folder).files)
    assert {"model.pkl", "code/train.py", "code/src/train.py"} <= names
    assert not [name for name in names if "pyc" in name or name == "model.onnx"]
    with (folder / "model.pkl").open("rb") as file:
        assert type(pickle.load(file)[-1]).__name__ == "Stubborn"


@pytest.mark.parametrize(
    "last", [LogisticRegression(max_iter=500), Stubborn(max_iter=500)], ids=["onnx", "native"]
)
def test_the_same_model_and_record_give_the_same_bundle(tmp_path, last):
    table, _ = a_table(has_text=True)
    one, _, _ = packed(tmp_path / "a", make_pipeline(prepared(table), last))
    two, _, _ = packed(tmp_path / "b", make_pipeline(prepared(table), last))
    assert one == two


def test_the_manifest_says_what_it_was_made_of(tmp_path):
    table, _ = a_table(has_text=True)
    result, folder, _ = packed(
        tmp_path / "a", make_pipeline(prepared(table), LogisticRegression(max_iter=500))
    )
    manifest = bundle.read_manifest(folder)
    assert manifest.snapshot == SNAPSHOT["id"]
    assert manifest.code == "c" * 64
    assert manifest.environment["digest"]
    assert manifest.metrics == {"accuracy": 0.75}
    assert manifest.notes["n_probes"] == result.n_probes > 5000
    assert "scikit-learn==" in (folder / manifest.environment["file"]).read_text()
    assert bundle.digest(folder) == result.digest


def test_the_card_says_what_is_on_record_and_nothing_else(tmp_path):
    table, _ = a_table(has_text=True)
    _, folder, _ = packed(
        tmp_path / "a", make_pipeline(prepared(table), LogisticRegression(max_iter=500))
    )
    text = (folder / "card.md").read_text()
    for said in (
        "d3f9a1c0b1c2",
        "300 rows trained on",
        "14 of 14",
        "| accuracy | 0.75 |",
        "accuracy: at least 0.7",
    ):
        assert said in text
    assert "3f2c1d9" in text
    assert "not committed" in text
    assert "서울" in text
    assert "a\\|b" in text
    assert "None" not in text
    _, empty, _ = packed(
        tmp_path / "b",
        make_pipeline(prepared(table), LogisticRegression(max_iter=500)),
        training={},
    )
    text = (empty / "card.md").read_text()
    assert "## Training" not in text
    assert "recorded no metric" in text


def test_a_model_that_does_not_answer_its_own_rows_is_refused(tmp_path):
    table, z = a_table()
    model = LinearRegression().fit(table[["num"]], z)
    with pytest.raises(JobError, match="does not answer on its own training rows"):
        pack(
            tmp_path / "b",
            name="wine",
            model=model,
            model_file=pickled(model, tmp_path / "m.pkl"),
            schema=a_schema(table, "regression"),
            features=table,
            heldout_features=table.iloc[:0],
            snapshot={},
            training={},
            made_at=0.0,
        )
    assert not (tmp_path / "b").exists()


def test_a_classifier_for_a_regression_is_refused():
    table, z = a_table(100)
    model = LogisticRegression(max_iter=2000).fit(table, z > z.mean())
    with pytest.raises(JobError, match="answers classes, but the task"):
        align(a_schema(table, "regression"), model)


@pytest.mark.parametrize(
    ("kind", "spelled", "labels", "expected"),
    [
        ("integer", ("5", "10", "6"), [5, 6, 10], ("5", "6", "10")),
        ("boolean", ("True", "False"), [False, True], ("False", "True")),
        ("category", ("no", "yes", "maybe"), ["yes", "no"], ("no", "yes")),
        ("category", ("01", "1"), ["01", "1"], ("01", "1")),
        ("category", ("b", "a"), [0, 1], ("a", "b")),
        ("integer", ("10", "5", "7"), [0, 1, 2], ("5", "7", "10")),
    ],
    ids=[
        "by-number",
        "booleans",
        "one-never-trained",
        "exact-spelling",
        "codes",
        "codes-of-numbers",
    ],
)
def test_classes_stand_in_the_order_of_the_models_probabilities(kind, spelled, labels, expected):
    table, _ = a_table(60)
    y = np.array(labels, dtype=object if isinstance(labels[0], str) else None)
    model = LogisticRegression(max_iter=2000).fit(table, np.resize(y, len(table)))
    schema = replace(
        a_schema(table, "multiclass"), output=Output("multiclass", "q", spelled, class_kind=kind)
    )
    assert align(schema, model)[0].output.classes == expected


def test_a_class_that_the_data_do_not_have_is_refused():
    table, z = a_table(60)
    model = LogisticRegression(max_iter=2000).fit(table, np.where(z > z.mean(), "yes", "perhaps"))
    with pytest.raises(JobError, match="perhaps"):
        align(a_schema(table, "binary"), model)


def test_every_training_row_is_in_exactly_one_bin():
    table, z = a_table(1000, has_text=True)
    found = histograms(table, z.reshape(-1, 1), a_schema(table, "regression"))
    for name, column in found["columns"].items():
        assert sum(column["counts"]) + column["n_missing"] == len(table), name
    number, text = found["columns"]["fixed acidity"], found["columns"]["city"]
    assert len(number["counts"]) == len(number["edges"]) + 1 <= 64
    below = int((table["fixed acidity"] <= number["edges"][10]).sum())
    assert sum(number["counts"][:11]) == below
    assert dict(zip(text["values"], text["counts"], strict=True))["서울"] == int(
        (table["city"] == "서울").sum()
    )
    assert sum(found["outputs"]["counts"]) == len(table)
    json.dumps(found, allow_nan=False)


def test_a_bundle_names_the_environment_that_trained_it_not_the_one_that_packed_it(tmp_path):
    lock = "made-up==9.9\n"
    trained = TRAINING | {"environment": environment.describe(lock) | {"python": "3.10.4"}}
    table, z = a_table(has_text=False)
    y = targets(z)["binary"]
    _, folder, _ = packed(
        tmp_path / "p", LogisticRegression(), table=table, y=y, training=trained, lock=lock
    )
    manifest = bundle.read_manifest(folder)
    assert (folder / environment.FILE).read_text() == lock
    assert manifest.environment == trained["environment"]
