"""What `gyrostat up` is: it binds the sockets, starts the processes by module name, and keeps them.

Every process may die alone and comes back; predictions do not depend on this one either: the server holds the listening
socket too. What an earlier supervisor left behind is ended first, so that nobody acts whom this one does not keep; its
servers last: they answer until those of this one do, on the same socket (see `handover`). So at each instant somebody
lives who listens, whichever of the two supervisors dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
from gyrostat_runtime import flight, log

from gyrostat import pids
from gyrostat.errors import TakenError
from gyrostat.processes import handover, runfiles
from gyrostat.processes.runfiles import RunFile
from gyrostat.serving import receipts

RESTART_AFTER_S = (0.1, 0.5, 2.0, 5.0, 15.0)
STABLE_S = 30.0
REFRESH_S, END_S = 1.0, 10.0
HUNG_LOOKS = 30
"""A server whose event loop has not turned for so many looks, one each second, is ended."""
MODULES = {
    "control": "gyrostat.control",
    "loop": "gyrostat.processes.loop",
    "monitor": "gyrostat.processes.monitor",
    "server": "gyrostat.processes.server",
}
"""What each kind of child runs, in the order in which they are ended: first who acts, last who answers."""
MARK = "GYROSTAT_UP"
"""In the environment of each child: the state folder that it works for."""
GENERATIONS = ("", "b")
"""What follows the number in a server's name: servers that replace others live beside them for a while."""


@dataclass
class Child:
    """One process that is kept."""

    name: str
    module: str
    arguments: list[str]
    sockets: tuple[socket.socket, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    n_restarts: int = 0
    due: float = 0.0
    is_stale: bool = False
    """It runs by an older declaration, and is started anew when its turn comes."""
    is_wanted: bool = True
    is_ending: bool = False
    beats: int = 0
    n_silent: int = 0
    """Looks since its beats last changed. Counted, as a machine that slept makes time pass for nobody."""
    is_noted: bool = False
    """Its run file names this process; a full disk may not have taken it yet."""


def bind(host: str, port: int, *, setting: str, option: str) -> socket.socket:
    """A listening socket that children inherit.

    Raises:
        TakenError: the port belongs to somebody else; the message says to whom.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise TakenError(
            f"Port {port} is taken{by_whom(port)}. Use {option} or {setting}. Nothing was started.",
            port=port,
        ) from error
    listener.set_inheritable(True)
    return listener


def by_whom(port: int) -> str:
    """` by NAME (pid N)` of who listens on a port; empty where the system does not say."""
    with contextlib.suppress(psutil.Error, OSError):
        for link in psutil.net_connections("tcp"):
            if (
                link.laddr
                and link.laddr.port == port
                and link.status == psutil.CONN_LISTEN
                and link.pid
            ):
                return f" by {psutil.Process(link.pid).name()} (pid {link.pid})"
    return ""


@dataclass
class Supervisor:
    """Keeps a set of children until `stop` is set."""

    state: Path
    children: list[Child]
    say: Callable[[str], None] = print
    stop: threading.Event = field(default_factory=threading.Event)
    refresh: Callable[[], list[Child]] = list
    """What should run by the declaration in force, looked at each second; nothing: what runs now."""
    before: list[RunFile] = field(default_factory=list)
    """Servers of an earlier supervisor, which answer until ours do."""
    release: str = field(default_factory=handover.installed)
    upgraded_to: str = ""
    """The release that was installed meanwhile; then everything has ended."""
    _before_until: float = 0.0
    """When those that were told to end are killed; 0: not told yet."""
    _refreshed: float = 0.0
    _looked: float = 0.0
    _listened: float = 0.0
    _unsealed: list[tuple[str, Path]] = field(default_factory=list)
    """Dead writers, and the logs in which their seconds are not closed yet."""
    _why_unsealed: str = ""

    def run(self) -> None:
        """Start all, keep all, end all. Returns when `stop` is set and everything has ended."""
        try:
            for child in self.children:
                self._start(child)
            while not self.stop.wait(0.1):
                if self._is_upgraded():
                    return
                self._follow_declaration()
                self._look_for_hung()
                for child in list(self.children):
                    self._keep(child)
                self._replace()
                self._seal_rest()
        finally:
            self._end_all()

    def _replace(self) -> None:
        """End the servers of before once all of ours answer; until then they stay, however long that takes."""
        if not self.before:
            return
        ours = [child for child in self.children if child.name.startswith("server")]
        if not self._before_until and all(self._is_at_work(child) for child in ours):
            self.say(f"{', '.join(run.name for run in self.before)} of an earlier `up` ends: ours answers")  # fmt: skip
            self._before_until = time.monotonic() + END_S
            runfiles.signal_all(self.before, signal.SIGTERM)
        if self._before_until and time.monotonic() > self._before_until:
            runfiles.signal_all(self.before, signal.SIGKILL)
        for run in [run for run in self.before if not run.is_alive]:
            self.before.remove(run)
            self._seal(run.name)
            runfiles.remove(self.state, run.name)
        if not self.before:
            receipts.forget(self.state, but={child.name for child in ours})

    def _follow_declaration(self) -> None:
        """Start anew, one after the other, what runs by an older declaration; a server only when all others answer."""
        if time.monotonic() - self._refreshed >= REFRESH_S:
            self._refreshed = time.monotonic()
            self._compare({child.name: child for child in self.refresh()})
        if any(
            c.is_ending or not self._is_at_work(c)
            for c in self.children
            if c.is_wanted and not c.is_stale
        ):
            return
        for child in self.children:
            if child.is_stale and child.process is not None and not child.is_ending:
                self._end(child)
                return

    def _is_at_work(self, child: Child) -> bool:
        """Whether it runs, and of a server whether it has said of each model by what it answers."""
        if child.process is None:
            return False
        if not child.name.startswith("server"):
            return True
        return receipts.is_at_work(self.state, child.name, child.process.pid)

    def _compare(self, wanted: dict[str, Child]) -> None:
        if not wanted:
            return
        known = {child.name: child for child in self.children}
        for name, child in wanted.items():
            if name not in known:
                self.say(f"{name} starts: the declaration changed")
                self.children.append(child)
            elif known[name].arguments != child.arguments:
                known[name].arguments = child.arguments
                known[name].is_stale = True
        for name, child in known.items():
            if name not in wanted and child.is_wanted:
                child.is_stale, child.is_wanted = True, False

    def _end(self, child: Child) -> None:
        self.say(
            f"{child.name} {'starts anew: the declaration changed' if child.is_wanted else 'ends: it is not declared any more'}"
        )
        child.is_ending, child.due = True, time.monotonic() + END_S
        assert child.process is not None
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGTERM)

    def _look_for_hung(self) -> None:
        """A server that neither ends nor answers is killed; then it is kept like one that died."""
        if time.monotonic() - self._listened < REFRESH_S:
            return
        self._listened = time.monotonic()
        for child in self.children:
            if child.process is None or not child.name.startswith("server"):
                continue
            files = (self.state / "log").glob(f"*/{child.name}.flight")
            beats = sum(flight.beats(file) for file in files)
            # Before its first beat it loads its bundles, which takes what it takes.
            is_silent = beats > 0 and beats == child.beats
            child.beats, child.n_silent = beats, child.n_silent + 1 if is_silent else 0
            if child.n_silent >= HUNG_LOOKS:
                self.say(f"{child.name} has not answered for {child.n_silent} s; it is killed")
                child.n_silent = 0
                child.process.kill()

    def _is_upgraded(self) -> bool:
        """Whether another release is installed, whole, than the one that everything here is of."""
        if time.monotonic() - self._looked >= REFRESH_S:
            self._looked = time.monotonic()
            found = handover.installed()
            if found and found != self.release:
                self.upgraded_to = found
        return bool(self.upgraded_to)

    def _start(self, child: Child) -> None:
        if handover.installed() != self.release:
            return  # it would be of another release: `run` ends everything as soon as that one is whole
        # stderr goes to a file of its own: a page of traceback is for whoever asks, not for the terminal of `up`.
        try:
            with self._log(child.name) as output:
                child.process = subprocess.Popen(
                    [sys.executable, "-m", child.module, *child.arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C reaches the supervisor alone, which ends the others in order
                    pass_fds=[s.fileno() for s in child.sockets],
                    env={**os.environ, "PYTHONUNBUFFERED": "1", MARK: str(self.state)},
                )
        except OSError as error:  # no memory, no more processes: that may pass
            self.say(f"{child.name} cannot be started: {error}")
            child.due = time.monotonic() + RESTART_AFTER_S[-1]
            return
        child.started, child.is_noted = time.monotonic(), False
        self._note(child)

    def _log(self, name: str) -> IO[bytes]:
        try:
            (self.state / "run").mkdir(parents=True, exist_ok=True)
            return (self.state / "run" / f"{name}.log").open("ab")
        except (
            OSError
        ):  # a full disk that does not even take a name: better without a log than not at all
            return Path(os.devnull).open("ab")

    def _note(self, child: Child) -> None:
        """Write down who runs. A full disk ends nothing: it is written as soon as there is room."""
        if child.is_noted or child.process is None:
            return
        port = child.sockets[0].getsockname()[1] if child.sockets else 0
        with contextlib.suppress(psutil.Error, OSError):  # over already, which `_keep` sees
            runfiles.write(self.state, child.name, pid=child.process.pid, port=port)
            child.is_noted = True

    def _keep(self, child: Child) -> None:
        if child.process is None:
            if time.monotonic() >= child.due:
                child.is_stale = False
                self._start(child)
            return
        code = child.process.poll()
        if child.is_ending:
            if code is None and time.monotonic() > child.due:
                child.process.kill()
            if code is not None:
                self._ended_as_asked(child)
            return
        if code is None:
            self._note(child)
            return
        lived_s = time.monotonic() - child.started
        child.n_restarts = 0 if lived_s > STABLE_S else child.n_restarts + 1
        wait_s = (
            RESTART_AFTER_S[min(child.n_restarts, len(RESTART_AFTER_S)) - 1]
            if child.n_restarts
            else 0.1
        )
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        self.say(
            f"{child.name} {ended}; starts again in {wait_s:g} s (see {self.state / 'run' / child.name}.log)"
        )
        child.process, child.due = None, time.monotonic() + wait_s
        if child.name.startswith("server"):
            self._seal(child.name)

    def _ended_as_asked(self, child: Child) -> None:
        child.process, child.is_ending, child.is_stale, child.n_restarts = None, False, False, 0
        if child.name.startswith("server"):
            self._seal(child.name)
        if child.is_wanted:
            self._start(child)
        else:
            self.children.remove(child)
            runfiles.remove(self.state, child.name)

    def _seal(self, writer: str) -> None:
        """A dead writer's seconds are closed by us, or nobody would ever count them, nor what it had in its hands."""
        folders = [f for kind in ("log", "labels") for f in sorted((self.state / kind).glob("*/"))]
        self._unsealed += [(writer, folder) for folder in folders]
        self._seal_rest()

    def _seal_rest(self) -> None:
        """What a full disk did not take before; one that came back meanwhile closes its own."""
        alive = {child.name for child in self.children if child.process is not None}
        while self._unsealed:
            writer, folder = self._unsealed[0]
            try:
                n_owed = 0 if writer in alive else log.seal(folder, writer, time.time())
            except OSError as error:
                why = f"{writer}'s log cannot be sealed: {error.strerror or error}"
                if why != self._why_unsealed:
                    self.say(why)
                self._why_unsealed = why
                return
            if n_owed:
                self.say(f"{writer} had {n_owed} requests in its hands; each counts as an error")
            del self._unsealed[0]
        self._why_unsealed = ""

    def _end_all(self) -> None:
        def rank(child: Child) -> int:
            return next(n for n, name in enumerate(MODULES) if child.name.startswith(name))

        for child in sorted(self.children, key=rank):
            if child.process is not None and child.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 8.0
        for child in sorted(self.children, key=rank):
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            runfiles.remove(self.state, child.name)
        runfiles.end(*self.before)
        for run in self.before:
            runfiles.remove(self.state, run.name)
        settle(self.state)


def settle(state: Path) -> int:
    """Write down what servers owed that died while nobody kept them; how many requests that were."""
    n_owed = 0
    with contextlib.suppress(
        OSError
    ):  # a full disk: what they owed stays written, for the next time
        for folder in sorted((state / "log").glob("*/")):
            n_owed += log.settle(folder, time.time())
    return n_owed


def take_over(state: Path) -> tuple[dict[int, socket.socket], list[RunFile]]:
    """What an earlier supervisor started and could not end: its listening sockets, by port, and the servers that answer.

    All else is ended. Nobody but these servers listens until ours do, so whoever ends them has ours at work first.
    """
    left = [r for n, r in runfiles.alive(state).items() if n.startswith(tuple(MODULES))]
    known = {run.pid for run in left}
    left += [run for run in _marked(state) if run.pid not in known]
    servers = [run for run in left if run.name.startswith("server")]
    sockets = handover.of_servers(state, servers)
    stay = _that_answer(state, servers) if sockets else []
    runfiles.end(*[run for run in left if run not in servers])
    runfiles.end(*[run for run in servers if run not in stay])
    for run in left:
        if run not in stay:
            runfiles.remove(state, run.name)
        elif run.pid not in known:
            with contextlib.suppress(psutil.Error, OSError):
                runfiles.write(state, run.name, pid=run.pid)
    return sockets, stay


def next_generation(before: list[RunFile]) -> str:
    """The ending of names for servers that start beside these: one that none of them has."""
    taken = {_generation(run) for run in before}
    return next(ending for ending in GENERATIONS if ending not in taken)


def _generation(run: RunFile) -> str:
    return GENERATIONS[run.name.endswith(GENERATIONS[1])]


def _that_answer(state: Path, servers: list[RunFile]) -> list[RunFile]:
    """One generation: where two live, the newer once it is at work, for then the older may be ending already."""
    by_age = sorted(servers, key=lambda run: run.birth)
    both = [
        [r for r in by_age if _generation(r) == g] for g in dict.fromkeys(map(_generation, by_age))
    ]
    for runs in reversed(both):
        if all(receipts.is_at_work(state, run.name, run.pid) for run in runs):
            return runs
    return both[0] if both else []


def _marked(state: Path) -> list[RunFile]:
    """Children whose supervisor died before it could write down their pid, found by what they run and for whom."""
    names, found = {module: name for name, module in MODULES.items()}, []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            command = process.cmdline()
            name = names.get(command[2]) if command[1:2] == ["-m"] and command[2:] else None
            if name and process.environ().get(MARK) == str(state):
                if "--worker" in command:
                    name = command[command.index("--worker") + 1]
                found.append(RunFile(name, process.pid, pids.birth(process.pid), release=""))
    return found
