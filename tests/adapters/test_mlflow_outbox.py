"""The mirror on a real MLflow store: found again, never twice, and what `models:/wine@champion` answers."""

import os

import numpy as np
import pytest
from adapters.stories import Story
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from training.tables import a_schema, a_table, pickled, prepared, targets

from gyrostat.adapters.mlflow import tracking
from gyrostat.adapters.mlflow.outbox import Place, mirror
from gyrostat.registry import bundles
from gyrostat.training.pack import pack

pytestmark = pytest.mark.filterwarnings("ignore")


def own_regression():
    """A class that no converter knows, so its bundle is native; local, so it is pickled by value."""

    class OwnRegression(LogisticRegression):
        pass

    return OwnRegression()


def published(state, model, task):
    """A signed bundle of a fitted model among the state's bundles; its digest, and the rows and answers to compare."""
    table, z = a_table(80, has_text=True)
    model = make_pipeline(prepared(table), model).fit(table, y := targets(z)[task])
    folder = state / task
    folder.mkdir()
    packed = pack(
        folder / "bundle", name="wine", model=model, model_file=pickled(model, folder / "model.pkl"),
        schema=a_schema(table, task), features=table, heldout_features=table.iloc[:0],
        snapshot={"id": "d3f9a1c0b1c2"}, training={}, made_at=1_764_000_000.0,
    )  # fmt: skip
    assert len(y) == len(table)
    bundle.sign(folder / "bundle", keys.private_key(state / "keys"))
    bundles.publish(state, folder / "bundle", packed.digest)
    return packed, table, model.predict(table)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A store that was shown a champion, a candidate made by a script, and a failed run; shared: opening costs seconds."""
    state = tmp_path_factory.mktemp("state")
    keys.create_keys(state / "keys")
    story = Story()
    before = dict(os.environ)
    store = tracking.Tracking(state)
    client = store.client
    # What a user's script does: a run of its own, and a model under the name that is also ours.
    theirs = client.create_run(client.create_experiment("wine-quality"))
    client.log_param(theirs.info.run_id, "n_estimators", 10)
    client.set_terminated(theirs.info.run_id)
    client.create_registered_model("wine")
    client.create_model_version("wine", (state / "their").as_uri())
    client.transition_model_version_stage("wine", "1", "Production")
    first, second = (
        published(state, Ridge(), "regression"),
        published(state, own_regression(), "binary"),
    )
    assert (first[0].flavour, second[0].flavour) == ("onnx", "native")
    story.offer(1, first[0].digest).go("promoted")
    story.offer(2, second[0].digest, mlflow_run=theirs.info.run_id, params={"n_estimators": 10})
    story.go("canary_started").train(3).say("run/wine/3", "gave_up", cause="pack: it raised")
    mirror(story, Place(), lambda: store, pytest.fail)
    yield {"store": store, "client": client, "story": story, "theirs": theirs.info.run_id,
           "first": first, "second": second}  # fmt: skip
    os.environ.clear()
    os.environ.update(before)


def runs(client):
    ids = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(ids)
    return {run.data.tags.get("gyrostat.run"): run for run in found}, len(found)


def test_each_run_is_there_with_its_numbers_and_its_end(told):
    found, _ = runs(told["client"])
    one = found["run/wine/1"]
    assert (one.info.status, found["run/wine/3"].info.status) == ("FINISHED", "FAILED")
    assert one.data.params == {"depth": "6"}
    assert one.data.metrics["gate.rmse.upper"] == 0.7
    assert one.data.tags["gyrostat.bundle"] == told["first"][0].digest
    assert one.data.tags["gyrostat.snapshot"] == "d3f9a1c0b1c2"
    assert found["run/wine/3"].data.tags["gyrostat.cause"] == "pack: it raised"


def test_a_run_that_the_script_made_is_used_not_doubled(told):
    found, n = runs(told["client"])
    assert n == len(found)
    assert found["run/wine/2"].info.run_id == told["theirs"]
    assert found["run/wine/2"].info.status == "FINISHED"
    assert found["run/wine/2"].data.params == {"n_estimators": "10"}


def test_versions_bear_our_numbers_and_aliases_follow_production_not_stages(told):
    client = told["client"]
    ours = {v.version: v.tags.get("gyrostat.version") for v in client.search_model_versions()}
    assert sorted(ours.values(), key=str) == ["1", "2", None]
    aliases = client.get_registered_model("wine").aliases
    assert {alias: ours[number] for alias, number in aliases.items()} == {
        "champion": "1", "candidate": "2",
    }  # fmt: skip
    assert client.get_model_version("wine", "1").current_stage == "Production"


@pytest.mark.parametrize(("alias", "which"), [("champion", "first"), ("candidate", "second")])
def test_a_client_loads_a_version_by_its_alias_and_it_answers_as_trained(told, alias, which):
    import mlflow

    _, table, expected = told[which]
    loaded = mlflow.pyfunc.load_model(f"models:/wine@{alias}")
    try:
        answered = loaded.predict(table.head(20))
    finally:
        loaded._model_impl.session.close()
    if which == "first":
        assert np.allclose(answered, expected[:20], rtol=0, atol=5e-5 * expected.std())
    else:
        assert answered.tolist() == expected[:20].tolist()
    named = {c["name"]: c for c in loaded.metadata.signature.inputs.to_dict()}
    assert named["fixed acidity"]["type"] == "double"
    assert named["city"]["type"] == "string"
    assert (named["a b"]["required"], named["num"]["required"]) == (False, True)


def test_shown_again_from_the_beginning_nothing_is_there_twice(told):
    client = told["client"]

    def counted():
        found, n = runs(client)
        ids = [e.experiment_id for e in client.search_experiments()]
        history = [
            len(client.get_metric_history(run.info.run_id, name))
            for run in found.values() for name in run.data.metrics
        ]  # fmt: skip
        ends = {ref: (run.info.status, run.info.end_time) for ref, run in found.items()}
        versions = [v.version for v in client.search_model_versions()]
        models = [m.model_id for m in client.search_logged_models(ids)]
        return n, set(history), ends, sorted(versions), sorted(models)

    before = counted()
    assert before[1] == {1}
    mirror(told["story"], Place(), lambda: told["store"], pytest.fail)
    assert counted() == before
    # Killed between the model and its version: the model that is there is registered.
    (ours,) = client.search_model_versions("name = 'wine' and tags.`gyrostat.version` = '2'")
    client.delete_model_version("wine", ours.version)
    mirror(told["story"], Place(), lambda: told["store"], pytest.fail)
    assert counted()[4] == before[4]
    assert len(client.search_model_versions()) == 3


def test_a_run_shown_while_it_went_on_has_each_number_once_when_it_is_over(told):
    client, story = told["client"], Story().train(9)
    mirror(story, Place(), lambda: told["store"], pytest.fail)
    assert runs(client)[0]["run/wine/9"].info.status == "RUNNING"
    story.say("run/wine/9", "gave_up", cause="pack: it raised")
    mirror(story, Place(), lambda: told["store"], pytest.fail)
    run = runs(client)[0]["run/wine/9"]
    assert run.info.status == "FAILED"
    assert len(client.get_metric_history(run.info.run_id, "mse")) == 1


def test_aliases_move_with_the_next_champion(told):
    story = Story()
    story.all = list(told["story"].all)
    story.go("promoted")
    mirror(story, Place(), lambda: told["store"], pytest.fail)
    client = told["client"]
    aliases = client.get_registered_model("wine").aliases
    assert list(aliases) == ["champion"]
    tags = client.get_model_version_by_alias("wine", "champion").tags
    assert tags["gyrostat.version"] == "2"
    # Back, for tests that come later in whatever order.
    mirror(told["story"], Place(), lambda: told["store"], pytest.fail)


def test_a_schema_is_said_in_the_types_that_pandas_reads_from_the_file():
    schema = Schema(
        (
            Column("n", "integer"), Column("gaps", "integer", True), Column("day", "date"),
            Column("code", "category", False, ("1", "2")), Column("is_new", "boolean"),
            Column("unused", "number"),
        ),
        tuple(Feature(name, name) for name in ("n", "gaps", "day", "code", "is_new")),
        Output("binary", "target", ("0", "1"), class_kind="integer", positive="1"),
    )  # fmt: skip
    said = tracking.signature(schema)
    kinds = [c["type"] for c in said.inputs.to_dict()]
    assert kinds == ["long", "double", "string", "any", "boolean", "double"]
    required = [c["required"] for c in said.inputs.to_dict()]
    assert required == [True, False, True, True, True, False]
    assert said.outputs.to_dict()[0]["type"] == "long"
