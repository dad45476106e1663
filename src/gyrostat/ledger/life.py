"""What the lives share: the values a decision can be, how a step moves a state, how one life tells another.

Two kinds of entry. *Steps* are said by the loop, one at a time, and are the only ones that move a state. *Events* come
from outside or from another life at any time and only add facts; `decide` answers them with a step.

Three kinds of effect, each told apart by a seq of the ledger and by nothing else:

- `Start` makes something. Its key is the seq of the entry that called for it, so whoever asks again asks for the same.
- `Show` tells a receiver what is. It carries the seq it stands for; the receiver refuses one that is not higher.
- `Tell` gives another life an event. Its key is the seq of the entry that owes it; a ledger writes a key once.

Order: make, then say; say, then show. A debt is said with the step that owes it, told until it is there, then said told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from gyrostat.errors import IllegalStepError, UnknownKindError
from gyrostat.terms import Entry

NEWEST = 1
"""The release of the rules; a step says by which it was judged."""
DAY_S = 86400.0
STAY = None
"""In `TRANSITIONS`: the state stays as it is, and so does `mark`, the key of the work done in it."""


class Tell(NamedTuple):
    """An event for another life: owed by the entry in `key`, until the receiver's stream has it."""

    stream: str
    kind: str
    key: str
    body: dict[str, Any]


class Start(NamedTuple):
    """Make something, once for each key, however often it is asked for. `spec`: JSON values for the worker."""

    what: str
    key: str
    inputs: tuple[str, ...]
    spec: dict[str, Any]


class Show(NamedTuple):
    """Tell a receiver what has been so since `seq`."""

    receiver: str
    seq: int
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Say:
    """Append a step. `cause` says in words why; `detail` is what else the record should hold (verdicts, a report)."""

    kind: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    cause: str = ""
    detail: Mapping[str, Any] | None = None


class Wait(NamedTuple):
    """Nothing to do before `until` unless something happens. No thread, no timer, no lease is held meanwhile."""

    until: float


Action = Start | Show | Tell | Say | Wait


@dataclass(frozen=True)
class Facts:
    """Everything `decide` may know, from entries alone. Does not grow with the history."""

    stream: str
    seq: int = 0
    """Folded so far."""
    state: StrEnum | None = None
    mark: int = 0
    """Seq of the step that led to `state`: the key of the work done in it."""
    since: float = 0.0
    """When the ledger took that step."""
    owes: tuple[Tell, ...] = ()
    """Oldest first."""
    declaration: str = ""
    """Digest of the declaration that is pinned here; empty: the one in force."""

    @property
    def key(self) -> str:
        """Of the work done in this state."""
        return f"{self.stream}#{self.mark}"

    @property
    def model(self) -> str:
        """Whose life it is."""
        return self.stream.split("/")[1]


def replace(facts: Any, **changes: Any) -> Any:
    """As `dataclasses.replace`, which took a third of the simulation's time."""
    new = object.__new__(type(facts))
    new.__dict__.update(facts.__dict__)
    new.__dict__.update(changes)
    return new


class Life(Protocol):
    """A module that holds one: what the reconciler needs to keep a stream of that kind."""

    EVENTS: frozenset[str]
    TRANSITIONS: Mapping[tuple[Any, str], Any]
    KINDS: frozenset[str]
    LAST: frozenset[Any]
    Facts: type[Facts]
    fold: Callable[[Any, Entry], Any]
    subject: Callable[[Any], tuple[str, str]]
    decide: Callable[[Any, dict[str, Any], Any, float], Action]
    thaw: Callable[[dict[str, Any]], Any]


def last(states: type[StrEnum], transitions: Mapping[tuple[Any, str], Any]) -> frozenset[Any]:
    """States without a way on: they end a life."""
    return frozenset(states) - {state for state, _ in transitions}


def read(facts: Facts, entry: Entry, kinds: frozenset[str]) -> Any:
    """Take notice of an entry. Total over every kind ever written; a kind from a later release is not passed over.

    Raises:
        UnknownKindError: stand back.
    """
    if entry.kind not in kinds:
        raise UnknownKindError(
            f"{entry.ref} in {entry.stream} is of the kind {entry.kind!r}, which this release does not know. "
            "A newer one wrote it: this one stands back from that stream.",
            entry=entry.position,
        )
    return replace(facts, seq=entry.seq)


def move(facts: Facts, entry: Entry, transitions: Mapping[tuple[Any, str], Any]) -> Any:
    """Take a step.

    Raises:
        IllegalStepError: the table has no such step from here.
    """
    if (facts.state, entry.kind) not in transitions:
        raise IllegalStepError(
            f"{entry.ref}: {entry.kind} is no step from {facts.state} in {entry.stream}. The stream needs a person: "
            "gyrostat audit verify", entry=entry.position,
        )  # fmt: skip
    state = transitions[facts.state, entry.kind]
    if entry.kind == "told":
        if not facts.owes or entry.inputs != (facts.owes[0].stream, facts.owes[0].key):
            raise IllegalStepError(f"{entry.ref} says told what was not owed", entry=entry.position)
        facts = replace(facts, owes=facts.owes[1:])
    return facts if state is STAY else replace(facts, state=state, mark=entry.seq, since=entry.at)


def owe(facts: Any, entry: Entry, stream: str, kind: str, **body: Any) -> Any:
    """From this entry on, `stream` is to be told."""
    return replace(
        facts, owes=(*facts.owes, Tell(stream, kind, f"{facts.stream}#{entry.seq}", body))
    )


def due(facts: Facts) -> Tell | None:
    """The oldest debt: debts are told in order, so a receiver never hears the later one first."""
    return facts.owes[0] if facts.owes else None


def hand_over(tell: Tell, seen: dict[str, Any]) -> Action:
    """Told until it is there, then said."""
    return Say("told", (tell.stream, tell.key)) if seen.get("told") == tell.key else tell


def freeze(facts: Facts) -> dict[str, Any]:
    """Facts as JSON values, for a checkpoint."""
    return dict(vars(facts))


def thaw_shared(kept: dict[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint that all lives have."""
    return {**kept, "owes": tuple(Tell(*t) for t in kept["owes"])}
