"""Version numbers, read from the ledger: which bundle each number is, where it came from and what became of it.

A projection of the stream `production/<model>`: it holds nothing of its own, so it can always be made anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from gyrostat.ports import Ledger
from gyrostat.terms import Entry, Ref


class Status(StrEnum):
    """What became of a version."""

    STAGING = "staging"
    WAITING = "waiting"
    """For a person."""
    APPROVED = "approved"
    CANARY = "canary"
    """Takes traffic beside the champion, or is asked in its shadow."""
    CHAMPION = "champion"
    PREVIOUS = "previous"
    """The champion before; a rollback goes to it."""
    RETIRED = "retired"
    FAILED = "failed"
    """Staging did not pass."""
    REFUSED = "refused"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    QUEUED = "queued"
    """Set aside by a hold or a rollback; it is staged again, under the same number."""
    REGRESSED = "regressed"
    """Taken back by the loop; it comes back only if a person says so."""
    ROLLED_BACK = "rolled_back"
    """Taken off by a person."""


_ENDS = {
    "staging_failed": Status.FAILED,
    "expired": Status.EXPIRED,
    "refused": Status.REFUSED,
    "rejected": Status.REFUSED,
    "superseded": Status.SUPERSEDED,
    "regressed": Status.REGRESSED,
}
_STEPS = {
    "approval_asked": Status.WAITING,
    "approved": Status.APPROVED,
    "shadow_started": Status.CANARY,
    "canary_started": Status.CANARY,
    "advanced": Status.CANARY,
}


@dataclass(frozen=True, slots=True)
class Version:
    """One model version. Its number counts from 1 in each model and is never given twice."""

    model: str
    number: int
    bundle: str
    run: str
    """Ref of the run that made it."""
    snapshot: str
    """Id of the snapshot that it was trained on."""
    offer: str
    """The event that offered it (`production/<model>#<seq>`); the same bundle may be offered twice."""
    status: Status
    created_at: float
    champion_since: float | None = None
    """When it last became champion."""
    approved_by: str = ""
    cause: str = ""
    """Why it ended as it did."""
    entries: tuple[int, ...] = ()
    """Positions of the ledger's entries about it."""

    @property
    def ref(self) -> str:
        """How a person names it."""
        return str(Ref("version", self.model, str(self.number)))


@dataclass(frozen=True, slots=True)
class Versions:
    """All versions of one model, oldest first."""

    model: str
    all: tuple[Version, ...] = ()
    champion: int = 0
    """Number of the version that answers; 0: none."""
    previous: int = 0
    candidate: int = 0
    """Number of the version on its way; 0: none."""
    offers: dict[str, dict[str, str]] = field(default_factory=dict)
    """By the offer's entry (`production/<model>#<seq>`) and by bundle, the newest: what was said of it."""

    def number(self, number: int) -> Version | None:
        """The version with this number."""
        return next((v for v in self.all if v.number == number), None)

    def of_bundle(self, bundle: str) -> Version | None:
        """The newest version that is this bundle."""
        return next((v for v in reversed(self.all) if v.bundle == bundle), None)


def read(ledger: Ledger, model: str, *, until: float | None = None) -> Versions:
    """The versions of `model` as the ledger has them; `until`: as they were at that time."""
    entries = ledger.tail(f"production/{model}")
    return fold(model, (e for e in entries if until is None or e.at <= until))


def fold(model: str, entries: Iterable[Entry]) -> Versions:
    """The versions after these entries of `production/<model>`; kinds that do not concern them are passed over."""
    found = Versions(model)
    for entry in entries:
        found = take(found, entry)
    return found


def take(v: Versions, entry: Entry) -> Versions:
    """One entry further."""
    kind, bundle = entry.kind, entry.inputs[0] if entry.inputs else ""
    if kind == "offered":
        body = {key: str(entry.body.get(key, "")) for key in ("bundle", "run", "snapshot")}
        names = (body["bundle"], f"{entry.stream}#{entry.seq}")
        return replace(v, offers={**v.offers, **dict.fromkeys(names, body)})
    if kind == "staging_started":
        return _start(v, entry, bundle)
    if kind in _STEPS and v.candidate:
        by = str(_detail(entry, "by")) if kind == "approved" else ""
        return _set(v, v.candidate, _STEPS[kind], entry, approved_by=by)
    if kind == "promoted":
        return _promote(v, v.candidate, entry)
    if kind in _ENDS and _is_candidate(v, entry):
        ended = _set(v, v.candidate, _ENDS[kind], entry)
        if kind == "regressed":
            ended = _forget(ended, bundle)
        return replace(ended, candidate=0)
    if kind == "champion_regressed" and v.champion:
        return _back(_set(v, v.champion, Status.REGRESSED, entry), entry)
    if kind == "held" and v.candidate:
        return replace(_set(v, v.candidate, Status.QUEUED, entry), candidate=0)
    if kind == "rolled_back":
        return _roll_back(v, entry)
    if kind == "resumed" and entry.outputs:
        back = v.of_bundle(entry.outputs[0])
        return _promote(v, back.number, entry) if back else v
    return v


def _start(v: Versions, entry: Entry, bundle: str) -> Versions:
    name = entry.inputs[1] if len(entry.inputs) > 1 else ""
    offer = v.offers.get(name) or v.offers.get(bundle) or {}
    number = _number(entry) or len(v.all) + 1
    if v.number(number):
        return replace(_set(v, number, Status.STAGING, entry), candidate=number)
    made = Version(
        v.model,
        number,
        bundle,
        offer.get("run", ""),
        offer.get("snapshot", ""),
        name,
        Status.STAGING,
        entry.at,
        entries=(entry.position,),
    )
    return replace(v, all=(*v.all, made), candidate=number)


def _number(entry: Entry) -> int:
    """The number that the ledger gave: it stands among the outputs as `version/<model>/<n>`."""
    for output in entry.outputs:
        kind, _, rest = output.partition("/")
        if kind == "version":
            return int(rest.rpartition("/")[2])
    return 0


def _promote(v: Versions, number: int, entry: Entry) -> Versions:
    if not number:
        return v
    if v.previous and v.previous != number:
        v = _set(v, v.previous, Status.RETIRED, None)
    if v.champion and v.champion != number:
        v = _set(v, v.champion, Status.PREVIOUS, None)
    v = _set(v, number, Status.CHAMPION, entry, champion_since=entry.at)
    candidate = 0 if v.candidate == number else v.candidate
    return replace(
        v,
        champion=number,
        previous=v.champion if v.champion != number else v.previous,
        candidate=candidate,
    )


def _roll_back(v: Versions, entry: Entry) -> Versions:
    """A candidate in traffic is taken off; or the champion, and what was on its way waits again."""
    candidate = v.number(v.candidate)
    if candidate and candidate.status is Status.CANARY and _is_candidate(v, entry):
        return replace(_set(v, v.candidate, Status.ROLLED_BACK, entry), candidate=0)
    if candidate:
        v = replace(_set(v, candidate.number, Status.QUEUED, entry), candidate=0)
    if not v.champion:
        return v
    return _back(_set(v, v.champion, Status.ROLLED_BACK, entry), entry)


def _back(v: Versions, entry: Entry) -> Versions:
    """To the champion before, or to the bundle that the entry names under `to`."""
    named = v.of_bundle(str(_detail(entry, "to")))
    number = named.number if named else v.previous
    if v.previous and v.previous != number:
        v = _set(v, v.previous, Status.RETIRED, None)
    v = replace(v, champion=number, previous=0)
    return _set(v, number, Status.CHAMPION, entry, champion_since=entry.at) if number else v


def _forget(v: Versions, bundle: str) -> Versions:
    """What has regressed is never returned to, also where the same bundle was champion before."""
    before = v.number(v.previous)
    if before is None or before.bundle != bundle:
        return v
    return replace(_set(v, before.number, Status.REGRESSED, None), previous=0)


def _is_candidate(v: Versions, entry: Entry) -> bool:
    """Whether the entry is about the candidate: its bundle, and where the entry names the offer, that offer."""
    candidate = v.number(v.candidate)
    if candidate is None or not entry.inputs or candidate.bundle != entry.inputs[0]:
        return False
    return len(entry.inputs) < 2 or not candidate.offer or entry.inputs[1] == candidate.offer


def _detail(entry: Entry, name: str) -> Any:
    return (entry.body.get("detail") or {}).get(name) or ""


def _set(
    v: Versions,
    number: int,
    status: Status,
    entry: Entry | None,
    *,
    champion_since: float | None = None,
    approved_by: str = "",
) -> Versions:
    at, old = next((i, one) for i, one in enumerate(v.all) if one.number == number)
    is_good = status in (Status.CHAMPION, Status.CANARY, Status.APPROVED)
    new = replace(
        old,
        status=status,
        champion_since=champion_since if champion_since is not None else old.champion_since,
        approved_by=approved_by or old.approved_by,
        cause="" if is_good else str(entry.body.get("cause", "")) if entry else old.cause,
        entries=(*old.entries, entry.position) if entry else old.entries,
    )
    return replace(v, all=(*v.all[:at], new, *v.all[at + 1 :]))
