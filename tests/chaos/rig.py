"""A small real project with everything running, whose processes are killed on purpose."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from gyrostat_runtime import log

import gyrostat
from gyrostat.observations import read

from .plan import Plan

ROOT = Path(__file__).parents[2]
RESTART_S = 0.5
ONCE = ("snapshotted", "trained", "packed", "offered")
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Kill:
    """What was killed, and when; and after how many seconds something was there again."""

    what: str
    at: float
    pids: dict[str, int]
    """Who ran then."""
    resumed: dict[str, float] = field(default_factory=dict)


WAITED_FOR = {
    "server": ("answers",), "loop": ("acts",), "monitor": ("watches",), "supervisor": ("answers", "acts"),
}  # fmt: skip
"""What is waited for after a kill. Of a killed `up` it is counted from the start of the next one."""
WEIGHTS = {
    "loop": 3, "server": 2, "monitor": 2, "runner": 3, "work": 3, "training": 3, "mirror": 1, "page": 1, "notifier": 1,
    "supervisor": 0.5,
}  # fmt: skip
"""How often which is tried at random; where none runs, nothing is hit."""
MARKS = {
    "dying_up": "supervisor", "dying_loop": "loop", "dying_monitor": "monitor", "processes.server": "server",
    "gyrostat.control": "page", "dying_training": "runner", "--child": "work", "harness.py": "training",
    "mlflow": "mirror", "processes.notifying": "notifier",
}  # fmt: skip


@dataclass
class Rig:
    """The project, a real `up` that is started again whenever it dies, and traffic."""

    folder: Path
    patience_s: float = 400.0
    failed: list[Any] = field(default_factory=list)
    """Requests that failed though a server lived."""
    lost: list[Any] = field(default_factory=list)
    """Requests that failed since no server lived: a killed one had them in its hands, or nobody was there."""
    n_asked: int = 0
    ids: set[str] = field(default_factory=set)
    """Of the predictions that were answered."""
    killed: list[Kill] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    port: int = 0
    control_port: int = 0
    n_points: int = 0
    """That the loop passes in an undisturbed release."""
    _over: threading.Event = field(default_factory=threading.Event)
    _answered: float = 0.0
    """When the last request began that was answered."""
    _is_down: bool = False
    """Whether no server was there, and nobody has answered since."""

    @property
    def project(self) -> gyrostat.Project:
        return gyrostat.Project(self.folder)

    @property
    def state(self) -> Path:
        return self.folder / ".gyrostat" / "dev"

    @contextlib.contextmanager
    def running(self) -> Iterator[Rig]:
        """`up`, started again as systemd would; traffic beside it."""
        self.port, self.control_port = free_port(), free_port()
        self._over.clear()
        threads = [threading.Thread(target=t) for t in (self._keep_up, self._ask, self._measure)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join(60)
            for _, pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _keep_up(self) -> None:
        command = [sys.executable, "-m", "tests.chaos.dying_up", str(self.folder)]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        while not self._over.is_set():
            self.starts.append(time.time())
            with (self.folder / "up.log").open("ab") as log:
                up = subprocess.Popen(
                    [*command, str(self.port), str(self.control_port)], stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path},
                )  # fmt: skip
            while up.poll() is None and not self._over.wait(0.1):
                pass
            if up.poll() is None:
                up.send_signal(signal.SIGINT)
                up.wait(60)
            self._over.wait(RESTART_S)

    def _ask(self) -> None:
        body = json.dumps({"dataframe_records": [ROW]})
        while not self._over.wait(0.02):
            link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            is_owed, began = self.has_champion(), time.time()
            error: Any = None
            try:
                link.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                answer = link.getresponse()
                text = answer.read()
                if answer.status == 200:
                    self.ids.add(json.loads(text)["id"])
                else:
                    error = (answer.status, text[:200])
            except (OSError, http.client.HTTPException) as wrong:
                error = wrong
            finally:
                link.close()
            if error is None:
                self._answered, self.n_asked = began, self.n_asked + 1
                if not any(k.what == "server" and k.at > began for k in self.killed[-9:]):
                    self._is_down = False
                continue
            failed = (began, time.time() - began, repr(error))
            self._over.wait(0.5)  # until it is known who died
            self._is_down |= "server" not in {what for what, _ in self.processes()}
            if is_owed and self._is_down:
                self.lost.append(failed)
            elif is_owed:
                self.failed.append(failed)

    def _measure(self) -> None:
        """See after each kill when things are there again."""
        done = 0
        while not self._over.wait(0.05):
            due = [
                k for k in self.killed[done:] if len(k.resumed) < len(WAITED_FOR.get(k.what, ()))
            ]
            done = self.killed.index(due[0]) if due else len(self.killed)
            for kill in due:
                since = kill.at
                if kill.what == "supervisor":
                    since = self.starts[-1]
                    if since < kill.at:
                        continue
                for what in WAITED_FOR[kill.what]:
                    if what not in kill.resumed and self._is_there(what, kill):
                        kill.resumed[what] = time.time() - since

    def _is_there(self, what: str, kill: Kill) -> bool:
        try:
            match what:
                case "answers":
                    new = self.servers() - set(kill.pids.values())
                    born = [psutil.Process(pid).create_time() for pid in new]
                    return any(self._answered > at for at in born)
                case "acts":
                    pid = int((self.folder / "chaos.loop.acts").read_text())
                    return pid != kill.pids["loop"] and pid == self.pids()["loop"]
            live = self.state / "observations" / "homes" / "live.json"
            return live.stat().st_mtime > kill.at
        except (OSError, ValueError, KeyError, psutil.Error):
            return False

    def pids(self) -> dict[str, int]:
        """Who runs, as the supervisor last wrote it down."""
        found = {}
        for path in (self.state / "run").glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                found[path.stem] = json.loads(path.read_bytes())["pid"]
        return found

    def servers(self) -> set[int]:
        """Those that the supervisor wrote down."""
        return {pid for name, pid in self.pids().items() if name.startswith("server")}

    def processes(self) -> list[tuple[str, int]]:
        """Everything of the project that runs now, by what it is."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if str(self.folder) in line:
                found += [(what, process.pid) for mark, what in MARKS.items() if mark in line][-1:]
        return found

    def kill(self, what: str, pid: int) -> bool:
        """kill -9; False where it was gone already."""
        self.killed.append(Kill(what, time.time(), self.pids()))
        self._is_down |= what == "server"
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            self.killed.pop()
            return False
        return True

    def kill_one(self, what: str) -> None:
        """Kill one of a kind, as soon as there is one."""
        self.wait(
            f"a {what}", lambda: any(self.kill(w, p) for w, p in self.processes() if w == what)
        )

    def has_champion(self) -> bool:
        return any((self.state / "routes").glob("*.applied/*.json"))

    def wait(self, what: str, is_there: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + self.patience_s
        while not (found := is_there()):
            assert time.monotonic() < deadline, (
                f"waited for {what}: {self.log('up')}\n{self.log('loop')}\n{self.kinds(0)}"
            )
            time.sleep(0.1)
        return found

    def log(self, name: str) -> str:
        path = self.folder / "up.log" if name == "up" else self.state / "run" / f"{name}.log"
        return path.read_text()[-2000:] if path.exists() else ""

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

    def storm(self, n_kills: int, dice: random.Random) -> Counter[str]:
        """Kills of whatever runs at random instants, while releases follow each other; how often of what."""
        killed: Counter[str] = Counter()
        alpha = 100.0 + self.run()
        while killed.total() < n_kills:
            alpha += 1.0
            self.ask_for(alpha)
            next_at = time.monotonic() + 60
            while time.monotonic() < next_at and killed.total() < n_kills:
                time.sleep(dice.random())
                (what,) = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
                if running := [pid for w, pid in self.processes() if w == what]:
                    killed[what] += self.kill(what, dice.choice(running))
        self.wait("everything to come to rest", self.is_quiet)
        return killed

    def plan(self, who: str) -> Plan:
        """Where the processes of a kind kill themselves."""
        return Plan(self.folder, who)

    def wrong(self, after: int) -> list[str]:
        """What does not hold of everything since a position of the ledger, at rest."""
        found: list[str] = []
        runs: dict[str, Counter[str]] = {}
        for entry in self.project.ledger.entries(after=after):
            if entry.stream.startswith("run/"):
                runs.setdefault(entry.stream, Counter())[entry.kind] += 1
        for stream, kinds in runs.items():
            found += [f"{stream}: {k} was said {kinds[k]} times" for k in ONCE if kinds[k] > 1]
            if not kinds["closed"] and not kinds["told"]:
                found.append(f"{stream} did not come to an end: {dict(kinds)}")
        if not self.project.audit_verify().facts["is_whole"]:
            found.append("the chain is broken")
        found += [f"a request failed while a server lived: {f}" for f in self.failed[:9]]
        return found + self.stale_answers() + self.miscounted()

    def stale_answers(self) -> list[str]:
        """Answers by routes that had been replaced, and said so, before the request came."""
        applied = [
            (e.at, e.body["seq"]) for e in self.project.ledger.tail("production/homes") if e.kind == "applied"
        ]  # fmt: skip
        return [
            f"{frame.id} was answered by routes {frame.routes_seq}"
            for frame in log.read(self.state / "log" / "homes")
            if any(
                at < frame.at - frame.latency_s and seq > frame.routes_seq for at, seq in applied
            )
        ]

    def miscounted(self) -> list[str]:
        """Whether the monitor counted each logged prediction, and each that a killed server owed, once; waits until it has."""
        found = ""
        for _ in range(100):
            counted: Counter[tuple[int, str]] = Counter()
            last = 0
            for line, _ in read(self.state / "observations" / "homes"):
                if "n" in line:
                    counted[line["routes_seq"], line["bundle"]] += line["n"]
                    last = line["second"]
            logged: Counter[tuple[int, str]] = Counter()
            owed: dict[tuple[str, int], log.Owed] = {}
            tail = log.Tail(self.state / "log" / "homes")
            while events := tail.poll():
                for writer, event in events:
                    if isinstance(event, log.Frame) and int(event.at) <= last:
                        logged[event.routes_seq, event.bundle] += 1
                    elif isinstance(event, log.Owed) and int(event.at) <= last:
                        owed[writer, event.since] = event
            for debt in (debt for one in owed.values() for debt in one.debts):
                logged[debt.routes_seq, debt.bundle] += debt.n
            if counted == logged:
                return []
            found = f"the monitor counted {counted}, the log has {logged}"
            time.sleep(0.3)
        return [found]
