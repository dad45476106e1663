"""A table larger than memory, in pieces: cut at the same places each time, so that work on it can be taken up again."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from gyrostat.data import columnar, dialect, encodings, names, records
from gyrostat.data.settings import SourceSettings
from gyrostat.errors import DataError, UsageError

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 8 * 2**20
"""Of text, unpacked; a piece ends with the last whole record in it."""
PIECE_ROWS = 2**17
PIECE_CELLS = 2**21
"""A piece of a wide table has fewer rows."""
_LONGEST = 64 * 2**20
_HEAD = 2**20


@dataclass(slots=True)
class Piece:
    """Some rows in a row. Texts are as in the file, null for the empty field; what has a type in the file keeps it."""

    frame: pl.DataFrame
    faults: dict[int, str] = field(default_factory=dict)
    """Rows, counted from 0, that are no rows of this table, with the reason; their cells are null."""


class RawPiece(Protocol):
    """A piece before it is parsed, which another thread may do."""

    def parse(self) -> Piece:
        """Its rows."""
        ...


class Stream(Protocol):
    """A table in pieces. `pieces` may be called once."""

    columns: tuple[str, ...]
    n_rows: int | None
    """Where the file says it."""

    @property
    def done(self) -> float:
        """Share of the table that `pieces` has read."""
        ...

    def pieces(self) -> Iterator[RawPiece]:
        """Bounds of pieces depend on the table alone."""
        ...


def open_stream(path: Path, wanted: frozenset[str], source: SourceSettings) -> Stream:
    """The table at `path`, of which only the `wanted` columns need to be read.

    A text table is read in the declared dialect if the declared source is one, else as it looks.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        DataError: it is no table, or a kind of table that is not read in pieces.
    """
    if not path.is_file():
        what = "is a folder; one file is needed" if path.is_dir() else "is not there"
        raise UsageError(f"{path} {what}. Nothing was done.", path=str(path))
    try:
        with path.open("rb") as file:
            head = file.read(4)
        if head.startswith(b"PAR1"):
            return ParquetStream(path, wanted)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            raise DataError(f"{path.name} is a zip file; unpack it first. Nothing was done.")
        return _text_stream(path, wanted, source)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}. Nothing was done."
        ) from error


def piece_rows(n_columns: int) -> int:
    """Rows of a piece of so many columns."""
    return max(1024, min(PIECE_ROWS, PIECE_CELLS // max(1, n_columns)))


# ---- tables that are there whole, and Parquet ----------------------------------------------------


@dataclass(slots=True)
class _Frame:
    frame: pl.DataFrame

    def parse(self) -> Piece:
        return Piece(self.frame)


class FrameStream:
    """A table that is in memory already."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        self.columns = tuple(frame.columns)
        self.n_rows: int | None = frame.height
        self.done = 0.0

    def pieces(self) -> Iterator[RawPiece]:
        """Slices of it."""
        step = piece_rows(self._frame.width)
        for start in range(0, self._frame.height, step):
            self.done = min(1.0, (start + step) / self._frame.height)
            yield _Frame(self._frame.slice(start, step))


class ParquetStream:
    """A Parquet file, a few pages of each column in memory."""

    def __init__(self, path: Path, wanted: frozenset[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._name = path.name
        try:
            # Without a buffer a whole row group is read ahead, and a row group may be the whole file.
            self._file = pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
            stored = self._file.schema_arrow.names
        except (pa.ArrowException, ValueError) as error:
            raise self._broken(error) from error
        self.columns = names.named(stored, path.name).all
        self._stored = {own: name for own, name in zip(self.columns, stored, strict=True) if own in wanted}  # fmt: skip
        self.n_rows: int | None = self._file.metadata.num_rows
        self.done = 0.0

    def pieces(self) -> Iterator[RawPiece]:
        """Record batches; their bounds depend on the file alone."""
        import polars as pl
        import pyarrow as pa

        step = piece_rows(len(self._stored))
        n_done = 0
        try:
            for batch in self._file.iter_batches(step, columns=list(self._stored.values())):
                n_done += batch.num_rows
                self.done = n_done / max(1, self.n_rows or 1)
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield _Frame(frame.select(**{own: pl.col(of) for own, of in self._stored.items()}))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> DataError:
        first = str(error).strip().partition("\n")[0]
        return DataError(f"{self._name} cannot be read as Parquet: {first}. Is it whole?")


# ---- text ----------------------------------------------------------------------------------------


def _text_stream(path: Path, wanted: frozenset[str], source: SourceSettings) -> Stream:
    head = b""
    bytes_of = _Bytes(path)
    for block in bytes_of.blocks(_HEAD):
        head = block
        break
    is_whole = len(head) < _HEAD
    if not head.removeprefix(encodings.MARK).strip():
        raise DataError(f"{path.name} is empty: no header and no rows. Nothing was done.")
    is_declared = source.format in ("", "csv") and not source.path.endswith(".parquet")
    settings = source if is_declared else SourceSettings(source.path)
    # The last line of the head may be cut, and a character with it.
    sample = head if is_whole else head[: head.rfind(b"\n") + 1] or head
    encoding = settings.encoding if is_declared else encodings.judge(sample, path.name)
    text = encodings.in_utf8(sample, encoding, path.name)
    settings = replace(settings, encoding=encoding)
    if columnar.is_json_lines(text):
        return JsonStream(path, wanted, settings)
    if not is_declared:
        seen = dialect.seen(text, path.name)
        settings = replace(settings, separator=seen.separator, skip_lines=seen.skip_lines)
    return CsvStream(path, wanted, settings, text)


class _Bytes:
    """The bytes of a file in blocks, unpacked where it is a gzip."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self.done = 0.0

    def blocks(self, size: int) -> Iterator[bytes]:
        with self._path.open("rb") as raw:
            is_packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file: IO[bytes] = gzip.GzipFile(fileobj=raw) if is_packed else raw  # type: ignore[assignment]
            try:
                while block := file.read(size):
                    self.done = min(1.0, raw.tell() / max(1, self._size))
                    yield block
            except (EOFError, OSError, zlib.error) as error:
                raise DataError(
                    f"{self._path.name} cannot be read to its end: {error}. Is it whole?"
                ) from error

    def utf8(self, encoding: str) -> Iterator[bytes]:
        """The text in UTF-8 without a mark."""
        if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
            for n, block in enumerate(self.blocks(BLOCK_BYTES)):
                yield block if n else block.removeprefix(encodings.MARK)
            return
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            for n, block in enumerate(self.blocks(BLOCK_BYTES)):
                text = decoder.decode(block)
                yield (text if n else text.removeprefix("\ufeff")).encode()
            yield decoder.decode(b"", final=True).encode()
        except UnicodeError as error:
            raise DataError(
                f"{self._path.name} is not {encoding}: {getattr(error, 'reason', error)}. Set data.source.encoding, or write it in one."
            ) from error


class _TextStream:
    columns: tuple[str, ...]
    n_rows: int | None = None

    def __init__(self, path: Path, settings: SourceSettings) -> None:
        self._name, self._settings = path.name, settings
        self._bytes = _Bytes(path)

    @property
    def done(self) -> float:
        """Share of the file's bytes that were read."""
        return self._bytes.done

    def _whole_records(self, separator: str) -> Iterator[bytes]:
        """Blocks that end where a record does."""
        left = b""
        for block in self._bytes.utf8(self._settings.encoding):
            encodings.no_binary(block, self._name)
            left += block
            end = _last_end(left, separator)
            if end:
                yield left[:end]
                left = left[end:]
            elif len(left) > _LONGEST:
                raise DataError(
                    f"{self._name} has a record of more than {_LONGEST // 2**20} MB: is a quote opened and never closed?"
                )
        if left.strip():
            yield left


def _last_end(text: bytes, separator: str) -> int:
    """Where the last whole record ends; 0: none does. The text begins with a record."""
    end = text.rfind(b"\n") + 1
    if not separator or b'"' not in text:
        return end
    mark = re.escape(separator.encode())
    # A quote opens a field at its beginning only; elsewhere it is a character as any other.
    quoted = re.compile(rb"(?:^|[\r\n]|" + mark + rb')"[^"]*(?:""[^"]*)*(?:"|\Z)')
    spans = [(m.start() + 1, m.end()) for m in quoted.finditer(text)]
    while end and spans:
        while spans and spans[-1][0] >= end:
            spans.pop()
        if not spans or spans[-1][1] < end:
            break
        end = text.rfind(b"\n", 0, spans[-1][0]) + 1
    return end


class CsvStream(_TextStream):
    """A text table in a dialect that is known."""

    def __init__(
        self, path: Path, wanted: frozenset[str], settings: SourceSettings, head: bytes
    ) -> None:
        super().__init__(path, settings)
        self._skip, header = _header(head, settings, path.name)
        self.columns = names.named(header, path.name).all
        self._wanted = wanted

    def pieces(self) -> Iterator[RawPiece]:
        """Blocks of whole lines."""
        to_skip = self._skip
        for body in self._whole_records(self._settings.separator):
            start = 0
            while to_skip and start < len(body):
                start = body.find(b"\n", start) + 1 or len(body)
                to_skip -= 1
            if body[start:].strip():
                yield _Csv(body[start:], self._settings, self.columns, self._wanted, self._name)


def _header(head: bytes, settings: SourceSettings, name: str) -> tuple[int, list[str]]:
    """`(lines above the first row, names)`."""
    text = io.TextIOWrapper(io.BytesIO(head), encoding="utf-8", newline="", errors="replace")
    for _ in range(settings.skip_lines):
        text.readline()
    reader = csv.reader(text, delimiter=settings.separator, strict=True)
    try:
        header = next((record for record in reader if record), [])
    except csv.Error as error:
        raise DataError(f"{name} has no line of names that can be read: {error}.") from error
    if not header:
        raise DataError(f"{name} has no line of names. Nothing was done.")
    if settings.header:
        return settings.skip_lines + reader.line_num, header
    return settings.skip_lines, [f"column {n}" for n in range(1, len(header) + 1)]


@dataclass(slots=True)
class _Csv:
    body: bytes
    settings: SourceSettings
    columns: tuple[str, ...]
    wanted: frozenset[str]
    name: str

    def parse(self) -> Piece:
        settings = replace(self.settings, header=False, skip_lines=0)
        quick = records.quickly(self.body, settings)
        if quick is not None and len(quick[0]) == len(self.columns):
            frame = quick[1]
            frame.columns = list(self.columns)
            return Piece(frame.select(c for c in self.columns if c in self.wanted))
        return self._carefully()

    def _carefully(self) -> Piece:
        import polars as pl

        csv.field_size_limit(2**31 - 1)
        width, rows, faults = len(self.columns), [], {}
        text = io.TextIOWrapper(io.BytesIO(self.body), encoding="utf-8", newline="")
        try:
            for record in csv.reader(text, delimiter=self.settings.separator, strict=True):
                if not record:
                    continue
                if len(record) == width + 1 and record[-1] == "":
                    record.pop()
                if len(record) != width:
                    faults[len(rows)] = f"the row has {len(record)} fields, the header has {width}"
                    record = [""] * width
                rows.append(record)
        except csv.Error as error:
            raise DataError(f"{self.name} cannot be read as a table: {error}.") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.name} is not UTF-8 all through: {error.reason}. Set data.source.encoding."
            ) from error
        columns = zip(*rows, strict=True)
        return Piece(
            pl.DataFrame([
                pl.Series(name, [v or None for v in cells], dtype=pl.String)
                for name, cells in zip(self.columns, columns, strict=True) if name in self.wanted
            ]), faults,
        )  # fmt: skip


class JsonStream(_TextStream):
    """JSON lines. Its columns are the keys of the first piece, for no line says which there are."""

    def __init__(self, path: Path, wanted: frozenset[str], settings: SourceSettings) -> None:
        super().__init__(path, settings)
        self._wanted = wanted
        keys: dict[str, None] = {}
        for body in self._whole_records(""):
            for line in body.split(b"\n"):
                keys.update(dict.fromkeys(_record(line)[0]))
            break
        self.columns = tuple(keys)
        self._bytes = _Bytes(path)

    def pieces(self) -> Iterator[RawPiece]:
        """Blocks of whole lines."""
        for body in self._whole_records(""):
            yield _JsonLines(body, tuple(sorted(self._wanted)))


@dataclass(slots=True)
class _JsonLines:
    body: bytes
    columns: tuple[str, ...]

    def parse(self) -> Piece:
        import polars as pl

        cells: dict[str, list[str | None]] = {name: [] for name in self.columns}
        faults: dict[int, str] = {}
        n = 0
        for line in self.body.split(b"\n"):
            if not line.strip():
                continue
            record, fault = _record(line)
            for name in self.columns:
                value = record.get(name)
                if isinstance(value, (list, dict)):
                    fault = fault or f"{name!r} holds a list or an object; a plain value is needed"
                    value = None
                cells[name].append(None if value in (None, "") else str(value))
            if fault:
                faults[n] = fault
            n += 1
        return Piece(pl.DataFrame([pl.Series(k, v, dtype=pl.String) for k, v in cells.items()]), faults)  # fmt: skip


def _record(line: bytes) -> tuple[dict[str, Any], str]:
    """`(the record, why it is none)`; numbers stay in the file's spelling."""
    if not line.strip():
        return {}, ""
    try:
        value = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        return {}, f"the line is no JSON: {str(error).partition(': line')[0]}"
    return (value, "") if isinstance(value, dict) else ({}, "the line is no JSON object")
