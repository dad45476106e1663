"""Shows MLflow what the ledger says, and ends: `python -m gyrostat.adapters.mlflow.outbox --state DIR`.

MLflow is never on the way of anything: this runs in a process of its own, after the fact, and may be killed anywhere.
What failed is owed and tried again, by whoever starts this, ever more rarely; nothing is left out.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gyrostat_runtime.files import write_atomic

from gyrostat.adapters.mlflow.records import RunRecord, fold_run
from gyrostat.ports import Ledger
from gyrostat.registry import versions
from gyrostat.registry.versions import Version
from gyrostat.terms import Entry

MIRRORED, LOCK = "mlflow/mlflow.mirrored", "mlflow/mlflow.lock"
MOST_PASSES = 20
TOLD_OF_A_RUN = frozenset(
    {"opened", "snapshotted", "trained", "packed", "gate_passed", "gate_failed", "gate_undecided", "checks_failed",
     "rejected", "gave_up", "cancelled", "offered"}
)  # fmt: skip


class Store(Protocol):
    """What is shown things. Every call may be repeated."""

    def write(self, record: RunRecord) -> str:
        """Bring a run up to its record; its id there."""
        ...

    def register(self, v: Version, record: RunRecord | None) -> None:
        """Have a model version for this one."""
        ...

    def point(self, model: str, alias: str, number: int) -> None:
        """Let an alias name this version; 0: nothing."""
        ...


@dataclass
class Place:
    """How far the ledger was shown, and what is owed of it."""

    position: int = 0
    owed: dict[str, int] = field(default_factory=dict)
    """Streams that could not be shown, and how often it was tried."""

    @classmethod
    def read(cls, path: Path) -> Place:
        """From the beginning where there is none: showing twice does no harm."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, path: Path) -> None:
        """Keep it."""
        write_atomic(path, json.dumps(vars(self)).encode())


def streams_of(entries: Iterable[Entry]) -> dict[str, int]:
    """The streams that have something new to show, in the order of what is new, and the last position read (`""`)."""
    found: dict[str, int] = {}
    position = 0
    for entry in entries:
        position = entry.position
        kind = entry.stream.partition("/")[0]
        if kind == "production" or (kind == "run" and entry.kind in TOLD_OF_A_RUN):
            found[entry.stream] = position
    return {**found, "": position} if position else found


def show(stream: str, ledger: Ledger, store: Callable[[], Store]) -> None:
    """Bring what MLflow has of one stream up to what the ledger says; `store` is called only if there is something."""
    kind, model = stream.split("/")[:2]
    if kind == "run":
        record = fold_run(ledger.tail(stream))
        # Before the training ended nobody knows whether its script made a run of its own.
        if record is not None and (record.ended_at is not None or _has(record, "gyrostat.trained")):
            store().write(record)
        return
    found = versions.read(ledger, model)
    if not found.all:
        return
    failed: list[Exception] = []
    for v in found.all:
        try:
            store().register(v, fold_run(ledger.tail(v.run)) if v.run else None)
        except Exception as error:  # noqa: BLE001 - an old bundle that is gone holds up no newer version
            failed.append(error)
    store().point(model, "champion", found.champion)
    store().point(model, "candidate", found.candidate)
    if failed:
        raise failed[0]


def _has(record: RunRecord, tag: str) -> bool:
    return any(name == tag for name, _ in record.tags)


def mirror(
    ledger: Ledger, place: Place, store: Callable[[], Store], tell: Callable[[str], None]
) -> Place:
    """One pass over what is new and what is owed; the place after it.

    Args:
        store: Gives the store, always the same one; to open it takes seconds.
        tell: Takes a line for each failure.
    """
    new = streams_of(ledger.entries(after=place.position))
    position = new.pop("", place.position)
    owed: dict[str, int] = {}
    # Runs first: a version's model belongs to its run. Else the older first, whatever a set's order would be.
    streams = dict.fromkeys([*place.owed, *new])
    for stream in sorted(streams, key=lambda s: not s.startswith("run/")):
        try:
            show(stream, ledger, store)
        except Exception as error:  # noqa: BLE001 - MLflow may fail in any way, and nobody waits for it
            tries = 1 if stream in new else place.owed[stream] + 1
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            owed[stream] = tries
            tell(f"{stream} was not shown to MLflow (try {tries}): {type(error).__name__}: {line}")
    return Place(position, owed)


def main(arguments: list[str] | None = None) -> int:
    """Show all there is, then end; 1 if something is still owed."""
    from gyrostat.ledger.sqlite import SqliteLedger

    parser = argparse.ArgumentParser(prog="gyrostat.adapters.mlflow.outbox", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    state = parser.parse_args(arguments).state.resolve()
    (state / LOCK).parent.mkdir(exist_ok=True)
    with (state / LOCK).open("ab") as lock:
        try:
            # The same lock under which a script's harness makes the tables.
            fcntl.flock(lock, fcntl.LOCK_EX)
            ledger = SqliteLedger(state / "ledger.db")
            opened: list[Store] = []

            def store() -> Store:
                if not opened:
                    from gyrostat.adapters.mlflow.tracking import Tracking

                    opened.append(Tracking(state))
                return opened[0]

            place = Place.read(state / MIRRORED)
            for _ in range(MOST_PASSES):
                after = mirror(ledger, place, store, _tell)
                after.write(state / MIRRORED)
                place, is_new = after, after.position != place.position
                if not is_new:
                    break
        except Exception:  # noqa: BLE001 - the edge of a process that nobody waits for
            traceback.print_exc()
            return 1
    return 1 if place.owed else 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
