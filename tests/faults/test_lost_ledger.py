"""A ledger that is gone, replaced, empty or damaged: never written on, never made anew, and said with what to type."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from faults.harm import move, read_only
from processes.projects import AtRest

from gyrostat.cli.main import cli
from gyrostat.errors import LedgerError, LostLedgerError, MalformedEntryError
from gyrostat.ledger.sqlite import SqliteLedger, sqlite3
from gyrostat.loop.reconcile import facts_of
from gyrostat.processes.doctor import examine
from gyrostat.terms import Draft


def say(ledger: SqliteLedger, n: int) -> None:
    draft = Draft("noted", 0.0, "kim", body={"n": n, "text": "x" * 200})
    ledger.append("notes/wine", draft, expect_seq=None, fence=None)


def said(ledger: SqliteLedger) -> list[int]:
    return [entry.body["n"] for entry in ledger.entries()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with 60 entries on some pages, closed."""
    path = tmp_path_factory.mktemp("written") / "ledger.db"
    ledger = SqliteLedger(path)
    for n in range(60):
        say(ledger, n)
    ledger.close()
    return path


@pytest.fixture
def path(written: Path, tmp_path: Path) -> Path:
    """One of its own to harm."""
    for name in ("ledger.db", "ledger.db.made"):
        shutil.copy(written.with_name(name), tmp_path)
    return tmp_path / "ledger.db"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SqliteLedger]:
    ledger = SqliteLedger(path, patience_s=0.1)
    try:
        yield ledger
    finally:
        ledger.close()


def test_one_that_was_deleted_under_an_open_ledger_takes_nothing_more(path: Path) -> None:
    with opened(path) as ledger:
        move(path, path.with_name("aside.db"))
        for call in (lambda: say(ledger, 60), ledger.position, lambda: ledger.acquire("s", "kim", ttl_s=9)):  # fmt: skip
            with pytest.raises(LostLedgerError, match=r"is gone.*gyrostat restore FILE DIR"):
                call()
        assert not ledger.is_current
    assert not path.exists()
    with opened(path.with_name("aside.db")) as ledger:
        assert said(ledger) == list(range(60))


def test_one_that_was_deleted_is_not_made_anew_and_goes_on_when_it_is_back(path: Path) -> None:
    aside = path.with_name("aside.db")
    move(path, aside)
    with pytest.raises(LostLedgerError, match="is gone"):
        SqliteLedger(path)
    assert not path.exists()
    move(aside, path)
    with opened(path) as ledger:
        say(ledger, 60)
        assert said(ledger) == list(range(61))


def test_one_that_was_emptied_is_no_new_one(path: Path) -> None:
    os.truncate(path, 0)
    with pytest.raises(LostLedgerError, match="is empty"):
        SqliteLedger(path)
    assert path.stat().st_size == 0


def test_what_stands_in_its_place_is_not_written_on_and_loses_nothing_when_the_old_one_is_closed(
    path: Path,
) -> None:
    old = SqliteLedger(path)
    say(old, 60)
    move(path, path.with_name("aside.db"))
    path.with_name("ledger.db.made").unlink()
    new = SqliteLedger(path)
    say(new, 1000)
    with pytest.raises(LostLedgerError, match="was replaced by another file"):
        say(old, 61)
    old.close()
    say(new, 1001)
    with opened(path) as third:
        assert said(third) == [1000, 1001]
    new.close()


@pytest.mark.parametrize("n_page", range(1, 12))
def test_a_page_of_noise_is_found_and_nothing_is_written_on(path: Path, n_page: int) -> None:
    data = bytearray(path.read_bytes())
    at = 4096 * n_page
    assert at < len(data)
    data[at : at + 4096] = os.urandom(4096)
    path.write_bytes(data)
    with pytest.raises(LostLedgerError, match=r"is damaged.*gyrostat restore FILE DIR"), opened(path) as ledger:  # fmt: skip
        ledger.check()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_that_was_cut_is_found(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share) // 4096 * 4096)
    with pytest.raises(LostLedgerError, match="is damaged"), opened(path) as ledger:
        ledger.check()


def test_one_flipped_bit_is_found_wherever_it_matters(path: Path) -> None:
    """SQLite has no digest of its rows: what it takes for whole is not for us. Only what nobody reads may differ unseen."""
    whole, missed = path.read_bytes(), []
    with opened(path) as ledger:
        wanted = list(ledger.rows())
    named = [
        found.end() - 1 for found in re.finditer(b"notes/wine", whole)
    ]  # in rows and in indexes
    for at in [*range(5000, len(whole), 1997), *named[::3]]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            with opened(path) as ledger:
                ledger.check()
                missed += [at] if list(ledger.rows()) != wanted else []
                missed += [at] if len(ledger.tail("notes/wine")) != len(wanted) else []
        except LostLedgerError as error:
            assert "is damaged" in str(error)  # noqa: PT017
    assert missed == []


@pytest.mark.parametrize("word", [b'"n":7,', b'"n":30,', b'"n":59,'])
def test_one_flipped_bit_in_the_words_of_an_entry_is_found_by_the_chain(
    path: Path, word: bytes
) -> None:
    whole, found = path.read_bytes(), []
    for place in re.finditer(re.escape(word), whole):  # pages keep old copies of a row beside it
        at = place.end() - 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with opened(path) as ledger:
            try:
                ledger.check()
            except LostLedgerError as error:
                found.append(str(error))
    assert len(found) == 1
    assert re.search(r"is damaged \(entry/\d+ was changed", found[0])


def test_an_entry_that_is_no_json_any_more_is_named(path: Path) -> None:
    whole = path.read_bytes()
    at = whole.index(b'{"n":30,')
    path.write_bytes(whole[:at] + b"[" + whole[at + 1 :])
    with opened(path) as ledger, pytest.raises(MalformedEntryError, match="entry/31 is not what"):
        said(ledger)


def test_one_that_somebody_holds_is_busy_and_not_lost(path: Path) -> None:
    with opened(path) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked") as caught:
            say(ledger, 60)
        assert caught.value.retryable
        if Path("/proc/locks").exists():
            assert f"process {os.getpid()} holds {path}" in ledger.why_not_writable(patience_s=0.1)
        other.execute("ROLLBACK")
        other.close()
        assert ledger.why_not_writable() == ""
        say(ledger, 60)
        assert said(ledger) == list(range(61))


def test_to_ask_whether_it_can_be_written_stops_nobody_who_writes(path: Path) -> None:
    with opened(path) as ledger, opened(path) as other:
        other.db.execute("PRAGMA busy_timeout=0")
        asked = []
        ledger.db.set_trace_callback(asked.append)
        assert ledger.why_not_writable() == ""
        assert asked == []
        say(other, 60)


def test_one_that_was_opened_to_be_read_is_written_again_as_soon_as_it_may_be(path: Path) -> None:
    with read_only(path), opened(path) as ledger:
        assert len(said(ledger)) == 60
        for _ in range(2):
            with pytest.raises(LedgerError, match=f"{path} is on .* read-only: mount it") as caught:
                say(ledger, 60)
        assert caught.value.retryable
        assert f"{path} is on" in ledger.why_not_writable()
        subprocess.run(["umount", "-l", path], check=True)
        with pytest.raises(LedgerError):  # its connection is of before
            say(ledger, 60)
        say(ledger, 60)
        assert ledger.why_not_writable() == ""


def test_one_that_may_only_be_read_is_read_and_says_so(path: Path) -> None:
    with opened(path) as ledger:
        ledger.db.execute("PRAGMA query_only=1")  # as a file system that was mounted to be read
        with pytest.raises(LedgerError, match="readonly") as caught:
            say(ledger, 60)
        assert caught.value.retryable
        assert said(ledger) == list(range(60))
        ledger.db.execute("PRAGMA query_only=0")
        say(ledger, 60)


@pytest.mark.parametrize("fault", ["gone", "page"])
def test_status_audit_and_doctor_say_it_and_make_nothing(tmp_path: Path, fault: str) -> None:
    made = AtRest(tmp_path)
    path = made.state / "ledger.db"
    if fault == "gone":
        move(path, tmp_path / "aside.db")
    else:
        data = bytearray(path.read_bytes())
        data[100:4000] = bytes(3900)
        path.write_bytes(data)
    before = path.read_bytes() if path.exists() else None
    for command in (["status"], ["audit", "verify"], ["who-served", "wine"]):
        done = CliRunner().invoke(cli, [*command, "--project", str(tmp_path)])
        assert done.exit_code == 4, done.output
        assert "gyrostat restore FILE DIR" in done.output
    database = next(f for f in examine(tmp_path) if f.check == "database" and f.answer == "fault")
    assert database.command == "gyrostat restore FILE DIR"
    assert (path.read_bytes() if path.exists() else None) == before


def test_facts_that_were_kept_outside_the_chain_are_folded_anew(tmp_path: Path) -> None:
    made = AtRest(tmp_path)
    made.plant('UPDATE streams SET head_seq = 2, head = \'{"release": 1, "facts": {}}\'')
    with opened(made.state / "ledger.db") as ledger:
        ledger.forget_heads()
        assert {seq for _, seq, _ in ledger.heads()} == {0}
        assert facts_of(ledger, "production/wine").champion is not None
