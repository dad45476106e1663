"""Explore histories.

python -m tests.loop.simulation [N]              histories 0 to N-1; a failing one is shrunk, and its replay command printed
python -m tests.loop.simulation --seed K         one history, told entry by entry (--only NAME,NAME: with these misfortunes alone)
python -m tests.loop.simulation N --mistake M    plant a mistake; how many seeds until it is caught ("all": each of them)
"""

from __future__ import annotations

import argparse
import os

from .explore import explore, hunt, show
from .history import History
from .mistakes import MISTAKES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("n", type=int, nargs="?", default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--only", help="names of misfortunes, or none", metavar="NAME,NAME")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument(
        "--mistake", action="append", default=[], choices=[*sorted(MISTAKES), "all"]
    )
    args = parser.parse_args()
    if args.seed is not None:
        bugs = frozenset(args.mistake)
        only = None
        if args.only is not None:
            only = frozenset(args.only.split(","))
        show(History(args.seed, bugs, only=only))
    elif args.mistake:
        for mistake in MISTAKES if "all" in args.mistake else args.mistake:
            print(hunt(mistake, args.first, args.n), flush=True)
    else:
        raise SystemExit(explore(args.first, args.n, args.jobs))


if __name__ == "__main__":
    main()
