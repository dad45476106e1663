"""The loop end to end, in real processes: a user's commands, HTTP, and kill -9."""

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from gyrostat.processes import runfiles

from .conftest import GYROSTAT, Whole, wait

ROW = {"rooms": 3, "humidity": 0.4, "city": "seoul"}


class Asking:
    """Traffic in the background; what was not answered with 200 is kept."""

    def __init__(self, whole: Whole) -> None:
        self.whole, self.failed, self.n = whole, [], 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(2)]

    def _ask(self) -> None:
        while not self._over.wait(0.02):
            status, answer = self.whole.ask(ROW)
            self.n += 1
            if status != 200:
                self.failed.append((status, answer))

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)


def test_an_answer_names_its_version_and_can_say_why(whole: Whole) -> None:
    status, answer = whole.ask(ROW)
    assert status == 200
    assert answer["version"] >= 1
    ref = f"prediction/homes/{answer['id']}"
    chain = wait("the prediction in the log", lambda: _why(whole, ref), 10)
    assert [link["what"] for link in chain] == [
        "prediction",
        "model",
        "trained",
        "data",
        "gates",
        "approval",
        "release",
    ]
    assert "signature valid" in chain[1]["words"]


def _why(whole: Whole, ref: str) -> Any:
    done = subprocess.run(
        [*GYROSTAT, "why", ref, "--json"],
        cwd=whole.root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    import json

    return json.loads(done.stdout)["chain"] if done.returncode == 0 else None


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("snapshotted", marks=pytest.mark.slow),
        pytest.param("packed", marks=pytest.mark.slow),
        "canary_started",
    ],
)
def test_a_killed_loop_goes_on_and_does_nothing_twice(whole: Whole, moment: str) -> None:
    after, version = whole.project.ledger.position(), whole.picture()["version"]
    _change_code(whole, moment)
    with Asking(whole) as asking:
        whole.command("run", "--no-wait", "--key", f"kill-{moment}")
        wait(moment, lambda: moment in whole.kinds(after))
        old = runfiles.read(whole.project.state, "loop")
        assert old is not None
        os.kill(old.pid, signal.SIGKILL)
        wait(
            "another loop",
            lambda: (
                (new := runfiles.read(whole.project.state, "loop"))
                and new.pid != old.pid
                and new.is_alive
            ),
        )
        wait("the release", lambda: whole.picture()["version"] > version)
    kinds = whole.kinds(after)
    once = (
        "run_opened",
        "opened",
        "snapshotted",
        "trained",
        "packed",
        "gate_passed",
        "offered",
        "staging_started",
        "canary_started",
        "promoted",
    )
    assert {kind: kinds.count(kind) for kind in once} == dict.fromkeys(once, 1) | {
        "offered": 2
    }  # said by the run, heard by production
    assert asking.failed == []
    assert asking.n > 20
    assert whole.command("audit", "verify")["is_whole"]


def _change_code(whole: Whole, word: str) -> None:
    """Another model, so that it is not the champion already."""
    path = whole.root / "src" / "train.py"
    n = {"snapshotted": 41, "packed": 42, "canary_started": 43}.get(word, 44)
    text = path.read_text().splitlines()
    text = [line for line in text if not line.strip().startswith("settings[")]
    at = next(i for i, line in enumerate(text) if line.strip().startswith("settings = "))
    path.write_text(
        "\n".join([*text[: at + 1], f'    settings["n_estimators"] = {n}', *text[at + 1 :]]) + "\n"
    )


def test_a_key_is_one_run(whole: Whole) -> None:
    first = whole.command("run", "--no-wait", "--key", "one")
    again = whole.command("run", "--no-wait", "--key", "one")
    assert first["entry"] == again["entry"]
    wait("the run to end", lambda: all(r["mark"] != "running" for r in whole.picture()["runs"]))


def test_a_rollback_by_hand_holds_until_resume(whole: Whole) -> None:
    _wait_idle(whole)
    before = whole.picture()["version"]
    if before == 1:
        pytest.skip("run together with the kills, which make a second version")
    told = whole.command("roll-back", "homes", "--reason", "a try")
    assert told["is_done"]
    assert told["to"] < before
    assert whole.ask(ROW)[1]["version"] == told["to"]
    served = whole.command("who-served", "homes")
    assert [arm["version"] for arm in served["arms"]] == [told["to"]]
    assert whole.picture()["held"]
    whole.command("resume", "homes")
    wait("the end of the hold", lambda: whole.picture()["state"] == "keeping")


def _wait_idle(whole: Whole) -> None:
    def is_idle() -> bool:
        whole.ask(ROW)  # a release that was left in traffic needs some to end
        picture = whole.picture()
        return picture["state"] in ("keeping", "held") and all(
            r["mark"] != "running" for r in picture["runs"]
        )

    wait("rest", is_idle)


def test_a_training_that_raises_ends_with_its_cause_and_the_champion_stays(whole: Whole) -> None:
    _wait_idle(whole)
    version, path = whole.picture()["version"], whole.root / "src" / "train.py"
    honest = path.read_text()
    path.write_text(
        honest + "\n\ndef train(frame, params):\n    raise ValueError('no wine today')\n"
    )
    try:
        told = whole.command("run", code=4)
    finally:
        path.write_text(honest)
    assert "no wine today" in told["cause"]
    assert "src/train.py:" in told["cause"]
    assert whole.picture()["version"] == version


def test_a_source_that_breaks_its_rules_stops_the_training(whole: Whole) -> None:
    _wait_idle(whole)
    path = whole.root / "data" / "homes.csv"
    good = path.read_text()
    path.write_text(good + "3,0.5,,9\nmany,0.5,seoul,400\n99,0.2,busan,300\n")
    try:
        told = whole.command("run", code=1)
        assert told["outcome"] == "checks_failed"
        report = whole.command("data", "report", code=1)
    finally:
        path.write_text(good)
    broken = {(b["column"], b["rows"]) for b in report["checks"]["broken"]}
    assert ("rooms", 1) in broken


def test_a_second_up_and_a_taken_port_are_refused(whole: Whole) -> None:
    told = whole.command("up", code=2)
    assert "already runs" in told["error"]["message"]
    done = subprocess.run(
        [*GYROSTAT, "serve", "--port", str(whole.control_port)],
        cwd=whole.root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2


def test_a_mistake_in_the_declaration_is_told_and_the_old_one_stays(whole: Whole) -> None:
    path = whole.root / "config" / "dev.yaml"
    good = path.read_text()
    path.write_text(good.replace("rollout:", "rollouts:"))
    try:
        done = subprocess.run(
            [*GYROSTAT, "config"], cwd=whole.root, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2
        assert 'Did you mean "rollout"?' in done.stderr
        assert "config/dev.yaml:" in done.stderr
        assert whole.ask(ROW)[0] == 200
    finally:
        path.write_text(good)


def test_a_killed_server_is_back_and_answers_the_same(whole: Whole) -> None:
    before = whole.ask(ROW)[1]["predictions"]
    server = runfiles.read(whole.project.state, "server-0")
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)

    def answers() -> Any:
        try:
            return whole.ask(ROW)[0] == 200
        except OSError:
            return False

    wait("the server", answers, 20)
    assert whole.ask(ROW)[1]["predictions"] == before


def test_import_and_help_load_nothing_heavy() -> None:
    code = "import sys, gyrostat; bad = {m.split('.')[0] for m in sys.modules} & {'numpy','pandas','polars','sklearn','mlflow','click','onnxruntime'}; assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys; sys.argv=['gyrostat','--help']\ntry:\n    import gyrostat.cli.main as m; m.main()\nexcept SystemExit: pass\nbad = {m.split('.')[0] for m in sys.modules} & {'numpy','pandas','polars','sklearn','mlflow','onnxruntime'}; assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
