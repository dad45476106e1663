"""What every ledger must pass: subclass `LedgerContract` and give it a `ledger` fixture whose clock is `clock`."""

from __future__ import annotations

from typing import Any

import pytest

from gyrostat.errors import ConflictError, FencedError, MalformedEntryError, UnknownKindError
from gyrostat.ledger.chain import verify
from gyrostat.terms import Draft


class Clock:
    """A clock that jumps when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Now."""
        return self.now


def event(kind: str = "said", key: str | None = None, **body: Any) -> Draft:
    """A draft as an outsider writes it."""
    return Draft(kind, 0.0, "somebody", body=body, key=key)


class LedgerContract:
    """Fixtures needed: `ledger`, and `clock` that it reads."""

    def test_events_take_the_next_seq_and_a_key_is_written_once(self, ledger: Any) -> None:
        first = ledger.append("a", event(key="k"), expect_seq=None, fence=None)
        again = ledger.append("a", event(key="k"), expect_seq=None, fence=None)
        other = ledger.append("b", event(key="k"), expect_seq=None, fence=None)
        assert (first.seq, again, other.seq, other.position) == (1, first, 1, 2)
        assert ledger.knows("a", "k")
        assert not ledger.knows("a", "other")

    def test_a_step_stands_on_what_its_author_had_read(self, ledger: Any) -> None:
        ledger.append("a", event(), expect_seq=0, fence=None)
        with pytest.raises(ConflictError):
            ledger.append("a", event(), expect_seq=0, fence=None)
        assert len(ledger.tail("a")) == 1

    def test_a_step_judged_in_the_future_is_refused(self, ledger: Any, clock: Clock) -> None:
        with pytest.raises(ConflictError):
            ledger.append("a", Draft("said", clock.now + 1, "x"), expect_seq=0, fence=None)

    def test_time_never_goes_back(self, ledger: Any, clock: Clock) -> None:
        ledger.append("a", event(), expect_seq=None, fence=None)
        clock.now -= 500
        later = ledger.append("a", event(), expect_seq=None, fence=None)
        assert later.at == 1000.0
        assert ledger.now() == 1000.0

    def test_a_lost_lease_fences_its_holder(self, ledger: Any, clock: Clock) -> None:
        old = ledger.acquire("a", "one", ttl_s=10)
        assert ledger.acquire("a", "two", ttl_s=10) is None
        clock.now += 11
        new = ledger.acquire("a", "two", ttl_s=10)
        assert new > old
        with pytest.raises(FencedError):
            ledger.append("a", event(), expect_seq=0, fence=old)
        ledger.append("a", event(), expect_seq=0, fence=new)

    def test_a_stream_that_is_over_is_listed_no_more(self, ledger: Any) -> None:
        ledger.append("a", event(), expect_seq=0, fence=None, head={"n": 1})
        assert ledger.streams() == ["a"]
        assert ledger.heads("a") == [("a", 0, {"n": 1})]
        ledger.append("a", event(), expect_seq=1, fence=None, is_last=True)
        ledger.append("a", event(key="late"), expect_seq=None, fence=None)
        assert ledger.streams() == []
        assert len(ledger.tail("a")) == 3

    def test_lineage_finds_inputs_and_outputs(self, ledger: Any) -> None:
        e = ledger.append(
            "a",
            Draft("made", 0.0, "x", ("snapshot/1",), ("bundle/2",)),
            expect_seq=None,
            fence=None,
        )
        assert ledger.mentions("snapshot/1") == [e] == ledger.mentions("bundle/2")

    def test_the_chain_holds_over_all_streams(self, ledger: Any) -> None:
        for n in range(20):
            ledger.append(f"s{n % 3}", event(n=n, text="와인 🍷"), expect_seq=None, fence=None)
        assert verify(ledger.entries()) is None
        assert [e.position for e in ledger.entries(after=15)] == [16, 17, 18, 19, 20]

    def test_whoever_holds_a_lease_renews_it_under_the_same_number(
        self, ledger: Any, clock: Clock
    ) -> None:
        first = ledger.acquire("a", "one", ttl_s=10)
        clock.now += 9
        assert ledger.acquire("a", "one", ttl_s=10) == first
        clock.now += 9
        assert ledger.acquire("a", "two", ttl_s=10) is None
        clock.now += 2
        assert ledger.acquire("a", "one", ttl_s=10) > first

    def test_a_lease_taken_before_the_clock_was_set_back_holds_nobody_up(
        self, ledger: Any, clock: Clock
    ) -> None:
        clock.now += 86400
        old = ledger.acquire("a", "one", ttl_s=10)
        clock.now -= 86400
        assert ledger.acquire("a", "two", ttl_s=10) > old
        with pytest.raises(FencedError):
            ledger.append("a", event(), expect_seq=0, fence=old)

    def test_a_lease_is_of_one_stream(self, ledger: Any) -> None:
        ledger.acquire("a", "one", ttl_s=10)
        assert ledger.acquire("b", "two", ttl_s=10) is not None

    def test_the_past_is_read_up_to_a_time_and_by_position(self, ledger: Any, clock: Clock) -> None:
        written = []
        for _ in range(4):
            written.append(ledger.append("a", event(), expect_seq=None, fence=None))
            clock.now += 10
        assert list(ledger.entries(after=1, before_at=1020.0)) == written[1:3]
        assert [ledger.entry(n) for n in range(6)] == [None, *written, None]
        assert ledger.position() == 4
        assert ledger.tail("a", after_seq=2) == written[2:]

    def test_a_checkpoint_is_kept_as_json(self, ledger: Any) -> None:
        ledger.append("a", event(), expect_seq=0, fence=None)
        ledger.append("a", event(), expect_seq=1, fence=None, head={"facts": {"owes": (1, 2)}})
        ledger.append("a", event(key="k"), expect_seq=None, fence=None)
        assert ledger.heads() == [("a", 1, {"facts": {"owes": [1, 2]}})]
        assert ledger.heads("nobody") == []

    @pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": {1}}])
    def test_what_is_not_strict_json_is_not_written(self, ledger: Any, body: Any) -> None:
        with pytest.raises(MalformedEntryError):
            ledger.append("a", Draft("said", 0.0, "x", body=body), expect_seq=None, fence=None)
        assert ledger.position() == 0
        assert ledger.append("a", event(), expect_seq=None, fence=None).position == 1

    def test_what_a_life_could_not_read_is_not_written_to_it(self, ledger: Any) -> None:
        with pytest.raises(MalformedEntryError):
            ledger.append("production/m", event("answered"), expect_seq=None, fence=None)
        with pytest.raises(UnknownKindError):
            ledger.append("production/m", event("polished"), expect_seq=None, fence=None)
        assert ledger.position() == 0
