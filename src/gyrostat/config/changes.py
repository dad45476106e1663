"""What changed between two declarations, what was loosened, and how a declaration is shown and kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gyrostat.config.declaration import Declaration, ModelSettings
from gyrostat.config.fields import Each, Group, Value
from gyrostat.config.grammar import GRAMMAR
from gyrostat.config.reader import Loaded, from_values
from gyrostat.terms import Limit, Margin

STRICTNESS = ("never", "first", "always")


def store(loaded: Loaded) -> None:
    """Keep the merged values under their digest, so that a run can pin them."""
    from gyrostat_runtime.files import write_atomic

    path = loaded.state / "declarations" / f"{loaded.digest}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(loaded.values, ensure_ascii=False, indent=1).encode())


def stored_values(state: Path, digest: str) -> dict[str, Any]:
    """The merged values of a kept declaration."""
    return json.loads((state / "declarations" / f"{digest}.json").read_bytes())


def stored(state: Path, digest: str) -> Declaration:
    """A kept declaration, typed."""
    return from_values(stored_values(state, digest))


def flat(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """`(key path, leaf)`; lists are leaves."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from flat(value, f"{path}.{key}" if path else key)
    else:
        yield path, values


def diff(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, Any]]:
    """Each key that differs, with both values; None where it was not there."""
    before, after = dict(flat(old)), dict(flat(new))
    keys = sorted(before.keys() | after.keys())
    return [
        {"key": k, "old": before.get(k), "new": after.get(k)}
        for k in keys
        if before.get(k) != after.get(k)
    ]


def loosened(old: ModelSettings, new: ModelSettings) -> list[str]:
    """What became easier to pass, one sentence each."""
    found = []
    limits = {limit.metric: limit for limit in new.gates.limits}
    for limit in old.gates.limits:
        now = limits.get(limit.metric)
        if now is None:
            found.append(f"limit {limit.metric} was removed")
        elif _is_looser(limit, now):
            found.append(f"limit {limit.metric} went from {limit.bound:g} to {now.bound:g}")
    for metric, margin in old.rollout.guardrails.items():
        wider = new.rollout.guardrails.get(metric)
        if wider is None:
            found.append(f"guardrail {metric} was removed")
        elif _is_wider(margin, wider):
            found.append(f"guardrail {metric} went from {margin} to {wider}")
    before, after = old.gates.champion, new.gates.champion
    if before.metric != after.metric:
        found.append(
            f"the champion is compared by {after.metric} (margin {after.margin:g}) instead of {before.metric}"
        )
    elif after.margin > before.margin:
        found.append(f"champion margin went from {before.margin:g} to {after.margin:g}")
    if new.gates.confidence < old.gates.confidence:
        found.append(f"confidence went from {old.gates.confidence:g} to {new.gates.confidence:g}")
    if new.gates.size_bytes > old.gates.size_bytes:
        found.append(
            f"largest bundle went from {old.gates.size_bytes / 1e6:g}MB to {new.gates.size_bytes / 1e6:g}MB"
        )
    if STRICTNESS.index(new.rollout.approval) < STRICTNESS.index(old.rollout.approval):
        found.append(f"approval went from {old.rollout.approval} to {new.rollout.approval}")
    if new.rollout.wrong_decisions > old.rollout.wrong_decisions:
        found.append(
            f"wrong_decisions went from {old.rollout.wrong_decisions:g} to {new.rollout.wrong_decisions:g}"
        )
    return found


def _is_looser(old: Limit, new: Limit) -> bool:
    if (old.max is None) != (new.max is None):
        return True
    return new.bound > old.bound if old.max is not None else new.bound < old.bound


def _is_wider(old: Margin, new: Margin) -> bool:
    additive = ("points", "plain")
    is_comparable = old.kind == new.kind or (old.kind in additive and new.kind in additive)
    return new.value > old.value if is_comparable else True


def render(loaded: Loaded) -> list[str]:
    """The merged declaration, one line a value, and where each came from."""
    rows = [(path, json.dumps(value, ensure_ascii=False)) for path, value in flat(loaded.values)]
    wide = max(len(path) + len(value) for path, value in rows)
    wide = min(wide + 4, 90)
    return [f"{f'{path}: {value}':{wide}}  # {_origin(loaded, path)}" for path, value in rows]


def _origin(loaded: Loaded, path: str) -> str:
    while path and path not in loaded.origins:
        path = path.rpartition(".")[0]
    return loaded.origins.get(path, "default")


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) that editors complete and check with."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Gyrostat declaration",
        **_schema(GRAMMAR),
    }


def _schema(grammar: Any) -> dict[str, Any]:
    if isinstance(grammar, Value):
        found: dict[str, Any] = dict(grammar.schema)
        found["description"] = (
            f"{grammar.help} ({grammar.allowed})" if grammar.help else grammar.allowed
        )
        if grammar.default is not None:
            found["default"] = grammar.default
        return found
    if isinstance(grammar, Each):
        item = _schema(grammar.item)
        names = (
            {"properties": dict.fromkeys(grammar.known, item), "additionalProperties": False}
            if grammar.known
            else {
                "propertyNames": {"pattern": f"^({grammar.pattern})$"},
                "additionalProperties": item,
            }
        )
        return {"type": "object", "description": grammar.help, **names}
    assert isinstance(grammar, Group)
    required = [
        key for key, item in grammar.keys.items() if isinstance(item, Value) and item.is_required
    ]
    found = {
        "type": "object",
        "description": grammar.help,
        "additionalProperties": False,
        "properties": {key: _schema(item) for key, item in grammar.keys.items()},
    }
    if required:
        found["required"] = required
    if not grammar.short:
        return found
    return {"anyOf": [_schema(grammar.keys[grammar.short]), found], "description": grammar.help}
