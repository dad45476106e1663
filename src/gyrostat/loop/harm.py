"""When users began to be harmed, and which changes lie closest before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from gyrostat.terms import Entry

HARM = frozenset({"regressed", "champion_regressed"})
CHANGES = frozenset({
    "declared", "shadow_started", "canary_started", "advanced", "promoted", "rolled_back", "champion_regressed", "regressed",
    "held", "resumed",
})  # fmt: skip
"""That change what answers, or by which rules."""
EPISODE_S = 3600.0
"""Signs of harm that follow each other within this time are one harm."""


def is_harm(entry: Entry) -> bool:
    """Whether this says that users get worse answers than is declared."""
    is_decay = entry.kind == "triggered" and entry.body.get("by") == "decay"
    return entry.kind in HARM or is_decay


def is_change(entry: Entry) -> bool:
    """Whether this may have brought harm: another version or declaration, or a world that moved (drift)."""
    is_drift = entry.kind == "triggered" and entry.body.get("by") == "drift"
    return entry.kind in CHANGES or is_drift


def onset(entries: Iterable[Entry]) -> Entry | None:
    """The first sign of the newest harm among these entries, oldest first; harm begins before it is seen."""
    signs = [entry for entry in entries if is_harm(entry)]
    if not signs:
        return None
    first = signs[-1]
    for earlier, later in reversed(list(pairwise(signs))):
        if later.at - earlier.at > EPISODE_S:
            break
        first = earlier
    return first


def closest(entries: Sequence[Entry], seen: Entry, *, n: int = 3) -> list[Entry]:
    """The `n` changes closest before this sign of harm, the closest first; what came after it cannot be its cause."""
    before = [e for e in entries if e.position < seen.position and is_change(e)]
    return sorted(before, key=lambda e: (seen.at - e.at, -e.position))[:n]
