"""What MLflow is to be shown, and that a store that fails costs nobody anything. Without MLflow."""

import subprocess
import sys

import pytest
from adapters.stories import OPENED_AT, Story

from gyrostat.adapters.mlflow import outbox
from gyrostat.adapters.mlflow.outbox import Place, mirror
from gyrostat.adapters.mlflow.records import fold_run
from gyrostat.ledger.sqlite import SqliteLedger


class Shown:
    """A store that remembers; it refuses runs in `broken`."""

    def __init__(self, broken=()):
        self.calls, self.broken = [], set(broken)

    def write(self, record):
        if record.ref in self.broken:
            raise OSError("database is locked\nand more")
        self.calls.append(("run", record.ref, record.status))
        return record.ref

    def register(self, v, record):
        self.calls.append(("version", v.number, record.ref if record else None))

    def point(self, model, alias, number):
        self.calls.append((alias, number))


@pytest.fixture
def story():
    return Story()


def record(story, n):
    return fold_run(story.tail(f"run/wine/{n}"))


def test_a_run_carries_what_lineage_needs(story):
    found = record(story.offer(7, "b" * 64), 7)
    tags = dict(found.tags)
    expected = {
        "run": "run/wine/7", "snapshot": "d3f9a1c0b1c2", "snapshot.fingerprint": "d3f9" * 16,
        "code.digest": "c" * 64, "code.commit": "3f2c1d9", "code.dirty": "False", "bundle": "b" * 64,
        "flavour": "onnx", "environment.digest": "e" * 64, "gates": "passed", "gates.reason": "6 of 6",
        "outcome": "offered",
    }  # fmt: skip
    assert {f"gyrostat.{k}": v for k, v in expected.items()}.items() <= tags.items()
    assert dict(found.params) == {"depth": "6"}
    assert dict(found.metrics) == {
        "mse": 0.4, "gate.rmse": 0.6, "gate.rmse.lower": 0.5, "gate.rmse.upper": 0.7,
        "gate.champion.difference": -0.02, "gate.champion.lower": -0.04, "gate.champion.upper": -0.01,
        "gate.latency_p99": 0.002, "gate.size_bytes": 4096.0, "gate.n_heldout": 284.0,
    }  # fmt: skip
    assert (found.opened_at, found.ended_at) == (OPENED_AT + 2, OPENED_AT + 7)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("gave_up", "FAILED"),
        ("cancelled", "KILLED"),
        ("rejected", "FINISHED"),
        ("trained", "RUNNING"),
    ],
)
def test_how_a_run_ended_is_how_mlflow_says_it(story, kind, status):
    story.train(1)
    if kind != "trained":
        story.say("run/wine/1", kind, cause="training: it raised")
    assert record(story, 1).status == status
    assert dict(record(story, 1).tags).get("gyrostat.cause") == (
        None if kind == "trained" else "training: it raised"
    )


def test_before_it_is_opened_there_is_no_run(story):
    assert record(story.say("run/wine/1", "run_asked"), 1) is None


def test_runs_are_shown_before_the_versions_that_came_of_them(story):
    story.offer(1, "a" * 64).go("promoted").offer(2, "b" * 64)
    shown = Shown()
    place = mirror(story, Place(), lambda: shown, pytest.fail)
    assert shown.calls == [
        ("run", "run/wine/1", "FINISHED"), ("run", "run/wine/2", "FINISHED"),
        ("version", 1, "run/wine/1"), ("version", 2, "run/wine/2"), ("champion", 1), ("candidate", 2),
    ]  # fmt: skip
    assert place == Place(len(story.all))


def test_what_was_shown_is_not_shown_again(story):
    story.offer(1, "a" * 64)
    place = mirror(story, Place(), Shown, pytest.fail)
    assert mirror(story, place, pytest.fail, pytest.fail) == place


def test_nothing_is_opened_while_there_is_nothing_to_show(story):
    story.say("retraining/wine", "triggered").say("production/wine", "declared")
    story.say("run/wine/1", "run_asked").say("run/wine/1", "opened")
    assert mirror(story, Place(), pytest.fail, pytest.fail) == Place(4)


def test_what_failed_is_owed_and_holds_up_nothing_else(story):
    story.offer(1, "a" * 64).train(2).say("run/wine/2", "cancelled")
    shown, said = Shown(broken=["run/wine/2"]), []
    place = mirror(story, Place(), lambda: shown, said.append)
    assert ("version", 1, "run/wine/1") in shown.calls
    assert place == Place(len(story.all), {"run/wine/2": 1})
    assert len(said) == 1
    assert "run/wine/2 was not shown to MLflow (try 1): OSError: database is locked" in said[0]
    shown.broken, shown.calls = set(), []
    assert mirror(story, place, lambda: shown, pytest.fail) == Place(len(story.all))
    assert shown.calls == [("run", "run/wine/2", "KILLED")]


def test_what_fails_stays_owed(story):
    story.train(1)
    place, said = Place(), []
    for _ in range(7):
        place = mirror(story, place, lambda: Shown(broken=["run/wine/1"]), said.append)
    assert list(place.owed.values()) == [7]
    assert len(said) == 7


def test_a_place_that_cannot_be_read_is_the_beginning(tmp_path):
    Place(7, {"run/wine/1": 2}).write(tmp_path / "place")
    assert Place.read(tmp_path / "place") == Place(7, {"run/wine/1": 2})
    (tmp_path / "place").write_text('{"position": 7')
    assert Place.read(tmp_path / "place") == Place()
    assert Place.read(tmp_path / "none") == Place()


def test_an_empty_ledger_costs_no_mlflow(tmp_path):
    SqliteLedger(tmp_path / "ledger.db").close()
    script = "import sys; from gyrostat.adapters.mlflow import outbox; code = outbox.main(sys.argv[1:]); print('mlflow' in sys.modules); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", script, "--state", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
    assert not (tmp_path / "mlflow" / "mlflow.db").exists()
    assert Place.read(tmp_path / outbox.MIRRORED) == Place()
