"""How a text table is laid out: lines above the names, separator, header. Seen in its first lines."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gyrostat.data import names
from gyrostat.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
SAMPLE_LINES = 400
MAX_TITLES = 10
SAMPLE_BYTES = 2**20
_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|$)")


@dataclass(frozen=True)
class Dialect:
    """What `data.source` says of a text table, and what was noticed on the way."""

    separator: str
    skip_lines: int
    notes: tuple[str, ...]


def seen(body: bytes, name: str) -> Dialect:
    """Find out how the table in `body` (UTF-8) is laid out.

    Raises:
        DataError: only comments, or its first line is a row and no names.
    """
    head = body[:SAMPLE_BYTES].decode(errors="ignore")
    lines = [m.group() for m in itertools.islice(_LINE.finditer(head), 2 * SAMPLE_LINES)]
    while lines and not lines[-1]:
        lines.pop()
    if len(body) > SAMPLE_BYTES and len(lines) > 1 and len(lines) < 2 * SAMPLE_LINES:
        lines.pop()  # cut in two
    whole = len(body) <= SAMPLE_BYTES and len(lines) < 2 * SAMPLE_LINES
    skip = _junk(lines)
    if skip == len(lines):
        raise DataError(f"{name} holds only comments and empty lines. Nothing was done.")
    separator = _separator(_records_of(lines[skip:], whole=whole))
    skip += _titles(lines[skip:], separator)
    notes = []
    if skip:
        which = "line 1 was" if skip == 1 else f"lines 1 to {skip} were"
        notes.append(f"{which} skipped (no part of the table); the header is line {skip + 1}")
    notes.append("separated by tabs" if separator == "\t" else f'separated by "{separator}"')
    sample = _records_of(lines[skip:], whole=whole)[separator]
    header, rows = sample[0], sample[1:]
    alike = [r for r in rows if len(r) == len(header)]
    if names.look_like_values(header, alike):
        first = ", ".join(names.shown(cell.strip()) for cell in header[:5])
        raise DataError(
            f"The first line of {name} looks like values, not names ({first}{', ...' if len(header) > 5 else ''}), so there is no column "
            f"that has a name. Put a line with {len(header)} names above it. Nothing was done.",
            line=skip + 1,
        )
    if len(rows) > 1 and sum(len(r) == len(header) + 1 and r[-1] == "" for r in rows) >= len(rows) - 1:  # fmt: skip
        notes.append("data lines end with an empty extra field, which is ignored")
    return Dialect(separator, skip, tuple(notes))


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
        heads, cells = (next(csv.reader([line], delimiter=separator)) for line in (lines[n], after))
        if 1 < len(heads) == len(cells):
            return any(map(_is_number, cells)) and not any(map(_is_number, heads))
    return False


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def _records_of(lines: Sequence[str], *, whole: bool) -> dict[str, list[list[str]]]:
    csv.field_size_limit(2**31 - 1)
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
    for n_titles in (0, MAX_TITLES):
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
    # The last column may be empty in every row.
    even = {
        separator: len(rows[0])
        for separator, rows in records.items()
        if len({len(r) for r in rows}) == 1 and len(rows[0]) > 1 and rows[0][-1]
    }
    return max(even, key=lambda s: even[s], default=",")


def _width(record: Sequence[str]) -> int:
    """Fields without the empty one after a separator at the end of the line."""
    return len(record) - (len(record) > 1 and record[-1] == "")


def _usual_width(rows: Sequence[Sequence[str]]) -> int:
    # A last column may be empty here and there, so the widest of equally usual counts.
    widths = Counter(_width(r) for r in rows)
    return max(widths.items(), key=lambda item: (item[1], item[0]))[0] if widths else 0


def _titles(lines: Sequence[str], separator: str) -> int:
    """How many lines above the names are titles: narrower than the table, or one text alone."""
    usual = _usual_width(_records_of(lines, whole=True)[separator])
    if usual < 2:
        return 0
    for n, line in enumerate(lines[: MAX_TITLES + 1]):
        cells = next(csv.reader([line], delimiter=separator), [])
        n_filled = sum(bool(cell.strip()) for cell in cells)
        is_title = not line.strip() or (
            len(cells) < usual and (n_filled <= 1 or _fits_later(lines, n, separator, usual))
        )
        is_padded = usual > 2 and len(cells) >= usual and n_filled <= 1
        if '"' in line or not (is_title or is_padded):
            return n
    return 0


def _fits_later(lines: Sequence[str], n: int, separator: str, usual: int) -> bool:
    """Whether a line of full width without a number, as names are, comes soon below line `n`."""
    for line in lines[n + 1 : MAX_TITLES + 1]:
        cells = next(csv.reader([line], delimiter=separator), [])
        if _width(cells) == usual:
            return not any(map(_is_number, cells))
    return False
