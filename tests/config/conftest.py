"""A project's `config/` around one declaration, changed as each test needs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from config.builders import DECLARATION, Read

from gyrostat import config


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Loads the declaration after `old` became `new`, beside other files in config/, with these variables."""

    def load(
        old: str = "",
        new: str = "",
        *,
        text: str | bytes | None = None,
        files: Mapping[str, str] | None = None,
        **environ: str,
    ) -> config.Loaded:
        assert old in DECLARATION, f"the declaration has no {old!r}"
        folder = tmp_path / "config"
        folder.mkdir(exist_ok=True)
        text = DECLARATION.replace(old, new, 1) if text is None else text
        (folder / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        for name, content in (files or {}).items():
            (folder / name).write_text(content, encoding="utf-8")
        return config.load(tmp_path, environ)

    return load
