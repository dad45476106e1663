"""Gyrostat keeps machine-learning models at their declared quality: one loop that only ever acts through a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gyrostat.project import Project

__all__ = ["Project", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # `import gyrostat` loads no third-party library; the door is opened when somebody asks for it.
    if name == "Project":
        from gyrostat.project import Project

        return Project
    raise AttributeError(name)
