"""The typed declaration: what each package's settings are composed to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from gyrostat.adapters.anchors.settings import AuditSettings
from gyrostat.adapters.notify.settings import Receiver
from gyrostat.batching.settings import BatchSettings
from gyrostat.config.fields import Bound, Each, Group, Mistake, Value, nearest, shown
from gyrostat.config.grammar import FOLLOWED, GRAMMAR, SERVICE
from gyrostat.data import numerals
from gyrostat.data.settings import (
    ColumnSettings,
    DataSettings,
    KeySettings,
    SourceSettings,
    Span,
    SplitSettings,
)
from gyrostat.gates.metrics import METRICS, applicable
from gyrostat.gates.settings import ChampionGateSettings, GateSettings, UndecidedSettings
from gyrostat.monitoring.settings import DriftSettings, MonitoringSettings
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.rollout.settings import BakeSettings, RolloutSettings
from gyrostat.schedule import Schedule, check
from gyrostat.serving.settings import ServerSettings, ServingSettings
from gyrostat.terms import Limit, Margin
from gyrostat.training.settings import ResourceSettings, TrainSettings


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Everything that is declared about one model."""

    name: str
    data: DataSettings
    train: TrainSettings
    gates: GateSettings
    rollout: RolloutSettings
    monitoring: MonitoringSettings
    retraining: RetrainingSettings
    serving: ServingSettings
    threshold: float = 0.5
    batches: tuple[BatchSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class Declaration:
    """The whole declaration."""

    models: Mapping[str, ModelSettings]
    server: ServerSettings
    control_port: int
    approvers: tuple[str, ...] = ()
    notify: tuple[Receiver, ...] = ()
    audit: AuditSettings = field(default_factory=AuditSettings)
    storage_bytes: int = 10**12


def _typed(grammar: Any, values: Any) -> Any:
    """Values as the grammar reads them (seconds, bytes, shares)."""
    if isinstance(grammar, Value):
        return grammar.read(values)
    if isinstance(grammar, Each):
        return {name: _typed(grammar.item, value) for name, value in values.items()}
    assert isinstance(grammar, Group)
    return {key: _typed(item, values[key]) for key, item in grammar.keys.items() if key in values}


def build(values: Mapping[str, Any]) -> Declaration:
    """Type merged values; they must have passed the reader.

    Raises:
        Mistake: two keys contradict each other.
    """
    tree = _typed(GRAMMAR, values)
    if not tree["models"]:
        raise Mistake("at least one model is needed.", key="models")
    server, control_port = tree["server"], tree["control_room"]["port"]
    if server["port"] == control_port:
        raise Mistake(
            f"{control_port} is server.port too. Two ports are needed, 1 to 65535.",
            key="control_room.port",
        )
    return Declaration(
        {name: _model(name, model) for name, model in tree["models"].items()},
        ServerSettings(
            server["port"],
            server["host"],
            server["workers"],
            server["max_body"],
            server["log_sync"],
            server["access_log"],
        ),
        control_port,
        tree["governance"]["approvers"],
        tree["notify"],
        AuditSettings(tree["audit"]["anchor"], tree["audit"]["every"]),
        tree["storage"]["budget"],
    )


def _split(data: dict[str, Any], where: str) -> SplitSettings:
    """The split, where its keys agree; `by: event_at` means the column that `keys.event_at` names."""
    said, event_at = data["split"], data["keys"]["event_at"]
    is_span, is_cut = isinstance(said["holdout"], Span), bool(said["cut"])
    by = event_at if said["by"] == "event_at" and event_at else said["by"]
    if not by and (is_span or is_cut or said["gap"]):
        raise Mistake(
            "a split by time needs the column that says when: {by: COLUMN, holdout: 3 months}.",
            key=f"{where}.split",
        )
    if by and is_span == is_cut:
        raise Mistake(
            "with `by` either the newest span is held out, {by: COLUMN, holdout: 3 months}, or what comes from a date on, "
            "{by: COLUMN, cut: 2025-04-01}.",
            key=f"{where}.split",
        )
    if by and said["group"]:
        raise Mistake(
            "`by` and `group` contradict each other: what came later is on one side, or each group is. Keep one.",
            key=f"{where}.split",
        )
    if isinstance(data["window"], Span) and not (by or event_at):
        raise Mistake(
            f"a window of {data['window']} needs the column that says when: data.keys: {{event_at: COLUMN}}.",
            key=f"{where}.window",
        )
    return SplitSettings(**{**said, "by": by})


def _model(name: str, m: dict[str, Any]) -> ModelSettings:
    where = f"models.{name}"
    data, output = m["data"], m["output"]
    task = data["task"]
    split = _split(data, f"{where}.data")
    if data["target"] in data["exclude"]:
        raise Mistake(
            f"it holds the target, {shown(data['target'])}. What is predicted is no feature anyway: take it out.",
            key=f"{where}.data.exclude",
        )
    if task != "binary" and (output["positive"] or output["threshold"] != 0.5):
        key = "positive" if output["positive"] else "threshold"
        raise Mistake(
            f"only a binary task has one, and data.task is {task}.", key=f"{where}.output.{key}"
        )
    limits = tuple(
        _limit(metric, sides, task, f"{where}.limits.{metric}")
        for metric, sides in m["limits"].items()
    )
    gates, rollout, retraining = m["gates"], m["rollout"], m["retraining"]
    for metric, margin in rollout["guardrails"].items():
        _check_guardrail(metric, margin, task, f"{where}.rollout.guardrails.{metric}")
    compared = gates["champion"]["metric"] or ("rmse" if task == "regression" else "accuracy")
    _check_metric(compared, task, f"{where}.gates.champion.metric")
    columns = {}
    for column, c in data["columns"].items():
        if c["format"]:
            _check_format(c["format"], c["kind"], f"{where}.data.columns.{column}.format")
        columns[column] = ColumnSettings(c["kind"], c["format"], c["missing"])
    batches = _batches(m["batch"], data["source"]["path"], f"{where}.batch")
    if not rollout["steps"]:
        if not batches:
            raise Mistake(
                "[] releases by replay of a table that the champion has answered, and none is declared. Declare one under "
                "batch, or use [shadow, 50%].",
                key=f"{where}.rollout.steps",
            )
        batches = tuple(replace(batch, is_replayed=True) for batch in batches)
    n_alarms, period_s = m["monitoring"]["drift"]["false_alarms"]
    budget, window_s = retraining["budget"]
    if budget > 64 or budget != int(budget):
        raise Mistake(
            f"{budget:g} is not allowed here. Allowed: a whole count of at most 64 per period.",
            key=f"{where}.retraining.budget",
        )
    serving = m["serving"]
    return ModelSettings(
        name,
        DataSettings(
            source=SourceSettings(**data["source"]), target=data["target"], task=data["task"], positive=output["positive"], threshold=output["threshold"],
            keys=KeySettings(**data["keys"]), split=split, columns=columns,
            exclude=data["exclude"], personal=data["personal"], learn_from_traffic=data["learn_from_traffic"],
            window=data["window"], checks=data["checks"],
        ),
        TrainSettings(
            m["train"]["run"], m["train"]["params"],
            ResourceSettings(m["train"]["resources"]["time"], m["train"]["resources"]["memory"]), m["train"]["python"],
            m["train"]["writes"],
        ),
        GateSettings(
            limits, ChampionGateSettings(compared, gates["champion"]["margin"]),
            UndecidedSettings(gates["undecided"]["after"], gates["undecided"]["then"]),
            gates["size"]["max"], gates["confidence"], gates["min_newer_rows"],
        ),
        RolloutSettings(
            rollout["approval"], BakeSettings(rollout["bake"]["requests"], rollout["bake"]["time"]), rollout["steps"],
            rollout["guardrails"], rollout["expires"], rollout["then"], rollout["watch"], rollout["wrong_decisions"],
        ),
        MonitoringSettings(
            DriftSettings(m["monitoring"]["drift"]["shift"], n_alarms / period_s), m["monitoring"]["keep"], m["labels"]["mature_after"]
        ),
        RetrainingSettings(
            tuple(t for t in retraining["triggers"] if isinstance(t, str)), retraining["cooldown"], int(budget), window_s,
            retraining["new_rows"], tuple(t for t in retraining["triggers"] if isinstance(t, Schedule)),
        ),
        ServingSettings(
            serving["missing"], serving["new_category"], serving["durable"], serving["log_sample"], serving["memory"],
        ),
        output["threshold"],
        batches,
    )  # fmt: skip


def _batches(said: dict[str, Any], source: str, where: str) -> tuple[BatchSettings, ...]:
    found: list[BatchSettings] = []
    for name, b in said.items():
        schedule, output = Schedule(**b["schedule"]), PurePath(b["output"])
        try:
            check(schedule)
        except ValueError as error:
            raise Mistake(str(error), key=f"{where}.{name}.schedule") from None
        taken = {PurePath(b["input"]): "its own input", PurePath(source): "data.source"}
        taken |= {PurePath(other.output): f"the output of {other.name}" for other in found}
        if output in taken:
            raise Mistake(
                f"{shown(b['output'])} is {taken[output]}, and would be overwritten. Name another file.",
                key=f"{where}.{name}.output",
            )
        found.append(BatchSettings(name, b["input"], b["output"], schedule, b["keep"]))
    return tuple(found)


def _check_format(form: str, kind: str, key: str) -> None:
    if kind not in ("", "date", "number", "integer"):
        raise Mistake(f"only dates and numbers have one, and kind is {kind}.", key=key)
    if kind in ("number", "integer"):
        try:
            numerals.parse(form)
        except ValueError as error:
            raise Mistake(f"{error}.", key=key) from None


def _check_metric(metric: str, task: str, key: str, *, others: tuple[str, ...] = ()) -> None:
    known = (*(m.name for m in applicable(task)), *others)
    if metric in known:
        return
    why = f"a {task} model has no {metric}." if metric in METRICS else "there is no such metric."
    raise Mistake(f"{why}{nearest(metric, known)} Allowed: {', '.join(known)}.", key=key)


def _limit(metric: str, sides: dict[str, Bound], task: str, key: str) -> Limit:
    _check_metric(metric, task, key, others=SERVICE)
    is_less_better = metric in SERVICE or METRICS[metric].is_less_better
    side, other = ("max", "min") if is_less_better else ("min", "max")
    if set(sides) != {side}:
        less = "less" if is_less_better else "more"
        raise Mistake(
            f"exactly one side, and of {metric}, {less} is better. Allowed: {{{side}: ...}}.",
            key=f"{key}.{other}" if other in sides else key,
        )
    bound = sides[side]
    allowed = ""
    if metric == "latency_p99":
        if bound.unit != "time" or bound.value <= 0:
            allowed = "a time with its unit: 50ms, 1s"
    elif bound.unit == "time":
        allowed = "a number, or a share (1%)"
    elif metric == "error_rate" and not 0 <= bound.value < 1:
        allowed = "a share below 100%: 1%, or 0.01"
    elif not is_less_better and bound.value >= 1:
        allowed = "a number below 1: 0.8, or 80%"
    elif metric in ("rmse", "mae", "log_loss", "brier") and bound.value <= 0:
        allowed = "a number above 0"
    if allowed:
        raise Mistake(
            f"{bound.value:g} {'s ' if bound.unit == 'time' else ''}is not allowed here. Allowed: {allowed}.",
            key=f"{key}.{side}",
        )
    return Limit(metric, **{side: bound.value})


def _check_guardrail(metric: str, margin: Margin, task: str, key: str) -> None:
    known = (*(m.name for m in applicable(task) if m.name in FOLLOWED), *SERVICE)
    if metric not in known:
        _check_metric(metric, task, key, others=SERVICE)
    is_ratio_only = metric == "latency_p99"
    if (is_ratio_only and margin.kind != "ratio") or (
        margin.kind == "points" and metric in ("rmse", "mae", "log_loss")
    ):
        forms = "a ratio: x1.2" if is_ratio_only else "a ratio (x1.05) or a number"
        raise Mistake(
            f"'{margin}' is not allowed here: {metric} is no share. Allowed: {forms}.", key=key
        )
