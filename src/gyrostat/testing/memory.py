"""A ledger in memory: for tests and the simulation. Passes the same contract as the real ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from gyrostat.errors import ConflictError, FencedError, MalformedEntryError
from gyrostat.ledger.chain import seal
from gyrostat.ledger.entries import check_draft
from gyrostat.terms import GENESIS, Draft, Entry


class MemoryLedger:
    """Implements `ports.Ledger`; one thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.log: list[Entry] = []
        self.by_stream: dict[str, list[Entry]] = {}
        self.keys: dict[tuple[str, str], Entry] = {}
        self.folded: dict[str, tuple[int, bytes]] = {}
        self.over: set[str] = set()
        self.leases: dict[str, tuple[str, int, float]] = {}

    def append(
        self,
        stream: str,
        draft: Draft,
        *,
        expect_seq: int | None,
        fence: int | None,
        head: dict[str, Any] | None = None,
        is_last: bool = False,
    ) -> Entry:
        """See `ports.Ledger.append`."""
        check_draft(stream, draft)
        mine = self.by_stream.setdefault(stream, [])
        if draft.key is not None and (known := self.keys.get((stream, draft.key))):
            return known
        if fence is not None and fence != self.leases.get(stream, ("", 0, 0.0))[1]:
            raise FencedError(f"the lease of {stream} is not {fence}")
        if expect_seq is not None and expect_seq != len(mine):
            raise ConflictError(f"{stream} ends at {len(mine)}, not at {expect_seq}")
        at = self.now()
        if expect_seq is not None and draft.at > at:
            raise ConflictError(f"{draft.kind} was judged later than the ledger's time")
        prev = self.log[-1].hash if self.log else GENESIS
        place = {"position": len(self.log) + 1, "stream": stream, "seq": len(mine) + 1}
        try:
            e = seal(draft, **place, fence=fence, at=at, prev=prev)
        except (TypeError, ValueError) as error:
            raise MalformedEntryError(f"The body of {draft.kind} is not JSON: {error}") from error
        self.log.append(e)
        mine.append(e)
        if draft.key is not None:
            self.keys[stream, draft.key] = e
        if head is not None:
            self.folded[stream] = e.seq - 1, msgspec.json.encode(head)
        if is_last:
            self.over.add(stream)
        return e

    def tail(self, stream: str, *, after_seq: int = 0) -> list[Entry]:
        """See `ports.Ledger`."""
        return self.by_stream.get(stream, [])[after_seq:]

    def entries(self, *, after: int = 0, before_at: float | None = None) -> Iterator[Entry]:
        """See `ports.Ledger`."""
        return (e for e in self.log[after:] if before_at is None or e.at <= before_at)

    def entry(self, position: int) -> Entry | None:
        """See `ports.Ledger`."""
        return self.log[position - 1] if 0 < position <= len(self.log) else None

    def mentions(self, ref: str, *, limit: int = 1000) -> list[Entry]:
        """See `ports.Ledger`."""
        return [e for e in self.log if ref in e.inputs or ref in e.outputs][:limit]

    def knows(self, stream: str, key: str) -> bool:
        """See `ports.Ledger`."""
        return (stream, key) in self.keys

    def now(self) -> float:
        """See `ports.Ledger`."""
        return max(self.clock(), self.log[-1].at if self.log else 0.0)

    def position(self) -> int:
        """See `ports.Ledger`."""
        return len(self.log)

    def streams(self) -> list[str]:
        """See `ports.Ledger`."""
        return [s for s in self.by_stream if s not in self.over]

    def heads(self, stream: str | None = None) -> list[tuple[str, int, dict[str, Any]]]:
        """See `ports.Ledger`."""
        names = self.streams() if stream is None else [stream] if stream in self.by_stream else []
        return [
            (s, seq, msgspec.json.decode(facts))
            for s in names
            for seq, facts in [self.folded.get(s, (0, b"{}"))]
        ]

    def acquire(self, name: str, owner: str, *, ttl_s: float) -> int | None:
        """See `ports.Ledger`."""
        now = self.clock()
        holder, fence, until = self.leases.get(name, ("", 0, float("-inf")))
        if until > now + ttl_s:  # taken before the clock was set back: nobody waits that long
            until = now
        if now < until and holder != owner:
            return None
        fence += not (now < until)
        self.leases[name] = (owner, fence, now + ttl_s)
        return fence
