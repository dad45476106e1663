"""Print what the model server reaches beside the bare minimum and beside its peers, all in one run: `make bench-serving`.

The machine decides the figures, so ratios count: each turn of ours stands beside one of the other in the same seconds,
and the median of the turns is printed. Nothing is asserted about time; that the answers are right is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving import load, models, peers, servers
from benchmarks.serving.load import Turn
from benchmarks.serving.models import Served
from benchmarks.serving.servers import Server


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    ours: str
    other: str
    reached: float
    wanted: str


class Bench:
    """All measurements of one run, printed as they are made."""

    def __init__(self, folder: Path, turns: int, seconds: float) -> None:
        self._folder, self._turns, self._seconds = folder, turns, seconds
        self.figures: list[Figure] = []

    def against_minimum(self) -> None:
        """Numbers alone: one row at once, over one connection, 100 rows, and at half the load."""
        served = models.wine(self._folder / "wine")
        one, hundred = (models.instances(served.rows(n)) for n in (1, 100))
        with servers.ours(served) as ours, servers.minimum(served) as minimum:
            self._check(served, ours, minimum)
            memory = ours.memory_mb()
            self._add("memory of two idle workers, MB", f"{memory:.0f}", "", memory, "<= 150")
            self._add("cold start to a right answer, s", *_two(ours.cold_s), "<= 1")
            peak = self._rates("1 row, 64 connections", ours, minimum, one, ">= 70 %")
            self._rates("1 row, 1 connection", ours, minimum, one, ">= 70 %", connections=1)
            self._rates("100 rows, 64 connections", ours, minimum, hundred, ">= 90 %")
            self._at_rate(ours, minimum, one, peak / 2)

    def with_text(self) -> None:
        """12 columns, 4 of them text."""
        served = models.mixed(self._folder / "mixed")
        with servers.ours(served) as ours, servers.minimum(served) as minimum:
            self._check(served, ours, minimum)
            body = models.instances(served.rows(1))
            self._rates("8 numbers, 4 texts, 64 connections", ours, minimum, body, ">= 50 %")

    def without_graph(self) -> None:
        """A native model in its host, beside its own loop in this process."""
        served = models.native(self._folder / "native")
        with servers.ours(served, workers=1) as ours:
            ours.check(served, 5)
            body = models.instances(served.rows(1))
            pairs = [
                (self._turn(ours, body, connections=4).per_s, _alone(served, self._seconds))
                for _ in range(self._turns)
            ]
        mine, own = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        what = f"native, a call of {1000 / own:.1f} ms"
        self._add(what, f"{mine:,.0f}/s", f"{own:,.0f}/s", ratio, ">= 60 %")

    def beside_bad(self) -> None:
        """12 clients with good requests beside 3 with bad ones."""
        served = models.wine(self._folder / "bad")
        with servers.ours(served) as ours:
            n_right, n_good = _good_beside_bad(ours, served, self._seconds)
        right = n_right / max(n_good, 1)
        self._add("good requests beside bad ones", f"{n_right:,}", f"{n_good:,}", right, "100 %")

    def ceiling(self) -> None:
        """What whoever asks could reach at most."""
        with servers.minimum(None) as echo:
            turn = self._turn(echo, models.instances([[1.0] * 11]))
            paced = load.turn(echo, b"{}", seconds=self._seconds, per_s=1e6)
            by = "wrk" if load.WRK else "our generator"
            print(f"ceiling of {by} {turn.per_s:,.0f}/s; of our generator {paced.per_s:,.0f}/s")

    def against_peer(self, name: str) -> None:
        """The same forest behind another server."""
        served = models.wine(self._folder / f"beside-{name}")
        body, wanted = models.instances(served.rows(1)), peers.PEERS[name].wanted
        try:
            with peers.started(name, served) as peer, servers.ours(served) as ours:
                self._check(served, ours, peer)
                self._rates(f"1 row beside {name}", ours, peer, body, f">= {wanted:g} x")
        except (peers.NotInstalledError, servers.NotRightError) as error:
            print(f"left out  {name}: {error}", flush=True)

    def _rates(
        self, what: str, ours: Server, other: Server, body: bytes, wanted: str, **how: Any
    ) -> float:
        """Turn about; our median rate."""
        pairs = [
            (self._turn(ours, body, **how), self._turn(other, body, **how))
            for _ in range(self._turns)
        ]
        mine, others = (
            statistics.median(t.per_s for t in side) for side in zip(*pairs, strict=True)
        )
        ratio = statistics.median(a.per_s / max(b.per_s, 1e-9) for a, b in pairs)
        self._add(what, f"{mine:,.0f}/s", f"{others:,.0f}/s", ratio, wanted)
        cpu = [statistics.median(t.cpu_us for t in side) for side in zip(*pairs, strict=True)]
        said = [f"{us:.0f} us" for us in cpu]
        self._add("  processor time of a request", *said, cpu[1] / max(cpu[0], 1e-9), wanted)
        return mine

    def _at_rate(self, ours: Server, other: Server, body: bytes, per_s: float) -> None:
        pairs = [
            (self._turn(ours, body, per_s=per_s), self._turn(other, body, per_s=per_s))
            for _ in range(self._turns)
        ]
        p99 = [statistics.median(t.p99_ms for t in side) for side in zip(*pairs, strict=True)]
        said = [f"{ms:.1f} ms" for ms in p99]
        self._add(f"p99 at {per_s:,.0f}/s", *said, p99[0] / p99[1], "<= 2 x")

    def _turn(self, server: Server, body: bytes, **how: Any) -> Turn:
        turn = load.turn(server, body, seconds=self._seconds, **how)
        if turn.n_wrong:
            raise servers.NotRightError(f"{server.name} failed {turn.n_wrong} requests under load")
        return turn

    def _check(self, served: Served, *both: Server) -> None:
        for server in both:
            server.check(served)

    def _add(self, what: str, ours: str, other: Any, reached: float, wanted: str) -> None:
        figure = Figure(what, ours, str(other), reached, wanted)
        self.figures.append(figure)
        print(f"{what:42}{ours:>12}{figure.other:>12}{reached:>9.2f}   {wanted}", flush=True)


def _two(seconds: float) -> tuple[str, str, float]:
    return f"{seconds:.2f}", "", seconds


def _alone(served: Served, seconds: float) -> float:
    """Calls a second of the model itself."""
    row, n = served.features.iloc[:1], 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        served.model.predict(row)
        n += 1
    return n / (time.perf_counter() - began)


BAD = (b'{"instances": [[1, 2', b"", b'{"instances": [["abc"]]}', b'{"instances": [[1e39]]}')


def _good_beside_bad(server: Server, served: Served, seconds: float) -> tuple[int, int]:
    """How many good requests were answered rightly, and how many there were."""
    wanted = [served.model.predict(served.features.iloc[i : i + 1])[0] for i in range(20)]
    seen: list[bool] = []
    until = time.monotonic() + seconds

    def good(client: int) -> None:
        turn = client
        while time.monotonic() < until:
            row = turn % len(wanted)
            seen.append(_answers(server, server.write(served.rows(1, row)), wanted[row]))
            turn += 1

    def bad(client: int) -> None:
        while time.monotonic() < until:
            for body in BAD:
                with contextlib.suppress(OSError):
                    server.ask(body)

    _together([lambda i=i: good(i) for i in range(12)] + [lambda i=i: bad(i) for i in range(3)])
    return sum(seen), len(seen)


def _answers(server: Server, body: bytes, wanted: float) -> bool:
    try:
        status, value = server.ask(body)
    except OSError:
        return False
    return status == 200 and abs(server.read(value)[0] - wanted) <= models.TOLERANCE


def _together(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> int:
    """Measure and print."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument(
        "--peers", default="fastapi", help=f"all, none, or some of {', '.join(peers.PEERS)}"
    )
    asked.add_argument("--turns", type=int, default=5, help="Of each server in each measurement.")
    asked.add_argument("--seconds", type=float, default=2.0, help="Of one turn.")
    asked.add_argument("--json", type=Path, help="Write the figures here too.")
    told = asked.parse_args()
    chosen = {"all": list(peers.PEERS), "none": []}.get(told.peers, told.peers.split(","))
    if unknown := [name for name in chosen if name not in peers.PEERS]:
        asked.error(f"no peer is called {unknown[0]!r}; there are: {', '.join(peers.PEERS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    print(f"load average at the start {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':42}{'ours':>12}{'other':>12}{'reached':>9}   wanted")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), told.turns, told.seconds)
        bench.ceiling()
        bench.against_minimum()
        bench.with_text()
        bench.without_graph()
        bench.beside_bad()
        for name in chosen:
            bench.against_peer(name)
    print(f"load average at the end {os.getloadavg()[0]:.1f}")
    if told.json:
        told.json.write_text(json.dumps([asdict(one) for one in bench.figures], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
