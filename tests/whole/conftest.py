"""One project with everything running, for the tests that need the whole."""

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
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gyrostat

GYROSTAT = [sys.executable, "-m", "gyrostat.cli.main"]
OVERLAY = """\
models:
  homes:
    limits: {{latency_p99: {{max: 2s}}}}
    gates: {{champion: {{margin: 100}}}}
    rollout:
      steps: [50%]
      bake: {{requests: 20, time: 1s}}
      guardrails: {{error_rate: +30pp}}
    retraining: {{triggers: [], cooldown: 0s, budget: 60 per day}}
server: {{port: {port}}}
control_room: {{port: {control_port}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def table(path: Path, n: int = 240) -> None:
    dice = random.Random(5)
    lines = ["rooms,humidity,city,price"]
    for _ in range(n):
        rooms, humidity, city = (
            dice.randint(1, 6),
            round(dice.random(), 3),
            dice.choice(["seoul", "busan", "daegu"]),
        )
        price = (
            100
            + 55 * rooms
            - 40 * humidity
            + {"seoul": 300, "busan": 120, "daegu": 60}[city]
            + dice.gauss(0, 5)
        )
        lines.append(f"{rooms},{humidity if dice.random() > 0.05 else ''},{city},{price:.2f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@dataclass
class Whole:
    root: Path
    port: int
    control_port: int
    up: subprocess.Popen[bytes] | None = None

    @property
    def project(self) -> gyrostat.Project:
        return gyrostat.Project(self.root)

    def picture(self) -> dict[str, Any]:
        return self.project.status().facts["models"]["homes"]

    def command(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = subprocess.run(
            [*GYROSTAT, *arguments, "--json"],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == code, (
            arguments,
            done.returncode,
            done.stdout[-2000:],
            done.stderr[-2000:],
        )
        return json.loads(done.stdout.strip().splitlines()[-1])

    def ask(self, record: dict[str, Any], *, model: str = "") -> tuple[int, dict[str, Any]]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            link.request(
                "POST",
                f"/invocations/{model}" if model else "/invocations",
                json.dumps({"dataframe_records": [record]}),
                {"Content-Type": "application/json"},
            )
            answer = link.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            link.close()

    def kinds(self, after: int = 0) -> list[str]:
        return [e.kind for e in self.project.ledger.entries(after=after)]


def wait(what: str, is_there: Callable[[], Any], patience_s: float = 240.0) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := is_there()):
        assert time.monotonic() < deadline, f"waited {patience_s:g} s for {what}"
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def running(place: Path, declare: Callable[[Whole], object]) -> Iterator[Whole]:
    """A project from `gyrostat init`, declared by `declare`, with `gyrostat up` running; what that said is printed in the end."""
    table(place / "homes.csv")
    made = [str(place / "homes"), "--data", str(place / "homes.csv"), "--target", "price"]
    subprocess.run([*GYROSTAT, "init", *made], check=True, timeout=240)
    found = Whole(place / "homes", free_port(), free_port())
    declare(found)
    with (place / "up.log").open("wb") as log:
        found.up = subprocess.Popen(
            [*GYROSTAT, "up"], cwd=found.root, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield found
    finally:
        if found.up.poll() is None:
            os.kill(found.up.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                found.up.wait(30)
        print((place / "up.log").read_text())


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """One where version 1 is approved."""

    def declare(found: Whole) -> None:
        declared = OVERLAY.format(port=found.port, control_port=found.control_port)
        (found.root / "config" / "dev.yaml").write_text(declared)

    with running(tmp_path_factory.mktemp("whole"), declare) as found:
        assert found.up is not None
        ended = found.up.poll
        wait("a first candidate", lambda: ended() is not None or found.picture()["needs_you"])
        assert ended() is None
        found.command("approve", "homes", "--reason", "for the tests")
        wait("version 1", lambda: (found.picture()["champion"] or {}).get("applied"))
        yield found
