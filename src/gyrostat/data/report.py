"""What was understood of a table and why: for a terminal, for programs, and as one page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gyrostat.data import checks
from gyrostat.data.inference import Inference
from gyrostat.data.names import quoted, shown
from gyrostat.data.personal import masked
from gyrostat.data.readings import Guess
from gyrostat.data.settings import ColumnSettings, DataSettings

if TYPE_CHECKING:
    import polars as pl

N_VALUES = 5


def facts(
    df: pl.DataFrame, found: Inference, settings: DataSettings | None = None
) -> dict[str, Any]:
    """JSON values: each column with its kind, its role and why; each finding with its rows and what to do.

    Args:
        settings: the declaration in force, whose roles count; None: what `init` would declare.
    """
    return {
        "n_rows": found.n_rows, "n_columns": len(found.columns), "target": found.target, "task": found.task.value,
        "n_twice": df.height - df.hash_rows().n_unique(),
        "columns": [_column(df, g, found, settings) for g in found.columns.values()],
        "findings": [asdict(note) | {"rows": list(note.rows)} for note in found.notes],
    }  # fmt: skip


def _column(
    df: pl.DataFrame, guess: Guess, found: Inference, settings: DataSettings | None
) -> dict[str, Any]:
    is_personal = guess.is_personal or bool(settings and guess.name in settings.personal)
    return {
        "name": guess.name, "kind": guess.kind, "role": _role(guess, found, settings), "why": guess.evidence, "left_out": guess.excluded,
        "format": guess.format, "n_missing": guess.n_missing, "missing_words": [masked(w) for w in guess.missing_words],
        "n_distinct": guess.n_distinct, "low": None if is_personal else guess.low, "high": None if is_personal else guess.high,
        "values": [] if is_personal else _values(df[guess.name]),
    }  # fmt: skip


def _role(guess: Guess, found: Inference, settings: DataSettings | None) -> str:
    if guess.name == found.target:
        return "target"
    entity = settings.keys.entity if settings else found.entity
    if guess.name == entity:
        return "entity"
    if settings is None:
        return "personal" if guess.is_personal else "left out" if guess.excluded else "feature"
    if guess.name in settings.personal:
        return "personal"
    return "left out" if guess.name in settings.exclude else "feature"


def _values(column: pl.Series) -> list[str]:
    """The most usual values, as the file spells them; what looks like a person's is masked."""
    import polars as pl

    counted = column.drop_nulls().rename("value").value_counts().sort(["count", "value"], descending=[True, False])  # fmt: skip
    few = counted.head(N_VALUES).select(pl.col("value")).to_series().to_list()
    return [masked(v) if len(v) <= 40 else masked(v)[:39] + "…" for v in few]


def lines(report: Mapping[str, Any]) -> list[str]:
    """For a terminal: a line for each column, then each finding with what to do."""
    wide = min(24, max(len(shown(c["name"])) for c in report["columns"]))
    told = [
        f"{report['n_rows']:,} rows, {report['n_columns']} columns; {report['target']} -> {report['task']}"
    ]
    if report["n_twice"]:
        told[0] += f"; {report['n_twice']:,} rows stand twice"
    for c in report["columns"]:
        missing = f", {c['n_missing']:,} missing" if c["n_missing"] else ""
        missing = missing if c["left_out"] != "empty" else ""
        told_why = _why(c)
        told.append(
            f"  {shown(c['name']):{wide}}  {c['kind']:<8}  {c['role']:<8}  {told_why}{missing}"
        )
    if report["findings"]:
        told.append("Findings")
    for f in report["findings"]:
        why = f" ({f['why']})" if f["why"] else ""
        told.append(f"  {shown(f['column'] or 'table'):{wide}}  {f['what']}{why}")
        if f["do"] and f["do"] not in why:
            told.append(f"  {'':{wide}}  do: {f['do']}")
    return told


def _why(column: Mapping[str, Any]) -> str:
    why, left_out = column["why"], column["left_out"]
    if not left_out or left_out in why:
        return why
    return left_out if why in left_out else f"{why}; {left_out}"


def explained(df: pl.DataFrame, guess: Guess, found: Inference | None) -> list[str]:
    """How one column was judged: `init --explain COLUMN`."""
    told = [f"{shown(guess.name)}: {guess.kind}" + (f", left out: {guess.excluded}" if guess.excluded else "")]  # fmt: skip
    if found is not None:
        told[0] += {True: ", the target", False: ""}[guess.name == found.target]
    told.append(f"  why       {guess.evidence or 'as declared'}")
    if guess.low is not None and not guess.is_personal:
        told.append(f"  range     {guess.low:.15g} to {guess.high:.15g}")
    told.append(f"  missing   {guess.n_missing:,} of {df.height:,}" + _written(guess))
    told.append(f"  distinct  {guess.n_distinct:,}")
    if not guess.is_personal:
        told.append(f"  usual     {', '.join(quoted(v) for v in _values(df[guess.name]))}")
    for note in found.notes if found else ():
        if note.column == guess.name:
            told.append(f"  found     {note.what}" + (f" ({note.why})" if note.why else ""))
    declare = guess.declare if guess.declare is not None else ColumnSettings()
    said = {k: v for k, v in asdict(declare).items() if v}
    told.append(f"  declared  {said or 'nothing: the values say it'}; another way: data.columns, kind: {', '.join(checks.KINDS)}")  # fmt: skip
    return told


def _written(guess: Guess) -> str:
    return f", written {', '.join(quoted(masked(w)) for w in guess.missing_words)}" if guess.missing_words else ""  # fmt: skip


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1c2430}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d8dde4;vertical-align:top}"
    "td{overflow-wrap:anywhere}.num{text-align:right;font-variant-numeric:tabular-nums}@media(prefers-color-scheme:dark){body{background:#14181f;color:#dfe5ee}}"
)


def page(report: Mapping[str, Any], title: str, broken: Iterable[str] = ()) -> str:
    """One HTML file that needs nothing else; whatever a table holds is shown as text."""

    def row(cells: Iterable[Any], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    columns = "".join(
        row((c["name"], c["kind"], c["role"], _why(c), f"{c['n_missing']:,}", f"{c['n_distinct']:,}", ", ".join(c["values"])))
        for c in report["columns"]
    )  # fmt: skip
    findings = "".join(
        row((f["column"] or "table", f["what"], f["why"], ", ".join(map(str, f["rows"])), f["do"]))
        for f in report["findings"]
    )
    rules = "".join(f"<li>{html.escape(line)}</li>" for line in broken)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<p>{report['n_rows']:,} rows, {report['n_columns']} columns; {html.escape(report['target'])} is predicted ({report['task']}); "
        f"{report['n_twice']:,} rows stand twice.</p>"
        + (f"<h2>Rules that do not hold</h2><ul>{rules}</ul>" if rules else "")
        + f"<h2>Columns</h2><table>{row(('column', 'kind', 'role', 'why', 'missing', 'distinct', 'usual values'), 'th')}{columns}</table>"
        f"<h2>Findings</h2><table>{row(('column', 'what', 'why', 'rows', 'what to do'), 'th')}{findings}</table></html>\n"
    )
