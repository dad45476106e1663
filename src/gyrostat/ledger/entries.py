"""Every kind of entry ever written, in one place: what its body holds, in which version, and how an older one is read.

An outsider's mistake is refused before it is written, for an entry cannot be taken back. What is read is checked again:
a body that a life would stumble over names its entry instead. Add a field with a default; whatever else changes raises
the kind's `version` and adds an upcaster from the one before. A kind is never removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from gyrostat.errors import MalformedEntryError, UnknownKindError
from gyrostat.terms import Draft, Entry

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
VERSION = "v"
"""In a body: the version it was written in; left out for 1."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a body holds: fields without a default are required; what a newer writer added is passed over."""

    version: ClassVar[int] = 1
    upcasters: ClassVar[Mapping[int, Upcaster]] = {}
    """Version -> the body as the next version has it."""


@dataclass(frozen=True, slots=True)
class Step(Body):
    """A decision of the loop, with what it was judged from: judging again gives the same."""

    seen: dict[str, Any]
    now: float
    """The ledger's time it was judged by."""
    release: int
    """Of the rules."""
    cause: str
    declaration: str
    """Digest of the declaration it was judged by."""
    detail: dict[str, Any] = field(default_factory=dict)
    """Verdicts, reasons and numbers for the record."""


@dataclass(frozen=True, slots=True)
class RolloutStarted(Step):
    """`detail["steps"]`: shares of traffic in order, 0 is shadow."""

    needs: ClassVar[tuple[str, ...]] = ("steps",)


@dataclass(frozen=True, slots=True)
class ScheduleSet(Step):
    """`detail["schedules"]`: what counts from here on, as text."""

    needs: ClassVar[tuple[str, ...]] = ("schedules",)


@dataclass(frozen=True, slots=True)
class Scheduled(Step):
    """`detail["due"]`: the moment that wants a run."""

    needs: ClassVar[tuple[str, ...]] = ("due",)


@dataclass(frozen=True, slots=True)
class BatchDue(Step):
    """`detail["batch"]` and the moment `detail["due"]` that wants it answered."""

    needs: ClassVar[tuple[str, ...]] = ("batch", "due")


@dataclass(frozen=True, slots=True)
class BatchStarted(Step):
    """`detail`: which batch, for which moment, from which file into which, by which version."""

    needs: ClassVar[tuple[str, ...]] = ("batch", "due", "input", "output", "version")


@dataclass(frozen=True, slots=True)
class ReplayUndecided(Step):
    """`detail["of"]`: seq of the `batch_answered` that decided nothing."""

    needs: ClassVar[tuple[str, ...]] = ("of",)


@dataclass(frozen=True, slots=True)
class Triggered(Body):
    """A run is wanted."""

    by: str
    """decay, drift, new_data; person and first wait for the budget and know no cooldown."""
    why: str = ""
    actor: str = ""
    offered: str = ""
    """Digest of a model that was fitted elsewhere; empty: the run trains one."""


@dataclass(frozen=True, slots=True)
class RunAsked(Body):
    """Retraining opens a run."""

    barred: list[str]
    by: str = ""
    why: str = ""
    actor: str = ""
    offered: str = ""


@dataclass(frozen=True, slots=True)
class RunClosed(Body):
    """A run has its outcome (undecided is one: the next run need not wait for a person)."""

    run: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Snapshot(Body):
    """A snapshot is barred, or counts again."""

    snapshot: str
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StopAsked(Body):
    """A person wants this run ended."""

    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RunAnswered(Body):
    """A person decides what the held-out rows could not."""

    answer: Literal["approved", "rejected"]
    run: str = ""
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Offered(Body):
    """A run has a candidate."""

    bundle: str
    run: str
    snapshot: str


@dataclass(frozen=True, slots=True)
class Answered(Body):
    """A person's yes or no to this bundle."""

    bundle: str
    answer: Literal["approved", "rejected"]
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RollbackAsked(Body):
    """A person wants this bundle gone; `to` names an earlier one, empty is the champion before."""

    bundle: str
    with_data: bool
    to: str = ""
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HoldAsked(Body):
    """Release nothing until resumed."""

    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ResumeAsked(Body):
    """End the hold of seq `held`, and no other; `champion` names one to bring back, or is empty."""

    held: int
    champion: str
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Loosened(Body):
    """A declaration with wider limits for this model is in force."""

    digest: str
    loosened: list[str]
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Applied(Body):
    """Every server answers by the routes of `seq`."""

    seq: int
    arms: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class BatchAnswered(Body):
    """A table was answered on a schedule; candidates are compared by it."""

    batch: str
    input: str
    input_digest: str


@dataclass(frozen=True, slots=True)
class Declared(Body):
    """A declaration that was not on record."""

    digest: str
    diff: list[dict[str, Any]]
    loosened: dict[str, Any]
    """Model -> what."""
    actor: str = ""
    commit: str = ""
    env: str = ""


@dataclass(frozen=True, slots=True)
class KeysRotated(Body):
    """Another key signs from here on; the old one stays trusted for what it signed."""

    old: str
    new: str
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Collected(Body):
    """What nothing needed any more was removed from the disk."""

    things: list[str]
    """Refs, the first thousand of `n`."""
    n: int
    size_bytes: int
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Restored(Body):
    """This ledger was taken from a backup: what follows was not on the machine that wrote what is before."""

    epoch: int
    """Of the routes, from here on."""
    made_at: float
    file: str
    after: int
    """Position of the last entry in the backup."""
    signed_by: str
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Scored(Body):
    """A table was answered row by row, by one version; its batch is `batch/<model>/<seq of this entry>`."""

    id: str
    by_version: int
    bundle: str
    input: str
    """The file's name, or the ref of a snapshot."""
    input_digest: str
    """SHA-256 of the file, or the snapshot's fingerprint."""
    output: str
    output_digest: str
    n_rows: int
    n_failed: int
    """Rows without an answer, among `n_rows`."""
    began_at: float
    """By the clock of the machine that answered."""
    actor: str = ""
    batch: str = ""
    """Its name in the declaration; empty: somebody asked by hand."""
    due: float = 0.0
    """The moment of its schedule that it stands for; 0: it has none."""


def _steps(*kinds: str) -> dict[str, type[Body]]:
    return dict.fromkeys(kinds, Step)


KINDS: dict[str, dict[str, type[Body]]] = {
    "retraining": {
        "triggered": Triggered,
        "run_closed": RunClosed,
        "snapshot_barred": Snapshot,
        "snapshot_released": Snapshot,
        "schedule_set": ScheduleSet,
        "scheduled": Scheduled,
        **_steps("run_opened", "skipped", "run_ended", "told"),
    },
    "run": {
        "run_asked": RunAsked,
        "snapshot_barred": Snapshot,
        "stop_asked": StopAsked,
        "answered": RunAnswered,
        **_steps("opened", "snapshotted", "checks_failed", "trained", "packed", "work_lost", "gave_up"),
        **_steps("gate_passed", "gate_failed", "gate_undecided", "approval_asked", "approved", "rejected"),
        **_steps("offered", "cancelled", "told", "closed"),
    },
    "production": {
        "offered": Offered,
        "answered": Answered,
        "rollback_asked": RollbackAsked,
        "hold_asked": HoldAsked,
        "resume_asked": ResumeAsked,
        "unbar_asked": Snapshot,
        "declared": Loosened,
        "applied": Applied,
        "batch_answered": BatchAnswered,
        "replay_undecided": ReplayUndecided,
        "shadow_started": RolloutStarted,
        "canary_started": RolloutStarted,
        **_steps("staging_started", "staging_lost", "staging_passed", "staging_failed", "approval_asked"),
        **_steps("approved", "advanced", "promoted", "overdue", "expired", "refused", "superseded"),
        **_steps("replay_started", "replay_lost"),
        **_steps("regressed", "champion_regressed", "rolled_back", "held", "resumed", "told"),
    },
    "batching": {
        "batches_set": ScheduleSet,
        "batch_due": BatchDue,
        "batch_started": BatchStarted,
        **_steps("batch_lost", "batch_scored", "batch_failed", "told"),
    },
    "batch": {"scored": Scored},
    "declaration": {"declared": Declared},
    "project": {"restored": Restored, "keys_rotated": KeysRotated, "collected": Collected},
}  # fmt: skip
"""By the first part of a stream's name. Streams of other names are nobody's here: their entries pass as they are."""

_Field = tuple[str, tuple[type, ...], tuple[Any, ...], bool]


def _fields(kind: type[Body]) -> tuple[_Field, ...]:
    """`(name, types, allowed values, is required)` of each field."""
    hints, found = get_type_hints(kind), []
    for f in fields(kind):
        hint = hints[f.name]
        allowed = get_args(hint) if get_origin(hint) is Literal else ()
        plain = str if allowed else get_origin(hint) or hint
        is_required = f.default is MISSING and f.default_factory is MISSING
        found.append((f.name, (int, float) if plain is float else (plain,), allowed, is_required))
    return tuple(found)


_FIELDS = {kind: _fields(kind) for kinds in KINDS.values() for kind in kinds.values()}


def check_draft(stream: str, draft: Draft) -> None:
    """Before it is written, for it cannot be taken back.

    Raises:
        MalformedEntryError: the body is not what the kind's readers need.
        UnknownKindError: lives of this name have no such kind.
    """
    kinds = KINDS.get(stream.partition("/")[0])
    if kinds is not None:
        _upcast(kinds, draft.kind, draft.body, f"{draft.kind} for {stream}")


def current(entry: Entry) -> Entry:
    """The entry as today's readers know it: checked, and brought up to its kind's newest version.

    Raises:
        MalformedEntryError: the body lacks something, or holds something else; names the entry.
        UnknownKindError: a newer release wrote it.
    """
    kinds = KINDS.get(entry.stream.partition("/")[0])
    if kinds is None:
        return entry
    body = _upcast(kinds, entry.kind, entry.body, entry)
    return entry if body is entry.body else replace(entry, body=body)


def typed(entry: Entry) -> Body:
    """The body of an entry as its dataclass.

    Raises:
        MalformedEntryError, UnknownKindError: as `current`.
    """
    body = current(entry).body
    kind = KINDS.get(entry.stream.partition("/")[0], {}).get(entry.kind)
    if kind is None:
        raise UnknownKindError(
            f"{entry.ref}: {entry.stream} is nobody's stream", entry=entry.position
        )
    return kind(**{name: body[name] for name, *_ in _FIELDS[kind] if name in body})


def _upcast(
    kinds: Mapping[str, type[Body]], name: str, body: dict[str, Any], where: Entry | str
) -> dict[str, Any]:
    kind = kinds.get(name)
    if kind is None:
        raise UnknownKindError(
            f"{_at(where)}: the kind {name!r} is not known to this release; a newer one knows it.",
            **_facts(where),
        )
    version = body.get(VERSION, 1)
    if version != kind.version:
        if not isinstance(version, int) or version > kind.version:
            raise UnknownKindError(
                f"{_at(where)}: {name} was written in version {version}, this release reads up to {kind.version}. "
                "A newer one wrote it: this one stands back from that stream.", **_facts(where),
            )  # fmt: skip
        for older in range(version, kind.version):
            body = kind.upcasters[older](body)
    for field_name, types, allowed, is_required in _FIELDS[kind]:
        value = body.get(field_name, MISSING)
        if value is MISSING:
            if is_required:
                raise _malformed(
                    where, name, field_name, f"is missing, {_wanted(types, allowed)} is needed"
                )
        elif not _is_of(value, types) or (allowed and value not in allowed):
            raise _malformed(
                where, name, field_name, f"is {value!r:.60}, {_wanted(types, allowed)} is needed"
            )
    for needed in getattr(kind, "needs", ()):
        if needed not in body.get("detail", {}):
            raise _malformed(where, name, f"detail.{needed}", "is missing")
    return body


def _is_of(value: Any, types: tuple[type, ...]) -> bool:
    if isinstance(value, bool):  # which Python takes for a number
        return bool in types
    return isinstance(value, types) or (isinstance(value, tuple) and list in types)


def _wanted(types: tuple[type, ...], allowed: tuple[Any, ...]) -> str:
    names = {
        str: "a text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        list: "a list",
        dict: "an object",
    }
    return " or ".join(allowed) if allowed else names[types[-1]]


def _at(where: Entry | str) -> str:
    return where if isinstance(where, str) else f"{where.ref} in {where.stream}"


def _facts(where: Entry | str) -> dict[str, Any]:
    return {} if isinstance(where, str) else {"entry": where.position}


def _malformed(where: Entry | str, kind: str, at: str, what: str) -> MalformedEntryError:
    done = (
        "Nothing was written."
        if isinstance(where, str)
        else "That stream needs a person: gyrostat audit verify"
    )
    return MalformedEntryError(
        f"{_at(where)}: body.{at} of {kind} {what}. {done}", at=at, **_facts(where)
    )
