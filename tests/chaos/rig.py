"""A small real project with everything running, whose processes are killed on purpose."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gyrostat
from gyrostat.processes import following, supervisor
from gyrostat.processes.supervisor import Supervisor, bind

ROOT = Path(__file__).parents[2]
PATIENCE_S = 400.0
ROW = {"rooms": 3, "humidity": 0.4}
CONFIG = """\
version: 1
models:
  homes:
    data: {source: data/homes.csv, target: price, learn_from_traffic: false}
    train: {params: {alpha: 1.0}}
    limits: {rmse: {max: 400}}
    gates: {champion: {margin: 100}}
    rollout:
      approval: never
      steps: [50%]
      bake: {requests: 20, time: 1s}
      guardrails: {error_rate: +30pp}
    retraining: {triggers: [], cooldown: 0s, budget: 60 per day}
"""
TRAIN = """\
from sklearn.linear_model import Ridge


def train(frame, params):
    return Ridge(alpha=params["alpha"]).fit(frame[["rooms", "humidity"]], frame["price"])
"""


def make(folder: Path) -> None:
    """The project's files."""
    for name in ("config", "data", "src"):
        (folder / name).mkdir(parents=True)
    dice = random.Random(5)
    lines = ["rooms,humidity,price"]
    for _ in range(240):
        rooms, humidity = dice.randint(1, 6), round(dice.random(), 3)
        lines.append(
            f"{rooms},{humidity},{100 + 55 * rooms - 40 * humidity + dice.gauss(0, 5):.2f}"
        )
    (folder / "data" / "homes.csv").write_text("\n".join(lines) + "\n")
    (folder / "src" / "__init__.py").write_text("")
    (folder / "src" / "train.py").write_text(TRAIN)
    (folder / "config" / "config.yaml").write_text(CONFIG)


@dataclass
class Rig:
    """The project, its processes under a real supervisor in this process, and traffic."""

    folder: Path
    said: list[str] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)
    n_asked: int = 0
    ids: set[str] = field(default_factory=set)
    """Of the predictions that were answered."""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    port: int = 0
    n_points: int = 0
    """Of an undisturbed release."""

    @property
    def project(self) -> gyrostat.Project:
        return gyrostat.Project(self.folder)

    @property
    def state(self) -> Path:
        return self.folder / ".gyrostat" / "dev"

    @contextlib.contextmanager
    def running(self) -> Iterator[Rig]:
        """Everything that `up` starts but the page, with a loop that may die by itself; traffic beside it."""
        from gyrostat_runtime import keys

        project = self.project
        keys.create_keys(project.state / "keys")
        server = bind("127.0.0.1", 0, setting="", option="")
        self.port = server.getsockname()[1]
        children = [
            c for c in following.children(project, server, server, "chaos") if c.name != "control"
        ]
        for child in children:
            if child.name == "loop":
                child.module = "tests.chaos.dying_loop"
        keeper = Supervisor(self.state, children, self.said.append)
        path = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)
        waits, supervisor.RESTART_AFTER_S = supervisor.RESTART_AFTER_S, (0.05,)
        threads = [threading.Thread(target=keeper.run), threading.Thread(target=self._ask)]
        self._over.clear()
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            threads[1].join(20)
            keeper.stop.set()
            threads[0].join(40)
            server.close()
            supervisor.RESTART_AFTER_S = waits
            os.environ["PYTHONPATH"] = path

    def _ask(self) -> None:
        body = json.dumps({"dataframe_records": [ROW]})
        while not self._over.wait(0.02):
            link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            is_owed = self.has_champion()
            try:
                link.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                answer = link.getresponse()
                text = answer.read()
                self.n_asked += 1
                if answer.status == 200:
                    self.ids.add(json.loads(text)["id"])
                if answer.status != 200 and is_owed:
                    self.failed.append((answer.status, text[:200]))
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
            finally:
                link.close()

    def has_champion(self) -> bool:
        return any((self.state / "routes").glob("*.applied/*.json"))

    def wait(self, what: str, is_there: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := is_there()):
            assert time.monotonic() < deadline, (
                f"waited for {what}: {self.said[-3:]}\n{self.log('loop')}\n{self.kinds(0)}"
            )
            time.sleep(0.1)
        return found

    def log(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return (self.state / "run" / f"{name}.log").read_text()[-2000:]
        return ""

    def ask_for(self, alpha: float) -> None:
        """Ask for a candidate of another kind."""
        config = self.folder / "config" / "config.yaml"
        config.write_text(CONFIG.replace("alpha: 1.0", f"alpha: {alpha}"))
        subprocess.run(
            [sys.executable, "-m", "gyrostat.cli.main", "run", "--no-wait", "--key", f"alpha-{alpha}"],
            cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=200,
        )  # fmt: skip

    def release(self, alpha: float) -> int:
        """Ask for a candidate and wait until it is champion; the position before."""
        before, version = self.project.ledger.position(), self.version()
        self.ask_for(alpha)
        self.wait("the release", lambda: self.version() > version and self.is_at_rest())
        return before

    def is_quiet(self) -> bool:
        """Whether nothing is on its way, released or not."""
        open_streams = [s for s in self.project.ledger.streams() if s.startswith("run/")]
        return not open_streams and self.picture()["candidate"] is None

    def picture(self) -> dict[str, Any]:
        return self.project.status().facts["models"]["homes"]

    def version(self) -> int:
        return (self.picture()["champion"] or {}).get("version") or 0

    def run(self) -> int:
        """Number of the newest run."""
        return int(self.picture()["runs"][0]["ref"].rpartition("/")[2])

    def is_at_rest(self) -> bool:
        picture = self.picture()
        is_applied = (picture["champion"] or {}).get("applied")
        ends = {
            stream: self.project.ledger.tail(stream)[-1].kind
            for stream in ("retraining/homes", f"run/homes/{self.run()}")
        }
        return bool(
            is_applied
            and picture["candidate"] is None
            and list(ends.values()) == ["run_ended", "closed"]
        )

    def kinds(self, after: int) -> dict[str, list[str]]:
        """What each stream says since a position, run numbers taken out."""
        found: dict[str, list[str]] = {}
        for entry in self.project.ledger.entries(after=after):
            name = "run" if entry.stream.startswith("run/") else entry.stream
            found.setdefault(name, []).append(entry.kind)
        return found

    def jobs(self, run: int) -> Counter[str]:
        """How often each kind of job of a run was begun."""
        names = (p.name for p in (self.state / "jobs" / f"run.homes.{run}").iterdir() if p.is_dir())
        return Counter(name.partition("-")[2] for name in names)

    def kills(self) -> list[str]:
        path = self.folder / "chaos.kills"
        return path.read_text().splitlines() if path.exists() else []

    def points(self) -> list[str]:
        return (self.folder / "chaos.seen").read_text().splitlines()

    def plan(self, every: int, phase: int = 0) -> None:
        """Kill at each `every`-th point from now on; 0: no more."""
        path = self.folder / "chaos.json"
        if every:
            path.write_text(json.dumps({"every": every, "phase": phase + len(self.points())}))
        else:
            path.unlink(missing_ok=True)
