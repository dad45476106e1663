"""Two loops on one project: for each step exactly one winner, in the simulation and between two real processes."""

import heapq
import itertools
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gyrostat.errors import LedgerError
from gyrostat.ledger.chain import verify
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop import reconcile
from gyrostat.rollout.settings import RolloutSettings
from gyrostat.terms import Draft
from gyrostat.testing.memory import MemoryLedger

STREAM = "production/m"
TERMS = RolloutSettings(approval="never")
UNDISTURBED = ["offered", "staging_started", "staging_passed", "approved", "promoted", "applied"]
RACER = Path(__file__).with_name("racer.py")


class Servers:
    """Stage at once, and take routes of a higher seq only."""

    def __init__(self):
        self.staged: set[str] = set()
        self.seq, self.moves = 0, []

    def look(self, stream, what, key):
        seen = {"shown": self.seq, "served": self.seq}
        if what == "staging" and key in self.staged:
            return seen | {"status": "done", "made": "report", "is_answering": True}
        return seen | ({"floor": 10**9} if what == "receivers" else {})

    def start(self, stream, what, key, inputs, spec):
        self.staged.add(key)

    def show(self, stream, receiver, seq, value):
        if seq > self.seq:
            self.seq = seq
            self.moves.append((seq, [arm["bundle"] for arm in value["arms"]]))


class Contested(MemoryLedger):
    """Counts whom it refuses; `is_careless` lets every step in."""

    def __init__(self, clock, *, is_careless=False):
        super().__init__(clock)
        self.is_careless, self.n_refused = is_careless, 0

    def append(self, stream, draft, *, expect_seq, fence, **more):
        if self.is_careless:
            expect_seq = fence = None
        try:
            return super().append(stream, draft, expect_seq=expect_seq, fence=fence, **more)
        except LedgerError:
            self.n_refused += 1
            raise


def race(seed: int, *, is_careless: bool = False) -> tuple[Contested, Servers]:
    """From an offer to its champion, by two loops; at random places one of them is frozen for a minute and thawed."""
    rng, now = random.Random(seed), [1000.0]
    ledger, servers = Contested(lambda: now[0], is_careless=is_careless), Servers()
    offer = {"bundle": "b", "run": "run/m/1", "snapshot": "s"}
    ledger.append(STREAM, Draft("offered", 0.0, "run", body=offer, key="k"), expect_seq=None, fence=None)  # fmt: skip
    loops = [
        reconcile.keep(
            STREAM, name=name, ledger=ledger, world=servers, terms=lambda *_: (TERMS, "d")
        )
        for name in ("one", "two")
    ]
    due = [(now[0] + rng.random() * 0.01, n, loop) for n, loop in enumerate(loops)]
    n_freezes, ids = rng.randint(1, 4), itertools.count(2)
    for n_turns in range(3000):
        now[0], _, loop = heapq.heappop(due)
        pause_s = next(loop)
        if pause_s == 0.0 and n_freezes and rng.random() < 0.15:
            pause_s, n_freezes = 60.0, n_freezes - 1
        heapq.heappush(due, (now[0] + min(pause_s, 60.0) + rng.random() * 0.01, next(ids), loop))
        if n_turns > 20 and [e.kind for e in ledger.log[-1:]] == ["applied"] and now[0] > ledger.log[-1].at + 100:  # fmt: skip
            break
    return ledger, servers


def assert_one_winner_each(seeds: range) -> None:
    n_refused = n_lost_by_fence = 0
    for seed in seeds:
        ledger, servers = race(seed)
        assert [e.kind for e in ledger.log] == UNDISTURBED, f"race {seed}"
        assert servers.moves == [(5, ["b"])], f"race {seed}"
        fences = [e.fence for e in ledger.log if e.fence]
        assert fences == sorted(fences), f"race {seed}"
        n_refused += ledger.n_refused
        n_lost_by_fence += fences[-1] > 1
    assert n_refused > len(seeds) / 20  # they did meet
    assert n_lost_by_fence > len(seeds) / 20


def test_two_loops_have_one_winner_for_each_step():
    assert_one_winner_each(range(500))


@pytest.mark.slow
def test_ten_thousand_races_have_one_winner_each():
    assert_one_winner_each(range(10_000))


def test_without_compare_and_set_both_win():
    def is_doubled(seed: int) -> bool:
        try:
            return [e.kind for e in race(seed, is_careless=True)[0].log] != UNDISTURBED
        except Exception:  # noqa: BLE001 - whatever the second of two dies of
            return True

    assert sum(is_doubled(seed) for seed in range(100)) > 5


class Racer:
    """A real process on the other side of a pipe."""

    def __init__(self, ledger: Path, name: str) -> None:
        command = [sys.executable, str(RACER), str(ledger), name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert self.hears() == "ready"

    def told(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hears(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        self.thaw()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture
def racers(tmp_path):
    """Two processes on one SQLite ledger, and a third hand on it."""
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(path)
    both = [Racer(path, name) for name in ("one", "two")]
    yield ledger, *both
    for racer in both:
        racer.end()
    ledger.close()


def real_races(racers, n_races: int) -> None:
    """Every fifth time one of the two is stopped with the lease in hand, until the other has won, and then goes on."""
    ledger, one, two = racers
    winners, n_refused = set(), 0
    for n in range(n_races):
        stream = f"retraining/m{n}"
        body = {"by": "person", "actor": "kim"}
        ledger.append(stream, Draft("triggered", ledger.now(), "kim", body=body, key="k"), expect_seq=None, fence=None)  # fmt: skip
        if n % 5 == 4:
            one.told(f"freeze {stream}")
            assert one.hears() == "frozen"
            two.told(f"go {stream}")
            assert two.hears().startswith("done")
            one.thaw()
            n_refused += int(one.hears().split()[1])
        else:
            one.told(f"go {stream}")
            two.told(f"go {stream}")
            n_refused += sum(int(racer.hears().split()[1]) for racer in (one, two))
        kinds = [e.kind for e in ledger.tail(stream)]
        assert kinds == ["triggered", "run_opened", "told"], stream
        assert [e.kind for e in ledger.tail(f"run/m{n}/1")] == ["run_asked"], stream
        winners.add(ledger.tail(stream)[1].actor)
    assert verify(ledger.entries()) is None
    assert ledger.position() == 4 * n_races
    assert winners == {"one", "two"}
    assert n_refused >= n_races // 5  # each that was frozen wrote too late


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
def test_two_real_processes_have_one_winner_for_each_step(racers):
    real_races(racers, 15)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
def test_a_hundred_real_races_have_one_winner_each(racers):
    real_races(racers, 100)
