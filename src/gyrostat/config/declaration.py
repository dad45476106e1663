"""The typed declaration: what each package's settings are composed to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gyrostat.config.fields import Each, Group, Mistake, Value
from gyrostat.config.grammar import GRAMMAR
from gyrostat.data.settings import (
    ColumnSettings,
    DataSettings,
    KeySettings,
    SourceSettings,
    SplitSettings,
)
from gyrostat.gates.settings import ChampionGateSettings, GateSettings, UndecidedSettings
from gyrostat.monitoring.settings import DriftSettings, MonitoringSettings
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.rollout.settings import BakeSettings, RolloutSettings
from gyrostat.serving.settings import ServerSettings, ServingSettings
from gyrostat.terms import Limit
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


@dataclass(frozen=True, slots=True)
class Declaration:
    """The whole declaration."""

    models: Mapping[str, ModelSettings]
    server: ServerSettings
    control_port: int
    approvers: tuple[str, ...] = ()


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
    server = tree["server"]
    return Declaration(
        {name: _model(name, model) for name, model in tree["models"].items()},
        ServerSettings(server["port"], server["host"], server["workers"], server["max_body"]),
        tree["control_room"]["port"],
        tree["governance"]["approvers"],
    )


def _model(name: str, m: dict[str, Any]) -> ModelSettings:
    where = f"models.{name}"
    data, output = m["data"], m["output"]
    if bool(data["split"]["by"]) != bool(data["split"]["cut"]):
        raise Mistake(
            "`by` and `cut` go together: {by: COLUMN, cut: 2025-04-01}.", key=f"{where}.data.split"
        )
    limits = tuple(
        _limit(metric, sides, f"{where}.limits.{metric}") for metric, sides in m["limits"].items()
    )
    gates, rollout, retraining = m["gates"], m["rollout"], m["retraining"]
    columns = {
        column: ColumnSettings(c["kind"], c["format"], c["missing"])
        for column, c in data["columns"].items()
    }
    n_alarms, period_s = m["monitoring"]["drift"]["false_alarms"]
    budget, window_s = retraining["budget"]
    if budget > 64 or budget != int(budget):
        raise Mistake("a whole count of at most 64 per period.", key=f"{where}.retraining.budget")
    return ModelSettings(
        name,
        DataSettings(
            source=SourceSettings(**data["source"]), target=data["target"], task=data["task"], positive=output["positive"],
            keys=KeySettings(**data["keys"]), split=SplitSettings(**data["split"]), columns=columns,
            exclude=data["exclude"], personal=data["personal"], learn_from_traffic=data["learn_from_traffic"],
            window=data["window"], checks=data["checks"],
        ),
        TrainSettings(
            m["train"]["run"], m["train"]["params"],
            ResourceSettings(m["train"]["resources"]["time"], m["train"]["resources"]["memory"]), m["train"]["python"],
        ),
        GateSettings(
            limits, ChampionGateSettings(**gates["champion"]),
            UndecidedSettings(gates["undecided"]["after"], gates["undecided"]["then"]),
            gates["size"], gates["confidence"], gates["min_newer_rows"],
        ),
        RolloutSettings(
            rollout["approval"], BakeSettings(rollout["bake"]["requests"], rollout["bake"]["time"]), rollout["steps"],
            rollout["guardrails"], rollout["expires"], rollout["then"], rollout["watch"], rollout["wrong_decisions"],
        ),
        MonitoringSettings(
            DriftSettings(m["monitoring"]["drift"]["shift"], n_alarms / period_s), m["monitoring"]["keep"], m["labels"]["mature_after"]
        ),
        RetrainingSettings(retraining["triggers"], retraining["cooldown"], int(budget), window_s, retraining["new_rows"]),
        ServingSettings(**m["serving"]),
        output["threshold"],
    )  # fmt: skip


def _limit(metric: str, sides: dict[str, float], key: str) -> Limit:
    if len(sides) != 1:
        raise Mistake("exactly one side: {max: 0.70} or {min: 0.8}.", key=key)
    return Limit(metric, **sides)
