"""`gyrostat serve` as a container starts it: a project's folder, its variables, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from serving.bench import Bench, Server, arm

SERVE = (sys.executable, "-m", "gyrostat.cli.main", "serve")
CONFIG = """\
version: 1
models:
  wine: {data: {source: data/wine.csv, target: quality}, train: {run: 'src.train:train'}, limits: {rmse: {max: 1}}}
"""


class Alone(Server):
    """A `gyrostat serve` of its own."""

    def __init__(self, project: Path, *options: str, **environ: str) -> None:
        self.errors = (project / "server.err").open("ab")
        self.process = subprocess.Popen(
            [*SERVE, *options],
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().strip()
        assert line.startswith("predictions http://"), Path(self.errors.name).read_text()
        self.port = int(line.split()[1].rpartition(":")[2])


def free_port() -> str:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return str(sock.getsockname()[1])


def make_project(folder: Path) -> Bench:
    """A project with version 1 of `wine` as its champion; its state."""
    state = folder / ".gyrostat" / "dev"
    state.mkdir(parents=True)
    (folder / "config").mkdir()
    (folder / "config" / "config.yaml").write_text(CONFIG)
    bench = Bench(state)
    bench.route(arm(bench.bundle(5.0)))
    return bench


def refuse(project: Path, *options: str, **environ: str) -> tuple[int, str]:
    """Exit code and words of a `gyrostat serve` that does not start."""
    done = subprocess.run(
        [*SERVE, *options],
        cwd=project,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
