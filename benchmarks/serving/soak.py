"""Swap versions again and again under steady load: `make soak-serving`. Exit 1 where a request failed or memory grew.

The load is 70 % of what the server answered just before, measured here. Each swap is seen through: every worker must have said
that it answers by the new routes before the next ones are written.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.serving import load, models, servers
from benchmarks.serving.load import Turn
from benchmarks.serving.models import NAME, Served
from benchmarks.serving.servers import Server

LOAD = 0.7
MOST_GROWTH = 0.05
MEASURE_S = 5.0


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """In a thread of its own, until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Swapper:
    """Sends all requests to the other version, each `every_s`, until it is told to stop."""

    def __init__(self, served: Served, digests: tuple[str, str], every_s: float) -> None:
        self.n = 0
        """Swaps by which every worker answers."""
        self.n_asked = 0
        self._served, self._digests, self._every_s = served, digests, every_s

    def run(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        due = time.monotonic() + self._every_s
        while not stop.wait(max(0.0, due - time.monotonic())):
            due += self._every_s
            seq = self.n_asked + 2
            models.route(self._served.state, self._digests[(self.n_asked + 1) % 2], seq)
            self.n_asked += 1
            while not self._is_applied(seq):
                time.sleep(0.02)
                if time.monotonic() > due + 60:
                    return
            self.n += 1

    def _is_applied(self, seq: int) -> bool:
        folder = self._served.state / "routes" / f"{NAME}.applied"
        said = [json.loads(file.read_bytes()) for file in folder.glob("*.json")]
        return bool(said) and all(one.get("seq") == seq and "refused" not in one for one in said)


class Memory:
    """What all processes of a server hold, looked at each second."""

    def __init__(self, server: Server) -> None:
        self.seen: list[float] = []
        self._server = server

    def run(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        while not stop.wait(1.0):
            self.seen.append(self._server.memory_mb())

    def take(self) -> float:
        """The median since the last time."""
        seen, self.seen = self.seen, []
        return statistics.median(seen) if seen else self._server.memory_mb()


def soak(minutes: float, every_s: float, n_requests: int, n_swaps: int, settle: int) -> int:
    """Print a line for each minute, and what was held; 1 where something was not."""
    with tempfile.TemporaryDirectory() as folder:
        served, digests = models.two(Path(folder) / "wine")
        body = models.instances(served.rows(1))
        with servers.ours(served) as server:
            server.check(served)
            load.turn(server, body, seconds=1.0, by_own=True)
            rate = LOAD * load.turn(server, body, seconds=MEASURE_S, by_own=True).per_s
            if n_requests:
                minutes = n_requests / rate / 60
                every_s = 60 * minutes / (n_swaps + 0.5)
            print(
                f"{rate:,.0f} requests/s, {LOAD:.0%} of what was measured; {minutes:.1f} min, a swap each {every_s:.1f} s"
            )
            print(f"{'minute':>8}{'requests':>12}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}{'MB':>8}{'swaps':>7}")  # fmt: skip
            swapper, memory = Swapper(served, digests, every_s), Memory(server)
            turns, held = [], []
            with _meanwhile(swapper.run), _meanwhile(memory.run):
                for minute, seconds in enumerate(_minutes(minutes), 1):
                    turn = load.turn(server, body, seconds=seconds, per_s=rate)
                    turns.append(turn)
                    held.append(memory.take())
                    print(f"{minute:8}{turn.n:12,}{turn.n_wrong:8,}{turn.p50_ms:9.1f}{turn.p99_ms:9.1f}{held[-1]:8.0f}{swapper.n:7}", flush=True)  # fmt: skip
    return _judged(turns, held, swapper, settle)


def _minutes(minutes: float) -> Iterator[float]:
    left = 60 * minutes
    while left > 0.5:
        yield min(60.0, left)
        left -= 60.0


def _judged(turns: list[Turn], held: list[float], swapper: Swapper, settle: int) -> int:
    n_failed = sum(turn.n_wrong for turn in turns)
    settled = held[min(settle, len(held)) - 1]
    growth = held[-1] / settled - 1
    print(f"{sum(turn.n for turn in turns):,} requests, {n_failed:,} failed; {swapper.n} of {swapper.n_asked} swaps applied by every worker")  # fmt: skip
    print(f"memory {growth:+.1%} from minute {min(settle, len(held))} to minute {len(held)} (at most {MOST_GROWTH:+.0%})")  # fmt: skip
    is_held = not n_failed and growth <= MOST_GROWTH and swapper.n == swapper.n_asked
    print("held" if is_held else "NOT held")
    return 0 if is_held else 1


def main() -> int:
    """Soak and print."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--minutes", type=float, default=10.0)
    asked.add_argument("--every", type=float, default=20.0, help="Seconds between two swaps.")
    asked.add_argument("--requests", type=int, default=0, help="So many instead of minutes, e.g. 1000000.")  # fmt: skip
    asked.add_argument("--swaps", type=int, default=100, help="With --requests: over so many swaps.")  # fmt: skip
    asked.add_argument("--settle", type=int, default=3, help="The minute after which memory is flat.")  # fmt: skip
    told = asked.parse_args()
    return soak(told.minutes, told.every, told.requests, told.swaps, told.settle)


if __name__ == "__main__":
    sys.exit(main())
