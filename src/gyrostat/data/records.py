"""The records of a text table in UTF-8: each field as it is, each line of another width named."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gyrostat.data.names import MAX_COLUMNS, check_count
from gyrostat.data.settings import SourceSettings
from gyrostat.errors import DataError

if TYPE_CHECKING:
    import polars as pl

_BLOCK = 2**22
_CHUNK = 20_000
_QUOTE, _NEWLINE, _RETURN = b'"\n\r'


def quickly(body: bytes, settings: SourceSettings) -> tuple[list[str], pl.DataFrame] | None:
    """`(header, rows)` by the fast reader, where it is proved to read what `carefully` would; else None."""
    import polars as pl

    separator = settings.separator.encode()
    if len(separator) != 1:
        return None
    if b"\r" in body:
        n_returns = body.count(b"\r")
        if n_returns != body.count(b"\r\n"):
            return None
        if b'"' not in body:
            body = body.replace(b"\r\n", b"\n")
    start = 0
    for _ in range(settings.skip_lines):
        start = body.find(b"\n", start) + 1
        if not start:
            return None
    end = body.find(b"\n", start)
    head = body[start:end].removesuffix(b"\r")
    if end < 0 or b'"' in head or not head.strip():
        return None
    names = head.decode().split(settings.separator)
    n_skipped = settings.skip_lines + 1
    first = end + 1
    if not settings.header:
        names = [f"column {n}" for n in range(1, len(names) + 1)]
        n_skipped, first = settings.skip_lines, start
    if not 2 <= len(names) <= MAX_COLUMNS or first >= len(body):
        return None
    is_quoted = body.find(b'"', first) >= 0
    # The fast reader fills up a line with too few fields in silence, and drops an empty field too many.
    n_rows = _rows(memoryview(body)[first:], separator[0], len(names))
    if n_rows is None:
        return None
    try:
        frame = pl.read_csv(
            body, has_header=False, skip_lines=n_skipped, separator=settings.separator,
            quote_char='"' if is_quoted else None, infer_schema=False,
            schema={f"c{n}": pl.String for n in range(len(names))},
        )  # fmt: skip
    except pl.exceptions.PolarsError:
        return None
    if frame.height != n_rows:
        return None
    if is_quoted:
        frame = frame.with_columns(pl.when(pl.all() != "").then(pl.all()))
    return names, frame


def _rows(body: memoryview, separator: int, width: int) -> int | None:
    """How many rows there are; None where one has another width, or a quote is not at the edge of a field."""
    import numpy as np

    data = np.frombuffer(body, np.uint8)
    n_quotes = n_marks = 0
    before = _NEWLINE
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        after = data[start + _BLOCK] if start + _BLOCK < len(data) else _NEWLINE
        places = np.flatnonzero(block == _QUOTE)
        marks = np.flatnonzero((block == separator) | (block == _NEWLINE))
        if len(places):
            edges = np.concatenate(([before], block, [after])).astype(np.uint8, copy=False)
            opens = np.arange(n_quotes, n_quotes + len(places)) % 2 == 0
            left, right = edges[places[opens]], edges[places[~opens] + 2]
            if not np.isin(left, (separator, _NEWLINE, _QUOTE)).all():
                return None
            if not np.isin(right, (separator, _NEWLINE, _RETURN, _QUOTE)).all():
                return None
        if len(places) or n_quotes % 2:
            # How many quotes stand before each mark says whether it is inside.
            marks = marks[(np.searchsorted(places, marks) + n_quotes) % 2 == 0]
        # Outside quotes each `width`-th mark is the end of a line, and no other is.
        is_end = block[marks] == _NEWLINE
        ends = is_end[(width - 1 - n_marks) % width :: width]
        if not ends.all() or np.count_nonzero(is_end) != len(ends):
            return None
        n_quotes, n_marks, before = n_quotes + len(places), n_marks + len(marks), block[-1]
    if len(data) and data[-1] != _NEWLINE:
        n_marks += 1  # the end of the last line
    return None if n_quotes % 2 or n_marks % width else n_marks // width


def carefully(body: bytes, settings: SourceSettings, file: str) -> tuple[list[str], pl.DataFrame]:
    """`(header, rows)` by the strict reader of the standard library.

    Raises:
        DataError: quotes that never close, or rows of another width; names the line.
    """
    import polars as pl

    csv.field_size_limit(2**31 - 1)
    found = _numbered(body, settings, file)
    line, header = next(found, (0, []))
    if not header:
        raise DataError(f"{file} has no line of names. Nothing was done.")
    check_count(header, file)
    names, width = header, len(header)
    first: list[tuple[int, list[str]]] = []
    if not settings.header:
        names, first = [f"column {n}" for n in range(1, width + 1)], [(line, header)]
    schema = {f"c{n}": pl.String for n in range(width)}
    chunks: list[pl.DataFrame] = []
    rows: list[list[str]] = []
    n_rows = n_ragged = 0
    ragged: tuple[int, int] = (0, 0)

    def flush() -> None:
        columns = [[v or None for v in column] for column in zip(*rows, strict=True)]
        made = [pl.Series(n, v, dtype=pl.String) for n, v in zip(schema, columns, strict=True)]
        chunks.append(pl.DataFrame(made))
        rows.clear()

    for line, record in itertools.chain(first, found):
        n_rows += 1
        if len(record) == width + 1 and record[-1] == "":
            record.pop()
        if len(record) != width:
            n_ragged += 1
            ragged = ragged if n_ragged > 1 else (line, len(record))
            continue
        rows.append(record)
        if len(rows) == _CHUNK:
            flush()
    if n_ragged:
        raise _other_width(file, width, n_rows, n_ragged, *ragged)
    if rows:
        flush()
    return names, pl.concat(chunks) if chunks else pl.DataFrame(schema=schema)


def _numbered(body: bytes, settings: SourceSettings, file: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not blank, with the line of the file on which it starts."""
    text = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8", newline="")
    # Of all line ends, a lone CR too: Python's own reading of lines knows them, `newline=""` keeps them as they are.
    for _ in range(settings.skip_lines):
        text.readline()
    reader = csv.reader(text, delimiter=settings.separator, strict=True)
    before = 0
    try:
        for record in reader:
            if record:
                yield before + 1 + settings.skip_lines, record
            before = reader.line_num
    except csv.Error as error:
        line = before + 1 + settings.skip_lines
        what = str(error)
        if "unexpected end" in what:
            what = "a quote is opened and never closed"
        raise DataError(
            f"{file} cannot be read as a table: line {line}: {what}. Nothing was done.", line=line
        ) from error


def _other_width(
    file: str, width: int, n_rows: int, n_ragged: int, line: int, found: int
) -> DataError:
    hint = ""
    if found > 1 and n_ragged == n_rows:
        hint = f" If line {line} is the header, set data.source.skip_lines: {line - 1}."
    return DataError(
        f"{file}: {n_ragged:,} of {n_rows:,} rows have another number of fields than the {width} of the header; "
        f"the first is line {line} with {found}.{hint} Quote fields that hold the separator, or set "
        "data.source.separator. Nothing was done.",
        rows=n_ragged,
        line=line,
    )
