"""How an entry gets its place, and how anybody finds out whether one was altered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from gyrostat.terms import GENESIS, Draft, Entry


def seal(
    draft: Draft, *, position: int, stream: str, seq: int, fence: int | None, at: float, prev: str
) -> Entry:
    """Give a draft its place; the hash covers every field, and through `prev` every entry before it."""
    body = json.dumps(
        draft.body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    place = [
        position,
        stream,
        seq,
        fence,
        draft.kind,
        at,
        draft.actor,
        draft.inputs,
        draft.outputs,
        draft.key,
    ]
    digest = hashlib.sha256(f"{prev}{json.dumps(place)}{body}".encode()).hexdigest()
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
        draft = Draft(e.kind, e.at, e.actor, e.inputs, e.outputs, e.body, e.key)
        place = {
            "position": position,
            "stream": e.stream,
            "seq": e.seq,
            "fence": e.fence,
            "at": e.at,
            "prev": prev,
        }
        if e != seal(draft, **place):
            return position
        prev = e.hash
    return None
