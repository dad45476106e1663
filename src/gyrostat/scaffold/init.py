"""`gyrostat init`: a table becomes a project. All or nothing: it is written beside its place and then put there."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from gyrostat import config
from gyrostat.data import frames, split, tables
from gyrostat.data.infer import Inference, infer
from gyrostat.data.settings import DataSettings, SourceSettings, SplitSettings
from gyrostat.errors import DataError, UsageError
from gyrostat.scaffold.guess import Guessed, guess
from gyrostat.terms import Told

MIN_SIDE = 5
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
    sniffed = tables.sniff(data)
    df = tables.read(data, sniffed.settings)
    wanted = target if target is not None else df.columns[-1]
    inference = infer(df, wanted, task=task)
    settings = _settings(inference, sniffed.settings, f"data/{data.name}")
    schema = inference.schema(settings.personal)
    typed = frames.typed(df, inference)
    group = settings.split.group
    keyed = typed.with_columns(df[group]) if group and group not in typed.columns else typed
    sides = split.sides(keyed, settings, schema)
    typed = typed.with_columns(_side=pl.Series(sides, dtype=pl.String)).filter(
        typed[inference.target].is_not_null()
    )
    train, heldout = (typed.filter(typed["_side"] == side) for side in (split.TRAIN, split.HELDOUT))
    if train.height < MIN_SIDE or heldout.height < MIN_SIDE:
        raise DataError(
            f"The split leaves {train.height} rows to train and {heldout.height} to judge; {MIN_SIDE} of each are needed at least. "
            "Nothing was written."
        )
    params = {**PARAMS[inference.task.value], "random_state": 42}
    guessed = guess(_frame(train, schema), _frame(heldout, schema), schema, params)
    text = _config(model, inference, settings, guessed, params)
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=_parent(folder)))
    try:
        _write(place, text, inference, data)
        config.load(place, {})  # what we wrote must be what we read
        if folder.exists():
            folder.rmdir()
        place.replace(folder)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    n_twice = df.height - df.unique().height
    return _told(
        folder,
        data,
        model,
        df.width,
        inference,
        sniffed,
        settings,
        guessed,
        n_twice,
        heldout.height,
    )


def _parent(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.parent


def _frame(rows: Any, schema: Any) -> Any:
    return frames.features(rows, schema).assign(
        **{schema.output.target: frames.target(rows, schema)}
    )


def _settings(inference: Inference, source: SourceSettings, path: str) -> DataSettings:
    from dataclasses import replace

    personal = tuple(g.name for g in inference.columns.values() if g.is_personal)
    excluded = tuple(g.name for g in inference.columns.values() if g.excluded and not g.is_personal)
    return DataSettings(
        source=replace(source, path=path), target=inference.target, task=inference.task.value, positive=inference.positive,
        split=SplitSettings(group=inference.group), exclude=excluded, personal=personal,
    )  # fmt: skip


def _q(value: Any) -> str:
    """A value as YAML: JSON is YAML, and quotes whatever needs it."""
    return json.dumps(value, ensure_ascii=False)


def _config(
    model: str,
    inference: Inference,
    settings: DataSettings,
    guessed: Guessed,
    params: dict[str, Any],
) -> str:
    source = {
        k: v for k, v in asdict(settings.source).items() if v != getattr(SourceSettings(path=""), k)
    }
    where = (
        _q(source["path"])
        if len(source) == 1
        else "{" + ", ".join(f"{k}: {_q(v)}" for k, v in source.items()) + "}"
    )
    columns = []
    for g in inference.columns.values():
        if g.name == inference.target or g.excluded:
            continue
        facts: dict[str, Any] = {}
        if g.kind == "date" or (g.kind == "category" and any(v.isdigit() for v in g.categories)):
            facts["kind"] = g.kind
        if g.format:
            facts["format"] = g.format
        if g.missing_words:
            facts["missing"] = list(g.missing_words)
        if facts:
            columns.append(f"        {_q(g.name)}: {_q(facts)}")
    side = "max" if guessed.is_less_better else "min"
    rail = "x1.05" if guessed.is_less_better else "+2pp"
    split_by = (
        f"{{holdout: 20%, group: {_q(settings.split.group)}}}"
        if settings.split.group
        else "{holdout: 20%}"
    )
    output = f"    output: {{positive: {_q(inference.positive)}}}\n" if inference.positive else ""
    listed = "\n" + "\n".join(columns) if columns else " {}"
    return f"""\
# yaml-language-server: $schema=../.gyrostat/config.schema.json
version: 1
models:
  {model}:
    data:
      source: {where}
      target: {_q(inference.target)}
      task: {inference.task.value}                     # regression, binary, multiclass
      split: {split_by}                # by the row itself: the same rows in every snapshot
      columns:{listed}
      exclude: {_q(list(settings.exclude))}    # no features: ids, and what is known only afterwards
      personal: {_q(list(settings.personal))}    # hashed in logs, masked in errors
      learn_from_traffic: true             # labelled predictions join the next training
      checks: checks.yaml
    train:
      run: src.train:train                 # a function (frame, params) -> fitted model; or a script: src/train.py
      params: {_q(params)}
      resources: {{time: 10min, memory: 2GB}}
{output}    limits:                                # what "good" means: gates, guardrails and monitor all hold these
      {guessed.metric}: {{{side}: {guessed.limit:g}}}                  # guessed: measured {guessed.value:.3g}, a model that looks at nothing gets {guessed.trivial:.3g}
      error_rate: {{max: 1%}}
      latency_p99: {{max: 50ms}}
    gates:
      champion: {{metric: {guessed.metric}, margin: {guessed.margin:g}}}    # how much worse than the champion is the same
      undecided: {{after: 7d, then: ask}}    # ask, reject, hold
      size: {{size}}
    rollout:
      approval: first                      # first, always, never
      bake: {{requests: 200, time: 2min}}    # each step at least; promotion needs the proof besides
      steps: [shadow, 5%, 25%, 50%]
      guardrails: {{error_rate: +1pp, latency_p99: x1.2, {guessed.metric}: {rail}}}   # against the champion beside it
      expires: 7d                          # a canary without enough traffic: then ask (or reject, hold)
      watch: 24h                           # after promotion, a broken limit rolls back by itself
      wrong_decisions: 5%                  # at most this share of good releases rolled back, or of bad ones promoted
    monitoring:
      drift: {{shift: 0.25, false_alarms: 1 per month}}
      keep: 90d
    labels: {{mature_after: 0s}}             # 60d: younger rows count nowhere
    retraining:
      triggers: [decay, new_data]          # drift as well, if you want
      cooldown: 6h
      budget: 4 per day
    serving: {{missing: as_trained, new_category: answer}}
server: {{port: 8080}}
control_room: {{port: 7007}}
governance: {{approvers: []}}                # empty: whoever can run the command
notify: []
""".replace("{size}", "200MB")


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
        f"Read {data.name}: {inference.n_rows:,} rows, {n_columns} columns, {', '.join(sniffed.notes)}."
    ]
    lines += [f"  {note}" for note in inference.notes]
    lines += [
        f"  features  {', '.join(f'{n} {kind}' for kind, n in kinds.items())}, {missing}{twice}",
        f"  held out  20 %, {n_heldout:,} rows, {by}",
        f"Wrote {folder.name}/ with config/ data/ src/ tests/ requirements.txt Dockerfile",
        f"Guessed   limits: {guessed.metric} {sign} {guessed.limit:g} (measured {guessed.value:.3g}; looking at nothing gets {guessed.trivial:.3g}), "
        "p99 latency at most 50 ms, error rate at most 1 %",
    ]
    if not guessed.beats_trivial:
        lines.append(
            "          these rows do not show that a model beats looking at nothing: expect an undecided gate, or bring more rows"
        )
    lines.append(f"Next      read config/config.yaml, then: cd {folder.name} && gyrostat up")
    facts = {
        "model": model, "folder": str(folder), "n_rows": inference.n_rows, "n_columns": n_columns, "target": inference.target,
        "task": inference.task.value, "classes": list(inference.classes), "positive": inference.positive,
        "encoding": sniffed.settings.encoding, "separator": sniffed.settings.separator, "read_as": list(sniffed.notes),
        "notes": [asdict(note) for note in inference.notes], "excluded": {g.name: g.excluded for g in inference.columns.values() if g.excluded},
        "personal": list(settings.personal), "features": {g.name: g.kind for g in features}, "n_heldout": n_heldout, "n_twice": n_twice,
        "limits": {guessed.metric: guessed.limit}, "measured": asdict(guessed),
    }  # fmt: skip
    return Told(tuple(lines), facts)
