"""The loop's own first release, with the disk full from its n-th write on, for each n: python -m tests.faults.every_write FOLDER [STEP]

Run under `full.so` (see full.c). Everything is the loop's own but time and jobs: a job is over when it is started, and the
server's receipt is there when the routes are. After some failed tries space returns, and the loop must go on by itself.

Prints a line of JSON for each n that was tried; the last one has no failed write.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gyrostat_runtime import keys
from gyrostat_runtime.files import write_atomic

from gyrostat import config
from gyrostat.adapters.local import workers
from gyrostat.errors import LedgerError
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop import declare, reconcile
from gyrostat.processes import loop
from tests.chaos.rig import make

PATIENCE = 2000
TRIES = 3
"""Rounds in which the disk stays full."""
DISK = ctypes.CDLL(None)
DISK.full_from.argtypes = [ctypes.c_long, ctypes.c_char_p]
DISK.full_what.restype = ctypes.c_char_p
BUNDLE = "ab" * 32
RESULTS: dict[str, dict[str, Any]] = {
    "snapshot": {"made": "s1", "passed": True},
    "training": {"made": "trained:1"},
    "pack": {"made": BUNDLE},
    "evaluation": {
        "made": "evidence:1",
        "evidence": {
            "metrics": {"rmse": {"name": "rmse", "value": 5.0, "lower": 4.0, "upper": 6.0, "n": 100}},
            "trivial": {"name": "rmse", "value": 90.0},
            "champion": None, "size_bytes": 1, "n_heldout": 100,
        },
    },
    "staging": {"made": "report:1", "is_answering": True},
}  # fmt: skip


class Elsewhere:
    """What other processes do, on a disk that has room for them."""

    def __init__(self, state: Path) -> None:
        self.state, self.begun = state, Counter[str]()

    def run(self, command: list[str], **_: Any) -> Elsewhere:
        """A job: begun and done."""
        folder = Path(command[3])
        spec = json.loads((folder / "spec.json").read_bytes())
        self.begun[f"{spec['what']} {spec['seq']}"] += 1
        result = {"status": "done", **RESULTS[spec["what"]]}
        with on_another_disk():
            (folder / "heartbeat").touch()
            write_atomic(folder / "result.json", json.dumps(result).encode())
        return self

    def poll(self) -> int:
        return 0

    def apply(self) -> None:
        """The server's receipt."""
        for path in (self.state / "routes").glob("*.json"):
            routes = json.loads(path.read_bytes())
            receipt = path.with_suffix(".applied") / "server-0.json"
            value = {"epoch": routes["epoch"], "seq": routes["seq"], "pid": os.getpid()}
            with on_another_disk():
                receipt.parent.mkdir(exist_ok=True)
                write_atomic(receipt, json.dumps(value).encode())


class Until(threading.Event):
    """Stops the loop when all is over, gives space back after some rounds, and lets the other processes do their part."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        super().__init__()
        self.elsewhere, self.n_rounds, self.n_full = elsewhere, 0, 0
        self.ledger: SqliteLedger | None = None

    def is_set(self) -> bool:
        self.n_rounds += 1
        if DISK.full_failed():
            self.n_full += 1
            if self.n_full > TRIES:
                DISK.full_no_more()
        self.elsewhere.apply()
        return self.n_rounds > PATIENCE or (self.n_rounds % 5 == 0 and self.is_over())

    def is_over(self) -> bool:
        ends = {stream: kinds[-1] for stream, kinds in said(self.ledger).items()}
        return ENDS.items() <= ends.items()

    def wait(self, timeout: float | None = None) -> bool:
        super().wait(min(timeout or 0.0, 0.001))
        return self.is_set()


ENDS = {"retraining/homes": "run_ended", "run/homes/1": "closed", "production/homes": "applied"}


def said(ledger: SqliteLedger | None) -> dict[str, list[str]]:
    """Kinds of each stream."""
    found: dict[str, list[str]] = {}
    with contextlib.suppress(LedgerError):
        for entry in ledger.entries() if ledger is not None else ():
            found.setdefault(entry.stream, []).append(entry.kind)
    return found


@contextlib.contextmanager
def on_another_disk() -> Iterator[None]:
    DISK.full_elsewhere(1)
    try:
        yield
    finally:
        DISK.full_elsewhere(0)


def release(watched: config.Watched, n: int) -> dict[str, Any]:
    """One release on a new state folder; what was said, done and left."""
    state = watched.loaded.state
    shutil.rmtree(state, ignore_errors=True)
    (state / "run").mkdir(parents=True)
    keys.create_keys(state / "keys")
    elsewhere = Elsewhere(state)
    until = Until(elsewhere)
    workers.subprocess.Popen = elsewhere.run  # type: ignore[assignment, method-assign]
    DISK.full_from(n, os.fsencode(state))
    while until.n_rounds <= PATIENCE and not until.is_over():
        until.ledger = loop.opened(watched, "kim", until)
        if until.ledger is not None:
            loop.keep(until.ledger, watched, "kim", until)
    n_seen, n_failed, what = DISK.full_seen(), DISK.full_failed(), DISK.full_what().decode()
    DISK.full_from(0, b"")
    assert until.ledger is not None, "the ledger was never opened"
    until.ledger.check()
    kinds = said(until.ledger)
    until.ledger.close()
    return {
        "n": n, "seen": n_seen, "failed": n_failed, "what": what, "kinds": kinds, "begun": dict(elsewhere.begun),
        "left": sorted(p.name for p in state.rglob("*") if p.name.endswith((".tmp", "-journal"))),
        "torn": sorted(str(p) for p in state.rglob("*.json") if not _is_json(p)),
        "routed": json.loads((state / "routes" / "homes.json").read_bytes())["arms"][0]["bundle"] == BUNDLE,
    }  # fmt: skip


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def main() -> None:
    folder, step = Path(sys.argv[1]) / "homes", int(sys.argv[2]) if len(sys.argv) > 2 else 1
    make(folder)
    (folder / "config" / "config.yaml").write_text(
        (folder / "config" / "config.yaml").read_text() + "server: {port: 1}\n"
    )
    watched = config.Watched(folder)
    # Nothing waits for the clock, and no other program is asked.
    loop.RETRY_S = loop.POLL_S = reconcile.RETRY_S = 0.001
    declare._commit = lambda _: ""  # type: ignore[assignment]
    loop.Mirror.tend = lambda *_: None  # type: ignore[method-assign]
    print(json.dumps(release(watched, 0)), flush=True)
    n, last = 1, {"failed": 1}
    while last["failed"]:
        last = release(watched, n)
        print(json.dumps(last), flush=True)
        n += step


if __name__ == "__main__":
    main()
