"""What a server owed when it died: in the counts once, whoever is killed while it is written down."""

import contextlib
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from gyrostat_runtime import flight, log
from gyrostat_runtime.log import Frame, Writer

from gyrostat.observations import read, verify
from gyrostat.processes.monitor import Watcher

T0 = 1_790_000_000.0  # in the past: a log does not trust what says it was written after its file
ARMS = ((1, "b1", "champion"), (1, "b2", "candidate"), (1, "b3", "shadow"))


class Killed(BaseException):
    """The process that does this is gone."""


class Story:
    """One server name, its supervisor and the monitor, each killed at random; beside them what must come out."""

    def __init__(self, state, seed, monkeypatch):
        self.state, self.dice, self.monkeypatch = state, np.random.default_rng(seed), monkeypatch
        self.folder, self.now = state / "log" / "wine", T0
        monkeypatch.setattr(log, "time", SimpleNamespace(time=lambda: self.now))
        self.n, self.errors = Counter(), Counter()
        self.n_deaths = self.n_interrupted = 0
        self.server = None
        self.watcher = Watcher(state, "wine", now=self.now)
        self.start()

    def start(self):
        """A new process takes the name, whether or not anybody has sealed for the one before."""
        if self.server is not None:
            return
        try:
            self.seal_or_die(lambda: Writer(self.folder, "w0", sync_s=1e6))
        except Killed:
            return
        self.slots = {arm: self.server.in_flight.slot(*arm) for arm in ARMS}
        self.hands, self.pending = Counter(), Counter()

    def begin(self):
        arm = ARMS[self.dice.integers(3)]
        self.slots[arm].begin()
        self.hands[arm] += 1

    def end(self):
        held = [arm for arm in ARMS if self.hands[arm]]
        if held:
            arm = held[self.dice.integers(len(held))]
            self.server.append(Frame(self.server.next_id(self.now), self.now, *arm, 200, 0.01))
            self.slots[arm].end()
            self.hands[arm] -= 1
            self.pending[arm] += 1

    def sync(self):
        self.server.heartbeat(self.now)
        self.server.sync()
        self.n += self.pending
        self.pending.clear()

    def die(self):
        """What was not on the disk is lost; what was in its hands is owed."""
        file = next(iter(self.folder.glob("*.flight")), None)
        if file is not None:  # in this process its lock would stay: the same bytes without one
            shutil.copy(file, self.state / "copy")
            (self.state / "copy").replace(file)
        self.server._stop.set()
        self.server = None
        self.n += self.hands
        self.errors += self.hands
        self.n_deaths += 1

    def end_in_order(self):
        self.n += self.pending + self.hands
        self.errors += self.hands
        self.server.close()
        self.server = None

    def seal(self):
        with contextlib.suppress(Killed):
            self.seal_or_die(lambda: log.seal(self.folder, "w0", self.now))

    def seal_or_die(self, act):
        """Do it, and be killed at some place of it half of the times."""
        if self.dice.random() < 0.5:
            place = ["fsync", "sync_folder", "unlink", "_last_segment"][self.dice.integers(4)]
            owner = {"fsync": log.os, "unlink": flight.Path}.get(place, log)

            def killed(*_, **__):
                raise Killed

            before = set(self.folder.glob("*.seg"))
            try:
                with self.monkeypatch.context() as patch:
                    patch.setattr(owner, place, killed)
                    made = act()
            except Killed:
                self.n_interrupted += 1
                for torn in set(self.folder.glob("*.seg")) - before:
                    if place == "fsync":
                        with torn.open("r+b") as file:
                            file.truncate(int(self.dice.integers(torn.stat().st_size + 1)))
                raise
        else:
            made = act()
        if isinstance(made, Writer):
            self.server = made

    def look(self):
        self.watcher.turn(self.now)

    def step(self):
        self.now += float(self.dice.random())
        if self.server is None:
            [self.seal, self.start, self.look][self.dice.integers(3)]()
        else:
            acts = (self.begin, self.end, self.sync, self.look, self.die, self.end_in_order)
            acts[self.dice.choice(6, p=[0.35, 0.25, 0.15, 0.15, 0.08, 0.02])]()
        if self.dice.random() < 0.1:
            self.watcher = Watcher(self.state, "wine", now=self.now)  # the one before was killed

    def finish(self):
        if self.server is not None:
            self.sync()
            self.die()
        log.settle(self.folder, self.now)
        for _ in range(3):
            self.now += 100.0
            self.watcher.turn(self.now)


@pytest.mark.parametrize("seed", range(12))
def test_each_request_that_was_begun_and_not_logged_is_one_error_whoever_is_killed(
    tmp_path, monkeypatch, seed
):
    story = Story(tmp_path, seed, monkeypatch)
    for _ in range(150):
        story.step()
    story.finish()
    n, errors = Counter(), Counter()
    for line, _ in read(tmp_path / "observations" / "wine"):
        arm = (line["routes_seq"], line["bundle"], line["arm"])
        n[arm] += line["n"]
        errors[arm] += line["errors"]
        assert line["n"] > 0
        assert 0 <= line["errors"] <= line["n"]
    assert (n, +errors) == (story.n, +story.errors)
    assert verify(tmp_path / "observations" / "wine")[1] is None
    assert story.n_deaths > 2
    assert not list((tmp_path / "log" / "wine").glob("*.flight"))
