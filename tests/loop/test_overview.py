"""What is shown of a rollout that is open: where it stands and what it waits for, from the counts judged last."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from loop.records import Records

from gyrostat import told
from gyrostat.config.declaration import ModelSettings
from gyrostat.config.reader import from_values
from gyrostat.ledger.chain import seal
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop import overview
from gyrostat.observations import ROLLOUT
from gyrostat.rollout.production import Answered, Facts, Offer
from gyrostat.rollout.states import State
from gyrostat.terms import Draft
from gyrostat.testing.memory import MemoryLedger

NOW = 10_000.0


@pytest.fixture
def settings() -> ModelSettings:
    rollout = {
        "bake": {"requests": 100, "time": "10s"},
        "guardrails": {"error_rate": "+1pp"},
        "steps": ["5%"],
    }
    values = {
        "version": 1,
        "models": {
            "wine": {"data": {"source": "w.csv", "target": "q"}, "rollout": rollout},
        },
    }
    return from_values(values).models["wine"]


def a_canary(**changes) -> Facts:
    facts = {
        "seq": 9, "state": State.CANARY, "since": NOW - 60, "steps": (0.05,), "routed_at": 8, "rollout_at": NOW - 60,
        "champion": Offer("old", "run/wine/1", "s1", "e1", 3), "candidate": Offer("new", "run/wine/2", "s2", "e2", 4),
    }  # fmt: skip
    return Facts("production/wine", **(facts | changes))


def leave(state, *, requests, proof=1.0, needed=1100, seq=8):
    folder = state / "observations" / "wine"
    folder.mkdir(parents=True)
    test = {
        "harm": 0.0, "proof": proof, "needs_proof": True, "value": 0.0, "lower": -0.01, "upper": 0.02, "n": requests,
        "n_needed": needed, "cause": "errors",
    }  # fmt: skip
    traffic = {
        "routes_seq": seq, "step": {"requests": requests, "seconds": 50.0}, "total": {"requests": requests},
        "guardrails": {"error_rate": test}, "limits": {}, "evidence": "",
    }  # fmt: skip
    (folder / ROLLOUT).write_text(json.dumps(traffic))
    (folder / "live.json").write_text(json.dumps({"service": {"requests_per_s": 57.0}}))


def test_a_canary_says_how_many_requests_it_still_needs_and_how_long_that_takes(settings, tmp_path):
    leave(tmp_path, requests=412)
    said = overview.stands(a_canary(), settings, tmp_path, NOW)
    assert said.startswith(
        "version 4 at 5 %, step 1 of 1: 412 of about 1,100 requests, about 4 min"
    )
    assert said.endswith("errors +0.0pp (limit +1pp)")


def test_before_the_bake_is_over_its_own_count_is_named(settings, tmp_path):
    leave(tmp_path, requests=40)
    said = overview.stands(a_canary(), settings, tmp_path, NOW)
    assert "40 of 100 requests, 50 of 10 s" in said


def test_counts_of_another_step_are_not_shown_as_this_one_s(settings, tmp_path):
    leave(tmp_path, requests=412, seq=7)
    said = overview.stands(a_canary(), settings, tmp_path, NOW)
    assert "0 of 100 requests" in said


def test_without_traffic_that_is_said(settings, tmp_path):
    said = overview.stands(a_canary(), settings, tmp_path, NOW)
    assert said.endswith("0 of 100 requests, no traffic now")


def test_nothing_is_said_where_nothing_is_in_traffic(settings, tmp_path):
    assert overview.stands(a_canary(state=State.KEEPING), settings, tmp_path, NOW) == ""


def write_as_a_newer_release(ledger: MemoryLedger, stream: str, kind: str):
    """As no append of this release would."""
    latest = ledger.log[-1]
    place = {"position": latest.position + 1, "stream": stream, "seq": len(ledger.tail(stream)) + 1}
    entry = seal(
        Draft(kind, latest.at, "loop"), **place, fence=None, at=latest.at, prev=latest.hash
    )
    ledger.log.append(entry)
    ledger.by_stream.setdefault(stream, []).append(entry)


@pytest.mark.parametrize("stream", ["production/wine", "retraining/wine", "run/wine/1"])
@pytest.mark.parametrize("at", [None, 4e9])
def test_a_stream_that_a_newer_release_wrote_on_is_named_and_hides_no_other_model(tmp_path, stream, at):  # fmt: skip
    ledger = MemoryLedger(clock=lambda: NOW)
    asked = Draft("triggered", NOW, "kim", body={"by": "person"}, key="k")
    ledger.append("retraining/wine", asked, expect_seq=None, fence=None)
    offered = {"bundle": "b", "run": "run/wine/1", "snapshot": "s"}
    ledger.append("production/wine", Draft("offered", NOW, "kim", body=offered, key="k"), expect_seq=None, fence=None)  # fmt: skip
    opened = {"seen": {}, "now": 0.0, "release": 1, "cause": "", "declaration": "d"}
    step = Draft("run_opened", 0.0, "loop", (), ("run/wine/1",), opened)
    ledger.append("retraining/wine", step, expect_seq=1, fence=None)
    write_as_a_newer_release(ledger, stream, "superconducted")
    data = {"data": {"source": "w.csv", "target": "q"}}
    loaded: Any = SimpleNamespace(
        declaration=from_values({"version": 1, "models": {"wine": data, "tea": data}})
    )
    seen = overview.overview(ledger, tmp_path, loaded, at=at)["models"]
    assert seen["tea"]["stuck"] == ""
    assert seen["tea"]["state"] == "keeping"
    assert f"stands back from {stream}" in seen["wine"]["stuck"]
    assert "entry/4" in seen["wine"]["stuck"]
    assert "'superconducted'" in seen["wine"]["stuck"]
    # What it could read is shown.
    assert seen["wine"]["candidate"]["bundle"] == "b"


def test_a_schedule_is_shown_with_the_moment_that_comes_next(tmp_path):
    ledger = MemoryLedger(clock=lambda: NOW)
    declared: dict[str, Any] = {"data": {"source": "w.csv", "target": "q"}}
    declared["retraining"] = {
        "triggers": ["decay", {"schedule": {"cron": "0 6 3 * *", "zone": "UTC"}}]
    }
    loaded: Any = SimpleNamespace(
        declaration=from_values({"version": 1, "models": {"wine": declared}})
    )
    said = {
        "seen": {},
        "now": NOW,
        "release": 1,
        "cause": "",
        "declaration": "d",
        "detail": {"schedules": ["0 6 3 * * UTC"]},
    }
    ledger.append("retraining/wine", Draft("schedule_set", NOW, "loop", body=said), expect_seq=0, fence=None)  # fmt: skip
    comes = overview.overview(ledger, tmp_path, loaded)["models"]["wine"]["next"]
    assert comes["triggers"] == ["decay", "schedule 0 6 3 * * UTC"]
    assert comes["scheduled_for"].startswith("1970-01-03T06:00")


def test_a_batch_is_shown_with_how_it_ended_what_it_waits_for_and_what_comes(tmp_path):
    ledger = SqliteLedger(tmp_path / "ledger.db", clock=lambda: NOW)
    records = Records(ledger)
    batch = {"input": "in.csv", "output": "out.csv", "schedule": {"cron": "0 * * * *"}}
    values = {"data": {"source": "w.csv", "target": "q"}, "batch": {"nightly": batch}}
    loaded: Any = SimpleNamespace(
        declaration=from_values({"version": 1, "models": {"wine": values}})
    )

    def said() -> str:
        facts = overview.overview(ledger, tmp_path, loaded)
        lines = told.status(facts | {"mistake": ""}, is_up=True, is_past=False)
        return next(line for line in lines if line.startswith("       batch "))

    assert "nightly: counts from when the loop has read it" in said()
    scored = records.batch()
    record = {
        "id": "i", "by_version": 1, "bundle": "b", "input": "in.csv", "input_digest": "x", "output": "out.csv", "output_digest": "y",
        "n_rows": 9, "n_failed": 2, "began_at": 1.0,
    }  # fmt: skip
    key = f"{scored.stream}#{scored.seq}"
    draft = Draft("scored", NOW, "loop", (key,), body=record, key=key)
    ledger.append("batch/wine", draft, expect_seq=None, fence=None)
    records.step("batching/wine", "told", "batch/wine", key)
    line = said()
    assert "9 rows by version 1, 2 without an answer (batch/wine/1); next " in line
    records.batch("batch_failed", 7200.0, cause="nightly: there is no in.csv", status="failed")
    assert "not answered: there is no in.csv; next " in said()
    records.step("batching/wine", "batch_due", detail={"batch": "nightly", "due": 10800.0})
    assert "; waits for a champion since " in said()
    ledger.close()


def test_a_replay_says_which_table_is_answered_or_that_it_waits_for_one(settings, tmp_path):
    f = a_canary(state=State.REPLAYING, steps=())
    assert (
        overview.stands(f, settings, tmp_path, NOW)
        == "version 4 is compared by replay: waits for the next batch to be answered"
    )
    f = a_canary(
        state=State.REPLAYING,
        steps=(),
        answered_batch=Answered(5, "nightly", "in/1.csv", "i"),
        n_replays=1,
    )
    assert overview.stands(f, settings, tmp_path, NOW).endswith(
        "answers in/1.csv beside the champion"
    )
    f = a_canary(
        state=State.REPLAYING, steps=(), answered_batch=f.answered_batch, replayed=5, n_replays=2
    )
    assert overview.stands(f, settings, tmp_path, NOW).endswith("2 before decided nothing")
