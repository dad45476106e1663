"""Explore histories.

python -m tests.loop.simulation [N]              histories 0 to N-1; failing seeds print their replay command
python -m tests.loop.simulation --seed K         one history, told entry by entry
python -m tests.loop.simulation N --mistake M    plant a mistake; how many seeds until it is caught
"""

from __future__ import annotations

import argparse
import time

from .history import DAY, History
from .mistakes import MISTAKES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("n", type=int, nargs="?", default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--mistake", action="append", default=[], choices=[*sorted(MISTAKES), "all"]
    )
    args = parser.parse_args()
    if args.seed is not None:
        history = History(args.seed, frozenset(args.mistake))
        found = history.run()
        for e in history.entries():
            print(
                f"{e.position:4d} day {e.at / DAY:6.2f} {e.stream:20s} {e.seq:3d} {e.kind:18s}{e.actor:9s} {' '.join(e.inputs)} -> {' '.join(e.outputs)} {e.body.get('cause', '')}"
            )
        print(*found, sep="\n")
        return
    for mistake in MISTAKES if "all" in args.mistake else args.mistake:
        caught = {s: f[0] for s in range(args.n) if (f := History(s, frozenset([mistake])).run())}
        first, harm = min(caught.items(), default=(None, "not caught"))
        print(
            f"{mistake:28s} {len(caught) / args.n:6.1%} of {args.n}, first {first}: {harm}"[:200],
            flush=True,
        )
    if args.mistake:
        return
    began, n_failed, n_entries, n_kills = time.perf_counter(), 0, 0, 0
    for seed in range(args.first, args.first + args.n):
        history = History(seed)
        if found := history.run():
            n_failed += 1
            print(
                f"seed {seed}: {found[0]}   again: python -m tests.loop.simulation --seed {seed}",
                flush=True,
            )
        n_entries, n_kills = n_entries + len(history.log), n_kills + history.kills
    took = time.perf_counter() - began
    print(
        f"{args.n} histories, {n_failed} failed, {n_entries:,} entries, {n_kills:,} kills, {took:.1f} s, {args.n / took:.1f} a second"
    )


if __name__ == "__main__":
    main()
