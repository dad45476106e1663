"""Servers as processes: started, asked for a right answer, weighed, ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving import models
from benchmarks.serving.models import Served

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0


class NotRightError(Exception):
    """A server that did not start, or that answers something else than the model."""


@dataclass
class Server:
    """One server, all its processes."""

    name: str
    port: int
    roots: list[subprocess.Popen[bytes]]
    log: Path
    """What its processes said."""
    path: str = "/invocations"
    write: Callable[[list[list[Any]]], bytes] = models.instances
    read: Callable[[Any], list[float]] = field(default=lambda value: value["predictions"])
    cold_s: float = 0.0
    """From the start of its processes to the first right answer."""

    def ask(self, body: bytes) -> tuple[int, Any]:
        """One request over a connection of its own."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            link.request("POST", self.path, body, {"Content-Type": "application/json"})
            answer = link.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if answer.status == 200 else text
        finally:
            link.close()

    def check(self, served: Served, n: int = 40) -> None:
        """Compare single rows and a batch with what the model itself answers."""
        asked = [(start, 1) for start in range(n)] + [(0, 100)]
        for start, rows in asked:
            status, value = self.ask(self.write(served.rows(rows, start)))
            if status != 200 or not served.is_right(self.read(value), start):
                raise NotRightError(f"{self.name} answers row {start} with {status} {value!r:.200}")

    @property
    def processes(self) -> list[psutil.Process]:
        """All that belong to it."""
        found = []
        for root in self.roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                one = psutil.Process(root.pid)
                found += [one, *one.children(recursive=True)]
        return found

    def cpu_s(self) -> float:
        """Processor time that its processes have used."""
        return sum(t.user + t.system for t in (p.cpu_times() for p in self.processes))

    def memory_mb(self) -> float:
        """Memory of its processes; a page that several share counts once among them, where the system says so."""
        found = [p.memory_full_info() for p in self.processes]
        return sum(getattr(m, "pss", m.rss) for m in found) / 1e6

    def close(self) -> None:
        """End all of it."""
        children = self.processes
        for root in self.roots:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(root.pid, signal.SIGTERM)
        _, alive = psutil.wait_procs(children, timeout=5)
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        for root in self.roots:
            root.wait(10)


def environment() -> dict[str, str]:
    """Of every server: one thread a worker, as two workers have two cores."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *_paths()])} | _ONE_THREAD


_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


def _paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


@contextlib.contextmanager
def ours(served: Served, workers: int = 2) -> Iterator[Server]:
    """Our model server as `gyrostat up` starts it: log, routing and metrics are on."""
    settings = json.dumps({"models": {models.NAME: {}}})
    argv = ["-m", "gyrostat.processes.server", "--state", str(served.state)]
    worker = [[*argv, "--settings", settings, "--worker", f"w{i}"] for i in range(workers)]
    with _around_socket("gyrostat", worker, served) as server:
        yield server


@contextlib.contextmanager
def minimum(served: Served | None, workers: int = 2) -> Iterator[Server]:
    """The bare minimum; without a model, the echo."""
    argv = ["-m", "benchmarks.serving.minimum"]
    if served is not None:
        argv += ["--model", str(served.onnx)]
        if served.features.dtypes.eq(object).any():
            argv += ["--numbers", str(models.N_NUMBERS)]
    with _around_socket("minimum", [argv] * workers, served) as server:
        yield server


@contextlib.contextmanager
def _around_socket(
    name: str, workers: Sequence[Sequence[str]], served: Served | None
) -> Iterator[Server]:
    """Processes that inherit one listening socket."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as sock,
        tempfile.TemporaryDirectory() as folder,
    ):
        log, fd = Path(folder) / "log", sock.fileno()
        began = time.perf_counter()
        roots = [
            spawn([sys.executable, *argv, "--fd", str(fd)], pass_fds=[fd], log=log)
            for argv in workers
        ]
        server = Server(name, sock.getsockname()[1], roots, log)
        try:
            wait(server, served, began)
            yield server
        finally:
            server.close()


def spawn(
    argv: Sequence[str], *, log: Path, pass_fds: Sequence[int] = (), **env: str
) -> subprocess.Popen[bytes]:
    """A process in a group of its own, so that all of it can be ended; what it says goes into `log`."""
    with log.open("ab") as out:
        return subprocess.Popen(
            argv,
            cwd=ROOT,
            env=environment() | env,
            pass_fds=pass_fds,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait(server: Server, served: Served | None, began: float) -> None:
    """Until it answers a row, and rightly."""
    body = server.write([[0.0]] if served is None else served.rows(1))
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, value = server.ask(body)
            if status == 200:
                break
        if any(root.poll() is not None for root in server.roots):
            raise NotRightError(f"{server.name} ended before it answered: {_last(server.log)}")
        if time.perf_counter() - began > START_S:
            raise NotRightError(
                f"{server.name} did not answer within {START_S:g} s: {_last(server.log)}"
            )
        time.sleep(0.01)
    server.cold_s = time.perf_counter() - began
    if served is not None and not served.is_right(server.read(value)):
        raise NotRightError(f"{server.name} answers {value!r:.200}")


def _last(log: Path) -> str:
    return log.read_text(errors="replace")[-400:]
