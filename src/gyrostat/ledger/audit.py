"""The ledger as evidence: every row as it stands in the file against the chain, and against heads that were kept elsewhere.

Rows are hashed as they are stored, a page at a time, so a long ledger takes time and no memory. What was done to the first
one that does not hold is found out from its neighbours.

A chain shows what was changed, dropped, inserted or moved inside it. That its end was cut off, or that all of it was written
anew, only a head shows that somebody kept elsewhere: an *anchor*. An entry that says that the ledger was restored explains
those heads, and only those, that were kept before it of places after the backup; it is always said, for a forger can write
one too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gyrostat.terms import GENESIS

Row = tuple[Any, ...]
"""position, stream, seq, fence, kind, at, actor, inputs, outputs, body, key, prev, hash: as stored."""
POSITION, PREV, HASH = 0, 11, 12
_dumps = json.JSONEncoder().encode
_loads = json.JSONDecoder().decode
EMPTY = "[]"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head of the chain as somebody kept it."""

    position: int
    hash: str
    at: float
    where: str
    """The file or repository it was kept in."""


@dataclass(frozen=True, slots=True)
class Restore:
    """A place at which the record says that it was taken from a backup."""

    position: int
    at: float
    actor: str
    after: int
    """Position of the last entry in the backup."""
    made_at: float
    file: str

    def explains(self, anchor: Anchor) -> bool:
        """Whether a head belongs to the time that was lost."""
        return anchor.position > self.after and anchor.at < self.at


@dataclass(frozen=True)
class Report:
    """What was found."""

    n_entries: int
    """That hold, from the first on."""
    head: str
    first_bad: int = 0
    """Position of the first entry that does not; 0: all do."""
    what: str = ""
    """changed, dropped, inserted, moved, rewritten, cut."""
    why: str = ""
    n_anchored: int = 0
    """Heads kept elsewhere that agree."""
    anchored_to: int = 0
    """The last position that an anchor vouches for."""
    restores: tuple[Restore, ...] = ()
    lost: tuple[Anchor, ...] = ()
    """Heads that do not agree, and that a restore explains."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found."""
        return not self.first_bad


def digest(row: Row, *, position: int | None = None) -> str:
    """The hash that a row must have, at its own place or at another."""
    inputs, outputs = row[7], row[8]
    place = [
        row[0] if position is None else position, row[1], row[2], row[3], row[4], row[5], row[6],
        [] if inputs == EMPTY else _loads(inputs), [] if outputs == EMPTY else _loads(outputs), row[10],
    ]  # fmt: skip
    return hashlib.sha256(f"{row[11]}{_dumps(place)}{row[9]}".encode()).hexdigest()


def _holds(row: Row) -> bool:
    try:
        return digest(row) == row[HASH]
    except (ValueError, TypeError, RecursionError):
        return False


def verify(
    rows: Iterable[Row],
    anchors: Iterable[Anchor] = (),
    *,
    row_at: Callable[[int], Row | None],
    search: Callable[[], Iterator[Row]],
) -> Report:
    """Follow the chain and compare it with the anchors.

    Args:
        rows: All, in the order of their positions.
        row_at: One row by its place, to look at neighbours.
        search: All rows again, for what is done once: to find out where a moved entry came from.
    """
    waiting: dict[int, list[Anchor]] = {}
    for anchor in anchors:
        waiting.setdefault(anchor.position, []).append(anchor)
    prev, n, n_anchored, last_anchored = GENESIS, 0, 0, 0
    restores: list[Restore] = []
    lost: list[Anchor] = []

    def report(*found: Any) -> Report:
        return Report(*found, restores=tuple(restores), lost=tuple(lost))

    for n, row in enumerate(rows, 1):
        if row[POSITION] != n or row[PREV] != prev or not _holds(row):
            first, what, why = _diagnose(n, prev, row, row_at, search)
            return report(n - 1, prev, first, what, why, n_anchored, last_anchored)
        prev = row[HASH]
        if restore := _restore(row):
            restores.append(restore)
        if n in waiting:
            for anchor in waiting.pop(n):
                if anchor.hash != prev and any(r.explains(anchor) for r in restores):
                    lost.append(anchor)
                    continue
                if anchor.hash != prev:
                    why = (
                        f"the chain holds, but {anchor.where} kept another entry/{n}: everything from entry/{last_anchored + 1} "
                        "on, or a part of it, was written anew"
                    )
                    return report(
                        n, prev, last_anchored + 1, "rewritten", why, n_anchored, last_anchored
                    )
                n_anchored += 1
                last_anchored = n
    cut: list[Anchor] = []
    for beyond in waiting.values():
        for anchor in beyond:
            (lost if any(r.explains(anchor) for r in restores) else cut).append(anchor)
    if cut:
        furthest = max(cut, key=lambda anchor: anchor.position)
        why = f"the chain holds, but ends at entry/{n}; {furthest.where} kept entry/{furthest.position}: its end was cut off"
        return report(n, prev, n + 1, "cut", why, n_anchored, last_anchored)
    return report(n, prev, 0, "", "", n_anchored, last_anchored)


def _restore(row: Row) -> Restore | None:
    """What a row says of a restore. Only the one right behind the backup's last entry can be true."""
    if (row[1], row[4]) != ("project", "restored"):
        return None
    try:
        body = _loads(row[9])
        found = Restore(
            row[POSITION], float(row[5]), str(row[6]), int(body["after"]), float(body["made_at"]), str(body["file"])
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if found.after == found.position - 1 else None


def _diagnose(
    n: int, prev: str, row: Row, row_at: Callable[[int], Row | None], search: Callable[[], Iterator[Row]]
) -> tuple[int, str, str]:  # fmt: skip
    """`(first bad position, what was done, why we think so)` of the row that was expected at `n`."""
    if row[POSITION] != n:
        return n, "dropped", f"entry/{n} is not there"
    if _holds(row):
        # As it was written, and yet it does not follow what stands before it: that one was sealed anew.
        if n == 1:
            return 1, "dropped", "the first entry names one before it"
        return n - 1, "changed", f"entry/{n} still names what stood before it, which was another"
    after = row_at(n + 1)
    home = _home(row, search)
    if home and home != n:
        neighbour = _home(after, search) if after is not None else 0
        if neighbour == n:
            return n, "moved", f"what stands there was entry/{home}, and entry/{n} stands behind it"
        if neighbour == home + 1 or after is None:
            return n, "dropped", f"what stands there was entry/{home}; {home - n} before it are not there" if home > n else f"what stands there was entry/{home}"  # fmt: skip
        return n, "moved", f"what stands there was entry/{home}"
    if after is not None and _home(after, search) == n:
        return n, "inserted", f"what stands behind it was entry/{n}"
    return n, "changed", "its content is not what its hash was made of"


def _home(row: Row | None, search: Callable[[], Iterator[Row]]) -> int:
    """The place for which a row's hash was made; 0: it was made of another content."""
    if row is None:
        return 0
    # Whoever renumbers rows shifts them a little; only one that was carried far is looked for everywhere.
    near = [row[POSITION] + step for step in (0, 1, -1, 2, -2, 3, -3)]
    for position in near:
        if position > 0 and _is_home(row, position):
            return position
    # What followed it says where it was: the row before that one.
    for other in search():
        if other[PREV] == row[HASH] and _is_home(row, other[POSITION] - 1):
            return int(other[POSITION]) - 1
    top = max((r[POSITION] for r in search()), default=0)
    return next((p for p in range(1, top + 1000) if _is_home(row, p)), 0)


def _is_home(row: Row, position: int) -> bool:
    try:
        return digest(row, position=position) == row[HASH]
    except (ValueError, TypeError, RecursionError):
        return False
