"""The model card: a page in Markdown, made from the record alone. What is not on record is not in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gyrostat_runtime.schema import Schema

from gyrostat.terms import Limit

MOST_CATEGORIES = 8


def write(
    *,
    name: str,
    schema: Schema,
    snapshot: Mapping[str, Any],
    training: Mapping[str, Any],
    flavour: str,
    reason: str,
    parity: str,
    reference: Mapping[str, Any],
    limits: Sequence[Limit],
    made_at: float,
    environment: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """The card as text. `snapshot` and `training` are the records of these jobs, `reference` the histograms."""
    blocks = [
        _head(name, schema, made_at),
        _served(flavour, reason, parity, environment),
        _data(snapshot, schema, training.get("offered")),
        _trained(training),
        _metrics(training.get("metrics") or {}),
        _limits(limits),
        _features(schema, reference),
        _gaps(schema, snapshot, training, notes),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _head(name: str, schema: Schema, made_at: float) -> str:
    output = schema.output
    when = datetime.fromtimestamp(made_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [f"# {name}", "", f"Predicts `{output.target}` ({output.task}). Packed {when}."]
    if output.classes:
        lines.append(f"Classes, in the order of its probabilities: {_list(output.classes)}.")
    if output.task == "binary" and output.positive:
        lines.append(
            f"It answers `{output.positive}` where its probability is at least {output.threshold:g}."
        )
    return "\n".join(lines)


def _served(flavour: str, reason: str, parity: str, environment: Mapping[str, Any]) -> str:
    how = "as ONNX" if flavour == "onnx" else f"natively, in a process of its own: {reason}"
    lines = ["## How it is served", "", f"- {_sentence(how)}"]
    if parity:
        lines.append(f"- {_sentence(parity)}")
    lines.append(
        f"- Trained with Python {environment['python']} on {environment['machine']}; "
        f"every version in `{environment['file']}`."
    )
    return "\n".join(lines)


def _data(snapshot: Mapping[str, Any], schema: Schema, offered: Mapping[str, Any] | None) -> str:
    if not snapshot:
        return ""
    facts = [f"- Snapshot `{snapshot['id']}`"]
    counts = {
        "n_train": "rows on the training side" if offered else "rows trained on",
        "n_heldout": "rows held out, none of them among the rows offered with the model"
        if offered
        else "rows held out, never trained on",
        "n_traffic": "of all rows are labelled predictions from traffic",
        "n_source": "come from the source table",
    }
    facts += [f"- {snapshot[key]:,} {text}" for key, text in counts.items() if snapshot.get(key)]
    checks = snapshot.get("checks") or {}
    if checks.get("n_rules"):
        n_held = checks["n_rules"] - checks.get("n_broken", 0)
        facts.append(f"- {n_held} of {checks['n_rules']} declared rules hold")
    if schema.personal:
        facts.append(
            f"- Personal columns, hashed in logs and masked in errors: {_list(schema.personal)}"
        )
    return "\n".join(["## Data", "", *facts])


def _trained(training: Mapping[str, Any]) -> str:
    if not training:
        return ""
    code = training.get("code") or {}
    facts = []
    if offered := training.get("offered"):
        facts.append(
            f"- Fitted elsewhere and offered, said to be on {training['n_rows']:,} rows: {offered['n_train']:,} of the "
            f"training side, {offered['n_other']:,} of no snapshot. That it was fitted on these alone was not seen"
        )
    if code.get("commit"):
        state = "with changes that were not committed" if code.get("dirty") else "clean"
        facts.append(f"- Code: commit `{code['commit'][:12]}`, {state}")
    if code.get("digest"):
        facts.append(f"- Code digest: `{code['digest'][:16]}`")
    if training.get("params"):
        facts += [f"- `{key}`: {_cell(value)}" for key, value in sorted(training["params"].items())]
    if training.get("mlflow_run"):
        facts.append(f"- MLflow run `{training['mlflow_run']}`")
    return "\n".join(["## Training", "", *facts]) if facts else ""


def _metrics(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return ""
    lines = [
        "## Metrics",
        "",
        "As recorded by the training itself; what the gates measured on held-out rows,",
    ]
    lines += ["with intervals, stands in the ledger.", "", "| metric | value | interval | rows |"]
    lines.append("|---|---|---|---|")
    for name, found in sorted(metrics.items()):
        if isinstance(found, Mapping):
            interval = (
                f"{found['lower']:.4g} to {found['upper']:.4g}"
                if found.get("lower") is not None
                else ""
            )
            lines.append(
                f"| {_cell(name)} | {_cell(found.get('value'))} | {interval} | {found.get('n', '')} |"
            )
        else:
            lines.append(f"| {_cell(name)} | {_cell(found)} | | |")
    return "\n".join(lines)


def _limits(limits: Sequence[Limit]) -> str:
    if not limits:
        return ""
    facts = [
        f"- {limit.metric}: {'at most' if limit.max is not None else 'at least'} {limit.bound:g}"
        for limit in limits
    ]
    return "\n".join(["## Limits it was packed under", "", *facts])


def _features(schema: Schema, reference: Mapping[str, Any]) -> str:
    lines = [
        "## Features",
        "",
        "| feature | kind | in training | missing in training |",
        "|---|---|---|---|",
    ]
    kinds = {c.name: c.kind for c in schema.inputs}
    for feature in schema.features:
        found = reference["columns"][feature.name]
        kind = f"{feature.part} of {feature.column}" if feature.part else kinds[feature.column]
        if found["kind"] == "category":
            shown = _list(found["values"][:MOST_CATEGORIES])
            more = len(found["values"]) - MOST_CATEGORIES
            seen = f"{shown} and {more} more" if more > 0 else shown
        else:
            q = found.get("quantiles")
            seen = f"{q['0']:g} to {q['1']:g}, median {q['0.5']:g}" if q else "no value"
        lines.append(f"| {_cell(feature.name)} | {_cell(kind)} | {seen} | {found['n_missing']:,} |")
    return "\n".join(lines)


def _gaps(
    schema: Schema,
    snapshot: Mapping[str, Any],
    training: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    gaps = [_sentence(note) for note in notes]
    whole = [c.name for c in schema.inputs if not c.nullable]
    if whole and len(whole) < len(schema.inputs):
        gaps.append(
            f"Training had no missing value in {_list(whole)}: there a missing one is refused."
        )
    elif whole:
        gaps.append("Training had no missing values: a request with one is refused.")
    if any(c.kind == "category" for c in schema.inputs):
        gaps.append("A category that training did not have is answered, and counted as new.")
    used = {f.column for f in schema.features}
    unused = [c.name for c in schema.inputs if c.name not in used]
    if unused:
        gaps.append(f"Accepted in a request, but no feature: {_list(unused)}.")
    known = (
        set(snapshot.get("columns") or ())
        - {c.name for c in schema.inputs}
        - {schema.output.target}
    )
    if known:
        gaps.append(f"In the table, but not used: {_list(sorted(known))}.")
    if not training.get("metrics"):
        gaps.append("The training recorded no metric of its own.")
    return "\n".join(["## Known gaps", "", *(f"- {gap}" for gap in gaps)]) if gaps else ""


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{_cell(name)}`" for name in names)


def _cell(value: Any) -> str:
    """Text that cannot break out of a table or start markup of its own."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("\n", " ").replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
