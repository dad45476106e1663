"""Histories that released versions wrote are read, folded and judged again for ever (golden/write.py wrote this release's)."""

import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gyrostat.batching.settings import BatchSettings
from gyrostat.gates.settings import ChampionGateSettings, GateSettings, UndecidedSettings
from gyrostat.ledger import entries, words
from gyrostat.ledger.chain import verify
from gyrostat.ledger.life import NEWEST, Say, freeze
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop import reconcile
from gyrostat.loop.run import RunTerms
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.rollout.settings import BakeSettings, RolloutSettings
from gyrostat.schedule import Schedule
from gyrostat.terms import Entry, Limit, Margin

FOLDER = Path(__file__).parent / "golden"
GOLDEN = sorted(FOLDER.glob("release-*/*.jsonl"))


def read(path: Path) -> tuple[dict[str, Any], list[Entry]]:
    head, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    lists = ("inputs", "outputs")
    return head, [Entry(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in rows]


def settings(head: dict[str, Any], life: str, digest: str) -> Any:
    """What was declared then, as today's rules take it."""
    if life == "retraining":
        said = head["retraining"][digest]
        schedules = tuple(Schedule(**s) for s in said["schedules"])
        return RetrainingSettings(**{**said, "triggers": tuple(said["triggers"]), "schedules": schedules})  # fmt: skip
    if life == "batching":
        batches = head["batching"][digest]
        return [BatchSettings(**{**b, "schedule": Schedule(**b["schedule"])}) for b in batches]
    digest = digest.partition(",")[0]
    if life == "production":
        said = head["production"][digest]
        rails = {name: Margin(**margin) for name, margin in said["guardrails"].items()}
        nested = {
            "bake": BakeSettings(**said["bake"]),
            "steps": tuple(said["steps"]),
            "guardrails": rails,
        }
        return RolloutSettings(**{**said, **nested})
    said = head["run"][digest]
    nested = {
        "limits": tuple(Limit(**limit) for limit in said["limits"]),
        "champion": ChampionGateSettings(**said["champion"]),
        "undecided": UndecidedSettings(**said["undecided"]),
    }
    return RunTerms(GateSettings(**{**said, **nested}))


def as_json(facts: Any) -> dict[str, Any]:
    return json.loads(json.dumps(freeze(facts)))


@pytest.fixture(params=GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def golden(request):
    return read(request.param)


def test_every_kind_of_this_release_is_in_its_golden_histories():
    found = {
        (e.stream.partition("/")[0], e.kind)
        for path in (FOLDER / f"release-{NEWEST}").glob("*.jsonl")
        for e in read(path)[1]
    }
    assert found == {(life, kind) for life, kinds in entries.KINDS.items() for kind in kinds}


def test_the_chain_still_verifies(golden):
    _, log = golden
    assert len(log) > 5
    assert verify(log) is None


def test_each_entry_is_read_and_has_words(golden):
    for e in golden[1]:
        assert isinstance(entries.typed(e), entries.Body)
        assert words.words(e).text


def test_the_entries_come_to_the_same_facts(golden):
    head, log = golden
    for stream, expected in head["facts"].items():
        facts = reconcile.life_of(stream).Facts(stream)
        found = as_json(reconcile.catch_up(facts, [e for e in log if e.stream == stream]))
        assert {name: found[name] for name in expected} == expected  # a later release may know more


def test_each_step_judged_again_is_the_same_step(golden):
    head, log = golden
    folded: dict[str, Any] = {}
    n_steps = 0
    for e in log:
        if (name := e.stream.partition("/")[0]) not in reconcile.LIVES:
            continue
        life = reconcile.life_of(e.stream)
        facts = folded.get(e.stream) or life.Facts(e.stream)
        if "release" in e.body:
            terms = settings(head, name, e.body["declaration"])
            say = life.decide(facts, e.body["seen"], terms, e.body["now"])
            assert isinstance(say, Say), (e.ref, say)
            assert (say.kind, say.inputs, say.outputs, say.cause) == (
                e.kind, e.inputs, e.outputs, e.body["cause"],
            )  # fmt: skip
            n_steps += 1
        folded[e.stream] = reconcile.catch_up(facts, [e])
    assert n_steps > 5


def test_a_ledger_that_holds_them_goes_on(golden, tmp_path):
    _, log = golden
    path = tmp_path / "ledger.db"
    SqliteLedger(path).close()
    text = json.dumps
    with sqlite3.connect(path) as db:
        for e in log:
            row = {
                **asdict(e),
                "inputs": text(e.inputs),
                "outputs": text(e.outputs),
                "body": text(e.body),
            }
            db.execute(
                f"INSERT INTO entries({','.join(row)}) VALUES({','.join('?' * len(row))})",
                list(row.values()),
            )
            db.execute(
                "INSERT INTO streams VALUES(?1,?2,0,'{}',0) ON CONFLICT(name) DO UPDATE SET seq=?2",
                (e.stream, e.seq),
            )
    db.close()
    ledger = SqliteLedger(path)
    assert list(ledger.entries()) == log
    assert verify(ledger.entries()) is None
    for stream in ledger.streams():
        if stream.partition("/")[0] in reconcile.LIVES:
            assert reconcile.facts_of(ledger, stream).seq == len(ledger.tail(stream))
    ledger.close()
