"""The mirror as the loop starts it, and cut short at every place where it can be: it comes to the same, once."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from adapters.stories import Story
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.schema import Column, Feature, Output, Schema

from gyrostat.adapters.mlflow import outbox, tracking
from gyrostat.adapters.mlflow.outbox import Place, mirror
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.registry import bundles
from gyrostat.terms import Draft

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own

SCHEMA = Schema(
    (Column("alcohol", "number"), Column("sugar", "number", nullable=True)),
    (Feature("alcohol", "alcohol"), Feature("sugar", "sugar")),
    Output("regression", "quality"),
)
STEP = {"seen": {}, "now": 0.0, "release": 1, "cause": "training: it raised", "declaration": "d1"}
TABLES = ("experiments", "runs", "metrics", "params", "tags", "logged_models", "registered_models", "model_versions")  # fmt: skip


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A state folder whose ledger has one failed run, after the process that shows it: how that ended, and the folder."""
    state = tmp_path_factory.mktemp("state")
    keys.create_keys(state / "keys")
    ledger = SqliteLedger(state / "ledger.db")
    for kind in ("opened", "gave_up"):
        draft = Draft(kind, ledger.now(), "loop", body=STEP)
        ledger.append("run/cider/1", draft, expect_seq=None, fence=None)
    ledger.close()
    done = subprocess.run(
        [sys.executable, "-m", "gyrostat.adapters.mlflow.outbox", "--state", state],
        cwd=tmp_path_factory.mktemp("elsewhere"), capture_output=True, text=True,
    )  # fmt: skip
    return done, state


@pytest.fixture(scope="module")
def store(shown):
    """The side that speaks MLflow, in this process; what it sets for its own process is taken back."""
    before = dict(os.environ)
    yield tracking.Tracking(shown[1])
    os.environ.clear()
    os.environ.update(before)


def published(state):
    """A signed bundle that answers 2 * alcohol + sugar; its digest."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["num", "w"], ["output"])], "g",
        [helper.make_tensor_value_info("num", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.array([[2.0], [1.0]], np.float32), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    folder = state / "packed"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    digest = bundle.write(folder, bundle.Manifest("wine", "onnx", SCHEMA))
    bundle.sign(folder, keys.private_key(state / "keys"))
    bundles.publish(state, folder, digest)
    return digest


def counts(state):
    """Rows in each table of MLflow's where something could stand twice."""
    db = sqlite3.connect(state / "mlflow" / "mlflow.db")
    found = {t: db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in TABLES}
    db.close()
    return found


class Killed(BaseException):
    """As SIGKILL: nobody handles it."""


class Fuse:
    """Kills after the first write of each kind into MLflow's tables: what is dead writes nothing more."""

    WRITES = ("create_", "log_", "set_", "delete_", "finalize_", "update_")

    def __init__(self, monkeypatch):
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs

        self.is_dead, self.depth = False, 0
        self.died_after = set()
        for kind in (Registry, Runs):
            for name in dir(kind):
                if name.startswith(self.WRITES):
                    monkeypatch.setattr(kind, name, self.wrapped(name, getattr(kind, name)))

    def wrapped(self, name, method):
        def call(*args, **kwargs):
            if self.is_dead:
                raise Killed
            self.depth += 1  # a method that calls another of its store is one write
            try:
                result = method(*args, **kwargs)
            finally:
                self.depth -= 1
            if self.depth == 0 and name not in self.died_after:
                self.died_after.add(name)
                self.is_dead = True
                raise Killed
            return result

        return call


@pytest.mark.slow
def test_the_process_shows_what_the_ledger_has_keeps_its_place_and_ends(shown):
    done, state = shown
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert json.loads((state / outbox.MIRRORED).read_bytes()) == {"position": 2, "owed": {}}
    db = sqlite3.connect(state / "mlflow" / "mlflow.db")
    which = "SELECT status, artifact_uri FROM runs WHERE name = 'run/cider/1'"
    ((status, place),) = db.execute(which).fetchall()
    db.close()
    assert status == "FAILED"
    assert str(state / "mlflow" / "artifacts" / "cider") in place


@pytest.mark.slow
def test_killed_after_each_of_its_writes_it_comes_to_the_same_and_nothing_stands_there_twice(
    shown, store, monkeypatch
):
    state, client = shown[1], store.client
    story = Story().offer(1, published(state)).go("promoted")
    story.train(2).say("run/wine/2", "cancelled")
    with monkeypatch.context() as patched:
        fuse = Fuse(patched)
        while True:
            try:
                mirror(story, Place(), lambda: store, pytest.fail)
                break
            except Killed:
                # A new process knows of no run that is open; and the one here must not end it in its tables.
                with contextlib.suppress(Killed):
                    store.mlflow.end_run()
                fuse.is_dead = False
    assert {
        "create_experiment", "create_run", "log_batch", "create_registered_model", "create_logged_model",
        "finalize_logged_model", "create_model_version", "set_registered_model_alias", "delete_logged_model",
    } <= fuse.died_after, fuse.died_after  # fmt: skip

    ids = [e.experiment_id for e in client.search_experiments()]
    runs = {r.data.tags["gyrostat.run"]: r for r in client.search_runs(ids)}
    ends = {ref: run.info.status for ref, run in runs.items()}
    assert ends == {"run/cider/1": "FAILED", "run/wine/1": "FINISHED", "run/wine/2": "KILLED"}
    assert len(client.search_runs(ids)) == 3
    run_id = runs["run/wine/1"].info.run_id
    assert len(client.get_metric_history(run_id, "gate.rmse")) == 1
    (version,) = client.search_model_versions("name = 'wine'")
    (model,) = client.search_logged_models(ids)
    assert version.source == model.artifact_location
    assert (version.run_id, version.tags["gyrostat.version"]) == (run_id, "1")
    loaded = store.mlflow.pyfunc.load_model("models:/wine@champion")
    frame = {"alcohol": [1.0, 10.0], "sugar": [0.5, 2.0]}
    assert loaded.predict(frame).tolist() == [2.5, 22.0]

    before = counts(state)
    client.set_terminated(run_id, "FAILED")  # as a run that is left with an error open has it
    mirror(story, Place(), lambda: store, pytest.fail)
    assert counts(state) == before
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_version_that_cannot_be_registered_holds_up_no_other_and_no_alias():
    class Store:
        def __init__(self):
            self.registered, self.aliases = [], {}

        def write(self, record):
            return record.ref

        def register(self, v, record):
            if v.number == 1:
                raise FileNotFoundError("its bundle is gone")
            self.registered.append(v.number)

        def point(self, model, alias, number):
            self.aliases[alias] = number

    story = Story().offer(1, "a" * 64).go("promoted").offer(2, "b" * 64).go("promoted")
    found, said = Store(), []
    place = mirror(story, Place(), lambda: found, said.append)
    assert (found.registered, found.aliases) == ([2], {"champion": 2, "candidate": 0})
    assert place.owed == {"production/wine": 1}
    assert "its bundle is gone" in said[0]
