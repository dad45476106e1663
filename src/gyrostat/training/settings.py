"""`train:` of the declaration: what to run, with which parameters, within which bounds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ResourceSettings:
    """What a training may use before it is ended."""

    time_s: float = 600.0
    memory_bytes: int = 2_000_000_000
    """Resident memory of the training and all it started."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """`models.<name>.train`."""

    run: str = "src.train:train"
    """`module:function` (frame, params) -> fitted model; or the path of a script."""
    params: dict[str, object] = field(default_factory=dict)
    resources: ResourceSettings = ResourceSettings()
    python: str = ""
    """Another interpreter for the training, a path being relative to the project; empty: the one Gyrostat runs in."""
    writes: tuple[str, ...] = ()
    """Folders that it may write to besides its job's own; relative to the project."""
