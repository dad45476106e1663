"""The peers: each is one script with its requirements, pinned, at its head, in an environment of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving import servers
from benchmarks.serving.models import Served
from benchmarks.serving.servers import ROOT, Server

ENVIRONMENTS = ROOT / ".venv-peers"


class NotInstalledError(Exception):
    """A peer's environment could not be made; the message says why."""


@dataclass(frozen=True)
class Peer:
    """One peer."""

    script: Path
    wanted: float
    """How many times its rate ours should be."""
    takes_graph: bool = True
    """Whether it is given the graph; else the fitted model."""
    read: Callable[[Any], list[float]] = lambda value: value["predictions"]
    """Its predictions, from the JSON it answers."""


def _peer(name: str, wanted: float, **how: Any) -> Peer:
    return Peer(Path(__file__).with_name(f"with_{name}.py"), wanted, **how)


PEERS = {
    "fastapi": _peer("fastapi", 7),
    "litserve": _peer("litserve", 25),
    "bentoml": _peer("bentoml", 25, read=lambda value: value),
    "mlserver": _peer("mlserver", 25),
    "ray_serve": _peer("ray_serve", 120),
    "mlflow": _peer("mlflow", 700, takes_graph=False),
}


@contextlib.contextmanager
def started(name: str, served: Served) -> Iterator[Server]:
    """A peer that answers rightly.

    Raises:
        NotInstalledError: its environment cannot be made.
        NotRightError: it does not start, or answers something else.
    """
    peer = PEERS[name]
    python = _python(name, peer)
    port = _free_port()
    model = served.onnx if peer.takes_graph else served.state.parent / "model.pkl"
    with tempfile.TemporaryDirectory() as folder:
        began, log = time.perf_counter(), Path(folder) / "log"
        root = servers.spawn(
            [str(python), *_argv(peer, python), str(model), str(port)],
            log=log,
        )
        server = Server(name, port, [root], log, read=peer.read)
        try:
            servers.wait(server, served, began)
            yield server
        finally:
            server.close()


def _argv(peer: Peer, python: Path) -> list[str]:
    # In our own environment it is a module, so that its workers find it again.
    if str(python) == sys.executable:
        return ["-m", f"benchmarks.serving.peers.{peer.script.stem}"]
    return [str(peer.script)]


def _python(name: str, peer: Peer) -> Path:
    """The interpreter of a peer's environment, made where it is not there yet."""
    needed = _requirements(peer.script)
    if not needed:
        return Path(sys.executable)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if uv is None:
        raise NotInstalledError("uv is not there to make its environment")
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    for argv in (
        [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *needed],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotInstalledError(done.stderr.strip()[-300:])
    return python


def _requirements(script: Path) -> list[str]:
    head = re.search(r"^# /// script$\n(.*?)^# ///$", script.read_text(), re.M | re.S)
    assert head is not None, script
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in head[1].splitlines())
    return tomllib.loads(text)["dependencies"]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]
