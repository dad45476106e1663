"""What Gyrostat needs from outside, as Protocols. Each has two implementations: the real one and the fake in testing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from gyrostat.terms import Draft, Entry


class Clock(Protocol):
    """Seconds since 1970, UTC."""

    def __call__(self) -> float:
        """Now."""
        ...


class Ledger(Protocol):
    """An append-only store of entries in streams, one hash chain over all of them, leases with fencing numbers.

    Every implementation guarantees:

    - `append` is atomic and durable: the entry is there whole, with the next position and the next seq, or not at all.
    - A *step* (`expect_seq` given) is written only on top of exactly the entries its author had read.
    - An *event* (`expect_seq=None`) takes the next seq and carries a key. A key is written once in a stream: appending
      it again returns the entry that has it, so outside senders may simply repeat themselves.
    - `at` is stamped by the ledger and never goes back, and a step is refused that was judged at a later time than its
      stamp would say.
    - A stream whose last step has no way on is over: it is listed no more, and no event opens it again.
    - Fencing compares numbers, never times: a wrong clock costs waiting, not correctness.
    """

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
        """Write one entry. `head`: facts of a step's stream at `expect_seq`, kept as its checkpoint.

        Raises:
            MalformedEntryError, UnknownKindError: the body is not strict JSON, or the stream is a life's and the draft is
                not what `ledger/entries.py` lists; nothing was written.
            ConflictError: the stream does not end at `expect_seq`, or the step was judged in the future.
            FencedError: `fence` is not the current number of the lease named `stream`.
            AmbiguousError: nobody knows. Read and decide again.
        """
        ...

    def tail(self, stream: str, *, after_seq: int = 0) -> list[Entry]:
        """The entries of one stream, oldest first."""
        ...

    def entries(self, *, after: int = 0, before_at: float | None = None) -> Iterator[Entry]:
        """The whole ledger in order, from position `after + 1`, up to the time `before_at`."""
        ...

    def entry(self, position: int) -> Entry | None:
        """One entry by its place."""
        ...

    def mentions(self, ref: str, *, limit: int = 1000) -> list[Entry]:
        """Entries that have `ref` among their inputs or outputs, oldest first (lineage)."""
        ...

    def knows(self, stream: str, key: str) -> bool:
        """Whether an event with this key stands in the stream."""
        ...

    def now(self) -> float:
        """The ledger's time: its clock, or its last stamp if that is later. Decisions know no other."""
        ...

    def position(self) -> int:
        """The last position; 0 when empty."""
        ...

    def streams(self) -> list[str]:
        """All that are not over."""
        ...

    def heads(self, stream: str | None = None) -> list[tuple[str, int, dict[str, Any]]]:
        """`(stream, seq, facts)` of the checkpoint of one stream, or of all that are not over."""
        ...

    def acquire(self, name: str, owner: str, *, ttl_s: float) -> int | None:
        """Take or renew a lease; its fencing number, or None while another owner holds it."""
        ...


class World(Protocol):
    """What is outside the loop. Any call may be lost, late or doubled: `start` is idempotent by key, `show` ordered by seq.

    What each `look` answers is written in `docs/lifecycle.md`; the simulation answers the same shapes.
    """

    def look(self, stream: str, what: str, key: str) -> dict[str, Any]:
        """JSON values: the state of the work `what` at `key`, or of production.

        Raises:
            UnavailableError: nobody knows now; look again later.
        """
        ...

    def start(
        self, stream: str, what: str, key: str, inputs: tuple[str, ...], spec: dict[str, Any]
    ) -> None:
        """Make something in a process of its own, once for each key, however often it is asked for."""
        ...

    def show(self, stream: str, receiver: str, seq: int, value: dict[str, Any]) -> None:
        """Tell a receiver (`router`, `workers`) what has been so since `seq`; it refuses a seq that is not higher."""
        ...
