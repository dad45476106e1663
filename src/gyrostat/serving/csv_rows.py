"""CSV as MLflow takes it on `/invocations`: names in the first line, then rows; types come from the schema alone."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from typing import Any

from gyrostat_runtime import rows
from gyrostat_runtime.errors import InputFault
from gyrostat_runtime.rows import Rows
from gyrostat_runtime.schema import Column, Schema

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,400}")


def read(
    body: bytes, schema: Schema, *, missing: str = "as_trained", new_category: str = "answer"
) -> Rows:
    """Read a table in UTF-8 with names and values in the file's own spelling; an empty cell is a missing value.

    Raises:
        InputFault: it cannot be answered; `.at` is the line and the column, such as `line 3, rooms`.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + body.count(b"\n", 0, error.start)
        raise _fault("not_csv", f"the body is not UTF-8 (byte {error.start})", line) from None
    names, lines, places = _cells(text)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _fault("duplicate_column", f"column {name[:80]!r} stands twice", 1)
        seen.add(name)
    if not lines:
        raise _fault("no_rows", "there is no row to answer below the names", 1)
    by_name = {column.name: column for column in schema.inputs}
    columns = {
        name: [*map(_reader(by_name[name]), cells)] if name in by_name else cells
        for name, cells in zip(names, zip(*lines, strict=True), strict=True)
    }
    return rows.read_columns(
        columns,
        schema,
        at=lambda row, name: f"line {places[row]}, {name[:80]}",
        at_name=lambda name: "line 1",
        missing=missing,
        new_category=new_category,
    )


def _cells(text: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Names, rows, and the line on which each row ends; blank lines are no rows."""
    reader = csv.reader(_lines(text), strict=True)
    names: list[str] = []
    lines: list[list[str]] = []
    places: list[int] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not names:
                names = cells
            elif len(cells) != len(names):
                raise _fault(
                    "ragged",
                    f"a row must have {len(names)} values, this has {len(cells)}",
                    reader.line_num,
                )
            else:
                lines.append(cells)
                places.append(reader.line_num)
    except csv.Error as error:
        raise _fault("not_csv", f"the body is not CSV: {error}", reader.line_num) from None
    if not names:
        raise _fault("no_rows", "the body is empty: names in the first line are needed", 1)
    return names, lines, places


def _lines(text: str) -> list[str]:
    # The reader wants line ends kept; `splitlines` would also cut at separators that may stand in a text.
    return [line for line in re.split(r"(?<=\n)|(?<=\r)(?!\n)", text) if line]


def _reader(column: Column) -> Callable[[str], Any]:
    """From a cell to the JSON value that says the same; what says nothing of the kind stays text, and is refused."""
    if column.kind == "boolean":
        words: dict[str, Any] = {"": None, "true": True, "false": False}

        def boolean(cell: str) -> Any:
            return cell if cell in column.categories else words.get(cell.strip().lower(), cell)

        return boolean
    if column.kind == "number":
        return _number
    if column.kind == "integer":
        return _integer
    return lambda cell: cell or None


def _number(cell: str) -> Any:
    cell = cell.strip()
    return float(cell) if _NUMBER.fullmatch(cell) else cell or None


def _integer(cell: str) -> Any:
    cell = cell.strip()
    return int(cell) if _WHOLE.fullmatch(cell) else _number(cell)


def _fault(code: str, message: str, line: int) -> InputFault:
    return InputFault(f"line {line}: {message}", code=f"serving.{code}", at=f"line {line}")
