"""`make chaos`: kill -9 at every point of everything, then at random instants, in a real project; prints what was tried and what held.

python -m tests.chaos [KILLS]      random kills after the others; default 1000
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

from .rig import WAITED_FOR, Rig, make

QUIET_KILLS, PATIENCE_S = 10, 1800.0


def main(n_kills: int) -> int:
    seed = int(os.environ.get("SEED", "1"))
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "homes"
        make(folder)
        rig = Rig(folder, PATIENCE_S)
        with rig.running():
            rig.wait("version 1", lambda: rig.version() == 1 and rig.is_at_rest())
            for what, trial in TRIALS.items():
                found = trial(rig)
                say(rig, what, found)
                wrong += found
            if n_kills:
                since, after = len(rig.killed), rig.project.ledger.position()
                killed = rig.storm(n_kills, random.Random(seed))
                found = rig.wrong(after)
                say(rig, f"whatever runs, at {n_kills:,} random instants (SEED={seed})", found)
                table(rig, since, killed)
                wrong += found
    for line in wrong:
        print(f"BROKEN  {line}")
    return 1 if wrong else 0


def say(rig: Rig, what: str, found: list[str]) -> None:
    """A line about what was tried."""
    print(f"kill -9 of {what}", flush=True)
    print(
        f"  {'held' if not found else 'BROKEN'}; {rig.n_asked:,} requests answered so far, {len(rig.lost)} lost with a killed server, "
        f"{len(rig.failed)} failed otherwise",
        flush=True,
    )


def table(rig: Rig, since: int, killed: Counter[str]) -> None:
    """Victim, kills, and how long until it was there again."""
    print("  victim      kills  there again: median, longest")
    for what, n in killed.most_common():
        print(f"  {what:10} {n:6,}  {again(rig, what, since)}", flush=True)


def again(rig: Rig, what: str, since: int = 0) -> str:
    """How long it took until what was killed was there again."""
    parts = []
    for thing in WAITED_FOR.get(what, ()):
        times = [k.resumed[thing] for k in rig.killed[since:] if k.what == what and thing in k.resumed]  # fmt: skip
        if times:
            parts.append(f"{thing} {statistics.median(times):.1f} s, {max(times):.1f} s")
    return "; ".join(parts) or "-"


def at_rest(rig: Rig) -> list[str]:
    """How long it takes until everything is there again after a death of `up`."""
    after = rig.project.ledger.position()
    for _ in range(QUIET_KILLS):
        rig.kill_one("supervisor")
        rig.wait("everything to be there again", lambda: len(rig.killed[-1].resumed) == 2)
    print(f"from a start of `up` after its death, {QUIET_KILLS} times: {again(rig, 'supervisor')}")
    return rig.wrong(after)


def undisturbed(rig: Rig, kills_of: str, alpha: float, *, every: int = 1) -> list[str]:
    """A release in which a kind of process dies at its points, compared with one in which nothing happens."""
    wanted = rig.kinds(rig.release(alpha))
    plan, run = rig.plan(kills_of), rig.run() + 1
    before = len(plan.kills())
    plan.make(every)
    if (
        kills_of == "supervisor"
    ):  # all its points but those around a dead server's log, while servers answer
        rig.kill_one("supervisor")
        rig.wait("everything to be there again", lambda: len(rig.killed[-1].resumed) == 2)
        rig.kill_one("server")
    if kills_of == "monitor":  # its points are among the first things that it does
        rig.kill_one("monitor")
    since = rig.release(alpha + 0.5)
    plan.make(0)
    print(f"  {len(plan.kills()) - before} kills of the {kills_of}, each at a point of its own")
    found = rig.kinds(since)
    wrong = [
        f"{s}: {found.get(s)} instead of {kinds}"
        for s, kinds in wanted.items()
        if found.get(s) != kinds
    ]
    if set(rig.jobs(run).values()) != {1}:
        wrong.append(f"work was begun twice: {rig.jobs(run)}")
    return wrong + rig.wrong(since)


def loop(rig: Rig) -> list[str]:
    return undisturbed(rig, "loop", 2.0)


def supervisor(rig: Rig) -> list[str]:
    return undisturbed(rig, "supervisor", 3.0)


def monitor(rig: Rig) -> list[str]:
    return undisturbed(rig, "monitor", 4.0)


def training(rig: Rig) -> list[str]:
    """A job whose runner died is lost, said so, and done again under another key; so three releases, a third of the points each."""
    plan, after, before = rig.plan("training"), rig.project.ledger.position(), 0
    before = len(plan.kills())
    for third in range(3):
        plan.make(every=3, phase=third)
        rig.release(5.0 + third)
        plan.make(0)
    print(f"  {len(plan.kills()) - before} kills of runners, in three releases")
    return rig.wrong(after)


TRIALS = {
    "`up` again and again, nothing else": at_rest,
    "the loop, before, in and after each trace it leaves": loop,
    "`up` at each of its own points": supervisor,
    "the monitor at each of its own points": monitor,
    "runners of jobs at each of their own points": training,
}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
