"""Declared rules over a table: which rule, how many rows, with examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat.data.infer import INTEGER, ISO, MISSING_WORDS, NUMBER
from gyrostat.errors import ConfigError

if TYPE_CHECKING:
    import polars

N_EXAMPLES = 3
KEYS = {"kind", "missing", "range", "values", "unique"}


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
    except YAMLError as error:
        raise ConfigError(
            f"config/{path.name} is no YAML: {str(error).splitlines()[0]}. Nothing was changed."
        ) from error
    columns = rules.get("columns") if isinstance(rules, dict) else None
    if not isinstance(columns, dict):
        raise ConfigError(
            f"config/{path.name}: a mapping `columns:` is needed. Nothing was changed."
        )
    for name, rule in columns.items():
        if not isinstance(rule, dict) or set(rule) - KEYS:
            raise ConfigError(
                f"config/{path.name}: {name}: allowed are {', '.join(sorted(KEYS))}. Nothing was changed."
            )
    return rules


def run(df: polars.DataFrame, rules: dict[str, Any], personal: frozenset[str]) -> dict[str, Any]:
    """Judge a table of texts; the shape of a snapshot record's `checks`.

    Values of personal columns are masked in examples.
    """
    broken: list[dict[str, Any]] = []
    rows: set[int] = set()
    n_rules = 0
    for name, rule in rules["columns"].items():
        for what, is_broken in _rules(name, rule, df):
            n_rules += 1
            found = is_broken if isinstance(is_broken, list) else []
            if found is not is_broken:  # the whole column is not there
                broken.append({"column": name, "rule": what, "rows": df.height, "examples": []})
                rows.update(range(df.height))
            elif found:
                values = df[name].to_list()
                examples = [
                    {"row": n + 1, "value": "***" if name in personal else values[n]}
                    for n in found[:N_EXAMPLES]
                ]
                broken.append(
                    {"column": name, "rule": what, "rows": len(found), "examples": examples}
                )
                rows.update(found)
    return {
        "n_rules": n_rules,
        "n_broken": len(broken),
        "n_rows_broken": len(rows),
        "broken": broken,
    }


def _rules(name: str, rule: dict[str, Any], df: polars.DataFrame) -> list[tuple[str, Any]]:
    if name not in df.columns:
        return [("the column is there", None)]
    values = [v.strip() if v is not None else "" for v in df[name].to_list()]
    found: list[tuple[str, Any]] = []
    kind = rule.get("kind")
    known = (
        {n: v for n, v in enumerate(values) if v and v.lower() not in MISSING_WORDS}
        if kind != "category"
        else {}
    )
    if kind in ("number", "integer"):
        form = INTEGER if kind == "integer" else NUMBER
        bad = [
            n
            for n, v in known.items()
            if not NUMBER.fullmatch(v)
            or abs(float(v)) == float("inf")
            or (form is INTEGER and not float(v).is_integer())
        ]
        found.append((f"{kind}s", bad))
        known = {n: v for n, v in known.items() if NUMBER.fullmatch(v)}
    elif kind == "boolean":
        found.append(
            ("true or false", [n for n, v in known.items() if v.lower() not in ("true", "false")])
        )
    elif kind == "date":
        found.append(
            (
                "dates",
                [
                    n
                    for n, v in known.items()
                    if not ISO.fullmatch(v) and not any(c.isdigit() for c in v)
                ],
            )
        )
    if rule.get("missing") == "none":
        is_text = kind == "category"
        found.append(
            (
                "no missing values",
                [
                    n
                    for n, v in enumerate(values)
                    if not v or (not is_text and v.lower() in MISSING_WORDS)
                ],
            )
        )
    if "range" in rule:
        low, high = map(float, rule["range"])
        outside = [
            n for n, v in known.items() if NUMBER.fullmatch(v) and not low <= float(v) <= high
        ]
        found.append((f"range {low:g} to {high:g}", outside))
    if "values" in rule:
        allowed = {str(v) for v in rule["values"]}
        found.append(
            (
                f"one of {', '.join(sorted(allowed)[:8])}",
                [
                    n
                    for n, v in enumerate(values)
                    if v and v not in allowed and _plain(v) not in allowed
                ],
            )
        )
    if rule.get("unique"):
        seen: set[str] = set()
        found.append(
            ("unique", [n for n, v in enumerate(values) if v and (v in seen or seen.add(v))])
        )  # type: ignore[func-returns-value]
    return found


def _plain(value: str) -> str:
    return (
        str(int(float(value))) if NUMBER.fullmatch(value) and float(value).is_integer() else value
    )


def lines(report: dict[str, Any]) -> list[str]:
    """Each broken rule: column, rule, rows, an example."""
    if not report["broken"]:
        return []
    wide = max(len(b["column"]) for b in report["broken"])
    wider = max(len(b["rule"]) for b in report["broken"])
    told = []
    for b in report["broken"]:
        example = next(
            (
                f"e.g. row {e['row']}" + (f": {e['value']}" if e["value"] is not None else "")
                for e in b["examples"]
            ),
            "",
        )
        told.append(
            f"{b['column']:{wide}}  {b['rule']:{wider}}  {b['rows']:>6,} rows   {example}".rstrip()
        )
    return told
