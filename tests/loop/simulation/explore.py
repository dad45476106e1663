"""Many histories: what failed (shrunk, with the command that tells it again), what was tried, and what held."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .history import History
from .shrink import shrink
from .world import DAY

PROGRESS_S = 20.0
HOLDS = {
    "I1": "whoever answered was routed then",
    "I2": "one champion at any time, and one arm for each bundle",
    "I3": "what was judged, staged and routed is what was packed",
    "I4": "each change of the world has its entry, each entry its change; no work twice",
    "I5": "each offer ends once, each debt arrives once, each trigger has its run",
    "I6": "each decision, judged again from its entry, is the same",
    "I7": "fences never go back, nor the chain, nor the ledger's time",
    "I8": "all comes to rest, and nothing waits for a person who was not asked",
}


class Told(NamedTuple):
    """What is left of one history."""

    seed: int
    harm: str
    n_entries: int
    n_faults: int
    tried: Counter[str]
    reached: Counter[str]
    cpu_s: float


def tell(seed: int) -> Told:
    began = time.process_time()
    history = History(seed)
    found = history.run()
    reached = Counter(e.kind for e in history.log)
    cpu_s = time.process_time() - began
    dice = history.dice
    harm = found[0] if found else ""
    return Told(seed, harm, len(history.log), len(dice.struck), dice.tried(), reached, cpu_s)


def show(history: History) -> None:
    """One history, entry by entry."""
    found = history.run()
    for e in history.entries():
        print(
            f"{e.position:4d} day {(e.at - history.began_at) / DAY:6.2f} {e.stream:20s} {e.seq:3d} {e.kind:18s}{e.actor:9s} "
            f"{' '.join(e.inputs)} -> {' '.join(e.outputs)} {e.body.get('cause', '')}"
        )
    print(
        "misfortunes:",
        *(f"  {name} {whom}" for name, whom in history.dice.struck.items()),
        sep="\n",
    )
    print(*(found or ["nothing is wrong"]), sep="\n")


def hunt(mistake: str, first: int, n: int) -> str:
    """After how many seeds a planted mistake is first caught, and by what harm."""
    for seed in range(first, first + n):
        if found := History(seed, frozenset([mistake])).run():
            return f"{mistake:34s} seed {seed:5d}  {found[0]}"[:200]
    return f"{mistake:34s} not caught in {n} seeds"


def explore(first: int, n: int, jobs: int) -> int:
    """Tell them all; the exit code."""
    began, cpu_s, n_failed, n_entries, n_faults = time.perf_counter(), 0.0, 0, 0, 0
    tried: Counter[str] = Counter()
    reached: Counter[str] = Counter()
    told_at = began
    for done, told in enumerate(_told(range(first, first + n), jobs), 1):
        if (now := time.perf_counter()) - told_at > PROGRESS_S:
            told_at, left_s = now, (now - began) / done * (n - done)
            print(f"{done:,} of {n:,} · {n_failed} failed · about {left_s / 60:.0f} min left", file=sys.stderr, flush=True)  # fmt: skip
        if told.harm:
            n_failed += 1
            print(_failed(told, is_shrunk=n_failed <= 3), flush=True)
        cpu_s, n_entries, n_faults = cpu_s + told.cpu_s, n_entries + told.n_entries, n_faults + told.n_faults  # fmt: skip
        tried, reached = tried + told.tried, reached + told.reached
    took = time.perf_counter() - began
    print("\nwhat was tried", *_columns(tried), sep="\n")
    print("\nwhat was reached", *_columns(reached), sep="\n")
    print("\nwhat held, after each entry, call and answer, and at the end")
    print(*(f"  {name}  {what}" for name, what in HOLDS.items()), sep="\n")
    print(
        f"\n{n:,} histories, {n_failed} failed · {n_entries:,} entries, {n_faults:,} misfortunes · {took:.0f} s on "
        f"{jobs} cores, {n / cpu_s:.1f} histories a second of one core, {n_entries / n:.0f} entries each"
    )
    return 1 if n_failed else 0


def _told(seeds: range, jobs: int) -> Iterator[Told]:
    if jobs == 1:
        yield from map(tell, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(tell, seeds, chunksize=20)


def assert_nothing_is_wrong(seeds: Sequence[int]) -> None:
    """For tests: the histories of these seeds hold, and the world was unkind enough to mean something."""
    failed: list[str] = []
    tried: Counter[str] = Counter()
    for seed in seeds:
        told = tell(seed)
        tried.update(told.tried)
        if told.harm:
            failed.append(_failed(told, is_shrunk=not failed))
    assert not failed, "\n".join(failed[:5])
    assert tried["a loop is killed"] > 10 * len(seeds)
    assert tried["a commit of unknown outcome"] > 5 * len(seeds)
    assert tried["no room for an entry"] > len(seeds)


def _failed(told: Told, *, is_shrunk: bool) -> str:
    again = f"python -m tests.loop.simulation --seed {told.seed}"
    if not is_shrunk:
        return f"seed {told.seed}: {told.harm}\n   again: {again}"
    history, found = shrink(told.seed)
    numbers = ",".join(history.dice.struck)
    lines = [f"     {name} {whom}" for name, whom in history.dice.struck.items()]
    head = f"seed {told.seed}: {told.harm}\n   again: {again}\n   shrunk from {told.n_faults} misfortunes to {len(lines)}, from {told.n_entries} entries to {len(history.log)}: {found[0]}"
    return "\n".join([head, *lines, f"   again: {again} --only {numbers or 'none'}"])


def _columns(counted: Counter[str]) -> Iterator[str]:
    cells = [f"{n:>12,}  {what}" for what, n in sorted(counted.items())]
    half = (len(cells) + 1) // 2
    for left, right in zip(cells[:half], [*cells[half:], ""], strict=False):
        yield f"{left:55s}{right}"
