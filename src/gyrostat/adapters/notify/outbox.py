"""How far each receiver was told what the ledger calls for. May be killed anywhere.

The cursor moves after the delivery, so a message may be told twice and is never left out; both times it carries the same
id. A receiver is told in order and waits for nobody else's: each has a place of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gyrostat_runtime.files import write_atomic

from gyrostat.adapters.notify.address import UndeliveredError
from gyrostat.adapters.notify.message import Message
from gyrostat.adapters.notify.settings import Receiver, identity

BACKOFF_S = (2.0, 10.0, 30.0, 120.0, 600.0)
GIVE_UP_S = 86400.0
"""After that a message is left out, counted and said: it would only be old news."""
REFUSALS = 5
"""How often a message is tried that the receiver says it will never take."""
FOLDER = "notify"


@dataclass(frozen=True)
class Place:
    """One receiver's cursor."""

    position: int
    """Of the last entry that is told, or calls for nothing."""
    stuck: tuple[str, ...] = ()
    """What is stuck and told."""
    tries: int = 0
    """Of the message that is owed."""
    failed_at: float = 0.0
    """When it failed first."""
    due: float = 0.0
    """When it is tried again."""
    cause: str = ""
    """Why it failed last."""
    n_told: int = 0
    n_left_out: int = 0
    label: str = ""


def path_of(state: Path, receiver: Receiver) -> Path:
    """Where its place is kept."""
    return state / FOLDER / f"{identity(receiver)}.json"


def read(path: Path) -> Place | None:
    """Its place; None where it was never told anything."""
    try:
        kept = json.loads(path.read_bytes())
        return Place(**{**kept, "stuck": tuple(kept["stuck"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write(path: Path, place: Place) -> None:
    """Keep it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(asdict(place)).encode())


@dataclass(frozen=True)
class News:
    """Something to tell, or only how far the ledger was read (`message` is None)."""

    position: int
    message: Message | None
    stuck: str = ""
    """Its key, where it is about something stuck: no entry says that."""


def drain(
    path: Path,
    receiver: Receiver,
    place: Place,
    news: Callable[[Place], Iterable[News]],
    deliver: Callable[[Message], None],
    *,
    clock: Callable[[], float],
    tell: Callable[[str], None] = print,
) -> Place:
    """Tell one receiver what it was not told, up to the first failure; the place after it, which is kept as well."""
    if clock() < place.due:
        return place
    for item in news(place):
        message = item.message
        if message is not None and message.kind in receiver.when:
            message = message.to(identity(receiver))
            try:
                deliver(message)
            except UndeliveredError as error:
                place = _failed(place, error, clock())
                is_given_up = clock() - place.failed_at > GIVE_UP_S or (
                    error.is_final and place.tries >= REFUSALS
                )
                tell(
                    f"{message.ref} was not told to {receiver.label} (try {place.tries}): {error}"
                    + ("; left out" if is_given_up else "")
                )
                if not is_given_up:
                    write(path, place)
                    return place
                place = replace(place, n_left_out=place.n_left_out + 1)
            else:
                place = replace(place, n_told=place.n_told + 1, cause="")
            place = _past(place, item)
            write(path, place)
        else:
            place = _past(place, item)
    write(path, place)
    return place


def _failed(place: Place, error: UndeliveredError, now: float) -> Place:
    wait_s = BACKOFF_S[min(place.tries, len(BACKOFF_S) - 1)]
    return replace(
        place, tries=place.tries + 1, failed_at=place.failed_at or now, due=now + wait_s, cause=str(error)
    )  # fmt: skip


def _past(place: Place, item: News) -> Place:
    stuck = (*place.stuck, item.stuck) if item.stuck else place.stuck
    return replace(
        place, position=max(place.position, item.position), stuck=stuck, tries=0, failed_at=0.0, due=0.0
    )  # fmt: skip


def places(state: Path) -> Iterator[Place]:
    """All that are kept."""
    for path in sorted((state / FOLDER).glob("*.json")):
        if place := read(path):
            yield place
