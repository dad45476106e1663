"""Requests that a process has in its hands, counted by arm in memory that outlives it.

A process that is killed says nothing any more. So it counts in a file that it has mapped: once before a model is asked,
once more when what came of it was handed to the log. Whoever finds the file without a living owner reads the difference,
which is what that process owed. Counting is an addition in memory, without a lock or a system call: each slot has one
thread that writes it. A lock of the kernel's on the file says whether the owner lives.

The file is 256 bytes of head (magic, `since`, beats, boot), then slots of 256 bytes: begun, ended, routes seq, length of a
text, the text `arm`, newline, `bundle`. Numbers have eight bytes in the machine's own order.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = int.from_bytes(b"GYRFLT1\n", "little")
_N_SLOTS = 63
_CELLS = 32
"""Of a slot, and of the head; a slot never crosses a page, so its two counts are always of one moment."""
_SIZE = _CELLS * 8 * (1 + _N_SLOTS)
_SINCE, _BEATS, _BOOT = 1, 2, 8
_BEGUN, _ENDED, _SEQ, _LENGTH, _TEXT = 0, 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Debt:
    """Requests of one arm that were begun and never answered."""

    routes_seq: int
    bundle: str
    arm: str
    n: int


@dataclass(frozen=True, slots=True)
class Left:
    """What a process left behind."""

    since: int
    debts: tuple[Debt, ...]


class Slot:
    """The counts of one arm. One thread begins and ends, always the same."""

    __slots__ = ("__weakref__", "_counts")

    def __init__(self, counts: memoryview) -> None:
        self._counts = counts

    def begin(self) -> None:
        """A model will be asked."""
        self._counts[_BEGUN] += 1

    def end(self) -> None:
        """What came of it was handed to the log."""
        self._counts[_ENDED] += 1


class InFlight:
    """The counts of this process.

    Without a path, or where the file cannot be made (a full disk, a living process of the same name), it counts for
    this process alone: nothing here fails a request.

    Args:
        since: A number that is larger for each process that takes the name of one which owed something.
    """

    def __init__(self, path: Path | None = None, *, since: int = 0) -> None:
        self.since, self._path, self._file = since, path, -1
        self._memory = self._make(path) if path is not None else mmap.mmap(-1, _SIZE)
        self._cells = memoryview(self._memory).cast("q")
        self._held: list[Callable[[], Slot | None]] = [_nobody] * _N_SLOTS
        self._cells[_SINCE] = since
        boot = _boot()
        self._memory[_BOOT * 8 : _BOOT * 8 + len(boot)] = boot
        self._cells[0] = _MAGIC

    def _make(self, path: Path) -> mmap.mmap:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Really written: on a full disk a hole would be met by SIGBUS when it is first counted in.
            if os.write(self._file, bytes(_SIZE)) == _SIZE:
                return mmap.mmap(self._file, _SIZE)
        except OSError:
            pass
        self.close()
        return mmap.mmap(-1, _SIZE)

    def slot(self, routes_seq: int, bundle: str, arm: str) -> Slot:
        """Where one arm is counted; it is free for another once nobody holds it and it owes nothing."""
        text = f"{arm}\n{bundle}".encode()[: (_CELLS - _TEXT) * 8]
        cells = self._cells
        for i, holder in enumerate(self._held):
            at = _CELLS * (1 + i)
            if holder() is None and cells[at + _BEGUN] == cells[at + _ENDED]:
                cells[at + _BEGUN] = cells[at + _ENDED] = 0
                cells[at + _SEQ], cells[at + _LENGTH] = routes_seq, len(text)
                start = (at + _TEXT) * 8
                self._memory[start : start + len(text)] = text
                slot = Slot(cells[at : at + 2])
                self._held[i] = weakref.ref(slot)
                return slot
        return Slot(memoryview(bytearray(16)).cast("q"))  # counted, and seen by nobody

    def beat(self) -> None:
        """The process turns."""
        self._cells[_BEATS] += 1

    def debts(self) -> tuple[Debt, ...]:
        """What this process owes now."""
        return _debts(self._memory[:])

    def close(self) -> None:
        """Nothing is owed any more, or it was said: the file goes."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                if self._path is not None:
                    self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


@contextlib.contextmanager
def left(path: Path) -> Iterator[Left | None]:
    """What a process that is gone left at `path`: None where there is nothing, or where it lives.

    The file goes when the block ends well, so a block that says what is owed says it at least once.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield _read(os.read(file, _SIZE))
        path.unlink(missing_ok=True)
    finally:
        os.close(file)


def beats(path: Path) -> int:
    """How often the process has turned; 0 where nobody says."""
    try:
        with path.open("rb") as file:
            head = file.read(_CELLS * 8)
    except OSError:
        return 0
    return memoryview(head).cast("q")[_BEATS] if len(head) == _CELLS * 8 else 0


def _read(data: bytes) -> Left | None:
    if len(data) != _SIZE:
        return None
    cells, boot = memoryview(data).cast("q"), _boot()
    if cells[0] != _MAGIC or data[_BOOT * 8 : _BOOT * 8 + len(boot)] != boot:
        # Half made; or of another boot, whose pages may be older than its log: what it owed is not known.
        return None
    return Left(cells[_SINCE], _debts(data))


def _debts(data: bytes) -> tuple[Debt, ...]:
    cells, found = memoryview(data).cast("q"), []
    for at in range(_CELLS, len(cells), _CELLS):
        n = cells[at + _BEGUN] - cells[at + _ENDED]
        if n > 0:
            start = (at + _TEXT) * 8
            text = data[start : start + cells[at + _LENGTH]].decode("utf-8", "replace")
            arm, _, bundle = text.partition("\n")
            found.append(Debt(cells[at + _SEQ], bundle, arm, n))
    return tuple(found)


def _boot() -> bytes:
    """What the kernel calls this boot; empty where it has no name for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()[:128]
    except OSError:
        return b""


def _nobody() -> None:
    return None
