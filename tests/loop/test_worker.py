"""Jobs as real processes: whatever the work does, there is one runner, one result, and nothing is left behind."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from gyrostat_runtime import bundle, keys

from gyrostat.adapters.local import workers as local
from gyrostat.adapters.local.workers import LocalWorkers
from gyrostat.loop import worker

STREAM = "run/wine/1"
DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def tasks_importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def workers(tmp_path):
    """Workers of a new project; what they started is ended with the test."""
    made = LocalWorkers(tmp_path)
    yield made
    for folder in made.jobs.glob("*"):
        made.raise_floor(folder.name, 10**9)
    until(lambda: made.reap() or not made._runners)


def until(is_so):
    deadline = time.monotonic() + DEADLINE_S
    while not (found := is_so()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)
    return found


def start(workers, what, *, seq=3, **spec):
    workers.start(
        STREAM, seq, what, {"tasks": "work_to_do", "state": str(workers.jobs.parent), **spec}
    )
    return workers.folder(STREAM, seq, what)


def ended(workers, what, *, seq=3):
    def over():
        seen = workers.look(STREAM, seq, what)
        return seen if seen["status"] != "running" else None

    return until(over)


def result_of(workers, what, **spec):
    start(workers, what, **spec)
    return ended(workers, what)


def is_alive(pid):
    with_that_pid = psutil.pids()
    return pid in with_that_pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_job_that_was_never_asked_for_is_not_there(workers):
    assert workers.look(STREAM, 3, "answers") == {}


def test_the_result_is_what_the_work_answered(workers):
    assert result_of(workers, "answers", wanted="trained:1") == {
        "status": "done", "made": "trained:1", "n": 3,
    }  # fmt: skip


def test_asked_for_again_and_from_elsewhere_it_is_done_once(workers):
    folder = start(workers, "answers", wanted="first")
    LocalWorkers(workers.jobs.parent).start(STREAM, 3, "answers", {"wanted": "second"})
    start(workers, "answers", wanted="third")
    assert ended(workers, "answers")["made"] == "first"
    start(workers, "answers", wanted="fourth")
    assert ended(workers, "answers")["made"] == "first"
    assert (folder / "begun").read_text() == "once\n"


@pytest.mark.parametrize(
    ("what", "cause", "retryable"),
    [
        ("refuses", "the table is gone", False),
        ("asks_again", "the disk of the table does not answer", True),
        ("raises", "ValueError: no such thing", False),
        ("exits", "the exits ended with status 3 and left no result", False),
        ("dies", "the dies ended by signal 11 and left no result", True),
        ("nobody_knows", "KeyError: 'nobody_knows'", False),
    ],
)
def test_whatever_goes_wrong_the_cause_is_on_record(workers, what, cause, retryable):
    result = result_of(workers, what)
    assert (result["status"], result["retryable"]) == ("failed", retryable)
    assert result["cause"].startswith(cause)
    assert "\n" not in result["cause"]


def test_work_that_hangs_is_ended_at_its_limit(workers):
    result = result_of(workers, "hangs", limits={"time_s": 1.0})
    assert "longer than 1 s" in result["cause"]
    # It may have been ended before it came so far as to write its pid.
    folder = str(workers.folder(STREAM, 3, "hangs"))
    commands = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
    assert [c for c in commands if folder in c and "--child" in c] == []


def test_work_that_is_called_for_anew_ends_what_went_on_before_it(workers):
    """As after a silence that was none: two never work for one decision."""
    start(workers, "hangs")
    until(lambda: workers.look(STREAM, 3, "hangs").get("status") == "running")
    start(workers, "answers", seq=7, wanted="later")
    assert ended(workers, "hangs")["status"] != "running"
    assert ended(workers, "answers", seq=7)["made"] == "later"
    start(workers, "answers", seq=5, wanted="too late")
    assert workers.look(STREAM, 5, "answers") == {}


def test_work_that_takes_all_memory_is_ended_at_its_limit(workers):
    result = result_of(workers, "eats", limits={"memory_bytes": 300_000_000})
    assert "more than 300 MB (train.resources.memory)" in result["cause"]


def test_of_much_output_the_beginning_and_the_end_are_kept(workers):
    assert result_of(workers, "prints")["status"] == "done"
    log = (workers.folder(STREAM, 3, "prints") / "stdout.log").read_bytes()
    assert len(log) <= 2 * worker.LOG_BYTES + 100
    assert log.startswith(b"the first line\n")
    assert log.endswith(b"the last line\n")
    left_out = int(log.split(b"\n... ")[1].split(b" bytes")[0].replace(b",", b""))
    assert left_out + len(log) - len(f"\n... {left_out:,} bytes left out ...\n") == 100_000_029


def test_nothing_that_the_work_started_lives_on(workers):
    assert result_of(workers, "forks")["status"] == "done"
    pids = (workers.folder(STREAM, 3, "forks") / "pids").read_text().split()
    assert len(pids) == 4
    assert [pid for pid in pids if is_alive(int(pid))] == []


def test_a_job_whose_runner_was_killed_is_lost_and_its_work_ends_with_it(workers):
    folder = start(workers, "hangs")
    pid = int(until(lambda: (folder / "pid").exists() and (folder / "pid").read_text()))
    assert workers.look(STREAM, 3, "hangs")["status"] == "running"
    os.kill(workers._runners[0].pid, signal.SIGKILL)
    assert ended(workers, "hangs") == {"status": "lost"}
    until(lambda: not is_alive(pid))
    start(workers, "hangs")
    assert workers.look(STREAM, 3, "hangs") == {"status": "lost"}


def test_a_job_that_lies_below_the_floor_stops(workers):
    folder = start(workers, "hangs")
    pid = int(until(lambda: (folder / "pid").exists() and (folder / "pid").read_text()))
    workers.raise_floor(STREAM, 4)
    result = ended(workers, "hangs")
    assert (result["status"], result["cause"]) == ("failed", "called off")
    assert not is_alive(pid)


def test_below_the_floor_nothing_starts_and_the_floor_only_rises(workers):
    workers.raise_floor(STREAM, 4)
    workers.raise_floor(STREAM, 2)
    assert LocalWorkers(workers.jobs.parent).floor(STREAM) == 4
    start(workers, "answers", wanted="x")
    assert workers.look(STREAM, 3, "answers") == {}
    start(workers, "answers", seq=4, wanted="y")
    assert ended(workers, "answers", seq=4)["made"] == "y"


def test_a_job_outlives_whoever_started_it(workers):
    script = (
        "import os, sys; from pathlib import Path; from gyrostat.adapters.local.workers import LocalWorkers; "
        "LocalWorkers(Path(sys.argv[1])).start(sys.argv[2], 3, 'answers', {'tasks': 'work_to_do', 'wanted': 'x'}); "
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, workers.jobs.parent, STREAM], check=False)
    assert done.returncode == -signal.SIGKILL
    assert ended(workers, "answers")["made"] == "x"


def test_the_runner_signs_what_was_packed_and_names_it_by_its_bytes(workers):
    state = workers.jobs.parent
    keys.create_keys(state / "keys")
    result = result_of(workers, "pack")
    assert result["made"] == hashlib.sha256(b"{}").hexdigest()
    placed = state / "bundles" / result["made"]
    assert (placed / bundle.SIGNATURE).exists()
    key = json.loads((placed / bundle.SIGNATURE).read_bytes())["key"]
    assert key in keys.keyring(state / "keys")


def test_what_cannot_be_signed_fails_with_the_reason(workers):
    assert "could not be signed" in result_of(workers, "pack", is_altered=True)["cause"]


def test_a_runner_started_by_hand_leaves_a_running_job_alone(workers):
    folder = start(workers, "hangs")
    assert worker.main([str(folder)]) == 0
    assert workers.look(STREAM, 3, "hangs")["status"] == "running"


def test_a_training_gets_a_copy_of_the_projects_code_and_nothing_else(workers, tmp_path):
    project = tmp_path / "project"
    for name in (
        "src/train.py",
        "src/__pycache__/train.pyc",
        "config/config.yaml",
        "data/rows.csv",
        "fit.py",
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name)
    (project / "src" / "gone").symlink_to(project / "nowhere")
    spec = {"tasks": "work_to_do", "wanted": "x"}
    workers.start(STREAM, 3, "answers", spec, project=project)
    ended(workers, "answers")
    code = workers.folder(STREAM, 3, "answers") / "code"
    found = {p.relative_to(code).as_posix() for p in code.rglob("*") if p.is_file()}
    assert found == {"src/train.py", "config/config.yaml", "fit.py"}


@pytest.mark.slow
def test_a_swarm_of_processes_is_ended_whole(workers):
    result = result_of(workers, "swarms")
    assert "more than 500" in result["cause"]
    folder = str(workers.folder(STREAM, 3, "swarms"))
    commands = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
    assert [c for c in commands if folder in c and "--child" in c] == []


def test_work_that_found_no_room_is_done_again_and_leaves_nothing_half(workers):
    folder = start(workers, "fills")
    seen = ended(workers, "fills")
    assert seen["retryable"]
    assert seen["cause"] == "OSError: [Errno 28] No space left on device"
    assert not (folder / "half").exists()
    assert not list(folder.glob("*.tmp"))


def test_no_work_begins_on_a_disk_that_is_nearly_full(workers, monkeypatch):
    with monkeypatch.context() as disk:
        disk.setattr(local, "ROOM_BYTES", 10**18)
        with pytest.raises(OSError, match="MB are free"):
            start(workers, "answers", wanted="x")
        assert workers.look(STREAM, 3, "answers") == {}
    start(workers, "answers", wanted="x")
    assert ended(workers, "answers")["made"] == "x"


def test_a_result_waits_for_room_and_is_not_lost(tmp_path, monkeypatch):
    (tmp_path / "heartbeat").touch()
    before, tries, real = (tmp_path / "heartbeat").stat().st_mtime_ns, [], worker.write_atomic

    def full_twice(path, data):
        tries.append(path)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    monkeypatch.setattr(worker, "write_atomic", full_twice)
    monkeypatch.setattr(worker, "FULL_S", 0.01)
    worker._leave(tmp_path / "result.json", {"status": "done"})
    assert json.loads((tmp_path / "result.json").read_bytes()) == {"status": "done"}
    assert len(tries) == 3
    assert (tmp_path / "heartbeat").stat().st_mtime_ns > before  # it lives, and says so


def test_a_result_of_a_job_that_was_called_off_waits_for_no_room(tmp_path, monkeypatch):
    folder = tmp_path / "3-training"
    folder.mkdir()
    (folder / "spec.json").write_text('{"seq": 3}')
    tries = []

    def full(path, data):
        tries.append(path)
        (tmp_path / "floor").write_text(str(1 + len(tries)))  # the stream goes on meanwhile
        if len(tries) == 50:
            return
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(worker, "write_atomic", full)
    monkeypatch.setattr(worker, "FULL_S", 0.01)
    worker._leave(folder / "result.json", {"status": "done"})
    assert len(tries) == 3


def test_a_child_that_prints_on_a_full_disk_is_not_held_up(tmp_path):
    """/dev/full takes nothing; the pipe is emptied all the same."""
    (tmp_path / "stdout.log").symlink_to("/dev/full")
    chatty = subprocess.Popen([sys.executable, "-c", "print('x' * 5_000_000)"], stdout=subprocess.PIPE)  # fmt: skip
    with chatty:
        assert chatty.stdout is not None
        worker._keep_output(chatty.stdout, tmp_path / "stdout.log")
    assert chatty.returncode == 0
