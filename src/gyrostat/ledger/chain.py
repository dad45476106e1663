"""How an entry gets its place, and how anybody finds out whether one was altered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from gyrostat.terms import GENESIS, Draft, Entry

_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode
_PLACE = json.JSONEncoder().encode


def _digest(e: Draft | Entry, body: str, place: list[Any], prev: str) -> str:
    """Over every field, and through `prev` over every entry before it."""
    text = f"{prev}{_PLACE([*place, e.actor, e.inputs, e.outputs, e.key])}{body}"
    return hashlib.sha256(text.encode()).hexdigest()


def seal(
    draft: Draft, *, position: int, stream: str, seq: int, fence: int | None, at: float, prev: str
) -> Entry:
    """Give a draft its place in the chain."""
    body = _CANONICAL(draft.body)
    digest = _digest(draft, body, [position, stream, seq, fence, draft.kind, at], prev)
    return Entry(
        position, stream, seq, fence, draft.kind, at, draft.actor,
        draft.inputs, draft.outputs, json.loads(body), draft.key, prev, digest,
    )  # fmt: skip


def verify(entries: Iterable[Entry]) -> int | None:
    """Position of the first entry that was changed, dropped, inserted or moved; None when the chain holds.

    A ledger cut off at its end still verifies: keep the last hash elsewhere now and then.
    """
    prev = GENESIS
    for position, e in enumerate(entries, 1):
        place = [position, e.stream, e.seq, e.fence, e.kind, e.at]
        if (e.position, e.prev) != (position, prev) or e.hash != _digest(
            e, _CANONICAL(e.body), place, prev
        ):
            return position
        prev = e.hash
    return None
