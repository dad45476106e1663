"""Read a table exactly as it is: every value as the text in the file, and nothing guessed without a word."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat.data.settings import SourceSettings
from gyrostat.errors import DataError, UsageError

if TYPE_CHECKING:
    import polars

SEPARATORS = (",", ";", "\t", "|")
SAMPLE_LINES = 400
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
HANGUL = re.compile("[가-힣ㄱ-ㅎㅏ-ㅣ]")


@dataclass(frozen=True)
class Sniffed:
    """How a table is to be read, and what was noticed on the way."""

    settings: SourceSettings
    notes: tuple[str, ...]


def is_parquet(path: Path, settings: SourceSettings | None = None) -> bool:
    """Whether the file is a Parquet table, by its declared format or its first bytes."""
    if settings is not None and settings.format:
        return settings.format == "parquet"
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _bytes(path: Path) -> bytes:
    if not path.exists():
        raise UsageError(f"There is no file {path}. Nothing was done.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; a CSV or Parquet file is needed. Nothing was done.")
    content = path.read_bytes()
    if not content.strip():
        raise DataError(f"{path.name} is empty: no header and no rows. Nothing was done.")
    return content


def decode(content: bytes, name: str) -> tuple[str, str]:
    """`(text, encoding)`: UTF-8 if it is, else cp949 where that gives Korean, else Western."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16"), "utf-16"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    else:
        return text, "utf-8"
    try:
        korean = content.decode("cp949")
    except UnicodeDecodeError:
        korean = ""
    foreign = [c for c in korean if ord(c) > 127]
    if foreign and sum(bool(HANGUL.match(c)) for c in foreign) > 0.9 * len(foreign):
        return korean, "cp949"
    try:
        return content.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        return content.decode("latin-1"), "latin-1"


def sniff(path: Path) -> Sniffed:
    """Find out how to read `path`.

    Raises:
        UsageError: there is no such file.
        DataError: it is empty, or no table can be seen in it.
    """
    content = _bytes(path)
    if is_parquet(path):
        return Sniffed(SourceSettings(path=str(path), format="parquet"), ("Parquet",))
    if b"\0" in content[:100_000] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path.name} holds NUL bytes: it is no text table. Nothing was done.")
    text, encoding = decode(content, path.name)
    notes = [
        encoding.upper().replace("CP", "cp")
        + (" with its mark" if content.startswith(b"\xef\xbb\xbf") else "")
    ]
    lines = text.splitlines(keepends=True)
    skip = 0
    while skip < len(lines) and (not lines[skip].strip() or lines[skip].lstrip().startswith("#")):
        skip += 1
    if skip == len(lines):
        raise DataError(f"{path.name} holds only comments and empty lines. Nothing was done.")
    if skip:
        notes.append(
            f"lines 1 to {skip} were skipped (comments or empty); the header is line {skip + 1}"
        )
    sample = "".join(lines[skip : skip + SAMPLE_LINES])
    separator = _separator(sample, is_cut=len(lines) > skip + SAMPLE_LINES)
    notes.append(f'separated by "{separator}"' if separator != "\t" else "separated by tabs")
    settings = SourceSettings(
        path=str(path), encoding=encoding, separator=separator, skip_lines=skip
    )
    decimal, thousands = _decimal(sample, separator)
    if decimal == ",":
        notes.append("decimal comma" + (', "." between thousands' if thousands else ""))
    return Sniffed(replace(settings, decimal=decimal, thousands=thousands), tuple(notes))


def _separator(sample: str, *, is_cut: bool) -> str:
    best: tuple[float, int, str] = (0.0, 0, ",")
    for separator in SEPARATORS:
        records = [r for r in csv.reader(io.StringIO(sample), delimiter=separator) if r]
        if is_cut and len(records) > 2:
            records.pop()
        if not records:
            continue
        width = len(records[0])
        same = sum(len(r) == width or (len(r) == width + 1 and r[-1] == "") for r in records) / len(
            records
        )
        if width > 1 and (same, width) > best[:2]:
            best = (same, width, separator)
    return best[2]


def _decimal(sample: str, separator: str) -> tuple[str, str]:
    if separator == ",":
        return ".", ""
    cells = [c.strip() for r in csv.reader(io.StringIO(sample), delimiter=separator) for c in r]
    comma = [c for c in cells if re.fullmatch(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+", c)]
    point = [
        c
        for c in cells
        if re.fullmatch(r"[+-]?\d+\.\d+", c) and not re.fullmatch(r"[+-]?\d{1,3}\.\d{3}", c)
    ]
    if len(comma) <= len(point):
        return ".", ""
    return ",", "." if any("." in c for c in comma) else ""


def read(path: Path, settings: SourceSettings) -> polars.DataFrame:
    """All columns as text (null: an empty field), numbers in plain form (a point, no thousands).

    Raises:
        UsageError: there is no such file.
        DataError: ragged lines, no header, names that stand twice, wrong encoding.
    """
    import polars as pl

    content = _bytes(path)
    if is_parquet(path, settings):
        return _parquet(path, content)
    try:
        text = content.decode("utf-8-sig" if settings.encoding == "utf-8" else settings.encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(
            f"{path.name} is not {settings.encoding}: {error}. Set data.source.encoding. Nothing was done."
        ) from error
    if settings.skip_lines:
        text = "".join(text.splitlines(keepends=True)[settings.skip_lines :])
    try:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=settings.separator, strict=True
        )
        records = [(reader.line_num, r) for r in reader if r]
    except csv.Error as error:
        raise DataError(
            f"{path.name} cannot be read as a table: {error}. Nothing was done."
        ) from error
    (_, header), rows = records[0], records[1:]
    names = _names(header, path.name)
    if not rows:
        raise DataError(f"{path.name} has {len(names)} columns and no rows. Nothing was done.")
    width = len(names)
    if all(len(r) == width + 1 and r[-1] == "" for _, r in rows):
        rows = [(n, r[:-1]) for n, r in rows]
    ragged = [(n + settings.skip_lines, len(r)) for n, r in rows if len(r) != width]
    if ragged:
        line, found = ragged[0]
        raise DataError(
            f"{path.name}: {len(ragged)} of {len(rows)} rows have not {width} fields as the header has; first at line {line}, "
            f"which has {found}. Quote fields that hold the separator, or set data.source.separator. Nothing was done.",
            rows=len(ragged), line=line,
        )  # fmt: skip
    columns = [
        [v if v != "" else None for v in column]
        for column in zip(*(r for _, r in rows), strict=True)
    ]
    frame = pl.DataFrame(
        dict(zip(names, columns, strict=True)), schema=dict.fromkeys(names, pl.String)
    )
    return (
        _plain_numbers(frame, settings) if settings.decimal == "," or settings.thousands else frame
    )


def has_trailing_separator(path: Path, settings: SourceSettings) -> bool:
    """Whether data lines end with one separator more than the header has."""
    if is_parquet(path, settings):
        return False
    text = decode(_bytes(path), path.name)[0]
    lines = text.splitlines(keepends=True)[settings.skip_lines : settings.skip_lines + SAMPLE_LINES]
    records = [
        r for r in csv.reader(io.StringIO("".join(lines)), delimiter=settings.separator) if r
    ]
    return len(records) > 1 and all(
        len(r) == len(records[0]) + 1 for r in records[1:-1] or records[1:]
    )


def _names(header: list[str], file: str) -> list[str]:
    trimmed = [name.strip() for name in header]
    values = [name for name in trimmed if name]
    if values and all(NUMBER.fullmatch(name.replace(",", ".")) for name in values):
        raise DataError(
            f"The first line of {file} looks like values, not names ({', '.join(values[:5])}), so no column can be named. "
            "Put a line of names above it. Nothing was done."
        )
    names = [name or f"column {n}" for n, name in enumerate(trimmed, 1)]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        places = [str(n) for n, name in enumerate(names, 1) if name == twice[0]]
        raise DataError(
            f"{file} has {len(places)} columns named {twice[0]!r} (columns {', '.join(places)}). "
            "Give each a name of its own. Nothing was done.",
            columns=twice,
        )
    return names


def _plain_numbers(frame: polars.DataFrame, settings: SourceSettings) -> polars.DataFrame:
    """Numbers as others write them; a column counts as numbers only if every value of it is one."""
    import polars as pl

    thousands = re.escape(settings.thousands)
    group = rf"(?:\d{{1,3}}(?:{thousands}\d{{3}})+|\d+)" if settings.thousands else r"\d+"
    form = rf"^\s*[+-]?{group}(?:{re.escape(settings.decimal)}\d+)?\s*$"
    plain = []
    for name in frame.columns:
        values = frame[name].drop_nulls()
        is_number = (
            len(values) > 0
            and values.str.contains(form).all()
            and values.str.contains(re.escape(settings.decimal)).any()
        )
        if is_number:
            column = pl.col(name).str.strip_chars()
            if settings.thousands:
                column = column.str.replace_all(settings.thousands, "", literal=True)
            plain.append(column.str.replace(settings.decimal, ".", literal=True))
    return frame.with_columns(plain)


def _parquet(path: Path, content: bytes) -> polars.DataFrame:
    import polars as pl

    try:
        frame = pl.read_parquet(io.BytesIO(content))
    except Exception as error:  # polars raises several kinds, and pyo3 panics are among them
        raise DataError(
            f"{path.name} cannot be read as Parquet: {str(error).splitlines()[0]}. Nothing was done."
        ) from error
    if frame.height == 0:
        raise DataError(f"{path.name} has {frame.width} columns and no rows. Nothing was done.")
    return frame.select([_as_text(frame[name]) for name in frame.columns])


def _as_text(column: Any) -> Any:
    import polars as pl

    kind = column.dtype
    if kind == pl.Boolean:
        texts = [None if v is None else str(v) for v in column.to_list()]
    elif kind == pl.Float32:
        texts = [
            None if v is None or v != v else repr(float(v))
            for v in column.cast(pl.Float64).to_list()
        ]
    elif kind == pl.Float64:
        texts = [
            None
            if v is None or v != v
            else (str(int(v)) if v.is_integer() and abs(v) < 2**53 else repr(v))
            for v in column.to_list()
        ]
    elif kind == pl.Decimal:
        texts = [None if v is None else repr(float(v)) for v in column.to_list()]
    elif kind.is_temporal():
        texts = [None if v is None else v.isoformat() for v in column.to_list()]
    elif kind in (pl.List, pl.Struct, pl.Binary, pl.Object):
        raise DataError(
            f"Column {column.name!r} is {kind}; a table of plain values is needed. Nothing was done."
        )
    else:
        texts = column.cast(pl.String).to_list()
    return pl.Series(column.name, texts, dtype=pl.String)
