"""Projects around small tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from gyrostat_runtime.schema import Schema
from hypothesis import settings as hypothesis_settings

from gyrostat.data import snapshots, tables
from gyrostat.data.infer import Inference, infer
from gyrostat.data.settings import DataSettings

# How long an example takes says how busy the machine is.
hypothesis_settings.register_profile("patient", deadline=None)
hypothesis_settings.load_profile("patient")


@dataclass
class Table:
    """A project with one table, and what `init` would declare about it."""

    root: Path
    path: Path
    settings: DataSettings
    inference: Inference

    @property
    def state(self) -> Path:
        return self.root / ".gyrostat" / "dev"

    def take(self, **more: Any) -> dict[str, Any]:
        settings = more.pop("settings", self.settings)
        record = snapshots.take(self.root, self.state, "m", settings, **more)
        assert record is not None
        return record

    def rows(self, record: dict[str, Any]) -> Any:
        return snapshots.read(self.state, "m", record["id"])

    def declare(self, rules: dict[str, Any]) -> None:
        # JSON is YAML.
        text = json.dumps(rules, ensure_ascii=False)
        (self.root / "config" / "checks.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Table]:
    """Make a project around a text or a file."""

    def make(content: str | bytes | Path, target: str, name: str = "table.csv") -> Table:
        if isinstance(content, Path):
            name, content = content.name, content.read_bytes()
        for folder in ("data", "config"):
            (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / "data" / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        source = tables.sniff(path).settings
        inference = infer(tables.read(path, source), target)
        settings = inference.data_settings(replace(source, path=f"data/{name}"))
        made = Table(tmp_path, path, settings, inference)
        made.declare(inference.rules())
        return made

    return make


def schema_of(record: dict[str, Any]) -> Schema:
    return Schema.from_json(record["schema"])
