"""The loop: read, look, decide, act, for ever. Keeps nothing that the ledger does not say, and serves every life alike."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import copysign, isinf, isnan
from typing import Any, cast

import msgspec

from gyrostat.batching import life as batching
from gyrostat.errors import (
    AmbiguousError,
    ConflictError,
    FencedError,
    IllegalStepError,
    LedgerError,
    MalformedEntryError,
    UnavailableError,
    UnknownKindError,
)
from gyrostat.ledger.entries import current
from gyrostat.ledger.life import NEWEST, Action, Facts, Life, Say, Start, Tell, Wait, due, freeze
from gyrostat.loop import run
from gyrostat.ports import Ledger, World
from gyrostat.retraining import life as retraining
from gyrostat.rollout import production
from gyrostat.terms import Draft, Entry

TTL_S, RETRY_S, POLL_S = 30.0, 60.0, 21600.0
LARGEST = sys.float_info.max
NESTED = (float, dict, list)
log = logging.getLogger(__name__)
LIVES: dict[str, Life] = {
    "retraining": cast(Life, retraining),
    "run": cast(Life, run),
    "production": cast(Life, production),
    "batching": cast(Life, batching),
}
ENDLESS = ("retraining", "production", "batching")
"""Of each declared model there is one, from its declaration on."""
Terms = Callable[[str, str], tuple[Any, str]]
"""`(stream, pinned digest or "")` -> what the declaration says about this life, and the digest it stands in."""


def life_of(stream: str) -> Life:
    """The module that holds the life of this stream."""
    return LIVES[stream.partition("/")[0]]


def thaw(stream: str, head: dict[str, Any]) -> Facts:
    """Facts from a checkpoint; from nothing if another release wrote it."""
    life = life_of(stream)
    return life.thaw(head["facts"]) if head.get("release") == NEWEST else life.Facts(stream)


def catch_up(facts: Any, entries: Iterable[Entry]) -> Any:
    """Fold what came since."""
    for entry in entries:
        facts = life_of(facts.stream).fold(facts, current(entry))
    return facts


def facts_of(ledger: Ledger, stream: str) -> Any:
    """The facts of one stream now, from its checkpoint and the entries since."""
    head = next((head for _, _, head in ledger.heads(stream)), {})
    facts = thaw(stream, head)
    return catch_up(facts, ledger.tail(stream, after_seq=facts.seq))


def facts_at(ledger: Ledger, stream: str, at: float) -> Any:
    """The facts of one stream as they were at a time."""
    life = life_of(stream)
    return catch_up(life.Facts(stream), (e for e in ledger.tail(stream) if e.at <= at))


def facts_readable(ledger: Ledger, stream: str, at: float | None = None) -> tuple[Any, str]:
    """The facts as far as this release can read, now or as they were at a time; and why no further, if so.

    For whoever shows them: one stream that a newer release wrote on, or that is damaged, must not hide the others.
    """
    if at is None:
        with contextlib.suppress(UnknownKindError, IllegalStepError, MalformedEntryError):
            return facts_of(ledger, stream), ""
    facts = life_of(stream).Facts(stream)
    try:
        for entry in ledger.tail(stream):
            if at is None or entry.at <= at:
                facts = catch_up(facts, [entry])
    except UnknownKindError as error:
        return facts, f"this release stands back from {stream}: {error}"
    except (IllegalStepError, MalformedEntryError) as error:
        return facts, str(error)
    return facts, ""


def served_at(ledger: Ledger, model: str, at: float) -> Entry | None:
    """The `applied` event by whose routes every server answered at a time; None: nobody answered.

    A loop that was frozen may write an older one late, so the highest seq counts, not the last entry.
    """
    tail = ledger.tail(f"production/{model}")
    applied = [e for e in tail if e.kind == "applied" and e.at <= at]
    return max(applied, key=lambda e: e.body["seq"], default=None)


def look(facts: Facts, ledger: Ledger, world: World) -> dict[str, Any]:
    """The one thing this state works on, and whether the oldest debt has arrived."""
    seen = finite(world.look(facts.stream, *life_of(facts.stream).subject(facts)))
    if facts.owes and (tell := due(facts)) and ledger.knows(tell.stream, tell.key):
        return seen | {"told": tell.key}
    return seen


def finite(seen: dict[str, Any]) -> dict[str, Any]:
    """What was seen as strict JSON, so that the decision is made from exactly what its entry will hold.

    An infinity (evidence beyond doubt) becomes the largest number.

    Raises:
        UnavailableError: something is not a number; look again.
    """
    # msgspec writes null for what is not finite, in no time; where it writes none, all is well.
    is_suspect = seen and b"null" in msgspec.json.encode(seen)
    return _finite(seen, "$") if is_suspect else seen


def _finite(value: Any, at: str) -> Any:
    if isinstance(value, float):
        if isnan(value):
            raise UnavailableError(f"What was seen at {at} is not a number.")
        return copysign(LARGEST, value) if isinf(value) else value
    if isinstance(value, dict):
        return {
            key: _finite(inner, f"{at}.{key}") if isinstance(inner, NESTED) else inner
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_finite(inner, f"{at}[{n}]") for n, inner in enumerate(value)]
    return value


def step(
    facts: Facts, say: Say, seen: dict[str, Any], now: float, actor: str, declaration: str
) -> Draft:
    """The entry for a decision, with what it was judged from."""
    body = {
        "seen": seen,
        "now": now,
        "release": NEWEST,
        "cause": say.cause,
        "declaration": declaration,
    }
    if say.detail:
        body["detail"] = dict(say.detail)
    return Draft(say.kind, now, actor, say.inputs, say.outputs, body)


def keep(
    stream: str,
    *,
    name: str,
    ledger: Ledger,
    world: World,
    terms: Terms,
    clock: Callable[[], float] | None = None,
) -> Iterator[float]:
    """Keep one life, to its end if it has one.

    Yields seconds to pause; the runner may wake it earlier. It may be killed at any yield. `clock` is the ledger's time
    unless somebody knows better, and nobody does.

    Safety rests on compare-and-set, on keys, and on seqs at the receivers. The lease only saves work: it is taken to act,
    and left to lapse while waiting.
    """
    life, clock = life_of(stream), clock or ledger.now
    facts, fence, said = None, None, ""
    while True:
        try:
            if facts is None:
                facts = thaw(stream, next((head for _, _, head in ledger.heads(stream)), {}))
            facts = catch_up(facts, ledger.tail(stream, after_seq=facts.seq))
            if facts.state in life.LAST:
                return
            seen = look(facts, ledger, world)
            settings, declaration = terms(stream, facts.declaration)
            now = clock()
            action = life.decide(facts, seen, settings, now)
            yield 0.0
            if isinstance(action, Wait):
                yield max(1.0, min(action.until - now, POLL_S))
                continue
            held, fence = fence, ledger.acquire(stream, name, ttl_s=TTL_S)
            if fence is None:
                yield TTL_S
            elif fence != held:
                continue  # the holder before may have acted: read again first
            else:
                yield 0.0
                act(
                    facts,
                    action,
                    seen,
                    now,
                    name=name,
                    fence=fence,
                    ledger=ledger,
                    world=world,
                    declaration=declaration,
                )
                yield 0.0
        except (ConflictError, FencedError, AmbiguousError):
            yield 0.0  # whichever it was, the stream knows
        except (LedgerError, UnavailableError) as error:
            # Busy, a full disk, a world that does not answer: said once, tried again until it passes.
            if str(error) != said:
                said = str(error)
                log.info("%s waits: %s", stream, said)
            yield RETRY_S
        except UnknownKindError:
            yield POLL_S


def act(
    facts: Facts, action: Action, seen: dict[str, Any], now: float, *,
    name: str, fence: int, ledger: Ledger, world: World, declaration: str,
) -> None:  # fmt: skip
    """Perform one action: exactly one call, so there is nothing between two effects for a kill to fall into."""
    match action:
        case Start(what, key, inputs, spec):
            world.start(facts.stream, what, key, inputs, spec)
        case Tell(stream, kind, key, body):
            ledger.append(
                stream,
                Draft(kind, now, name, (key,), body=body, key=key),
                expect_seq=None,
                fence=None,
            )
        case Say():
            life = life_of(facts.stream)
            ledger.append(
                facts.stream, step(facts, action, seen, now, name, declaration), expect_seq=facts.seq, fence=fence,
                head={"release": NEWEST, "facts": freeze(facts)},
                is_last=life.TRANSITIONS.get((facts.state, action.kind)) in life.LAST,
            )  # fmt: skip
        case Wait():
            pass
        case _:
            world.show(facts.stream, action.receiver, action.seq, action.value)


@dataclass
class Runner:
    """Drives the lives in one thread in real time. `poll_s` bounds every pause: looking is cheap, so the poll is the truth."""

    ledger: Ledger
    world: World
    terms: Terms
    models: Callable[[], Iterable[str]]
    name: str
    poll_s: float = 0.2
    stuck: dict[str, str] = field(default_factory=dict)
    """Streams that need a person, and why."""
    only: Callable[[str], bool] = lambda stream: True
    """Which streams to keep."""
    _tasks: dict[str, Iterator[float]] = field(default_factory=dict)
    _due: list[tuple[float, int, str]] = field(default_factory=list)
    _faults: dict[str, int] = field(default_factory=dict)
    _ids: Any = field(default_factory=itertools.count)

    def run(self, until: Callable[[], bool], stop: threading.Event | None = None) -> None:
        """Keep everything until `until()` or `stop`; both are asked between steps."""
        stop = stop or threading.Event()
        tend_at = 0.0
        while not stop.is_set() and not until():
            now = time.monotonic()
            if now >= tend_at:
                self._tend()
                tend_at = now + self.poll_s
            if self._due and self._due[0][0] <= now:
                self._step(heapq.heappop(self._due)[2])
            else:
                wake_at = min(tend_at, self._due[0][0] if self._due else tend_at)
                stop.wait(max(0.001, wake_at - now))

    def _tend(self) -> None:
        """Take up every life that is not over: those of the declared models, and whatever the ledger lists."""
        declared = [f"{kind}/{model}" for model in self.models() for kind in ENDLESS]
        try:
            listed = [s for s in self.ledger.streams() if s.partition("/")[0] in LIVES]
        except LedgerError:
            listed = []
        for stream in dict.fromkeys([*declared, *listed]):
            if stream not in self._tasks and stream not in self.stuck and self.only(stream):
                self._tasks[stream] = self._kept(stream)
                self._schedule(stream, 0.0)

    def _step(self, stream: str) -> None:
        try:
            pause_s = next(self._tasks[stream], None)
        except (IllegalStepError, MalformedEntryError) as error:
            log.error("%s stands still: %s", stream, error)  # noqa: TRY400 - the message says it all
            self.stuck[stream] = str(error)
            pause_s = None
        except Exception:
            # The outer edge: one model's fault must not stop the others. The ledger holds all there is, so begin anew.
            self._faults[stream] = n = self._faults.get(stream, 0) + 1
            log.exception("%s failed %d times in a row and is taken up again", stream, n)
            self._tasks[stream] = self._kept(stream)
            self._schedule(stream, min(2.0**n, RETRY_S))
            return
        if pause_s is None:
            del self._tasks[stream]
            return
        if pause_s:  # it came to a rest of its own
            self._faults.pop(stream, None)
        self._schedule(stream, min(pause_s, self.poll_s))

    def _kept(self, stream: str) -> Iterator[float]:
        return keep(stream, name=self.name, ledger=self.ledger, world=self.world, terms=self.terms)

    def _schedule(self, stream: str, pause_s: float) -> None:
        heapq.heappush(self._due, (time.monotonic() + pause_s, next(self._ids), stream))
