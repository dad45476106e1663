"""Which entries call for a message, and that each says ref, harm, what was done and what to type."""

import pytest
from loop.records import Records

from gyrostat.ledger.entries import KINDS
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop.messages import CALLS, message, stuck_message
from gyrostat.loop.stuck import stuck


@pytest.fixture
def ledger(tmp_path):
    """An empty one."""
    found = SqliteLedger(tmp_path / "ledger.db")
    yield found
    found.close()


@pytest.fixture
def records(ledger):
    """Says what happens to wine."""
    return Records(ledger)


def told(ledger, entry):
    return message(ledger, entry, project="wines", env="dev")


def test_only_kinds_that_there_are_call_for_a_message():
    assert all(kind in KINDS[life] for life, kind in CALLS)


def test_a_first_release_asks_and_says_that_nobody_answers_yet(ledger, records):
    entry = records.ask()
    found = told(ledger, entry)
    assert (found.kind, found.ref, found.about) == ("person_needed", entry.ref, "version/wine/1")
    assert found.harm == "nobody answers yet"
    assert found.command.startswith("gyrostat approve version/wine/1 ")


def test_a_rollback_says_whom_it_hurt_and_who_answers_now(ledger, records):
    records.crown()
    records.canary(0.25)
    found = told(ledger, records.regress())
    assert (found.kind, found.about) == ("rolled_back", "version/wine/2")
    assert found.harm == "25 % of requests went to it; error rate +12.0pp (limit +1pp)"
    assert found.done == "taken off; version 1 answers everything"


def test_a_deadline_that_ends_in_hold_says_what_stays_and_what_decides_it(ledger, records):
    records.crown()
    records.canary(0.25)
    entry = records.step(
        "production/wine", "overdue", *records.offer, cause="180 more requests", detail={"then": "hold"}
    )  # fmt: skip
    found = told(ledger, entry)
    assert (found.kind, found.ref, found.about) == ("person_needed", entry.ref, "version/wine/2")
    assert "undecided at its deadline, held as it is: 180 more requests" in found.text
    assert found.harm == "none shown: 25 % of requests go to version 2"
    assert found.done.startswith("nothing; it keeps its share of requests until")
    assert found.command.startswith("gyrostat approve version/wine/2 ")


def test_a_champion_that_fell_names_its_metric(ledger, records):
    records.crown()
    records.canary()
    records.step("production/wine", "promoted", *records.offer)
    detail = {"metric": "error_rate", "value": 0.021, "limit": 0.01}
    found = told(ledger, records.step("production/wine", "champion_regressed", *records.offer, cause="errors", detail=detail))  # fmt: skip
    assert found.about == "version/wine/2"
    assert found.harm.startswith("all requests went to it since ")
    assert found.harm.endswith("error_rate 0.021 (limit 0.01)")
    assert found.done == "taken off; version 1 answers everything"


def test_a_rollback_by_hand_and_a_hold_say_how_to_go_on(ledger, records):
    records.crown()
    records.canary(0.5)
    bundle = records.offer[0]
    found = told(ledger, records.step("production/wine", "rolled_back", bundle, detail={"by": "kim"}))  # fmt: skip
    # nothing was asked for, so the facts before know no wish: the message goes all the same
    assert (found.kind, found.harm) == ("rolled_back", "unknown: see gyrostat status")
    assert found.command == "gyrostat resume wine"


def test_a_wish_a_rollback_and_a_hold(ledger, records):
    records.crown()
    records.canary(0.5)
    bundle = records.offer[0]
    records.event("production/wine", "rollback_asked", bundle=bundle, with_data=False, actor="kim")
    found = told(ledger, records.step("production/wine", "rolled_back", bundle, detail={"by": "kim"}))  # fmt: skip
    assert (found.about, found.harm) == ("version/wine/2", "50 % of requests went to it")
    assert found.done == "taken off; version 1 answers everything; held"


def test_a_failed_run_and_broken_data_name_the_run(ledger, records):
    found = told(ledger, records.fail(9))
    assert (found.kind, found.about, found.command) == ("failed", "run/wine/9", "gyrostat why run/wine/9")  # fmt: skip
    assert "the disk is full" in found.what


def test_what_is_no_trouble_calls_for_nothing(ledger, records):
    records.crown()
    assert [e.kind for e in ledger.entries() if told(ledger, e)] == []


def test_a_message_is_the_same_whenever_it_is_made(ledger, records):
    entry = records.ask()
    first = told(ledger, entry)
    records.step("production/wine", "approved", *records.offer, cause="by kim")
    assert told(ledger, entry) == first


def test_a_stuck_stream_is_found_by_reading_and_told_with_the_same_key(ledger, records, tmp_path):
    records.crown()
    assert stuck(ledger, tmp_path, ["wine"]) == []
    planted = records.plant()
    (found,) = stuck(ledger, tmp_path, ["wine"])
    assert found == stuck(ledger, tmp_path, ["wine"])[0]
    what = stuck_message(ledger, found, project="wines", env="dev")
    assert (what.kind, what.ref, what.about, what.command) == ("stuck", planted.ref, "production/wine", "gyrostat audit verify")  # fmt: skip


@pytest.mark.parametrize("seq", ["99", "null"])
def test_routes_that_a_server_refuses_are_stuck(ledger, records, tmp_path, seq):
    records.crown()
    folder = tmp_path / "routes" / "wine.applied"
    folder.mkdir(parents=True)
    (folder / "server-0.json").write_text(
        f'{{"refused": {seq}, "cause": "the bundle is altered", "pid": 1}}'
    )
    (found,) = stuck(ledger, tmp_path, ["wine"])
    assert (found.stream, found.command) == ("production/wine", "gyrostat roll-back wine")
    assert "the bundle is altered" in found.why


def test_a_batch_that_failed_says_who_misses_what_and_is_told_once_an_hour(ledger, records):
    why = {"cause": "nightly: there is no in.csv", "status": "failed"}
    first = records.batch("batch_failed", **why)
    found = told(ledger, first)
    assert (found.kind, found.about, found.command) == (
        "failed",
        "wine",
        f"gyrostat why {first.ref}",
    )
    assert found.what == "not answered: nightly: there is no in.csv"
    assert found.harm == "whoever reads that output finds no new answers"
    assert told(ledger, records.batch("batch_failed", 7200.0, **why)) is None
    other = records.batch(
        "batch_failed", 10800.0, cause="nightly: the disk is full", status="failed"
    )
    assert told(ledger, other).what == "not answered: nightly: the disk is full"
    assert told(ledger, records.batch()) is None


def test_a_candidate_that_replay_refused_was_never_taken_off_and_hurt_nobody(ledger, records):
    records.crown()
    records.stage()
    records.step("production/wine", "approved", *records.offer)
    records.step("production/wine", "replay_started", *records.offer)
    verdict = {"answer": "reject", "rule": "rollout.replay/1", "reason": "errors: error_rate 0.05"}
    entry = records.step(
        "production/wine", "regressed", *records.offer, cause="errors", detail={"verdict": verdict}
    )
    found = told(ledger, entry)
    assert found.what == "not released: errors: error_rate 0.05"
    assert found.harm == "none: it answered nobody; errors: error_rate 0.05"
    assert found.done == "not released; version 1 answers everything"
