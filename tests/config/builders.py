"""The declaration that the tests change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gyrostat import config

DECLARATION = (Path(__file__).parent / "declaration.yaml").read_text(encoding="utf-8")

Read = Callable[..., config.Loaded]
