"""Declared rules over a table: which rule, how many rows, with examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat.data import dates, numerals
from gyrostat.data.numerals import PLAIN, NumberFormat
from gyrostat.data.personal import masked
from gyrostat.data.readings import LARGEST, MISSING_WORDS, NUMBER, format_of, truths, word
from gyrostat.data.settings import ColumnSettings
from gyrostat.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

N_EXAMPLES = 3
MASK = "***"
KEYS = ("kind", "missing", "range", "values", "unique")
KINDS = ("number", "integer", "boolean", "category", "date")
_SAID = {"number": "a number", "integer": "a whole number", "boolean": "true or false", "date": "a date"}  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """`checks.yaml`; no file, no rules.

    Raises:
        ConfigError: it is no YAML of that form.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        return {"columns": {}}
    try:
        rules = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) or {}
    except (YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"config/{path.name} is no YAML: {first}. Nothing was changed."
        ) from error
    columns = rules.get("columns", {}) if isinstance(rules, dict) else None
    if not isinstance(columns, dict):
        raise ConfigError(
            f"config/{path.name}: a mapping `columns:` is needed. Nothing was changed."
        )
    if others := [str(key) for key in rules if key != "columns"]:
        raise ConfigError(
            f"config/{path.name}  {others[0]}: there is no such key. Rules stand under `columns:`, by the name of the "
            "column. Nothing was changed."
        )
    for name, rule in columns.items():
        if wrong := _wrong(rule):
            raise ConfigError(f"config/{path.name}  columns.{name}{wrong} Nothing was changed.")
    return {"columns": {str(name): rule for name, rule in columns.items()}}


def kinds(rules: Mapping[str, Any]) -> dict[str, str]:
    """The kind of each column that has a rule about it: what the column is read as."""
    return {name: rule["kind"] for name, rule in rules["columns"].items() if "kind" in rule}


def _wrong(rule: Any) -> str:
    if not isinstance(rule, dict):
        return ": a mapping of rules is needed."
    for key, value in rule.items():
        if key not in KEYS:
            return f".{key}: there is no such rule. Rules here: {', '.join(KEYS)}."
        allowed = {
            "kind": (value in KINDS, ", ".join(KINDS)),
            "missing": (value in ("allowed", "none"), "allowed or none"),
            "range": (
                isinstance(value, list)
                and len(value) == 2
                and all(type(v) in (int, float) for v in value)
                and value[0] <= value[1],
                "two numbers: [lowest, highest]",
            ),
            "values": (isinstance(value, list) and bool(value), "a list of values"),
            "unique": (isinstance(value, bool), "true or false"),
        }
        is_right, form = allowed[key]
        if not is_right:
            return f".{key}: {value!r} cannot be meant; allowed: {form}."
    return ""


def run(
    df: pl.DataFrame,
    rules: Mapping[str, Any],
    personal: frozenset[str] = frozenset(),
    columns: Mapping[str, ColumnSettings] | None = None,
    table: NumberFormat = PLAIN,
) -> dict[str, Any]:
    """Judge a table of texts; the shape of a snapshot record's `checks`.

    Args:
        df: the source as `tables.read` gives it. Rows that came through the server are not judged here.
        personal: columns whose values are masked in examples.
        columns: formats and words for missing values, as declared.
        table: how numbers are written where a column does not say it.
    """
    import polars as pl

    broken: list[dict[str, Any]] = []
    n_rules = 0
    is_broken_row = pl.Series([False]).new_from_index(0, df.height)
    for name, rule in rules["columns"].items():
        if name not in df.columns:
            n_rules += 1
            broken.append({"column": name, "rule": "the column is there", "rows": df.height, "examples": []})  # fmt: skip
            is_broken_row = ~is_broken_row | is_broken_row
            continue
        settings = (columns or {}).get(name, ColumnSettings())
        for what, is_broken in _rules(rule, df[name], settings, table):
            n_rules += 1
            n_broken = int(is_broken.sum())
            if not n_broken:
                continue
            is_broken_row = is_broken_row | is_broken
            first = is_broken.arg_true().head(N_EXAMPLES).to_list()
            values = [df[name][row] for row in first]
            examples = [
                {
                    "row": row + 1,
                    "value": MASK if name in personal and v is not None else v and masked(v),
                }
                for row, v in zip(first, values, strict=True)
            ]
            broken.append({"column": name, "rule": what, "rows": n_broken, "examples": examples})
    return {
        "n_rules": n_rules,
        "n_broken": len(broken),
        "n_rows_broken": int(is_broken_row.sum()),
        "broken": broken,
    }


def _rules(
    rule: Mapping[str, Any], column: pl.Series, settings: ColumnSettings, table: NumberFormat
) -> list[tuple[str, pl.Series]]:
    """Each rule with a mask of the rows that break it."""
    import polars as pl

    kind = rule.get("kind") or settings.kind
    is_text = kind == "category" or ("values" in rule and "kind" not in rule)
    plain = column.str.strip_chars()
    gone = column.is_null() | (plain == "").fill_null(True)
    if settings.missing:
        gone = gone | plain.is_in(list(settings.missing)).fill_null(False)
    if not is_text:
        gone = gone | plain.str.to_lowercase().is_in(sorted(MISSING_WORDS)).fill_null(False)
    there = plain.set(gone, None)
    numbers = pl.Series(column.name, [None], dtype=pl.Float64).new_from_index(0, len(column))
    if not is_text and kind not in ("date", "boolean"):
        written = numerals.plain(there, format_of(settings.format, table))
        is_number = written.str.contains(numerals.IS_NUMBER).fill_null(False)
        numbers = written.set(~is_number, None).cast(pl.Float64, strict=False)
    found: list[tuple[str, pl.Series]] = []
    if rule.get("kind") in _SAID:
        match kind:
            case "number":
                is_right = numbers.abs() <= LARGEST
            case "integer":
                is_right = (numbers.abs() <= LARGEST) & (numbers == numbers.round(0))
            case "boolean":
                is_right = there.is_in(list(_truths(there)))
            case _:
                is_right = dates.instants(there, settings.format).is_not_null()
        found.append((_SAID[kind], ~(is_right.fill_null(False) | gone)))
    if rule.get("missing") == "none":
        found.append(("no missing values", gone))
    if "range" in rule:
        low, high = map(float, rule["range"])
        found.append(
            (f"range {low:g} to {high:g}", ((numbers < low) | (numbers > high)).fill_null(False))
        )
    if "values" in rule:
        allowed = [str(v) for v in rule["values"]]
        shown = ", ".join(v.strip() for v in allowed[:8]) + (", ..." if len(allowed) > 8 else "")
        as_numbers = {float(v) for v in allowed if NUMBER.fullmatch(v.strip())}
        words = {word(v) for v in allowed}
        form = format_of(settings.format, table)
        seen = there.drop_nulls().unique()
        right = [v for v, p in zip(seen, numerals.plain(seen, form), strict=True) if word(v) in words or (NUMBER.fullmatch(p) and float(p) in as_numbers)]  # fmt: skip
        is_right = there.is_in(right)
        found.append((f"one of {shown}", ~(is_right.fill_null(False) | gone)))
    if rule.get("unique"):
        found.append(("unique", there.is_duplicated() & ~gone))
    return found


def _truths(there: pl.Series) -> dict[str, bool]:
    counted = there.drop_nulls().rename("value").value_counts()
    return truths(counted["value"], counted["count"])


def lines(report: Mapping[str, Any]) -> list[str]:
    """Each broken rule on a line: column, rule, rows, an example."""
    if not report["broken"]:
        return []
    wide = max(len(b["column"]) for b in report["broken"])
    wider = max(len(b["rule"]) for b in report["broken"])
    told = []
    for b in report["broken"]:
        example = ""
        if b["examples"]:
            first = b["examples"][0]
            value = "" if first["value"] is None else f": {_short(first['value'])}"
            example = f"   e.g. row {first['row']}{value}"
        rows = f"{b['rows']:>6,} row{'s' if b['rows'] != 1 else ''}"
        told.append(f"{b['column']:{wide}}  {b['rule']:{wider}}  {rows}{example}")
    return told


def report_lines(record: Mapping[str, Any]) -> list[str]:
    """`gyrostat data report`: one sentence, then each broken rule."""
    report = record["checks"]
    n_rules, n_broken = report["n_rules"], report["n_broken"]
    about = f"snapshot/{record['model']}/{record['id']}"
    n_source = record["n_source_read"] if "n_source_read" in record else record["n_source"]
    if not n_broken:
        return [f"{about}: {n_rules} of {n_rules} rules hold on {n_source:,} rows."]
    return [
        f"{about}: {report['n_rows_broken']:,} of {n_source:,} rows break {n_broken} of {n_rules} rules.",
        *lines(report),
    ]


def _short(value: str) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
