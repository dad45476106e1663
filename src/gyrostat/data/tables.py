"""Read a table exactly as it is: every value as the text in the file, and nothing guessed without a word."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat.data.settings import SourceSettings
from gyrostat.errors import DataError, UsageError

if TYPE_CHECKING:
    import polars as pl

SEPARATORS = (",", ";", "\t", "|")
SAMPLE_LINES = 400
_SAMPLE_CHARACTERS = 1_000_000
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|$)")
_MARKS = (b"\xff\xfe", b"\xfe\xff")
_ENCODINGS = {"utf-8": "UTF-8", "utf-16": "UTF-16", "latin-1": "Latin-1"}


@dataclass(frozen=True)
class Sniffed:
    """How a table is to be read, and what was noticed on the way."""

    settings: SourceSettings
    notes: tuple[str, ...]


def is_parquet(path: Path, settings: SourceSettings | None = None) -> bool:
    """Whether the file is a Parquet table, by its declared format or else its first bytes."""
    if settings is not None and settings.format:
        return settings.format == "parquet"
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def sniff(path: Path) -> Sniffed:
    """Find out how to read `path`.

    Raises:
        UsageError: there is no such file, or it is a folder.
        DataError: it is empty or binary, or its first line holds no names.
    """
    content = _content(path)
    if is_parquet(path):
        return Sniffed(SourceSettings(path=str(path), format="parquet"), ("Parquet",))
    text, encoding = _decode(content, path.name)
    notes = [_ENCODINGS.get(encoding, encoding)]
    if content.startswith(b"\xef\xbb\xbf"):
        notes[0] += " (with its mark)"
    lines = [m.group() for m in itertools.islice(_LINE.finditer(text), 2 * SAMPLE_LINES)]
    while lines and not lines[-1]:
        lines.pop()
    skip = _junk(lines)
    if skip == len(lines):
        raise DataError(f"{path.name} holds only comments and empty lines. Nothing was done.")
    separator = _separator(_records_of(lines[skip:], whole=len(lines) < 2 * SAMPLE_LINES))
    skip += _titles(lines[skip:], separator)
    if skip:
        which = "line 1 was" if skip == 1 else f"lines 1 to {skip} were"
        notes.append(f"{which} skipped (no part of the table); the header is line {skip + 1}")
    notes.append("separated by tabs" if separator == "\t" else f'separated by "{separator}"')
    settings = SourceSettings(path=str(path), encoding=encoding, separator=separator, skip_lines=skip)  # fmt: skip
    sample = list(csv.reader(lines[skip:], delimiter=separator))
    decimal, thousands = _decimal([cell.strip() for record in sample[1:] for cell in record])
    if decimal == ",":
        between = f', "{thousands}" between thousands' if thousands else ""
        notes.append("decimal comma" + between)
    notes += _about_header(sample)
    return Sniffed(replace(settings, decimal=decimal, thousands=thousands), tuple(notes))


def read(path: Path, settings: SourceSettings) -> pl.DataFrame:
    """All columns as text, exactly as in the file after decoding; null only for the empty field.

    Numbers with a decimal comma are the exception: they get a point and no thousands, as the rest of the house writes
    them. Column names are trimmed, and a blank one becomes `column <n>`. Parquet values become their canonical text: numbers
    with a point, dates in ISO 8601, booleans `True` and `False`.

    Raises:
        UsageError: there is no such file, or it is a folder.
        DataError: no rows, ragged lines, no header, names that stand twice, wrong encoding, binary content.
    """
    content = _content(path)
    if is_parquet(path, settings):
        return _parquet(path, content)
    _no_binary(content, path.name)
    try:
        text = content.decode("utf-8-sig" if settings.encoding == "utf-8" else settings.encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(
            f"{path.name} is not {settings.encoding}: {error}. Set data.source.encoding. Nothing was done."
        ) from error
    start = sum(len(m.group()) for m in itertools.islice(_LINE.finditer(text), settings.skip_lines))
    body = text[start:]
    try:
        quick = _read_quickly(body, settings)
        names, frame = quick or _read_carefully(body, settings, path.name)
    except csv.Error as error:
        raise DataError(
            f"{path.name} cannot be read as a table: {error}. Nothing was done."
        ) from error
    names = _names(names, path.name) if settings.header else names
    if frame.height == 0:
        raise DataError(f"{path.name} has {len(names)} columns and no rows. Nothing was done.")
    frame.columns = names
    last = frame.columns[-1]
    if settings.header and last == f"column {frame.width}" and frame[last].null_count() == frame.height:  # fmt: skip
        # Header and rows alike end with a separator.
        frame = frame.drop(last)
    return _with_points(frame, settings) if settings.decimal == "," else frame


# ---- bytes and text ------------------------------------------------------------------------------


def _content(path: Path) -> bytes:
    if not path.exists():
        raise UsageError(f"There is no file {path}. Nothing was done.", path=str(path))
    if not path.is_file():
        raise UsageError(
            f"{path} is a folder; a CSV or Parquet file is needed. Nothing was done.",
            path=str(path),
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Nothing was done.") from error
    if not content.removeprefix(b"\xef\xbb\xbf").strip():
        raise DataError(f"{path.name} is empty: no header and no rows. Nothing was done.")
    return content


def _no_binary(content: bytes, name: str) -> None:
    at = -1 if content.startswith(_MARKS) else content.find(b"\0")
    if at >= 0:
        line = content.count(b"\n", 0, at) + 1
        raise DataError(
            f"{name} holds a NUL byte at line {line}: it is no text table. Nothing was done.",
            line=line,
        )


def _decode(content: bytes, name: str) -> tuple[str, str]:
    """`(text, encoding)`: UTF-8 if it is, else cp949 where that gives Korean, else Western."""
    _no_binary(content, name)
    if content.startswith(_MARKS):
        try:
            return content.decode("utf-16"), "utf-16"
        except UnicodeDecodeError:
            pass
    try:
        return content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        pass
    try:
        korean = content.decode("cp949")
    except UnicodeDecodeError:
        korean = ""
    # In Western text an accented letter stands between plain ones; read as cp949 it swallows its
    # neighbour and gives a rare syllable or a hanja, so most of real Korean is told from it by runs of Hangul.
    foreign = sum(len(run) for run in re.findall(r"[^\x00-\x7f]+", korean))
    runs = sum(len(run) for run in re.findall("[가-힣]{2,}", korean))
    if foreign and runs > 0.5 * foreign:
        return korean, "cp949"
    for encoding in ("cp1252", "latin-1"):
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise AssertionError("latin-1 reads any bytes")


# ---- looking at the first lines ------------------------------------------------------------------


def _junk(lines: Sequence[str]) -> int:
    """How many lines at the top are empty or comments."""
    for n, line in enumerate(lines):
        if line.strip() and (not line.lstrip().startswith("#") or _is_header(lines, n)):
            return n
    return len(lines)


def _is_header(lines: Sequence[str], n: int) -> bool:
    """Whether a line that starts with `#` names columns, as in `#,price,area`."""
    after = next((line for line in lines[n + 1 :] if line.strip()), "")
    if not after or after.lstrip().startswith("#"):
        return False
    for separator in SEPARATORS:
        names, cells = (next(csv.reader([line], delimiter=separator)) for line in (lines[n], after))
        if 1 < len(names) == len(cells):
            return any(map(_is_number, cells)) and not any(map(_is_number, names))
    return False


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def _records_of(lines: Sequence[str], *, whole: bool) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for separator in SEPARATORS:
        records = [r for r in csv.reader(lines[:SAMPLE_LINES], delimiter=separator) if r]
        if (len(lines) > SAMPLE_LINES or not whole) and len(records) > 2:
            # The cut may go through a quoted line break.
            records.pop()
        found[separator] = records
    return found


def _separator(records: dict[str, list[list[str]]]) -> str:
    """The one that splits most lines alike, names included; only if there is none, lines above the names are allowed."""
    for n_titles in (0, 4):
        best: tuple[float, int, str] = (0.5, 0, "")
        for separator, rows in records.items():
            usual = _usual_width(rows)
            same = sum(len(r) in (usual, usual + 1) for r in rows) / max(1, len(rows))
            # A decimal comma, or commas in text, split rows but not the names above them.
            is_named = any(_width(r) == usual for r in rows[: 1 + n_titles])
            if usual > 1 and is_named and (round(same, 2), usual) > best[:2]:
                best = (round(same, 2), usual, separator)
        if best[2]:
            return best[2]
    return ","


def _width(record: Sequence[str]) -> int:
    """Fields without the empty one after a separator at the end of the line."""
    return len(record) - (len(record) > 1 and record[-1] == "")


def _usual_width(rows: Sequence[Sequence[str]]) -> int:
    # A last column may be empty here and there, so the widest of equally usual counts.
    widths = Counter(_width(r) for r in rows)
    return max(widths.items(), key=lambda item: (item[1], item[0]))[0] if widths else 0


def _titles(lines: Sequence[str], separator: str) -> int:
    """How many lines above the names are no comments but one text alone, such as a title."""
    if _usual_width(_records_of(lines, whole=True)[separator]) < 3:
        return 0
    for n, line in enumerate(lines[:5]):
        cells = next(csv.reader([line], delimiter=separator), [])
        if '"' in line or sum(bool(cell.strip()) for cell in cells) > 1:
            return n
    return 0


def _decimal(cells: Sequence[str]) -> tuple[str, str]:
    comma = [c for c in cells if re.fullmatch(r"[+-]?(\d+|\d{1,3}([. ]\d{3})+),\d+", c)]
    # `1,234` alone may be a thousand as well as a decimal.
    comma = [c for c in comma if not re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", c)]
    point = sum(
        bool(re.fullmatch(r"[+-]?(\d+|\d{1,3}(,\d{3})+)\.\d+", c))
        and not re.fullmatch(r"[+-]?\d{1,3}\.\d{3}", c)
        for c in cells
    )
    if len(comma) <= point:
        return ".", ""
    return ",", next((mark for mark in ". " if any(mark in c for c in comma)), "")


def _about_header(sample: list[list[str]]) -> list[str]:
    header, notes = sample[0], []
    padded = [name for name in header if name != name.strip() and name.strip()]
    if padded:
        notes.append(f"names were trimmed: {', '.join(repr(name) for name in padded)}")
    rows = [r for r in sample[1:] if r]
    if len(rows) > 1 and sum(len(r) == len(header) + 1 and r[-1] == "" for r in rows) >= len(rows) - 1:  # fmt: skip
        notes.append("data lines end with an empty extra field, which is ignored")
    ends = len(header) > 1 and not header[-1].strip() and all(not r[-1] for r in rows)
    blank = [n for n, name in enumerate(header, 1) if not name.strip() and not (ends and n == len(header))]  # fmt: skip
    notes += [f"column {n} has no name and is called 'column {n}'" for n in blank]
    return notes


# ---- records -------------------------------------------------------------------------------------


def _read_quickly(body: str, settings: SourceSettings) -> tuple[list[str], pl.DataFrame] | None:
    """The fast reader, where it can be proved that it reads what the careful one would; else None."""
    import polars as pl

    body = body.replace("\r\n", "\n")
    if not body.endswith("\n"):
        body += "\n"
    if '"' in body or "\r" in body or "\n\n" in body or body.startswith("\n"):
        return None
    head, _, rest = body.partition("\n")
    names = head.split(settings.separator)
    if not settings.header:
        names, rest = [f"column {n}" for n in range(1, len(names) + 1)], body
    # The fast reader refuses a line with too many fields, and fills up one with too few in silence: with the right
    # number of separators in all, there is neither.
    if len(names) < 2 or not rest or rest.count(settings.separator) != rest.count("\n") * (len(names) - 1):  # fmt: skip
        return None
    try:
        frame = pl.read_csv(
            rest.encode(), has_header=False, separator=settings.separator, quote_char=None,
            infer_schema=False, schema={f"c{n}": pl.String for n in range(len(names))},
        )  # fmt: skip
    except pl.exceptions.PolarsError:
        return None
    return (names, frame) if frame.height == rest.count("\n") else None


def _read_carefully(
    body: str, settings: SourceSettings, file: str
) -> tuple[list[str], pl.DataFrame]:
    import polars as pl

    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=settings.separator, strict=True)
    records: list[list[str]] = []
    lines: list[int] = []
    before = 0
    try:
        for record in reader:
            if record:
                records.append(record)
                lines.append(before + 1 + settings.skip_lines)
            before = reader.line_num
    except csv.Error as error:
        line = before + 1 + settings.skip_lines
        raise csv.Error(f"line {line}: {error}") from error
    if settings.header:
        names, records, lines = records[0], records[1:], lines[1:]
    else:
        names = [f"column {n}" for n in range(1, len(records[0]) + 1)]
    width = len(names)
    rows = [r[:width] if len(r) == width + 1 and r[-1] == "" else r for r in records]
    ragged = [(line, len(r)) for line, r in zip(lines, rows, strict=True) if len(r) != width]
    if ragged:
        line, found = ragged[0]
        hint = ""
        if found > 1 and len(ragged) == len(rows):
            hint = f" If line {line} is the header, set data.source.skip_lines: {line - 1}."
        raise DataError(
            f"{file}: {len(ragged)} of {len(rows)} rows have another number of fields than the {width} of the header; "
            f"the first is line {line} with {found}.{hint} Quote fields that hold the separator, or set "
            "data.source.separator. Nothing was done.",
            rows=len(ragged),
            line=line,
        )
    columns = [[v or None for v in column] for column in zip(*rows, strict=True)] or [[]] * width
    made = {f"c{n}": pl.Series(values, dtype=pl.String) for n, values in enumerate(columns)}
    return names, pl.DataFrame(made)


def _with_points(frame: pl.DataFrame, settings: SourceSettings) -> pl.DataFrame:
    """Decimal commas as points, in columns that are numbers but for a few words."""
    import polars as pl

    between = re.escape(settings.thousands) if settings.thousands else ""
    whole = rf"(?:\d{{1,3}}(?:{between}\d{{3}})+|\d+)" if between else r"\d+"
    form = rf"^\s*[+-]?{whole}(?:,\d+)?(?:[eE][+-]?\d+)?\s*$"
    changed = []
    for name in frame.columns:
        filled = frame[name].drop_nulls()
        is_number = filled.str.contains(form)
        # Codes such as 01.234 keep what they look like; words for missing values may stand between numbers.
        if (
            is_number.sum() < 0.5 * len(filled)
            or not filled.filter(is_number).str.contains("[,.]").any()
        ):
            continue
        column = pl.col(name)
        plain = column.str.strip_chars()
        if settings.thousands:
            plain = plain.str.replace_all(settings.thousands, "", literal=True)
        plain = plain.str.replace(",", ".", literal=True)
        changed.append(pl.when(column.str.contains(form)).then(plain).otherwise(column).alias(name))
    return frame.with_columns(changed)


def _names(header: Sequence[str], file: str) -> list[str]:
    trimmed = [name.strip() for name in header]
    _no_values(trimmed, file)
    names = [name or f"column {n}" for n, name in enumerate(trimmed, 1)]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        places = [str(n) for n, name in enumerate(names, 1) if name == twice[0]]
        more = f" So do {len(twice) - 1} other names." if len(twice) > 1 else ""
        raise DataError(
            f"{file} has {len(places)} columns named {twice[0]!r} (columns {', '.join(places)}), so none of them can be "
            f"meant.{more} Give each a name of its own in the first line. Nothing was done.",
            columns=twice,
        )
    reserved = [name for name in names if name in ("_side", "_origin", "_seen_at", "_key")]
    if reserved:
        raise DataError(
            f"{file} has a column named {reserved[0]!r}, which Gyrostat's own tables use. Rename it. Nothing was done."
        )
    return names


def _no_values(names: Sequence[str], file: str) -> None:
    """Stop where the first line looks like a row: numbers that are neither counted up nor years."""
    numbers = [name for name in names if _is_number(name)]
    if not names or len(numbers) < 0.5 * len(names):
        return
    whole = [int(name) for name in numbers if name.isdecimal()]
    is_counted = len(whole) == len(numbers) and (
        all(b - a == 1 for a, b in itertools.pairwise(whole))
        or (len(set(whole)) == len(whole) and all(1900 <= n <= 2100 for n in whole))
    )
    if not is_counted or (len(whole) == 1 and whole[0] > 1):
        raise DataError(
            f"The first line of {file} looks like values, not names ({', '.join(names[:5])}), so no column can be named. "
            "Put a line of names above it. Nothing was done."
        )


# ---- Parquet -------------------------------------------------------------------------------------


def _parquet(path: Path, content: bytes) -> pl.DataFrame:
    import polars as pl

    try:
        frame = pl.read_parquet(io.BytesIO(content))
    except BaseException as error:  # a panic inside the reader is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{path.name} cannot be read as Parquet: {first}. Nothing was done."
        ) from error
    names = _names(frame.columns, path.name)
    if frame.height == 0:
        raise DataError(f"{path.name} has {frame.width} columns and no rows. Nothing was done.")
    frame.columns = names
    return frame.select([_as_text(frame[name]) for name in frame.columns])


def _as_text(column: pl.Series) -> pl.Series:
    import polars as pl

    kind = column.dtype
    texts: list[Any]
    if kind == pl.Boolean or kind.is_decimal():
        # A decimal is exact, and reads as the number it is.
        texts = [None if v is None else str(v) for v in column.to_list()]
    elif kind.is_float():
        # A float32 stands for the same number that its JSON form names.
        texts = [None if v is None or v != v else repr(float(v)) for v in column.cast(pl.Float64).to_list()]  # fmt: skip
    elif kind.is_temporal() and kind not in (pl.Duration, pl.Time):
        texts = _dates(column)
    elif kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        texts = [v or None for v in column.cast(pl.String).to_list()]
    else:
        raise DataError(
            f"Column {column.name!r} is {kind}; a table of plain values is needed. Nothing was done.",
            column=column.name,
        )
    return pl.Series(column.name, texts, dtype=pl.String)


def _dates(column: pl.Series) -> list[str | None]:
    import polars as pl

    if isinstance(column.dtype, pl.Datetime):
        # Python knows no nanoseconds; dates have whole seconds as parts.
        column = column.cast(pl.Datetime("us", column.dtype.time_zone))
    return [None if v is None else v.isoformat() for v in column.to_list()]
