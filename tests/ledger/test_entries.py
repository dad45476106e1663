"""Bodies of entries: every kind is listed once, mistakes are refused before they are written and named when read."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from gyrostat.errors import MalformedEntryError, UnknownKindError
from gyrostat.ledger import entries
from gyrostat.ledger.chain import seal
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop import reconcile
from gyrostat.terms import Draft, Entry

STEP = {"seen": {}, "now": 1.0, "release": 1, "cause": "", "declaration": "d"}


def an_entry(stream: str, kind: str, **body: Any) -> Entry:
    return seal(
        Draft(kind, 0.0, "kim", body=body),
        position=184,
        stream=stream,
        seq=3,
        fence=None,
        at=1.0,
        prev="",
    )


@pytest.mark.parametrize("name", reconcile.LIVES)
def test_every_kind_that_a_life_reads_is_listed_and_no_other(name):
    assert set(entries.KINDS[name]) == reconcile.LIVES[name].KINDS
    steps = {kind for kind, body in entries.KINDS[name].items() if issubclass(body, entries.Step)}
    assert steps == {kind for _, kind in reconcile.LIVES[name].TRANSITIONS} - (
        {"offered"} if name == "production" else set()
    )


@pytest.mark.parametrize(
    ("stream", "kind", "body", "says"),
    [
        ("production/wine", "answered", {"bundle": "b"}, "body.answer of answered is missing, approved or rejected is needed"),
        ("production/wine", "answered", {"bundle": "b", "answer": "yes"}, "body.answer of answered is 'yes'"),
        ("production/wine", "resume_asked", {"held": "9", "champion": ""}, "held of resume_asked is '9', a whole number"),
        ("production/wine", "resume_asked", {"held": True, "champion": ""}, "held of resume_asked is True, a whole number"),
        ("production/wine", "rollback_asked", {"bundle": "b", "with_data": 1}, "with_data of rollback_asked is 1, true or false"),
        ("production/wine", "canary_started", STEP, "body.detail.steps of canary_started is missing"),
        ("retraining/wine", "triggered", {"why": "x"}, "body.by of triggered is missing, a text is needed"),
        ("run/wine/1", "trained", STEP | {"now": "noon"}, "body.now of trained is 'noon', a number is needed"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_named_when_read_and_refused_when_written(
    tmp_path, stream, kind, body, says
):
    with pytest.raises(MalformedEntryError, match=says) as read:
        entries.current(an_entry(stream, kind, **body))
    assert "entry/184" in str(read.value)
    assert read.value.facts["entry"] == 184
    ledger = SqliteLedger(tmp_path / "ledger.db")
    with pytest.raises(MalformedEntryError, match=says) as written:
        ledger.append(stream, Draft(kind, 0.0, "kim", body=body), expect_seq=None, fence=None)
    assert "Nothing was written" in str(written.value)
    assert ledger.position() == 0
    ledger.close()


def test_a_body_is_read_as_its_own_type_and_what_a_newer_writer_added_is_passed_over():
    read = entries.typed(an_entry("production/wine", "hold_asked", actor="kim", mood="calm"))
    assert read == entries.HoldAsked(actor="kim", reason="")


@dataclass(frozen=True, slots=True)
class HoldAskedLater(entries.Body):
    version: ClassVar[int] = 3
    upcasters: ClassVar[dict[int, entries.Upcaster]] = {
        1: lambda body: {"who": body["actor"], "reason": body.get("reason", "")},
        2: lambda body: {**body, "until": 0.0},
    }
    who: str
    reason: str
    until: float


def test_an_older_body_is_brought_up_to_date_and_a_newer_one_is_left_alone(monkeypatch):
    monkeypatch.setitem(entries.KINDS["production"], "hold_asked", HoldAskedLater)
    monkeypatch.setitem(entries._FIELDS, HoldAskedLater, entries._fields(HoldAskedLater))
    old = an_entry("production/wine", "hold_asked", actor="kim")
    assert entries.typed(old) == HoldAskedLater(who="kim", reason="", until=0.0)
    assert entries.current(old) == replace(old, body={"who": "kim", "reason": "", "until": 0.0})
    with pytest.raises(UnknownKindError, match="version 4, this release reads up to 3"):
        entries.current(an_entry("production/wine", "hold_asked", v=4))
