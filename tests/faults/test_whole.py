"""Real processes and real traffic while the disk is full, and while the ledger is locked, gone or damaged: no prediction fails."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from chaos.rig import Rig, make
from faults.harm import mount, move, read_only
from gyrostat_runtime import log
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from loop.records import Records
from serving.bench import Bench

from gyrostat.errors import LedgerError, LostLedgerError
from gyrostat.ledger.sqlite import SqliteLedger, sqlite3
from gyrostat.observations import read
from gyrostat.processes import runfiles
from gyrostat.terms import Draft

SIZE = 200_000_000
HOLD = """
import sys, time
from gyrostat.ledger.sqlite import sqlite3
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextlib.contextmanager
def on_a_small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A project's folder; its state has a disk of its own where this machine lets us make one."""
    make(folder)
    disk = folder / ".gyrostat"
    disk.mkdir()
    is_mounted = mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk))
    try:
        yield folder
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A champion behind a real server, with monitor and loop; nothing is trained, so it is there at once."""
    with on_a_small_disk(tmp_path_factory.mktemp("faults") / "homes", 60_000_000) as folder:
        found = Rig(folder)
        found.state.mkdir(exist_ok=True)
        crown(found, Bench(found.state).bundle(7.0, schema=HOMES, model="homes"))
        with found.running():
            found.wait("the champion", found.has_champion)
            found.wait("its entry", lambda: (found.picture()["champion"] or {}).get("applied"))
            yield found


HOMES = Schema(
    inputs=(Column("rooms", "number"), Column("humidity", "number")),
    features=(Feature("rooms", "rooms"), Feature("humidity", "humidity")),
    output=Output("regression", "price"),
)


def crown(rig: Rig, bundle: str) -> None:
    """The record of a first release, as a loop leaves it."""
    ledger = SqliteLedger(rig.state / "ledger.db")
    records = Records(ledger, "homes")
    stream = "retraining/homes"
    first = Draft("triggered", 0.0, "kim", body={"by": "first", "why": "", "actor": "kim"}, key="first")  # fmt: skip
    ledger.append(stream, first, expect_seq=None, fence=None)
    run = "run/homes/1"
    begun = records.step(stream, "run_opened", outputs=(run,))
    # All told and over: a run that stood open here would be trained, beside every test.
    records.step(stream, "told", run, f"{stream}#{begun.seq}")
    records.event(stream, "run_closed", run=run, outcome="offered")
    records.step(stream, "run_ended", run)
    offered = records.event(records.production, "offered", bundle=bundle, run=run, snapshot="s" * 12)  # fmt: skip
    offer = (bundle, f"{records.production}#{offered.seq}")
    records.step(records.production, "staging_started", *offer, outputs=("version/homes/1",))
    records.step(records.production, "staging_passed", *offer)
    records.step(records.production, "approved", *offer, cause="not asked for")
    records.step(records.production, "promoted", *offer, cause="the first")
    ledger.close()


@pytest.fixture
def all_is_counted(rig: Rig) -> Iterator[None]:
    """Whatever happens: no prediction fails, each that was answered is logged and counted, and the loop acts again."""
    yield
    rig.project.hold("homes", reason="a test")
    rig.wait("the hold", lambda: rig.picture()["held"])
    rig.project.resume("homes")
    rig.wait("its end", lambda: not rig.picture()["held"])
    nothing_was_lost(rig)


@contextlib.contextmanager
def full(rig: Rig) -> Iterator[None]:
    """The disk without a byte left, nor any in the ledger's log: an entry would find its room there."""
    with contextlib.closing(sqlite3.connect(rig.state / "ledger.db", timeout=30)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    filler = rig.folder / ".gyrostat" / "filler"
    with filler.open("wb", buffering=0) as file:
        n_looks = 0
        while n_looks < 5:  # what others had begun to write they give back when it fails
            before = file.tell()
            for size in (1_000_000, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)
            n_looks = n_looks + 1 if file.tell() == before else 0
            time.sleep(0.1)
    try:
        yield
    finally:
        filler.unlink()


def answers(rig: Rig, n: int) -> None:
    """Wait for so many answers more."""
    wanted = rig.n_asked + n
    rig.wait(f"{n} answers", lambda: rig.n_asked >= wanted)


def told(rig: Rig, *arguments: str) -> tuple[int, str]:
    """What a person reads: the command line's status and words."""
    done = subprocess.run(
        [sys.executable, "-m", "gyrostat.cli.main", *arguments],
        cwd=rig.folder, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def killed(rig: Rig, name: str) -> int:
    """End one process; its pid."""
    pid = runfiles.alive(rig.state)[name].pid
    os.kill(pid, signal.SIGKILL)
    rig.wait(f"the end of {name}", lambda: not psutil.pid_exists(pid))
    return pid


def is_back(rig: Rig, name: str, old: int) -> bool:
    """Whether another one runs in its place."""
    return (run := runfiles.alive(rig.state).get(name)) is not None and run.pid != old


def unlogged(rig: Rig, ids: set[str]) -> set[str]:
    """Of the predictions that were answered, those that are not in the log."""
    return ids - {frame.id for frame in log.read(rig.state / "log" / "homes")}


def counted(rig: Rig) -> int:
    """Predictions in all closed seconds."""
    return sum(line["n"] for line, _ in read(rig.state / "observations" / "homes") if "n" in line)


def nothing_was_lost(rig: Rig) -> None:
    """No prediction failed, each that was answered is logged and counted, nothing is half there."""
    ids = set(rig.ids)
    rig.wait("the log", lambda: not unlogged(rig, ids))
    rig.wait("the counts", lambda: counted(rig) >= len(ids))
    assert rig.failed == []
    assert not list(rig.state.rglob("*.tmp"))
    assert rig.project.audit_verify().facts["is_whole"]


def label(rig: Rig) -> int:
    """Send the label of the last prediction; the status of the answer."""
    link = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=20)
    body = json.dumps({"labels": [{"id": max(rig.ids), "label": 300.0}]})
    try:
        link.request("POST", "/labels", body, {"Content-Type": "application/json"})
        return link.getresponse().status
    finally:
        link.close()


def n_labels(rig: Rig) -> int:
    """Labels that were joined."""
    return sum(line.get("n_labels", 0) for line, _ in read(rig.state / "observations" / "homes"))


@pytest.mark.usefixtures("all_is_counted")
def test_on_a_full_disk_predictions_go_on_and_the_rest_waits_and_says_so(rig: Rig) -> None:
    if not os.path.ismount(rig.folder / ".gyrostat"):
        pytest.skip("no file system may be mounted here: no disk was filled")
    with full(rig):
        status = str(rig.project.status())
        assert "the disk is full (0." in status
        with pytest.raises(LedgerError, match="full"):
            rig.project.hold("homes", reason="a full disk")
        old = {name: killed(rig, name) for name in ("monitor", "loop")}
        rig.wait("no receipt", lambda: label(rig) == 503)  # a page that was begun takes some
        answers(rig, 60)
    rig.wait("the processes", lambda: all(is_back(rig, name, pid) for name, pid in old.items()))
    assert "the disk is full" not in str(rig.project.status())
    before = n_labels(rig)
    rig.wait("a receipt", lambda: label(rig) == 202)
    rig.wait("the label", lambda: n_labels(rig) > before)


@pytest.mark.usefixtures("all_is_counted")
@pytest.mark.slow
@pytest.mark.parametrize("seconds", [8, 60])
def test_while_somebody_holds_the_ledger_predictions_go_on_and_the_rest_waits(
    rig: Rig, seconds: int
) -> None:
    before = n_labels(rig)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(rig.state / "ledger.db"), str(seconds)],
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert "nothing can be put on record now: " in str(rig.project.status())
        with pytest.raises(LedgerError, match="locked"):
            say_with_little_patience(rig)
        answers(rig, 40)
        assert label(rig) == 202
        assert holder.poll() is None
        rig.wait("the label", lambda: n_labels(rig) > before)
    assert "nothing can be put on record" not in str(rig.project.status())


def say_with_little_patience(rig: Rig) -> None:
    ledger = SqliteLedger(rig.state / "ledger.db", patience_s=0.2)
    try:
        ledger.append("notes", Draft("noted", 0.0, "kim"), expect_seq=None, fence=None)
    finally:
        ledger.close()


@pytest.mark.usefixtures("all_is_counted")
def test_a_ledger_that_is_deleted_is_not_made_anew_and_all_goes_on_when_it_is_back(
    rig: Rig, tmp_path: Path
) -> None:
    before, ledger = n_labels(rig), rig.state / "ledger.db"
    aside = rig.state.with_name("aside.db")
    move(ledger, aside)
    rig.wait("the word", lambda: f"{ledger} is gone" in rig.log("loop"))
    old = {name: killed(rig, name) for name in ("monitor", "loop")}
    rig.wait("both", lambda: all(is_back(rig, name, pid) for name, pid in old.items()))
    with pytest.raises(LostLedgerError, match="gyrostat restore FILE DIR"):
        rig.project.status()
    answers(rig, 60)
    assert label(rig) == 202
    rig.wait("the label", lambda: n_labels(rig) > before)
    rig.wait("the word again", lambda: rig.log("loop").count(f"{ledger} is gone") >= 2)
    assert not ledger.exists()
    move(aside, ledger)
    rig.wait("the loop", lambda: "the loop goes on" in rig.log("loop").rpartition("is gone")[2])


@pytest.mark.usefixtures("all_is_counted")
def test_a_ledger_that_may_only_be_read_stops_no_prediction_and_all_goes_on_when_it_may_be_written(
    rig: Rig,
) -> None:
    before, ledger = n_labels(rig), rig.state / "ledger.db"
    with read_only(ledger):
        killed(rig, "monitor")
        loop = killed(rig, "loop")
        rig.kill_one("supervisor")  # the next one starts with it
        said = f"{ledger} is on a file system that is mounted read-only"
        rig.wait("the loop", lambda: is_back(rig, "loop", loop) and said in rig.log("loop"))
        rig.wait("the new server", lambda: rig.servers() == {runfiles.read(rig.state, "server-0b").pid})  # fmt: skip
        pids = rig.pids()
        assert f"nothing can be put on record now: {said}" in str(rig.project.status())
        assert said in told(rig, "doctor")[1]
        answers(rig, 60)
        assert label(rig) == 202
        rig.wait("the label", lambda: n_labels(rig) > before)
        assert rig.pids() == pids
    assert "nothing can be put on record" not in str(rig.project.status())


@pytest.mark.slow
@pytest.mark.usefixtures("all_is_counted")
def test_a_ledger_that_was_damaged_is_found_at_the_start_and_nothing_is_written_on_it(
    rig: Rig, tmp_path: Path
) -> None:
    ledger = rig.state / "ledger.db"
    aside = rig.state.with_name("whole.db")
    move(ledger, aside)  # as if the machine had gone down: what was open is no more
    rig.wait("the word", lambda: f"{ledger} is gone" in rig.log("loop"))
    db = sqlite3.connect(aside)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    data = aside.read_bytes().replace(b"approved", b"apprOved")
    ledger.write_bytes(data)
    rig.wait("the word", lambda: "is damaged" in rig.log("loop"))
    answers(rig, 40)
    assert "gyrostat restore FILE DIR" in rig.log("loop")
    assert ledger.read_bytes() == data
    ledger.unlink()
    move(aside, ledger)
    rig.wait("the loop", lambda: "the loop goes on" in rig.log("loop").rpartition("is damaged")[2])


@pytest.mark.slow
@pytest.mark.usefixtures("all_is_counted")
def test_observations_that_are_damaged_are_not_judged_by_and_a_person_acts_all_the_same(
    rig: Rig,
) -> None:
    path = rig.state / "observations" / "homes" / "00000001.seg"
    rig.wait("some appends", lambda: path.exists() and path.read_bytes().count(b'{"mark"') > 4)
    at = path.read_bytes().index(b'"n":') + 4

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(at)
            bit = file.read(1)[0] ^ 1
            file.seek(at)
            file.write(bytes([bit]))

    flip()
    (path.parent / "champion.kept").unlink(
        missing_ok=True
    )  # what it says was read while all was well
    killed(rig, "loop")
    rig.wait("the word", lambda: "is not what was written" in str(rig.project.status()))
    rig.project.hold("homes", reason="by hand")
    rig.wait("the hold", lambda: rig.picture()["held"])
    answers(rig, 20)
    rig.project.resume("homes")
    flip()
    rig.wait("the end", lambda: "is not what was written" not in str(rig.project.status()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A project with a champion that was trained here."""
    with on_a_small_disk(tmp_path_factory.mktemp("faults") / "homes", SIZE) as folder:
        found = Rig(folder)
        with found.running():
            found.wait("version 1", lambda: found.version() == 1 and found.is_at_rest())
            yield found


@pytest.mark.slow
def test_a_full_disk_fails_no_prediction_loses_none_and_heals_when_space_returns(
    trained: Rig,
) -> None:
    rig = trained
    if not os.path.ismount(rig.folder / ".gyrostat"):
        pytest.skip("no file system may be mounted here: no disk was filled")
    before, version = rig.project.ledger.position(), rig.version()
    rig.ask_for(2.0)
    rig.wait("the run", lambda: "run" in rig.kinds(before))
    rig.ids.clear()
    with full(rig):
        status, words = told(rig, "status")
        assert status == 0, words
        assert "the disk is full (0." in words
        status, words = told(rig, "hold", "homes", "--reason", "a full disk")
        assert status == 3, words
        assert "full" in words
        old = {name: killed(rig, name) for name in ("monitor", "loop")}
        answers(rig, 100)
        assert rig.version() == version
    rig.wait("the processes", lambda: all(is_back(rig, name, pid) for name, pid in old.items()))
    rig.wait("the release", lambda: rig.version() > version and rig.is_at_rest())
    nothing_was_lost(rig)
    assert "the disk is full" not in told(rig, "status")[1]
