"""Tells the declared receivers, and ends: `python -m gyrostat.processes.notifying --project DIR`, started by the loop.

In a process of its own, after the fact: a receiver that hangs, or a command that never ends, holds up nothing. It stays as
long as something is owed, ends with the loop that started it, and may be killed anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gyrostat import config
from gyrostat.adapters.notify import outbox
from gyrostat.adapters.notify.address import UndeliveredError
from gyrostat.adapters.notify.deliver import deliver
from gyrostat.adapters.notify.message import Message
from gyrostat.adapters.notify.outbox import News, Place
from gyrostat.adapters.notify.settings import Receiver, identity
from gyrostat.errors import GyrostatError, UnavailableError
from gyrostat.ledger import times
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop.messages import message, stuck_message
from gyrostat.loop.stuck import stuck
from gyrostat.processes import runfiles

LOCK, LOOK_S, TICK_S = "notifying", 1.0, 0.5


class Notifier:
    """The loop's side: starts the process when there may be something to tell."""

    def __init__(self, project: Path, state: Path) -> None:
        self.project, self.state = project, state
        self.process: subprocess.Popen[bytes] | None = None
        self._stamp: object = None
        self._due = 0.0

    def tend(self, ledger: SqliteLedger, loaded: config.Loaded) -> None:
        """Start one if something is new, somebody is to be told, and none runs."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + LOOK_S
        stamp = (ledger.position(), loaded.digest, self._refusals())
        if stamp == self._stamp:
            return
        if self.process is not None and self.process.poll() is None:
            if self._stamp is None or stamp[1] == self._stamp[1]:  # type: ignore[index]
                return  # it sees the rest by itself; the stamp stays, so one more is started behind it
            self.end()
        self._stamp = stamp
        if not loaded.declaration.notify:
            return
        with (self.state / "run" / "notifying.log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gyrostat.processes.notifying", "--project", str(self.project)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def _refusals(self) -> tuple[object, ...]:
        """Routes that servers refuse are in no entry."""
        found = []
        for path in sorted((self.state / "routes").glob("*.applied/*.json")):
            try:
                found.append((path.name, json.loads(path.read_bytes()).get("refused")))
            except (OSError, ValueError):
                continue
        return tuple(found)

    def end(self) -> None:
        """Let it go; what it had not told is told next time."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()


def declared_at(ledger: SqliteLedger, state: Path, receiver: Receiver) -> int:
    """Position of the declaration since which this receiver is named without a break: what came before is not its news."""
    since = 0
    for entry in reversed(ledger.tail("declaration")):
        try:
            named = {identity(r) for r in config.stored(state, entry.body["digest"]).notify}
        except (OSError, GyrostatError):
            break
        if identity(receiver) not in named:
            break
        since = entry.position
    return since or ledger.position()


@dataclass
class Notifying:
    """What the process does, without the process."""

    loaded: config.Loaded
    ledger: SqliteLedger
    clock: Callable[[], float] = time.time

    def news(self, place: Place) -> Iterator[News]:
        """What a receiver at this place has not heard of."""
        names = {"project": self.loaded.project.name, "env": self.loaded.env}
        for entry in self.ledger.entries(after=place.position):
            yield News(entry.position, message(self.ledger, entry, **names))
        for found in stuck(self.ledger, self.loaded.state, self.loaded.declaration.models):
            if found.key not in place.stuck:
                yield News(0, stuck_message(self.ledger, found, **names), found.key)

    def place(self, receiver: Receiver) -> Place:
        """Where a receiver is."""
        since = declared_at(self.ledger, self.loaded.state, receiver)
        kept = outbox.read(outbox.path_of(self.loaded.state, receiver))
        if kept is None or kept.position < since:
            return Place(since, label=receiver.label)
        return kept

    def once(self, receiver: Receiver) -> Place:
        """Tell one receiver all there is, up to the first failure."""
        return outbox.drain(
            outbox.path_of(self.loaded.state, receiver), receiver, self.place(receiver), self.news,
            lambda m: send(self.loaded, receiver, m), clock=self.clock, tell=_tell,
        )  # fmt: skip

    def run(self, stop: threading.Event) -> None:
        """Until nothing is owed, or `stop`."""
        receivers = self.loaded.declaration.notify
        with ThreadPoolExecutor(max(1, len(receivers))) as pool:
            while not stop.is_set():
                position = self.ledger.position()
                places = list(pool.map(self.once, receivers))
                if not any(p.due for p in places) and self.ledger.position() == position:
                    return
                stop.wait(TICK_S)


def send(loaded: config.Loaded, receiver: Receiver, what: Message) -> None:
    """Tell one receiver one thing.

    Raises:
        UndeliveredError: it was not told; no secret is in the message.
    """
    try:
        deliver(receiver, what, secret=config.secret, folder=loaded.project)
    except UnavailableError as error:
        raise UndeliveredError(str(error)) from error


def test(loaded: config.Loaded) -> list[tuple[Receiver, str]]:
    """Send each receiver a test message now; `(receiver, why it was not told)`, empty where it was."""
    found = []
    for receiver in loaded.declaration.notify:
        now = time.time()
        what = Message(
            "test", f"test {now}", "", "", ", ".join(loaded.declaration.models), loaded.project.name, loaded.env, times.iso(now),
            "this receiver is told", "none", "nothing", "nothing: it works",
        ).to(identity(receiver))  # fmt: skip
        try:
            send(loaded, receiver, what)
            found.append((receiver, ""))
        except UndeliveredError as error:
            found.append((receiver, str(error)))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Tell all there is, then end."""
    parser = argparse.ArgumentParser(prog="gyrostat.processes.notifying", description=__doc__)
    parser.add_argument("--project", type=Path, required=True)
    loaded = config.load(parser.parse_args(arguments).project.resolve())
    stop, parent = threading.Event(), os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    lock = runfiles.Lock(loaded.state, LOCK)
    while not lock.take():  # one that is just ending may hold it
        if os.getppid() != parent or stop.wait(TICK_S):
            return 0

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(TICK_S)
        # In the middle of anything: that must not matter, and a thread may be waiting for a receiver.
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    Notifying(loaded, SqliteLedger(loaded.state / "ledger.db")).run(stop)
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
