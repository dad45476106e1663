"""Entry point of the loop: `python -m gyrostat.processes.loop --project DIR`, started by `gyrostat up`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from gyrostat import config
from gyrostat.errors import GyrostatError
from gyrostat.ledger import times
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop.assemble import Declarations, LocalWorld
from gyrostat.loop.declare import ask_for_first, declare
from gyrostat.loop.reconcile import Runner
from gyrostat.processes import runfiles
from gyrostat.processes.anchoring import Anchoring
from gyrostat.processes.notifying import Notifier

MIRROR_S = 3.0
OWED_S = (3.0, 30.0, 300.0, 3600.0)
"""Until what could not be shown to MLflow is tried again, without anything new."""
POLL_S = 0.15
RETRY_S = 2.0
"""Between two tries to open a ledger that is gone, damaged or busy."""


class Mirror:
    """MLflow is shown what the ledger says, by a process of its own that ends by itself; never on the way of anything."""

    def __init__(self, state: Path, module: str = "gyrostat.adapters.mlflow.outbox") -> None:
        self.state, self.module = state, module
        self.process: subprocess.Popen[bytes] | None = None
        self.position, self.due = -1, 0.0
        self.n_failed, self.again = 0, 0.0

    def tend(self, ledger: SqliteLedger) -> None:
        """Start one if there is something new or something owed, and none runs."""
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + MIRROR_S
        if self.process is not None:
            status = self.process.poll()
            if status is None:
                return
            self.process = None
            self.n_failed = self.n_failed + 1 if status else 0
            self.again = now + OWED_S[min(self.n_failed, len(OWED_S)) - 1]
        position = ledger.position()
        if position == self.position and not (self.n_failed and now >= self.again):
            return
        self.position = position
        with (self.state / "run" / "mirror.log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "--state", str(self.state)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                preexec_fn=lambda: os.nice(10),
            )  # fmt: skip

    def end(self) -> None:
        """Let it go; what it had not shown is shown next time."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()


class Told:
    """Says each thing once, until there is another to say."""

    def __init__(self) -> None:
        self.said = ""

    def say(self, why: str) -> None:
        """To the log of this process; the same words again are no news."""
        if why != self.said:
            self.said = why
            with contextlib.suppress(OSError):  # that log may lie on the disk that is full
                print(f"{times.iso(time.time())}  {why}", file=sys.stderr)  # noqa: T201


def opened(watched: config.Watched, actor: str, stop: threading.Event) -> SqliteLedger | None:
    """The ledger, whole and with the declaration on record; waits for it and says why. None: told to stop meanwhile."""
    told = Told()
    while not stop.is_set():
        ledger = None
        try:
            ledger = SqliteLedger(watched.loaded.state / "ledger.db")
            ledger.check()
            ledger.expire_leases()
            ledger.forget_heads()
            declare(ledger, watched.loaded, actor)
            ask_for_first(ledger, watched.loaded, actor)
        except (GyrostatError, OSError) as error:
            told.say(f"the loop waits: {error}")
        else:
            if told.said:
                told.say("the loop goes on")
            return ledger
        if ledger is not None:
            ledger.close()
        stop.wait(RETRY_S)
    return None


def main(arguments: list[str] | None = None) -> int:
    """Keep every life until SIGTERM."""
    parser = argparse.ArgumentParser(prog="gyrostat.processes.loop", description=__doc__)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--actor", default="")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watched = config.Watched(asked.project.resolve())
    lock = runfiles.Lock(watched.loaded.state, "loop")
    while not lock.take():  # one that is just ending may hold it; there is one loop a project
        if stop.wait(0.2):
            return 0
    while (ledger := opened(watched, asked.actor, stop)) is not None:
        try:
            keep(ledger, watched, asked.actor, stop)
        finally:
            ledger.close()
    return 0


def keep(ledger: SqliteLedger, watched: config.Watched, actor: str, stop: threading.Event) -> None:
    """Keep every life for as long as the ledger is the one that was opened.

    What was read of a ledger that is lost must not outlive it, so everything here begins anew with the next one.
    """
    state = watched.loaded.state
    declarations = Declarations(lambda: watched.loaded)
    world = LocalWorld(watched.project, state, declarations)
    name = f"loop-{os.getpid()}-{int(time.time())}"
    runner = Runner(
        ledger,
        world,
        declarations.terms(),
        lambda: watched.loaded.declaration.models,
        name,
        poll_s=POLL_S,
    )
    mirror, notifier = Mirror(state), Notifier(watched.project, state)
    anchoring = Anchoring(watched.project, state)
    mistake, trouble = Told(), Told()
    is_owed = False

    def tick() -> bool:
        nonlocal is_owed
        try:
            is_owed |= watched.has_changed()
            if is_owed:
                declare(ledger, watched.loaded, actor)
                ask_for_first(ledger, watched.loaded, actor)
                is_owed = False
            mirror.tend(ledger)
            notifier.tend(ledger, watched.loaded)
            anchoring.tend(ledger, watched.loaded)
        except (GyrostatError, OSError) as error:
            trouble.say(str(error))
        if watched.mistake or mistake.said:
            why = f"declaration not read: {watched.mistake}"
            mistake.say(why if watched.mistake else "declaration read")
        return not ledger.is_current

    runner.run(tick, stop)
    mirror.end()
    notifier.end()


if __name__ == "__main__":
    sys.exit(main())
