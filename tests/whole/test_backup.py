"""A backup taken while everything runs, restored elsewhere, answers the same (R30)."""

from __future__ import annotations

import http.client
import json
import random
import signal
import subprocess

import pytest

from .conftest import GYROSTAT, Whole, free_port, wait

pytestmark = pytest.mark.slow
N = 1000


def requests(n: int) -> list[dict[str, object]]:
    dice = random.Random(11)
    return [
        {
            "rooms": dice.randint(1, 9),
            "humidity": None if dice.random() < 0.1 else dice.uniform(-1, 2),
            "city": dice.choice(["seoul", "busan", "daegu", "jeju"]),
        }
        for _ in range(n)
    ]


def answers(port: int, asked: list[dict[str, object]]) -> list[tuple[int, object]]:
    """Status and answer of each request, byte for byte but for the id."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    found = []
    for record in asked:
        link.request("POST", "/invocations", json.dumps({"dataframe_records": [record]}), {"Content-Type": "application/json"})  # fmt: skip
        answer = link.getresponse()
        text = answer.read().decode()
        body = json.loads(text, parse_float=str)  # as it was written: not what a float makes of it
        body.pop("id", None)
        found.append((answer.status, body))
    link.close()
    return found


def test_a_thousand_requests_are_answered_the_same_after_a_restore(whole: Whole, tmp_path):
    asked = requests(N)
    before = answers(whole.port, asked)
    assert sum(status == 200 for status, _ in before) > 0.9 * N
    saved = whole.command("backup", str(tmp_path / "homes.zip"))
    back = tmp_path / "homes"
    subprocess.run([*GYROSTAT, "restore", str(tmp_path / "homes.zip"), str(back), "--signed-by", saved["key"]], check=True, timeout=240)  # fmt: skip
    port = free_port()
    server = subprocess.Popen([*GYROSTAT, "serve", "--port", str(port)], cwd=back, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip

    def is_ready() -> bool:
        assert server.poll() is None, server.stdout.read() if server.stdout else ""
        try:
            return all(status == 200 for status, _ in answers(port, asked[:1]))
        except OSError:
            return False

    try:
        wait("the restored server", is_ready)
        after = answers(port, asked)
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert after == before
    assert whole.command("audit", "verify")["is_whole"]


def test_a_restored_project_goes_on_by_itself(whole: Whole, tmp_path):
    """The loop takes it up in the new epoch: routes are applied, the champion stays, a run is possible."""
    before = whole.picture()["champion"]
    subprocess.run([*GYROSTAT, "backup", str(tmp_path / "b.zip")], cwd=whole.root, check=True, timeout=240)  # fmt: skip
    back = Whole(tmp_path / "homes", free_port(), free_port())
    subprocess.run([*GYROSTAT, "restore", str(tmp_path / "b.zip"), str(back.root)], check=True, timeout=240)  # fmt: skip
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen([*GYROSTAT, "up", "--port", str(back.port), "--control-port", str(back.control_port)], cwd=back.root, stdout=log, stderr=log)  # fmt: skip
    try:
        applied = back.root / ".gyrostat" / "dev" / "routes" / "homes.applied" / "server-0.json"
        wait("routes of the new epoch", lambda: applied.exists() and json.loads(applied.read_bytes())["epoch"] == 2)  # fmt: skip
        assert back.picture()["champion"]["version"] == before["version"]
        position = back.project.ledger.position()
        back.command("run", "homes", "--no-wait")
        wait("a new candidate", lambda: "packed" in back.kinds(position))
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)
