"""`make chaos`: kill -9 at every point of a release, then at random instants, in a real project; prints what was tried and what held.

python -m tests.chaos [KILLS]      random kills after the others; default 1000
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from .rig import Rig, make

ONCE = ("snapshotted", "trained", "packed", "offered")


def at_every_point(rig: Rig) -> list[str]:
    """A release that is killed at each point in turn; what does not hold."""
    wanted = rig.kinds(rig.release(2.0))
    before, run = len(rig.kills()), rig.run() + 1
    rig.plan(every=1)
    found = rig.kinds(rig.release(3.0))
    rig.plan(0)
    print(
        f"  {len(rig.kills()) - before} kills, each at a point of its own, in one release",
        flush=True,
    )
    wrong = [
        f"{s}: {found.get(s)} instead of {kinds}"
        for s, kinds in wanted.items()
        if found.get(s) != kinds
    ]
    if set(rig.jobs(run).values()) != {1}:
        wrong.append(f"work was begun twice: {rig.jobs(run)}")
    return wrong


def at_random(rig: Rig, n_kills: int, dice: random.Random) -> tuple[Counter[str], list[str]]:
    """Kills of whatever runs, while releases follow each other."""
    killed: Counter[str] = Counter()
    after, alpha = rig.project.ledger.position(), 10.0
    while sum(killed.values()) < n_kills:
        alpha += 1.0
        rig.ask_for(alpha)
        quiet_at = time.monotonic() + 60
        while time.monotonic() < quiet_at and sum(killed.values()) < n_kills:
            time.sleep(dice.random() * 1.5)
            running = victims(rig)
            if not running:
                continue
            what, pid = dice.choice(running)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed[what] += 1
    rig.wait("everything to come to rest", rig.is_quiet)
    return killed, verdict(rig, after)


def victims(rig: Rig) -> list[tuple[str, int]]:
    """Everything of the project that runs now, by what it is."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            for mark, what in (
                ("dying_loop", "loop"), ("processes.monitor", "monitor"), ("processes.server", "server"),
                ("--child", "work"), ("loop.worker", "runner"), ("harness.py", "training"), ("mlflow", "mirror"),
            ):  # fmt: skip
                if mark in command:
                    found.append((what, process.pid))
                    break
    with contextlib.suppress(psutil.Error):
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if "loop.worker" in line and str(rig.folder) in line:
                found.append(("runner", process.pid))
    return found


def verdict(rig: Rig, after: int) -> list[str]:
    """What does not hold of the record since a position."""
    wrong = []
    runs: dict[str, Counter[str]] = {}
    for entry in rig.project.ledger.entries(after=after):
        if entry.stream.startswith("run/"):
            runs.setdefault(entry.stream, Counter())[entry.kind] += 1
    for stream, kinds in runs.items():
        wrong += [
            f"{stream}: {kind} was said {kinds[kind]} times" for kind in ONCE if kinds[kind] > 1
        ]
        if not kinds["closed"] and not kinds["told"]:
            wrong.append(f"{stream} did not come to an end: {dict(kinds)}")
    if not rig.project.audit_verify().facts["is_whole"]:
        wrong.append("the chain is broken")
    return wrong


def main(n_kills: int) -> int:
    seed = int(os.environ.get("SEED", "1"))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "homes"
        make(folder)
        rig = Rig(folder)
        with rig.running():
            rig.wait("version 1", lambda: rig.version() == 1 and rig.is_at_rest())
            print("kill -9 of the loop before, in and after each trace it leaves", flush=True)
            wrong = at_every_point(rig)
            print(
                f"  {'held' if not wrong else 'BROKEN'}; {len(rig.failed)} of {rig.n_asked:,} requests failed",
                flush=True,
            )
            wrong += [f"a request failed: {f}" for f in rig.failed[:3]]
            if n_kills:
                print(
                    f"kill -9 of whatever runs, at {n_kills:,} random instants (SEED={seed})",
                    flush=True,
                )
                killed, found = at_random(rig, n_kills, random.Random(seed))
                print(
                    "  " + ", ".join(f"{n} {what}" for what, n in killed.most_common()), flush=True
                )
                print(
                    f"  {'held' if not found else 'BROKEN'}; {len(rig.failed)} of {rig.n_asked:,} requests were in the hands of a killed server",
                    flush=True,
                )
                wrong += found
    for line in wrong:
        print(f"BROKEN  {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
