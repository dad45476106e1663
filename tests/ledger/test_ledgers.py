import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gyrostat.errors import LedgerError
from gyrostat.ledger import sqlite as ledger_sqlite
from gyrostat.ledger.chain import verify
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.testing.contract import Clock, LedgerContract, event
from gyrostat.testing.memory import MemoryLedger


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestMemory(LedgerContract):
    @pytest.fixture
    def ledger(self, clock: Clock) -> MemoryLedger:
        return MemoryLedger(clock)


class TestSqlite(LedgerContract):
    @pytest.fixture
    def ledger(self, clock: Clock, tmp_path: Path) -> Any:
        ledger = SqliteLedger(tmp_path / "ledger.db", clock=clock)
        yield ledger
        ledger.close()


def filled(path: Path, n: int = 30) -> None:
    ledger = SqliteLedger(path)
    for i in range(n):
        ledger.append("a", event(i=i), expect_seq=None, fence=None)
    ledger.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET body='{\"i\":99}' WHERE position=7",
        "UPDATE entries SET actor='nobody' WHERE position=7",
        "UPDATE entries SET at=at+1 WHERE position=7",
        "DELETE FROM entries WHERE position=7",
        "UPDATE entries SET hash='0' WHERE position=7",
    ],
)
def test_whatever_is_altered_is_found_and_named(tmp_path: Path, change: str) -> None:
    path = tmp_path / "ledger.db"
    filled(path)
    db = ledger_sqlite.sqlite3.connect(str(path))
    db.execute("DROP TRIGGER no_update")
    db.execute("DROP TRIGGER no_delete")
    db.execute(change)
    db.commit()
    db.close()
    assert verify(SqliteLedger(path).entries()) == 7


def test_entries_cannot_be_changed_by_mistake(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    filled(path, 3)
    db = ledger_sqlite.sqlite3.connect(str(path))
    for statement in ("UPDATE entries SET actor='x'", "DELETE FROM entries"):
        with pytest.raises(ledger_sqlite.sqlite3.Error, match="append-only"):
            db.execute(statement)
    db.close()


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    filled(tmp_path / "ledger.db", 1)
    assert (tmp_path / "ledger.db").stat().st_mode & 0o077 == 0


def test_wal_only_with_a_library_that_has_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_fix = ledger_sqlite.sqlite3.sqlite_version_info >= ledger_sqlite.FIXED
    mode = SqliteLedger(tmp_path / "a.db").db.execute("PRAGMA journal_mode").fetchone()[0]
    assert mode == ("wal" if has_fix else "delete")
    monkeypatch.setattr(ledger_sqlite, "sqlite3", sqlite3)
    monkeypatch.setattr(ledger_sqlite, "FIXED", (99, 0, 0))
    assert (
        SqliteLedger(tmp_path / "b.db").db.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    )


WRITER = """
import sys
from pathlib import Path
from gyrostat.errors import LedgerError
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.terms import Draft
ledger = SqliteLedger(Path(sys.argv[1]))
while True:
    try:
        n = len(ledger.tail("race"))
        ledger.append("race", Draft("step", 0.0, sys.argv[2], body={"n": n}), expect_seq=n, fence=None)
    except LedgerError:
        continue
    print(n + 1, flush=True)
"""


def test_killed_racing_writers_lose_nothing_and_each_seq_has_one_winner(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    SqliteLedger(path).close()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), f"w{n}"], stdout=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    ledger = SqliteLedger(path)
    deadline = time.monotonic() + 30
    while ledger.position() < 80 and time.monotonic() < deadline:
        time.sleep(0.05)
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
    acknowledged = [
        int(line) for writer in writers for line in writer.communicate()[0].split("\n")[:-1]
    ]
    entries = ledger.tail("race")
    assert verify(ledger.entries()) is None
    assert len(acknowledged) == len(set(acknowledged)) >= 70
    assert set(acknowledged) <= {e.seq for e in entries}
    assert [e.body["n"] for e in entries] == list(range(len(entries)))


def test_a_lease_on_a_ledger_that_cannot_be_read_is_refused_as_any_call_is(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.close()
    with pytest.raises(LedgerError, match="cannot be used now"):
        ledger.acquire("a", "one", ttl_s=10)
