"""Keeps the head of the chain elsewhere every so often: `python -m gyrostat.processes.anchoring --project DIR`, by the loop.

A process of its own that ends, so that a disk or a host that hangs holds up nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gyrostat_runtime import keys
from gyrostat_runtime.errors import RuntimeFault
from gyrostat_runtime.files import write_atomic

from gyrostat import config
from gyrostat.adapters.anchors import heads
from gyrostat.adapters.anchors.keep import keep, kept
from gyrostat.adapters.notify.address import UndeliveredError
from gyrostat.errors import GyrostatError
from gyrostat.ledger.audit import Anchor
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.processes import runfiles

NOTE = "anchored.json"
RETRY_S = 60.0


class Anchoring:
    """The loop's side: starts the process when it is time and something is new."""

    def __init__(self, project: Path, state: Path) -> None:
        self.project, self.state = project, state
        self.process: subprocess.Popen[bytes] | None = None
        self._due = 0.0

    def tend(self, ledger: SqliteLedger, loaded: config.Loaded) -> None:
        """Start one if a head is due."""
        settings = loaded.declaration.audit
        if not settings.anchors or time.monotonic() < self._due:
            return
        if self.process is not None and self.process.poll() is None:
            return
        self._due = time.monotonic() + min(RETRY_S, settings.every_s)
        note = last(self.state)
        is_late = time.time() - note.get("at", 0.0) >= settings.every_s
        # A clock that went back must not stop it for as long.
        is_late = is_late or note.get("at", 0.0) > time.time() + settings.every_s
        if (is_late and ledger.position() > note.get("position", 0)) or note.get("failed"):
            with (self.state / "run" / "anchoring.log").open("ab") as output:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "gyrostat.processes.anchoring", "--project", str(self.project)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                )  # fmt: skip


def last(state: Path) -> dict[str, Any]:
    """What was kept last: `{"position", "at", "failed": {label: why}}`."""
    try:
        return json.loads((state / NOTE).read_bytes())
    except (OSError, ValueError):
        return {}


def anchor(loaded: config.Loaded, ledger: SqliteLedger) -> tuple[int, dict[str, str]]:
    """Keep the head now, everywhere; its position, and why not for each place that did not take it.

    Raises:
        RuntimeFault: there is no key to sign it with.
    """
    entry = ledger.entry(ledger.position())
    if entry is None:
        return 0, {}
    private = keys.private_key(loaded.state / "keys")
    line = heads.sign(loaded.project.name, loaded.env, entry.position, entry.hash, time.time(), private)  # fmt: skip
    failed: dict[str, str] = {}
    for place in loaded.declaration.audit.anchors:
        try:
            keep(place, line, project=loaded.project, secret=config.secret)
        except GyrostatError as error:
            failed[place.label] = str(error)
    note = {"position": entry.position, "at": line["at"], "failed": failed}
    write_atomic(loaded.state / NOTE, json.dumps(note).encode())
    return entry.position, failed


def anchors(loaded: config.Loaded, *, files: tuple[Path, ...] = ()) -> tuple[list[Anchor], list[str]]:  # fmt: skip
    """All heads that are kept and signed by a key trusted here, and what is odd about where they are kept.

    Args:
        files: Lines that somebody else kept, such as the other end of a webhook.
    """
    ring = keys.keyring(loaded.state / "keys")
    found: list[Anchor] = []
    odd: list[str] = []
    named = {"project": loaded.project.name, "env": loaded.env, "ring": ring}
    texts: list[tuple[str, str]] = []
    for place in loaded.declaration.audit.anchors:
        try:
            text = kept(place, project=loaded.project, name=loaded.project.name, env=loaded.env)
            if text is not None:
                texts.append((place.label, text))
        except UndeliveredError as error:
            if last(loaded.state).get("position"):  # before the first there is nothing to read
                odd.append(str(error))
    for path in files:
        try:
            texts.append((path.name, path.read_text(encoding="utf-8", errors="replace")))
        except OSError as error:
            odd.append(f"{path.name} cannot be read ({error.strerror})")
    for where, text in texts:
        heads_there, odd_there = heads.read(text, where=where, **named)
        found += heads_there
        odd += odd_there
        if not heads_there and last(loaded.state).get("position"):
            odd.append(f"{where} holds no head of this project, although one was kept")
    return found, odd


def main(arguments: list[str] | None = None) -> int:
    """Keep one head, then end; 1 if a place did not take it."""
    parser = argparse.ArgumentParser(prog="gyrostat.processes.anchoring", description=__doc__)
    parser.add_argument("--project", type=Path, required=True)
    loaded = config.load(parser.parse_args(arguments).project.resolve())
    if not runfiles.Lock(loaded.state, "anchoring").take():
        return 0
    os.nice(5)
    try:
        _, failed = anchor(loaded, SqliteLedger(loaded.state / "ledger.db"))
    except (GyrostatError, RuntimeFault, OSError) as error:
        failed = {"all": str(error)}
    for label, why in failed.items():
        print(f"the head was not kept in {label}: {why}", file=sys.stderr)  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
