"""What a table means: kinds, task, ids, personal columns, leaks.

Every guess is said with its numbers; what is not understood stops.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from gyrostat.data import target as targets
from gyrostat.data import traps
from gyrostat.data.inference import Inference
from gyrostat.data.names import quoted, shown
from gyrostat.data.numerals import PLAIN, NumberFormat
from gyrostat.data.readings import (
    INTEGER,
    MISSING_WORDS,
    NUMBER,
    Guess,
    Note,
    Reading,
    read_column,
    witness,
)
from gyrostat.data.settings import ColumnSettings, DataSettings
from gyrostat.errors import DataError
from gyrostat.terms import Task

if TYPE_CHECKING:
    import polars as pl

__all__ = ["INTEGER", "MISSING_WORDS", "NUMBER", "Guess", "Inference", "Note", "infer"]


def infer(
    df: pl.DataFrame,
    target: str,
    *,
    task: str | None = None,
    settings: DataSettings | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Inference:
    """Take a table of texts (see `tables.read`) for what it is.

    Args:
        df: all columns text, null for an empty field.
        target: the column to predict; padding is ignored.
        task: overrules the guess.
        settings: an earlier declaration: its kinds, exclusions and personal columns count instead of guesses.
        kinds: kinds of columns from its checks, where the declaration has no word of its own.

    Raises:
        DataError: the table cannot be learned from, or holds what is not understood; says where.
    """
    target = _find(df, target)
    if df.width < 2:
        raise DataError(
            f"The table has one column, {quoted(target)}; at least one more is needed to predict it from. Nothing was done."
        )
    declared = dict(settings.columns) if settings else {}
    unknown = [name for name in declared if name not in df.columns]
    if unknown:
        raise DataError(
            f"data.columns names {quoted(unknown[0])}, which the table does not have. Columns: {_listed(df)}. Nothing was done."
        )
    for name, kind in (kinds or {}).items():
        if name in df.columns and not declared.get(name, ColumnSettings()).kind:
            declared[name] = replace(declared.get(name, ColumnSettings()), kind=kind)
    table = NumberFormat(settings.source.decimal, settings.source.thousands) if settings else _usual(df)  # fmt: skip
    ignored = {*settings.exclude, *settings.personal, settings.keys.entity} if settings else set()

    def look(name: str) -> Reading:
        is_ignored = name in ignored and name != target
        return _read(
            df[name], declared.get(name), table, is_target=name == target, is_ignored=is_ignored
        )

    # The compiled parts of two columns run beside each other.
    with ThreadPoolExecutor(2 if df.height > 50_000 else 1) as pool:
        readings = dict(zip(df.columns, pool.map(look, df.columns), strict=True))
    problems = [r.problem for r in readings.values() if r.problem]
    if problems:
        raise DataError("\n".join([*problems, "Nothing was done."]), problems=problems)
    columns = {name: r.guess for name, r in readings.items()}
    result = Inference(df.height, target, Task.REGRESSION, columns)
    result.decimal, result.thousands = table.decimal, table.thousands
    result.notes = [note for r in readings.values() for note in r.notes]
    targets.take(result, df[target], task or (settings.task if settings else None))
    if settings and settings.positive:
        if settings.positive not in result.classes:
            raise DataError(
                f"output.positive is {settings.positive!r}, which is no class of {target!r}: {', '.join(result.classes) or 'it is a number'}."
            )
        result.positive = settings.positive
    if settings:
        result.threshold = settings.threshold
    if settings is None:
        traps.find(result, df)
    else:
        _exclude_declared(result, settings, df.height)
    if not result.features:
        why = "; ".join(f"{shown(g.name)}: {g.excluded}" for g in columns.values() if g.excluded)
        raise DataError(f"No column is left to predict {target!r} from ({why}). Nothing was done.")
    return result


def _listed(df: pl.DataFrame) -> str:
    return ", ".join(map(shown, df.columns[:30])) + (", ..." if df.width > 30 else "")


def _find(df: pl.DataFrame, target: str) -> str:
    if target in df.columns:
        return target
    if target.strip() in df.columns:
        return target.strip()
    by_case = {c.casefold(): c for c in df.columns}
    close = difflib.get_close_matches(target.strip().casefold(), by_case, 3, 0.5)
    like = f" Did you mean {', '.join(quoted(by_case[c]) for c in close)}?" if close else ""
    raise DataError(
        f"There is no column {quoted(target)}.{like} Columns: {_listed(df)}. Nothing was done.",
        columns=df.columns,
    )


def _usual(df: pl.DataFrame) -> NumberFormat:
    """How most columns write numbers that can be read in one way only: the rest is then read so too."""
    votes: Counter[str] = Counter()
    thousands: Counter[str] = Counter()
    for name in df.columns:
        form = witness(df[name])
        if form is not None:
            votes[form.decimal] += 1
            if form.decimal == "," and form.thousands:
                thousands[form.thousands] += 1
    if votes[","] <= votes["."]:
        return PLAIN
    return NumberFormat(",", thousands.most_common(1)[0][0] if thousands else ".")


def _read(
    column: pl.Series, declared: ColumnSettings | None, table: NumberFormat, *, is_target: bool, is_ignored: bool
) -> Reading:  # fmt: skip
    reading = read_column(column, declared, is_target=is_target, table=table)
    if is_ignored and reading.problem:
        # What is no feature need not be understood.
        reading = read_column(column, ColumnSettings(kind="category"))
    return reading


def _exclude_declared(result: Inference, settings: DataSettings, n_rows: int) -> None:
    columns = result.columns
    for name in (*settings.exclude, *settings.personal, settings.keys.entity):
        if name in columns and name != result.target:
            columns[name].excluded = "declared"
            columns[name].is_personal = name in settings.personal
    for guess in columns.values():
        # What came later and holds nothing must not stop a training.
        if not guess.excluded and guess.name != result.target and guess.n_missing == n_rows:
            guess.excluded = "empty"
    result.group, result.entity = settings.split.group, settings.keys.entity
    named = {
        "split.group": settings.split.group, "split.by": settings.split.by,
        "keys.entity": settings.keys.entity, "keys.event_at": settings.keys.event_at,
    }  # fmt: skip
    for key, name in named.items():
        if name and name not in columns:
            raise DataError(
                f"data.{key} is {name!r}, which is no column of the table. Columns: {', '.join(columns)}."
            )
    if (name := settings.at) and columns[name].kind != "date":
        key = "split.by" if settings.split.by else "keys.event_at"
        raise DataError(
            f"data.{key} is {name!r}, which holds no dates but is read as {columns[name].kind}. Say how it writes them: "
            f'data.columns: {{{name}: {{kind: date, format: "%d.%m.%Y"}}}}'
        )
