"""A release after this one, so that loops of two releases can take turns on one ledger, and fall back.

The next release writes an event that this one does not know (`recalled`: a bundle that must not be released any more), takes
a step more on the way to an offer (`carded`), and keeps a fact more of each. Its code reads all that was written before it.
Both run in one process here: `use` swaps what differs whenever a loop of the other release takes its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gyrostat.ledger import entries
from gyrostat.ledger.entries import Body, Step
from gyrostat.ledger.life import STAY, Say, replace
from gyrostat.loop import reconcile, run
from gyrostat.rollout import production

THIS, NEXT = 1, 2


@dataclass(frozen=True, slots=True)
class Recalled(Body):
    bundle: str


@dataclass(frozen=True)
class NextProductionFacts(production.Facts):
    recalled: tuple[str, ...] = ()


@dataclass(frozen=True)
class NextRunFacts(run.Facts):
    is_carded: bool = False


SWAPPED: list[tuple[Any, str, tuple[Any, Any]]] = [
    (reconcile, "NEWEST", (THIS, NEXT)),
    (production, "Facts", (production.Facts, NextProductionFacts)),
    (production, "EVENTS", (production.EVENTS, production.EVENTS | {"recalled"})),
    (production, "KINDS", (production.KINDS, production.KINDS | {"recalled"})),
    (run, "Facts", (run.Facts, NextRunFacts)),
    (run, "KINDS", (run.KINDS, run.KINDS | {"carded"})),
    (
        run,
        "TRANSITIONS",
        (run.TRANSITIONS, run.TRANSITIONS | {(run.State.JUDGED, "carded"): STAY}),
    ),
    (
        entries,
        "KINDS",
        (
            entries.KINDS,
            entries.KINDS
            | {
                "production": entries.KINDS["production"] | {"recalled": Recalled},
                "run": entries.KINDS["run"] | {"carded": Step},
            },
        ),
    ),
]
entries._FIELDS[Recalled] = entries._fields(Recalled)
_in_use = THIS


def use(release: int) -> None:
    """From here on the lives are those of this release."""
    global _in_use
    if release != _in_use:
        _in_use = release
        for module, name, of in SWAPPED:
            setattr(module, name, of[release - 1])


def in_use() -> int:
    """The release that the lives are of."""
    return _in_use


class using:  # noqa: N801 - reads as the function that it stands for, at a tenth of the cost of a generator
    """Within, the lives are those of this release."""

    __slots__ = ("before", "release")

    def __init__(self, release: int) -> None:
        self.release = release

    def __enter__(self) -> None:
        self.before = _in_use
        use(self.release)

    def __exit__(self, *_: object) -> None:
        use(self.before)


def hear(original: Callable[..., Any], f: Any, entry: Any) -> Any:
    if entry.kind == "recalled":
        return replace(f, recalled=(*f.recalled, entry.body["bundle"]))
    return original(f, entry)


def unfit(original: Callable[..., str], f: Any, offer: Any) -> str:
    return "recalled" if offer.bundle in getattr(f, "recalled", ()) else original(f, offer)


def thaw(original: Callable[..., Any], kept: dict[str, Any]) -> Any:
    f = original(kept)
    return replace(f, recalled=tuple(f.recalled)) if "recalled" in kept else f


def card(original: Callable[..., Any], facts: Any, seen: Any, terms: Any, now: float) -> Any:
    action = original(facts, seen, terms, now)
    is_due = _in_use == NEXT and isinstance(action, Say) and action.kind == "offered"
    return Say("carded", action.inputs) if is_due and not facts.is_carded else action


def carded(original: Callable[..., Any], facts: Any, entry: Any) -> Any:
    after = original(facts, entry)
    return replace(after, is_carded=True) if entry.kind == "carded" else after


ADDED: list[tuple[Any, str, Callable[..., Any]]] = [
    (production, "hear", hear),
    (production, "unfit", unfit),
    (production, "thaw", thaw),
    (run, "decide", card),
    (run, "fold", carded),
]
"""What the next release does besides, as wrappers that change nothing while this release is in use."""
