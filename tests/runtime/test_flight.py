"""What a process has in its hands: counted by arm, readable once it is gone, and never before."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from gyrostat_runtime import flight, log
from gyrostat_runtime.flight import Debt, InFlight
from gyrostat_runtime.log import Owed, Sealed, Tail, Writer

DIES = """
import os, signal, sys
from pathlib import Path
from gyrostat_runtime.log import Writer
writer = Writer(Path(sys.argv[1]), "w0", sync_s=60)
live, shadow = writer.in_flight.slot(7, "b1", "candidate"), writer.in_flight.slot(7, "b2", "shadow")
for _ in range(5):
    live.begin()
live.end(), live.end()
shadow.begin()
{how}
"""


def die(folder, how="os.kill(os.getpid(), signal.SIGKILL)"):
    """A process that has three requests of one arm and one of another in its hands ends."""
    done = subprocess.run(
        [sys.executable, "-c", DIES.format(how=how), str(folder)], check=False, timeout=60
    )
    return done.returncode


def said(folder):
    return [value for _, value in Tail(folder).poll()]


OWED = (Debt(7, "b1", "candidate", 3), Debt(7, "b2", "shadow", 1))


@pytest.mark.parametrize(
    "how",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "os._exit(3)",
    ],
    ids=["killed", "crashed", "exited"],
)
def test_what_a_dead_process_owed_is_said_with_its_seal_and_the_file_goes(tmp_path, how):
    die(tmp_path, how)
    assert log.seal(tmp_path, "w0", 150.0) == 4
    assert said(tmp_path) == [Owed("w0", 150.0, 0, OWED), Sealed("w0", 150.0)]
    assert not list(tmp_path.glob("*.flight"))
    assert log.seal(tmp_path, "w0", 160.0) == 0


def test_an_orderly_end_says_itself_what_it_owes(tmp_path):
    assert die(tmp_path, "writer.close()") == 0
    owed, _ = said(tmp_path)
    assert (owed.since, owed.debts) == (0, OWED)
    assert not list(tmp_path.glob("*.flight"))


def test_the_next_process_of_the_name_says_what_nobody_did(tmp_path):
    die(tmp_path)
    writer = Writer(tmp_path, "w0", sync_s=60)
    writer.in_flight.slot(8, "b1", "champion").begin()
    writer.close()
    first, _, second, _ = said(tmp_path)
    assert (first.debts, second.debts) == (OWED, (Debt(8, "b1", "champion", 1),))
    assert first.since < second.since


def test_what_a_living_process_has_in_its_hands_is_nobody_elses_to_say(tmp_path):
    code = DIES.format(how="print('here', flush=True); signal.pause()")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"here\n"
    try:
        assert log.settle(tmp_path, 150.0) == 0
        assert said(tmp_path) == []
        # Somebody else of the same name counts too, for itself alone.
        other = Writer(tmp_path, "w0", sync_s=60)
        other.in_flight.slot(8, "b1", "champion").begin()
        assert other.in_flight.debts() == (Debt(8, "b1", "champion", 1),)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert log.settle(tmp_path, 160.0) == 4
    other.close()


def test_what_cannot_be_said_now_is_said_another_time(tmp_path, monkeypatch):
    die(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(log.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            log.seal(tmp_path, "w0", 150.0)
        disk.setattr(log, "_seal", full)
        # The next process answers all the same, and does not write over what is owed.
        Writer(tmp_path, "w0", sync_s=60).in_flight.slot(8, "b1", "champion").begin()
    assert log.settle(tmp_path, 160.0) == 4


def test_after_a_power_cut_nothing_is_known_and_nothing_said(tmp_path, monkeypatch):
    die(tmp_path)
    monkeypatch.setattr(flight, "_boot", lambda: b"another")
    assert log.settle(tmp_path, 150.0) == 0
    assert said(tmp_path) == []
    assert not list(tmp_path.glob("*.flight"))


@pytest.mark.parametrize("keep", [0, 5, 300])
def test_a_file_that_was_half_made_owes_nothing(tmp_path, keep):
    die(tmp_path)
    (file,) = tmp_path.glob("*.flight")
    file.write_bytes(file.read_bytes()[:keep])
    assert log.settle(tmp_path, 150.0) == 0


def test_a_slot_is_used_again_only_when_nobody_holds_it_and_it_owes_nothing(tmp_path):
    table = InFlight(tmp_path / "w0.flight")
    held = table.slot(1, "held", "champion")
    owing = table.slot(1, "owing", "candidate")
    owing.begin()
    del owing
    for seq in range(2, 1000):
        table.slot(seq, "passing", "champion").begin() if seq == 500 else table.slot(seq, "x", "y")
    held.begin()
    assert set(table.debts()) == {
        Debt(1, "held", "champion", 1),
        Debt(1, "owing", "candidate", 1),
        Debt(500, "passing", "champion", 1),
    }
    many = [table.slot(n, "more", "champion") for n in range(200)]
    for slot in many:
        slot.begin()  # more arms than there is room for: these are counted by nobody, and fail nothing
        slot.end()
    assert len(table.debts()) == 3
