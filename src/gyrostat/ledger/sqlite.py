"""The ledger in one SQLite file: the embedded default. Any number of processes may hold one and append."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gyrostat.errors import (
    AmbiguousError,
    ConflictError,
    FencedError,
    LedgerError,
    LostLedgerError,
    MalformedEntryError,
)
from gyrostat.ledger import audit
from gyrostat.ledger.chain import seal
from gyrostat.ledger.entries import check_draft
from gyrostat.terms import GENESIS, Draft, Entry

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        import pysqlite3 as sqlite3
    except ImportError:
        import sqlite3

T = TypeVar("T")
FIXED = (3, 51, 3)
"""Below, WAL can corrupt a file that several processes write and checkpoint."""
PAGE = 2000
"""Rows a read holds at a time: with the rollback journal an open read blocks appends."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries(
    position INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL, fence INTEGER, kind TEXT NOT NULL,
    at REAL NOT NULL, actor TEXT NOT NULL, inputs TEXT NOT NULL, outputs TEXT NOT NULL, body TEXT NOT NULL,
    key TEXT, prev TEXT NOT NULL, hash TEXT NOT NULL, UNIQUE(stream, seq));
CREATE UNIQUE INDEX IF NOT EXISTS event_keys ON entries(stream, key) WHERE key IS NOT NULL;
CREATE TABLE IF NOT EXISTS streams(name TEXT PRIMARY KEY, seq INTEGER NOT NULL, head_seq INTEGER NOT NULL,
    head TEXT NOT NULL, is_over INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS open_streams ON streams(name) WHERE is_over = 0;
CREATE TABLE IF NOT EXISTS leases(name TEXT PRIMARY KEY, owner TEXT NOT NULL, fence INTEGER NOT NULL, until REAL NOT NULL);
CREATE TABLE IF NOT EXISTS refs(ref TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY(ref, position)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
"""


class SqliteLedger:
    """Implements `ports.Ledger`. Threads may share one: calls take turns.

    A file that was there once is never made anew: a mark beside it tells a ledger that is gone from one that never was.

    Args:
        patience_s: How long a call waits for another process that holds the file.

    Raises:
        LostLedgerError: it was here and is gone, empty, or no database.
        LedgerError: it cannot be opened now.
    """

    def __init__(
        self, path: str | Path, *, clock: Callable[[], float] = time.time, patience_s: float = 30.0
    ) -> None:
        self.clock, self.patience_s = clock, patience_s
        self.path = Path(path)
        self._turn = threading.RLock()
        self.lost = ""
        """Why nothing can be read or written here any more; empty while all is well."""
        mark = self.path.with_name(f"{self.path.name}.made")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                if mark.exists():
                    raise self._lose("is gone")
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            if mark.exists() and not self.path.stat().st_size:
                raise self._lose("is empty")
            self._file = _identity(self.path)
            self.db = self._connected()
            if not self.db.execute("SELECT 1 FROM sqlite_master WHERE name='refs'").fetchone():
                if mark.exists():
                    raise self._lose("holds no entries")
                self.db.executescript(SCHEMA)
        except (sqlite3.Error, OSError) as error:
            if _is_damage(error):
                raise self._lose(f"is damaged ({error})") from error
            why = " ".join(filter(None, (f"{error}.", why_not_allowed(self.path))))
            raise LedgerError(
                f"The ledger {self.path} cannot be opened: {why} Nothing was changed; predictions go on without it.",
                path=str(self.path),
            ) from error
        if not mark.exists():
            with contextlib.suppress(OSError):  # a full disk: whoever opens it next makes it
                mark.write_text("A ledger was made here; where it is gone, no new one is begun.\n")

    def _connected(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            str(self.path), isolation_level=None, timeout=self.patience_s, check_same_thread=False
        )
        has_fix = sqlite3.sqlite_version_info >= FIXED
        db.execute(f"PRAGMA journal_mode={'WAL' if has_fix else 'DELETE'}")
        db.execute("PRAGMA synchronous=FULL")
        return db

    def append(
        self,
        stream: str,
        draft: Draft,
        *,
        expect_seq: int | None,
        fence: int | None,
        head: dict[str, Any] | None = None,
        is_last: bool = False,
    ) -> Entry:
        """See `ports.Ledger.append`.

        Raises:
            MalformedEntryError, UnknownKindError: the stream is a life's, and the draft is not what its readers know.
        """
        check_draft(stream, draft)
        with self._turn:
            db = self.db
            self._is_still_there()
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise self._fault(
                    error, f"The ledger is busy: {error}. Nothing was written."
                ) from error
            try:
                entry = self._write(stream, draft, expect_seq, fence, head, is_last)
                if entry is None:
                    known = self._rows("WHERE stream=? AND key=?", stream, draft.key)
                    self._undo()
                    return known[0]
            except sqlite3.Error as error:  # a full disk, a file that can no longer be written
                self._undo()
                raise self._fault(
                    error,
                    f"{draft.kind} could not be written to {stream}: {error}. Nothing was written.",
                ) from error
            except (TypeError, ValueError) as error:
                self._undo()
                raise MalformedEntryError(
                    f"The body of {draft.kind} for {stream} is not JSON: {error}. Nothing was written."
                ) from error
            except BaseException:
                self._undo()
                raise
            try:
                db.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise AmbiguousError(
                    f"Nobody knows whether {draft.kind} was written to {stream}: {error}"
                ) from error
            return entry

    def _write(
        self, stream: str, draft: Draft, expect_seq: int | None, fence: int | None,
        head: dict[str, Any] | None, is_last: bool,
    ) -> Entry | None:  # fmt: skip
        db = self.db
        if draft.key is not None and self.knows(stream, draft.key):
            return None
        if fence is not None:
            held = db.execute("SELECT fence FROM leases WHERE name=?", (stream,)).fetchone()
            if held != (fence,):
                raise FencedError(
                    f"The lease of {stream} is {held}, not {fence}; nothing was written."
                )
        (seq,) = db.execute("SELECT seq FROM streams WHERE name=?", (stream,)).fetchone() or (0,)
        if expect_seq is not None and expect_seq != seq:
            raise ConflictError(
                f"{stream} ends at {seq}, not at {expect_seq}; nothing was written."
            )
        latest = db.execute(
            "SELECT position, hash, at FROM entries ORDER BY position DESC LIMIT 1"
        ).fetchone()
        position, prev, at = latest or (0, GENESIS, 0.0)
        at = max(at, self.clock())
        if expect_seq is not None and draft.at > at:
            raise ConflictError(
                f"{draft.kind} was judged at {draft.at}, later than the ledger's {at}; nothing was written."
            )
        e = seal(
            draft, position=position + 1, stream=stream, seq=seq + 1, fence=fence, at=at, prev=prev
        )
        db.execute(
            "INSERT INTO entries VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (e.position, e.stream, e.seq, e.fence, e.kind, e.at, e.actor, _text(e.inputs), _text(e.outputs),
             _text(e.body), e.key, e.prev, e.hash),
        )  # fmt: skip
        refs = {(ref, e.position) for ref in (*e.inputs, *e.outputs)}
        db.executemany("INSERT OR IGNORE INTO refs VALUES(?,?)", sorted(refs))
        db.execute(
            "INSERT INTO streams VALUES(?1,?2,0,'{}',0) ON CONFLICT(name) DO UPDATE SET seq=?2",
            (stream, e.seq),
        )
        if head is not None:
            db.execute(
                "UPDATE streams SET head_seq=?, head=? WHERE name=?", (seq, _text(head), stream)
            )
        if is_last:
            db.execute("UPDATE streams SET is_over=1 WHERE name=?", (stream,))
        return e

    def tail(self, stream: str, *, after_seq: int = 0) -> list[Entry]:
        """See `ports.Ledger`."""
        return self._rows("WHERE stream=? AND seq>? ORDER BY seq", stream, after_seq)

    def entries(self, *, after: int = 0, before_at: float | None = None) -> Iterator[Entry]:
        """See `ports.Ledger`; pages, so that nobody waits for a slow reader."""
        until = float("inf") if before_at is None else before_at
        while page := self._rows(
            "WHERE position>? AND at<=? ORDER BY position LIMIT ?", after, until, PAGE
        ):
            yield from page
            after = page[-1].position

    def rows(self, *, after: int = 0) -> Iterator[tuple[Any, ...]]:
        """Every row as it is stored, in pages, for an audit: nothing in it is read or trusted."""
        while page := self._ask(
            "SELECT * FROM entries WHERE position>? ORDER BY position LIMIT ?", after, PAGE
        ):
            yield from page
            after = page[-1][0]

    def row(self, position: int) -> tuple[Any, ...] | None:
        """One row as it is stored."""
        return next(iter(self._ask("SELECT * FROM entries WHERE position=?", position)), None)

    def entry(self, position: int) -> Entry | None:
        """See `ports.Ledger`."""
        return next(iter(self._rows("WHERE position=?", position)), None)

    def mentions(self, ref: str, *, limit: int = 1000) -> list[Entry]:
        """See `ports.Ledger`."""
        where = "WHERE position IN (SELECT position FROM refs WHERE ref=? ORDER BY position LIMIT ?) ORDER BY position"
        return self._rows(where, ref, limit)

    def knows(self, stream: str, key: str) -> bool:
        """See `ports.Ledger`."""
        query = "SELECT 1 FROM entries WHERE stream=? AND key=?"
        return bool(self._ask(query, stream, key))

    def now(self) -> float:
        """See `ports.Ledger`."""
        rows = self._ask("SELECT at FROM entries ORDER BY position DESC LIMIT 1")
        return max(rows[0][0] if rows else 0.0, self.clock())

    def position(self) -> int:
        """See `ports.Ledger`."""
        return self._ask("SELECT max(position) FROM entries")[0][0] or 0

    def streams(self) -> list[str]:
        """See `ports.Ledger`."""
        query = "SELECT name FROM streams WHERE is_over = 0 ORDER BY name"
        return [name for (name,) in self._ask(query)]

    def heads(self, stream: str | None = None) -> list[tuple[str, int, dict[str, Any]]]:
        """See `ports.Ledger`."""
        where, args = ("is_over = 0", ()) if stream is None else ("name = ?", (stream,))
        query = f"SELECT name, head_seq, head FROM streams WHERE {where}"  # noqa: S608
        return [(name, seq, json.loads(head)) for name, seq, head in self._ask(query, *args)]

    def acquire(self, name: str, owner: str, *, ttl_s: float) -> int | None:
        """See `ports.Ledger`; writes only when something changes, for a write is an fsync."""
        with self._turn:
            now = self.clock()
            query = "SELECT owner, fence, until FROM leases WHERE name=?"
            found = next(iter(self._ask(query, name)), None)
            holder, fence, until = found or ("", 0, float("-inf"))
            if until > now + ttl_s:  # taken before the clock was set back: nobody waits that long
                until = now
            if now < until and holder != owner:
                return None
            if holder == owner and until - now > ttl_s / 2:
                return fence
            self._is_still_there()
            try:
                self.db.execute("BEGIN IMMEDIATE")
                again = self.db.execute(query, (name,)).fetchone()
                if again != found:
                    self.db.execute("ROLLBACK")
                    return None
                fence += not (now < until)
                self.db.execute(
                    "INSERT OR REPLACE INTO leases VALUES(?,?,?,?)",
                    (name, owner, fence, now + ttl_s),
                )
                self.db.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise self._fault(error, f"The ledger is busy: {error}") from error
            return fence

    def expire_leases(self) -> None:
        """Let every lease lapse now: whoever held one has lost its number.

        For a loop that has just taken the project's lock, so that nobody else is alive to hold any.
        """
        self._ask("UPDATE leases SET until = 0")

    def forget_heads(self) -> None:
        """Let the facts of every open stream be folded anew: what was kept of them is outside the chain."""
        self._ask("UPDATE streams SET head_seq = 0, head = '{}' WHERE is_over = 0 AND head_seq > 0")

    def check(self) -> None:
        """Read all of it once: the file's own structure with its indexes, and the chain.

        Raises:
            LostLedgerError: it is not what was written; the message says from where on.
        """
        try:
            damage = [text for (text,) in self._ask("PRAGMA integrity_check(3)") if text != "ok"]
            if damage:
                raise self._lose(f"is damaged ({' '.join(' '.join(damage).split())})")
            report = audit.verify(self.rows(), row_at=self.row, search=self.rows)
        except sqlite3.Error as error:
            raise self._fault(error, f"The ledger cannot be read now: {error}") from error
        if not report.is_whole:
            raise self._lose(
                f"is damaged (entry/{report.first_bad} was {report.what}: {report.why})"
            )

    def why_not_writable(self, *, patience_s: float = 2.0) -> str:
        """Why nothing can be appended just now (somebody holds it, it may not be written); empty where it can.

        It only looks. To try would take the lock that the loop needs, and whoever is stopped in that instant keeps it.
        """
        try:
            self._is_still_there()
        except LedgerError as error:
            return str(error)
        deadline = time.monotonic() + patience_s
        while holder := _writer(self.path):
            if time.monotonic() > deadline:
                return f"process {holder} holds {self.path}. It waits for its end."
            time.sleep(0.02)
        return why_not_allowed(self.path)

    @property
    def is_current(self) -> bool:
        """Whether the file that was opened is still the one that stands at its place, and whole as far as was seen."""
        with contextlib.suppress(LostLedgerError):
            self._is_still_there()
        return not self.lost

    def _is_still_there(self) -> None:
        # An open file outlives its name: what is written to one that was deleted is gone with this process.
        try:
            found = _identity(self.path)
        except OSError:
            raise self._lose("is gone") from None
        if found != self._file:
            raise self._lose("was replaced by another file while it was open")
        if self.lost:
            raise LostLedgerError(self.lost, path=str(self.path))

    def _lose(self, what: str) -> LostLedgerError:
        self.lost = (
            f"The ledger {self.path} {what}. Nothing is written, and no new one is begun in its place; predictions go on. "
            "Bring it back: gyrostat restore FILE DIR"
        )
        return LostLedgerError(self.lost, path=str(self.path))

    def _fault(self, error: Exception, text: str) -> LedgerError:
        if _is_damage(error):
            return self._lose(f"is damaged ({error})")
        if "readonly" in str(error):
            text = f"{text} {why_not_allowed(self.path)}".rstrip()
            self._reopen()
        return LedgerError(text, path=str(self.path))

    def _reopen(self) -> None:
        """A file that could not be written when it was opened stays read-only to SQLite, also when it may be again."""
        with contextlib.suppress(sqlite3.Error):
            new = self._connected()
            self.db.close()
            self.db = new

    def _undo(self) -> None:
        # SQLite itself rolls back on some errors (a full disk), and then there is nothing to undo.
        with contextlib.suppress(sqlite3.Error):
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")

    def close(self) -> None:
        """Give the file back."""
        with self._turn:
            self.db.close()

    def _rows(self, where: str, *args: object) -> list[Entry]:
        return [_entry(row) for row in self._ask(f"SELECT * FROM entries {where}", *args)]  # noqa: S608

    def _ask(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        with self._turn:
            self._is_still_there()
            try:
                return self.db.execute(query, args).fetchall()
            except sqlite3.Error as error:
                raise self._fault(
                    error, f"The ledger {self.path} cannot be used now: {error}."
                ) from error


def copy_at_one_instant(path: Path, target: Path, *, meanwhile: Callable[[], T]) -> T:
    """Copy a ledger as of one instant, and ask `meanwhile` at that instant, while nobody can append; its answer.

    Raises:
        LedgerError: it cannot be read, or somebody writes for too long.
    """
    try:
        with (
            contextlib.closing(
                sqlite3.connect(str(path), isolation_level=None, timeout=30)
            ) as gate,
            contextlib.closing(sqlite3.connect(str(path), isolation_level=None)) as source,
            contextlib.closing(sqlite3.connect(str(target))) as copy,
        ):
            gate.execute("BEGIN IMMEDIATE")
            found = meanwhile()
            # A read that began while the gate was closed sees nothing that is written after it opens.
            source.execute("BEGIN")
            source.execute("SELECT max(position) FROM entries").fetchone()
            gate.execute("ROLLBACK")
            source.backup(copy)
            source.execute("ROLLBACK")
            return found
    except sqlite3.Error as error:
        raise LedgerError(
            f"The ledger {path.name} cannot be copied now: {error}.", path=str(path)
        ) from error


def probe(path: Path, *, patience_s: float = 2.0) -> dict[str, Any]:
    """How the file itself is, for a doctor: `damage` (empty: none), `is_writable` and `why` not, `journal`, `version`.

    Raises:
        LedgerError: it cannot be opened at all.
    """
    try:
        with contextlib.closing(
            sqlite3.connect(str(path), isolation_level=None, timeout=patience_s)
        ) as db:
            (journal,) = db.execute("PRAGMA journal_mode").fetchone()
            damage = [text for (text,) in db.execute("PRAGMA integrity_check(3)") if text != "ok"]
            why = ""
            try:
                db.execute("BEGIN IMMEDIATE")
                # A file that may not be written is found out by a write alone; it is taken back.
                db.execute("CREATE TABLE probe(x)")
                db.execute("ROLLBACK")
            except sqlite3.Error as error:
                why = str(error)
            return {
                "damage": "; ".join(damage), "is_writable": not why, "why": why, "journal": journal,
                "version": sqlite3.sqlite_version_info,
            }  # fmt: skip
    except sqlite3.Error as error:
        raise LedgerError(f"{path.name} cannot be opened: {error}", path=str(path)) from error


def why_not_allowed(path: Path) -> str:
    """Which file of a ledger this process may not write, and what to do; empty where it may write all."""
    beside = [path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal")]
    for file in (path, *beside, path.parent):
        if file.exists() and not os.access(file, os.W_OK):
            if os.statvfs(file).f_flag & os.ST_RDONLY:
                return f"{file} is on a file system that is mounted read-only: mount it read-write."
            return f"{file} may not be written: chmod u+w {file}"
    return ""


WRITE_LOCKS = (("-shm", 120), ("", 0x4000_0001))
"""The byte that SQLite locks while it writes: with the write-ahead log, and with the rollback journal."""


def _writer(path: Path) -> int:
    """The process that holds the ledger for writing, as the kernel lists it; 0: nobody, or no such list (Linux has one).

    SQLite's files must not be opened to ask: closing them would drop the locks that this process has.
    """
    held: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for end, byte in WRITE_LOCKS:
            with contextlib.suppress(FileNotFoundError):
                held[str(path.with_name(path.name + end).stat().st_ino)] = byte
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, mode, pid, file, first, last, *_ = line.split()
            byte = held.get(file.rpartition(":")[2], -1)
            is_range = (kind, mode) == ("POSIX", "WRITE") and last.isdecimal()
            if is_range and int(first) <= byte <= int(last):
                return int(pid)
    return 0


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _is_damage(error: Exception) -> bool:
    """Whether the bytes themselves are wrong; all else (busy, full, not allowed) may pass."""
    return type(error) is sqlite3.DatabaseError or "Could not decode to UTF-8" in str(error)


def _text(value: object) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _entry(row: tuple[Any, ...]) -> Entry:
    position, stream, seq, fence, kind, at, actor, inputs, outputs, body, key, prev, digest = row
    try:
        return Entry(
            position, stream, seq, fence, kind, at, actor, tuple(json.loads(inputs)), tuple(json.loads(outputs)),
            json.loads(body), key, prev, digest,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise MalformedEntryError(
            f"entry/{position} is not what was written: {error}. See: gyrostat audit verify",
            entry=position,
        ) from error
