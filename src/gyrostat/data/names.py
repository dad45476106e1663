"""The names of columns: as they are in the file, each its own."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gyrostat.errors import DataError

MAX_COLUMNS = 2000
MAX_LENGTH = 500
"""A key of YAML has at most 1,024 bytes."""
RESERVED = ("_side", "_origin", "_seen_at", "_key")
_LARGEST_SHOWN = 60


@dataclass(frozen=True)
class Names:
    """What the columns are called, and what is to be said about it."""

    all: tuple[str, ...]
    notes: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    """Names that stand more than once in the file."""


def shown(name: str) -> str:
    """A name (or value) for a line of a terminal: short, and nothing that moves its cursor."""
    text = name if len(name) <= _LARGEST_SHOWN else name[: _LARGEST_SHOWN - 1] + "…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def quoted(name: str) -> str:
    """The same in quotes, so that blanks at its ends are seen."""
    return f"'{shown(name)}'"


def check_count(header: Sequence[str], file: str) -> None:
    """Stop where there are more columns than a person could have meant.

    Raises:
        DataError: there are.
    """
    if len(header) > MAX_COLUMNS:
        raise DataError(
            f"{file} has {len(header):,} columns; at most {MAX_COLUMNS:,} are understood. Leave out those that cannot matter. "
            "Nothing was done.",
            columns=len(header),
        )


def named(header: Sequence[str], file: str) -> Names:
    """Names without padding; a blank one is `column <n>`, one that stood before gets ` (column <n>)`.

    Raises:
        DataError: too many, too long, or used by Gyrostat's own tables.
    """
    check_count(header, file)
    trimmed = [name.strip() for name in header]
    for n, name in enumerate(trimmed, 1):
        if len(name) > MAX_LENGTH:
            raise DataError(
                f"The name of column {n} of {file} has {len(name):,} characters ({quoted(name)}); at most {MAX_LENGTH} can be "
                "written down. Is the first line a line of names? Nothing was done."
            )
    reserved = [name for name in trimmed if name in RESERVED]
    if reserved:
        raise DataError(
            f"{file} has a column named {reserved[0]!r}, which Gyrostat's own tables use. Rename it. Nothing was done."
        )
    notes = []
    padded = [name for name in header if name != name.strip() and name.strip()]
    if padded:
        notes.append(f"names were trimmed: {', '.join(quoted(name) for name in padded)}")
    counts = Counter(name for name in trimmed if name)
    first: dict[str, int] = {}
    made: list[str] = []
    taken = set(trimmed)
    for n, name in enumerate(trimmed, 1):
        own = name or f"column {n}"
        if name and name in first:
            own = f"{name} (column {n})"
        while (not name or name in first) and own in taken:
            own += "_"
        first.setdefault(name, n)
        taken.add(own)
        made.append(own)
        if not name:
            notes.append(f"column {n} has no name and is called {quoted(own)}")
    repeated = tuple(name for name, n in counts.items() if n > 1)
    for name in repeated:
        places = [n for n, other in enumerate(trimmed, 1) if other == name]
        called = ", ".join(quoted(made[n - 1]) for n in places)
        listed = ", ".join(map(str, places))
        notes.append(f"{quoted(name)} stands {len(places)} times (columns {listed}), now called {called}")  # fmt: skip
    return Names(tuple(made), tuple(notes), repeated)


_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}([T ].*)?")


def _kind(cell: str) -> str:
    text = cell.strip()
    return "number" if _NUMBER.fullmatch(text) else "date" if _DATE.fullmatch(text) else "text"


def look_like_values(header: Sequence[str], sample: Sequence[Sequence[str]]) -> bool:
    """Whether the first line is a row, not names: judged by the cells that stand below each of them.

    Args:
        sample: rows below it, of the same width.
    """
    names = [name.strip() for name in header]
    if not sample or not any(names):
        return False
    n_typed = n_alike = n_text = n_seen = 0
    for name, cells in zip(names, zip(*sample, strict=True), strict=True):
        filled = [c.strip() for c in cells if c.strip()]
        if not name or not filled:
            continue
        kinds = Counter(map(_kind, filled))
        kind, n = kinds.most_common(1)[0]
        if kind != "text" and n >= 0.9 * len(filled):
            n_typed += 1
            n_alike += _kind(name) == kind
        else:
            n_text += 1
            n_seen += name in filled
    if n_typed:
        # One that is no number over numbers is a name; the rest are then names too, such as years.
        is_seen = bool(n_text) and n_seen == n_text
        return n_alike == n_typed and (is_seen or not _are_counted(names))
    return n_text > 1 and n_seen == n_text


def _are_counted(names: Sequence[str]) -> bool:
    """Numbers that are names: counted up, or years."""
    numbers = [name for name in names if _kind(name) == "number"]
    whole = [int(name) for name in numbers if name.isdecimal() and name.isascii()]
    if len(whole) != len(numbers) or len(set(whole)) != len(whole):
        return False
    if len(whole) == 1:
        return whole[0] <= 1 or 1900 <= whole[0] <= 2100
    is_up = all(b - a == 1 for a, b in itertools.pairwise(whole))
    return is_up or all(1900 <= n <= 2100 for n in whole)
