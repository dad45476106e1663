"""The environment a model was trained in: every installed distribution with its version. Standard library only, for the harness."""

from __future__ import annotations

import hashlib
import platform
from typing import Any

FILE = "environment.txt"


def lock() -> str:
    """`name==version` of every installed distribution, sorted, one a line."""
    from importlib.metadata import distributions

    found = {(d.name or "").lower().replace("_", "-"): d.version for d in distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()) if name)


def describe(text: str) -> dict[str, Any]:
    """What a manifest says of the environment whose lock is `text`."""
    return {
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "file": FILE,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
