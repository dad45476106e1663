"""What entries say to people: every sentence is of a kind that exists, and holds who and why."""

from typing import Any

import pytest

from gyrostat.ledger import entries, words
from gyrostat.ledger.chain import seal
from gyrostat.terms import Draft


def an_entry(
    kind: str, body: dict[str, Any] | None = None, *, stream="production/wine", outputs=()
) -> Any:
    draft = Draft(kind, 0.0, "kim", outputs=outputs, body=body or {})
    return seal(draft, position=1, stream=stream, seq=1, fence=None, at=0.0, prev="")


def test_every_sentence_is_of_a_kind_that_exists_and_every_step_that_moves_something_has_one():
    known = {kind for kinds in entries.KINDS.values() for kind in kinds}
    assert set(words._SENTENCES) <= known
    steps = {
        kind
        for kinds in entries.KINDS.values()
        for kind, body in kinds.items()
        if issubclass(body, entries.Step)
    }
    assert steps - set(words._SENTENCES) == {"told", "run_ended"}


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("triggered", {"by": "person", "why": "new rows"}, "a run is wanted: asked by kim (new rows)"),
        ("triggered", {"by": "drift"}, "a run is wanted: drift"),
        ("approved", {"cause": "by lee"}, "approved by lee"),
        ("approved", {"cause": "not asked for: rollout.approval is never"}, "approval not asked for: rollout.approval is never"),
        ("resumed", {"cause": "by lee"}, "resumed by lee"),
        ("resumed", {}, "resumed"),
        ("refused", {"cause": "champion"}, "refused: it is the champion already, to the byte"),
        ("refused", {"cause": "by kim"}, "refused: by kim"),
        ("held", {"cause": "by kim", "detail": {"reason": "audit"}}, "held by kim: audit"),
        ("rolled_back", {"detail": {"by": "kim", "reason": "wrong unit"}}, "rolled back by kim: wrong unit; held until resume"),
        ("canary_started", {"detail": {"steps": [0.0, 0.05, 0.5]}}, "rollout started: shadow, 5 %, 50 %, then champion"),
        ("gave_up", {"cause": "training: train.py:3"}, "failed: training: train.py:3"),
        ("declared", {"diff": [{"key": "a.b", "old": 1, "new": 2}, {}]}, "declaration changed by kim: a.b 1 -> 2 and 1 more"),
        (
            "champion_regressed",
            {"cause": "quality", "detail": {"metric": "rmse", "value": 0.91234, "limit": 0.7}},
            "rolled back by the loop: rmse 0.912 (limit 0.7), watched after release",
        ),
    ],
)  # fmt: skip
def test_a_sentence_says_who_and_why(kind, body, says):
    assert words.words(an_entry(kind, body)).text == says


def test_a_kind_without_a_sentence_is_named_and_is_no_news():
    entry = an_entry("told")
    assert words.words(entry).text == "told"
    assert not words.is_news(entry)
    assert words.is_news(an_entry("promoted"))
    assert not words.is_news(an_entry("closed"))
