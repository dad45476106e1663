"""Append-only segments of JSON lines with one hash chain over all of them: `observations/<model>/<n>.seg`.

Each line is an object with a last key `chain`: the SHA-256 of the chain before it and of the line without that key. An
append is one write and one fsync, and ends with a *mark*: a line `{"mark": {...}, "top": n}` that says up to where its
author had read, and the highest routes seq so far. What stands after the last mark is a torn append: it is cut away by the
next one and never read. A line that is not what was written, with more than the last append behind it, is damage: it is
kept as it is, and never read past.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gyrostat_runtime.files import sync_folder

from gyrostat.errors import DamagedError

GENESIS = "0" * 64
SEGMENT_BYTES = 16_000_000
_JOINT = b',"chain":"'
_SEAL = len(_JOINT) + 64 + len('"}')


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the segments: what `read` goes on from, and what evidence points at."""

    segment: int = 0
    offset: int = 0
    chain: str = GENESIS

    def as_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {"segment": self.segment, "offset": self.offset, "chain": self.chain}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Place:
        """Read what `as_json` wrote."""
        return cls(value["segment"], value["offset"], value["chain"])


class Segments:
    """The one writer of a folder; lives in the monitor. Readers use `read`."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open, find the last mark, and cut what was torn after it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._segment_bytes = segment_bytes
        self.mark: dict[str, Any] = {}
        """What the last append said about itself."""
        self.cut_bytes = 0
        self._top: int | None = 0
        self.place = self._recover()
        if self._top is None:  # a release wrote it that did not say so
            self._top = max((line.get("routes_seq", 0) for line, _ in read(folder)), default=0)

    def _recover(self) -> Place:
        numbers = _numbers(self.folder)
        for number in reversed(numbers):
            path = _path(self.folder, number)
            data = path.read_bytes()
            marks, bad = _marks(data)
            if bad is not None and _is_torn(marks, bad):
                marks = [found for found in marks if found[0] <= bad]
            size = len(data)
            if not marks:  # nothing whole was ever written here
                self.cut_bytes += size
                path.unlink()
                continue
            mark_end, chain, mark, top = marks[-1]
            self.cut_bytes += size - mark_end
            if mark_end < size:
                os.truncate(path, mark_end)
            self.mark, self._top = mark, top
            return Place(number, mark_end, chain)
        return Place()

    def append(self, lines: Iterable[dict[str, Any]], mark: dict[str, Any]) -> Place:
        """Write lines and their mark, durably and as one; the place after them.

        Raises:
            OSError: the disk does not take it. Nothing counts as written; append the same again.
        """
        lines = list(lines)
        top = max([self._top or 0, *(line.get("routes_seq", 0) for line in lines)])
        chain, parts = self.place.chain, []
        for value in [*lines, {"mark": mark, "top": top}]:
            raw, chain = _sealed(value, chain)
            parts.append(raw)
        data = b"".join(parts)
        is_new = not self.place.segment or self.place.offset + len(data) > self._segment_bytes
        number, offset = (
            (self.place.segment + 1, 0) if is_new else (self.place.segment, self.place.offset)
        )
        path = _path(self.folder, number)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(file, offset)
            os.lseek(file, offset, os.SEEK_SET)
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fdatasync(file)
        finally:
            os.close(file)
        if is_new:
            sync_folder(self.folder)
        self.mark, self._top = mark, top
        self.place = Place(number, offset + len(data), chain)
        return self.place


def read(folder: Path, since: Place | None = None) -> Iterator[tuple[dict[str, Any], Place]]:
    """Lines that are safe (a mark follows them), in order, from `since` on, each with the place after it.

    Marks themselves are left out. Safe to call while the monitor appends. The chain is followed from `since`; where there
    is nothing to follow it from (older segments were pruned, or taken aside), the first line is taken at its word.

    Raises:
        DamagedError: a line is not what was written; those before it were given.
    """
    place = since or Place()
    is_known = place.chain != GENESIS or place.segment <= 1
    chain, before = place.chain, place.segment
    numbers = [n for n in _numbers(folder) if n >= place.segment]
    for number in numbers:
        start = place.offset if number == place.segment else 0
        try:
            with _path(folder, number).open("rb") as file:
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            continue
        is_known = is_known and number <= before + 1
        before = number
        waiting: list[tuple[dict[str, Any], Place]] = []
        for line, end in _lines(data, 0):
            value, told = _opened(line, chain if is_known else None)
            if value is None:
                marks, _ = _marks(data)
                if number == numbers[-1] and _is_torn(marks, end):
                    return  # an append that was cut in the middle: the monitor takes it away
                raise _damaged(folder, number, start + end - len(line) - 1)
            chain, is_known = told, True
            if "mark" in value:
                yield from waiting
                waiting = []
            else:
                waiting.append((value, Place(number, start + end, told)))


def _opened(line: bytes, chain: str | None) -> tuple[dict[str, Any] | None, str]:
    """A line's value without its `chain`, and that chain; None: it is not what was written after `chain` (None: unknown)."""
    body, seal = line[:-_SEAL], line[-_SEAL:]
    told = seal[len(_JOINT) : -2]
    if not seal.startswith(_JOINT) or not seal.endswith(b'"}'):
        return None, ""
    if chain is not None and hashlib.sha256(chain.encode() + body + b"}").hexdigest() != told.decode("latin-1"):  # fmt: skip
        return None, ""
    try:
        value = json.loads(body + b"}")
    except ValueError:
        return None, ""
    return (value, told.decode()) if isinstance(value, dict) else (None, "")


_Mark = tuple[int, str, dict[str, Any], int | None]
"""Where a mark ends, its chain, what it says, and the highest routes seq up to it."""


def _marks(data: bytes) -> tuple[list[_Mark], int | None]:
    """Every mark, and where the first line that is no JSON object begins."""
    marks, bad, at = [], None, 0
    for line, end in _lines(data, 0):
        try:
            value = json.loads(line)
            if "mark" in value:
                marks.append((end, value["chain"], value["mark"], value.get("top")))
        except (ValueError, KeyError, TypeError):
            bad = at if bad is None else bad
        at = end
    return marks, bad


def _is_torn(marks: list[_Mark], bad: int) -> bool:
    """Whether a line at `bad` belongs to the last append, which alone can be cut by a kill or a power cut."""
    return sum(end > bad for end, *_ in marks) <= 1


def _damaged(folder: Path, number: int, offset: int) -> DamagedError:
    name = f"{folder.parent.name}/{folder.name}/{number:08}.seg"
    return DamagedError(
        f"{name} is not what was written from byte {offset} on: nothing is judged by what stands there. Bring the file back from "
        f"a backup, or go on without it: mv {name} {name}.damaged",
        file=name,
        offset=offset,
    )


def start_of(folder: Path, seq: int) -> Place:
    """A place before the first line of routes `seq` or later, at most a segment before it; little is read to find it."""
    for number in reversed(_numbers(folder)):
        top = _first_top(_path(folder, number))
        if top is not None and top < seq:
            return Place(number)
    return Place()


def _first_top(path: Path) -> int | None:
    """The highest routes seq up to the end of a segment's first append; None where that is not said."""
    try:
        with path.open("rb") as file:
            for line in file:
                if b'"mark"' in line and "mark" in (value := json.loads(line)):
                    return value.get("top")
    except (OSError, ValueError):
        pass
    return None


def holds(folder: Path, place: Place) -> bool:
    """Whether that place is still there: a line ends at it, with its chain."""
    if not place.segment:
        return True
    try:
        with _path(folder, place.segment).open("rb") as file:
            line = file.read(place.offset)[:-1].rpartition(b"\n")[2]
            return file.tell() == place.offset and json.loads(line)["chain"] == place.chain
    except (OSError, ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True, slots=True)
class Broken:
    """The first line that is not what its author wrote."""

    segment: int
    line: int


def prune(folder: Path, before: float) -> int:
    """Delete segments last written before the time `before`, the newest two excepted; how many went.

    The chain of what stays is whole, and goes on from the digest of what went.
    """
    gone = 0
    for number in _numbers(folder)[:-2]:
        if _path(folder, number).stat().st_mtime >= before:
            break
        _path(folder, number).unlink()
        gone += 1
    return gone


def verify(folder: Path) -> tuple[int, Broken | None]:
    """Follow the chain from the first line: how many lines are whole, and the first that is not (None: all are).

    A torn end is not a fault; a changed, missing or added line is. Where old segments were pruned, the first line that
    is left is taken at its word.
    """
    chain, n = GENESIS, 0
    numbers = _numbers(folder)
    is_pruned = bool(numbers) and numbers[0] > 1
    for number in numbers:
        data = _path(folder, number).read_bytes()
        for n_line, (line, _) in enumerate(_lines(data, 0), 1):
            try:
                value = json.loads(line)
                found = value.pop("chain")
            except (ValueError, KeyError, AttributeError):
                return n, Broken(number, n_line)
            _, chain = _sealed(value, chain)
            if is_pruned:
                chain, is_pruned = found, False
            if found != chain:
                return n, Broken(number, n_line)
            n += 1
    return n, None


def evidence(place: Place, first: Place | None = None) -> str:
    """The digest by which an entry points at the lines between two places: the chain at its end, and the range."""
    first = first or Place()
    return f"{place.chain}:{first.segment}.{first.offset}-{place.segment}.{place.offset}"


def _sealed(value: dict[str, Any], before: str) -> tuple[bytes, str]:
    body = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    chain = hashlib.sha256(f"{before}{body}".encode("utf-8", "surrogatepass")).hexdigest()
    joint = "," if value else ""
    return f'{body[:-1]}{joint}"chain":"{chain}"}}\n'.encode("utf-8", "surrogatepass"), chain


def _lines(data: bytes, at: int) -> Iterator[tuple[bytes, int]]:
    while (end := data.find(b"\n", at)) >= 0:
        yield data[at:end], end + 1
        at = end + 1


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.seg"


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.seg") if path.stem.isdigit())
