"""`gyrostat init`: a table becomes a project. All or nothing: it is written beside its place and then put there."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat import config
from gyrostat.data import frames, personal, report, split, tables
from gyrostat.data.infer import Inference, Note, infer
from gyrostat.data.names import quoted, shown
from gyrostat.data.readings import read_column
from gyrostat.data.settings import ColumnSettings, DataSettings, SourceSettings
from gyrostat.errors import DataError, UsageError
from gyrostat.scaffold.guess import Guessed, guess
from gyrostat.terms import Told

if TYPE_CHECKING:
    import polars
    from gyrostat_runtime.schema import Schema

MIN_SIDE = 5
MAX_GUESSED_ON = 2_000
MAX_CELLS = 400_000
MAX_COUNTED = 50_000
PARAMS = {
    "regression": {"n_estimators": 100, "max_depth": 6},
    "binary": {"n_estimators": 100, "max_depth": 8},
    "multiclass": {"n_estimators": 100, "max_depth": 10},
}


def init(
    folder: Path,
    data: Path,
    target: str | None,
    *,
    name: str | None = None,
    task: str | None = None,
) -> Told:
    """Read the table, guess what it means, and write a project around it.

    Args:
        target: None: the last column.

    Raises:
        UsageError: the folder is not empty, there is no such file.
        DataError: the table cannot be understood or learned from. Nothing was written.
    """
    import polars as pl

    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not empty. Nothing was written.")
    model = name or re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name).strip("-") or "model"
    if not config.is_model_name(model):
        raise UsageError(
            f"{model!r} is no name for a model; letters, digits, _ and - are allowed. Use --name."
        )
    sniffed, df = tables.load(data)
    wanted = target if target is not None else df.columns[-1]
    if wanted.strip() in sniffed.repeated:
        raise DataError(
            f"{quoted(wanted)} stands more than once in the header of {data.name}, so it is not clear which one is to be predicted. "
            "Give each a name of its own. Nothing was written."
        )
    inference = infer(df, wanted, task=task)
    settings, schema, sides = _split(df, inference, sniffed.settings, f"data/{data.name}")
    n_heldout = sides.count(split.HELDOUT)
    if df.height >= 2 * MAX_COUNTED:
        n_heldout = 1000 * round(n_heldout / len(sides) * inference.n_labelled / 1000)
    # Limits are guesses; of a large table some rows show them as well.
    n_guessed_on = min(MAX_GUESSED_ON, max(500, MAX_CELLS // df.width))
    few = df.gather_every(max(1, df.height // n_guessed_on))
    typed = frames.typed(few, inference).filter(pl.col(inference.target).is_not_null())
    typed = typed.with_columns(
        _side=pl.Series(split.sides(typed, settings, schema), dtype=pl.String)
    )
    train, heldout = (typed.filter(typed["_side"] == side) for side in (split.TRAIN, split.HELDOUT))
    params = {**PARAMS[inference.task.value], "random_state": 42}
    guessed = guess(_frame(train, schema), _frame(heldout, schema), schema, params)
    text = _config(model, settings, guessed, params)
    missing = [p for p in folder.parents if not p.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(place, text, inference, data)
        config.load(place, {})  # what we wrote must be what we read
        if folder.exists():
            folder.rmdir()
        place.replace(folder)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
    n_twice = df.height - df.hash_rows().n_unique()
    return _told(
        folder, data, model, df.width, inference, sniffed, settings, guessed, n_twice, n_heldout
    )  # fmt: skip


def explain(data: Path, target: str | None, column: str, *, task: str | None = None) -> Told:
    """How one column is judged, and by what; nothing is written.

    Raises:
        UsageError: there is no such file or column.
        DataError: the table cannot be read.
    """
    sniffed, df = tables.load(data)
    name = column if column in df.columns else column.strip()
    if name not in df.columns:
        listed = ", ".join(map(shown, df.columns[:30])) + (", ..." if df.width > 30 else "")
        raise UsageError(f"There is no column {quoted(column)}. Columns: {listed}.")
    found, problem = None, ""
    try:
        found = infer(df, target if target is not None else df.columns[-1], task=task)
        guess = found.columns[name]
    except DataError as error:
        # The rest of the table is no reason to keep silent about this column.
        guess, problem = read_column(df[name]).guess, str(error)
        guess.is_personal = personal.found(df[name]) is not None
    lines = report.explained(df, guess, found)
    if problem:
        lines.append(f"  init      {problem}")
    facts = {
        "column": name, "kind": guess.kind, "why": guess.evidence, "left_out": guess.excluded, "format": guess.format, "n_missing": guess.n_missing,
        "n_distinct": guess.n_distinct, "personal": guess.is_personal, "read_as": list(sniffed.notes), "problem": problem,
        "findings": [asdict(n) | {"rows": list(n.rows)} for n in (found.notes if found else ()) if n.column == name],
    }  # fmt: skip
    return Told(tuple(lines), facts)


def _split(
    df: polars.DataFrame, inference: Inference, source: SourceSettings, path: str
) -> tuple[DataSettings, Schema, list[str]]:
    """The declaration with a split that leaves rows on both sides; groups that do not are named and not taken."""
    settings = _settings(inference, source, path)
    schema = inference.schema(settings.personal)
    sides = _sides(df, inference, settings, schema)
    if settings.split.group and min(map(sides.count, (split.TRAIN, split.HELDOUT))) < MIN_SIDE:
        group, inference.group, inference.entity = settings.split.group, "", ""
        what = f"not taken as split.group: of {inference.columns[group].n_distinct} groups too few would be held out"
        why = "rows of one group may be on both sides, so the held-out error is too small"
        inference.notes.append(Note(group, what, why))
        settings = _settings(inference, source, path)
        schema = inference.schema(settings.personal)
        sides = _sides(df, inference, settings, schema)
    n_train, n_heldout = (sides.count(side) for side in (split.TRAIN, split.HELDOUT))
    if min(n_train, n_heldout) < MIN_SIDE:
        raise DataError(
            f"The split leaves {n_train} rows to train and {n_heldout} to judge; {MIN_SIDE} of each are needed at least. "
            "Nothing was written."
        )
    return settings, schema, sides


def _sides(
    df: polars.DataFrame, inference: Inference, settings: DataSettings, schema: Schema
) -> list[str]:
    """The side of each row with a label; of a table that is too large to count, of rows all over it."""
    few = df.gather_every(max(1, df.height // MAX_COUNTED))
    typed = frames.typed(few, inference)
    return split.sides(typed.filter(typed[inference.target].is_not_null()), settings, schema)


def _frame(rows: Any, schema: Any) -> Any:
    return frames.features(rows, schema).assign(
        **{schema.output.target: frames.target(rows, schema)}
    )


def _settings(inference: Inference, source: SourceSettings, path: str) -> DataSettings:
    """What is declared: all that decided how this table was read, also where the next one might look otherwise."""
    settings = inference.data_settings(replace(source, path=path))
    columns = dict(settings.columns)
    for g in inference.columns.values():
        if g.excluded or g.name == inference.target:
            continue
        declared = columns.get(g.name, ColumnSettings())
        if g.kind == "date":
            declared = replace(declared, kind="date", format=g.format)
        if g.missing_words:
            words = dict.fromkeys((*declared.missing, *g.missing_words))
            declared = replace(declared, missing=tuple(words))
        if declared != ColumnSettings():
            columns[g.name] = declared
    in_order = {name: columns[name] for name in inference.columns if name in columns}
    return replace(settings, columns=in_order)


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_NOT_TEXT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def _q(value: Any) -> str:
    """A value as YAML on one line: texts as they are where YAML takes them for texts, else in quotes as JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_q(k)}: {_q(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_q, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # What JSON leaves as it is and YAML refuses or takes for the end of a line.
    return re.sub(
        r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda m: f"\\u{ord(m[0]):04x}", text
    )


def _differing(value: Any, default: Any) -> dict[str, Any]:
    return {k: v for k, v in asdict(value).items() if v != getattr(default, k)}


def _config(model: str, settings: DataSettings, guessed: Guessed, params: dict[str, Any]) -> str:
    """The declaration: every key that a person may want to change, with what it means."""
    source = _differing(settings.source, SourceSettings(path=""))
    group, entity = settings.split.group, settings.keys.entity
    split_by = f"{{holdout: 20%, group: {_q(group)}}}" if group else "{holdout: 20%}"
    why = (
        "each group on one side" if group else "by the row itself: the same rows in every snapshot"
    )
    metric = guessed.metric
    limit = {"max" if guessed.is_less_better else "min": guessed.limit}
    rail = "x1.05" if guessed.is_less_better else "+2pp"
    measured = f"guessed: measured {guessed.value:.3g}, a model that looks at nothing gets {guessed.trivial:.3g}"
    names = {
        name: _differing(column, ColumnSettings()) for name, column in settings.columns.items()
    }
    columns = [(f"        {_q(name)}: {_q(facts)}", "") for name, facts in names.items()]
    lines = [
        ("# yaml-language-server: $schema=../.gyrostat/config.schema.json", ""),
        ("version: 1", ""),
        ("models:", ""),
        (f"  {_q(model)}:", ""),
        ("    data:", ""),
        (f"      source: {_q(source if len(source) > 1 else source['path'])}", "how `init` read it; what is not here is usual"),
        (f"      target: {_q(settings.target)}", "the column to predict"),
        (f"      task: {settings.task}", "regression, binary, multiclass"),
        (f"      keys: {_q({'entity': entity} if entity else {})}", "{entity: COLUMN}: what a row is about; no feature"),
        (f"      split: {split_by}", why),
        ("      columns:" + ("" if columns else " {}"), "what the values alone do not say: kind, format of dates, words for missing"),
        *columns,
        (f"      exclude: {_q(settings.exclude)}", "no features: ids, and what is known only afterwards"),
        (f"      personal: {_q(settings.personal)}", "no features; hashed in logs, masked in errors"),
        ("      learn_from_traffic: true", "labelled predictions join the next training"),
        ("      checks: checks.yaml", "what must hold of the source before a training starts"),
        ("    train:", ""),
        ("      run: src.train:train", "a function (frame, params) -> fitted model; or a script: src/train.py"),
        (f"      params: {_q(params)}", ""),
        ("      resources: {time: 10min, memory: 2GB}", ""),
        *([(f"    output: {_q({'positive': settings.positive, 'threshold': 0.5})}", "the class that the threshold is about")] if settings.positive else []),
        ("    limits:", 'what "good" means: gates, guardrails and monitor hold these, by the bound, not the point'),
        (f"      {metric}: {_q(limit)}", measured),
        ("      error_rate: {max: 1%}", ""),
        ("      latency_p99: {max: 50ms}", ""),
        ("    gates:", ""),
        (f"      champion: {_q({'metric': metric, 'margin': guessed.margin})}", "guessed: so much worse than the champion counts as the same"),
        ("      undecided: {after: 7d, then: ask}", "ask, reject, hold"),
        ("      size: 200MB", ""),
        ("    rollout:", ""),
        ("      approval: first", "first, always, never"),
        ("      bake: {requests: 200, time: 2min}", "each step at least; promotion needs the proof besides"),
        ("      steps: [shadow, 5%, 25%, 50%]", ""),
        (f"      guardrails: {{error_rate: +1pp, latency_p99: x1.2, {metric}: {rail}}}", "against the champion beside it"),
        ("      expires: 7d", "a canary without enough traffic: then ask (or reject, hold)"),
        ("      watch: 24h", "after promotion, a broken limit rolls back by itself"),
        ("      wrong_decisions: 5%", "at most this share of good releases rolled back, or of bad ones promoted"),
        ("    monitoring:", ""),
        ("      drift: {shift: 0.25, false_alarms: 1 per month}", ""),
        ("      keep: 90d", ""),
        ("    labels: {mature_after: 0s}", "60d: younger rows count nowhere"),
        ("    retraining:", ""),
        ("      triggers: [decay, new_data]", "drift as well, if you want"),
        ("      cooldown: 6h", ""),
        ("      budget: 4 per day", ""),
        ("    serving: {missing: as_trained, new_category: answer}", ""),
        ("    batch: {}", "nightly: {input: FILE, output: FILE, schedule: {cron: '0 6 * * *'}}: the champion answers a table"),
        ("server: {port: 8080}", ""),
        ("control_room: {port: 7007}", ""),
        ("governance: {approvers: []}", "empty: whoever can run the command"),
        ("notify: []", ""),
    ]  # fmt: skip
    return "".join(f"{text:<42} # {what}\n" if what else f"{text}\n" for text, what in lines)


def _write(place: Path, text: str, inference: Inference, data: Path) -> None:
    template = resources.files("gyrostat.scaffold") / "project"
    with resources.as_file(template) as source:
        shutil.copytree(
            source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    (place / "gitignore").rename(place / ".gitignore")
    (place / "config").mkdir()
    (place / "config" / "config.yaml").write_text(text, encoding="utf-8")
    for env in ("dev", "prod"):
        words = f"# What differs where GYROSTAT_ENV={env}; merged over config.yaml.\n{{}}\n"
        (place / "config" / f"{env}.yaml").write_text(words, encoding="utf-8")
    rules = "# What must hold of the source before a training starts. See: gyrostat data report\ncolumns:\n"
    rules += "".join(
        f"  {_q(name)}: {_q(rule)}\n" for name, rule in inference.rules()["columns"].items()
    )
    (place / "config" / "checks.yaml").write_text(rules, encoding="utf-8")
    (place / "data").mkdir()
    shutil.copy2(data, place / "data" / data.name)
    (place / ".gyrostat").mkdir()
    schema = json.dumps(config.json_schema(), indent=1, ensure_ascii=False)
    (place / ".gyrostat" / "config.schema.json").write_text(schema, encoding="utf-8")
    place.chmod(0o755)  # mkdtemp makes it for its owner alone


_WORDS = {"number": "numeric", "category": "text"}


def _line(about: str, what: str, why: str = "") -> str:
    return f"  {shown(about or 'table'):<9} {what}" + (f"   ({why})" if why else "")


def _read_as(sniffed: tables.Sniffed, inference: Inference) -> list[str]:
    if inference.decimal == ".":
        return list(sniffed.notes)
    return [*sniffed.notes, f'decimal comma, "{inference.thousands}" between thousands']


def _told(
    folder: Path, data: Path, model: str, n_columns: int, inference: Inference, sniffed: tables.Sniffed, settings: DataSettings,
    guessed: Guessed, n_twice: int, n_heldout: int,
) -> Told:  # fmt: skip
    features = inference.features
    kinds: dict[str, int] = {}
    for g in features:
        kinds[g.kind] = kinds.get(g.kind, 0) + 1
    n_missing = sum(g.n_missing > 0 for g in features)
    missing = f"{n_missing} with missing values" if n_missing else "none missing"
    twice = (
        f"; {n_twice:,} rows stand twice (kept; twins stay on one side of the split)"
        if n_twice
        else ""
    )
    by = (
        f"by {settings.split.group}: each stays on one side"
        if settings.split.group
        else "by the row itself: the same rows in every snapshot"
    )
    sign = "at most" if guessed.is_less_better else "at least"
    lines = [
        f"Read {data.name}: {inference.n_rows:,} rows, {n_columns} columns, {', '.join(_read_as(sniffed, inference))}."
    ]
    lines += [_line(note.column, note.what, note.why) for note in inference.notes]
    shown = ", ".join(f"{n} {_WORDS.get(kind, kind)}" for kind, n in kinds.items())
    lines += [
        _line("features", f"{shown}, {missing}{twice}"),
        _line(
            "held out",
            f"20 %, {'about ' if inference.n_rows >= 2 * MAX_COUNTED else ''}{n_heldout:,} rows, {by}",
        ),
        f"Wrote {folder.name}/ with config/ data/ src/ tests/ requirements.txt Dockerfile",
        f"Guessed   limits: {guessed.metric} {sign} {guessed.limit:g} (measured {guessed.value:.3g}; looking at nothing gets {guessed.trivial:.3g}), "
        "p99 latency at most 50 ms, error rate at most 1 %",
    ]
    if guessed.metric == "brier":
        lines.append(
            "          by accuracy these rows do not show that a model beats looking at nothing, so it is judged by how likely it says "
            "each class is: the Brier score, 0 is sure and right"
        )
    if not guessed.beats_trivial:
        lines.append(
            "          these rows do not show that a model beats looking at nothing: expect an undecided gate, or bring more rows"
        )
    lines.append(f"Next      read config/config.yaml, then: cd {folder.name} && gyrostat up")
    facts = {
        "model": model, "folder": str(folder), "n_rows": inference.n_rows, "n_columns": n_columns, "target": inference.target,
        "task": inference.task.value, "classes": list(inference.classes), "positive": inference.positive,
        "encoding": sniffed.settings.encoding, "separator": sniffed.settings.separator, "read_as": _read_as(sniffed, inference), "decimal": inference.decimal, "thousands": inference.thousands,
        "notes": [asdict(note) for note in inference.notes], "excluded": {g.name: g.excluded for g in inference.columns.values() if g.excluded},
        "personal": list(settings.personal), "features": {g.name: g.kind for g in features}, "n_heldout": n_heldout, "n_twice": n_twice,
        "limits": {guessed.metric: {"max" if guessed.is_less_better else "min": guessed.limit}, "error_rate": {"max": 0.01}, "latency_p99": {"max": 0.05}},
        "measured": asdict(guessed),
    }  # fmt: skip
    return Told(tuple(lines), facts)
