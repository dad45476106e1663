"""Where heads of the chain are kept, as declared in `audit:`."""

from __future__ import annotations

from dataclasses import dataclass

from gyrostat.adapters.notify.settings import Webhook


@dataclass(frozen=True, slots=True)
class FileAnchor:
    """A file, one JSON line a head; on another disk or host, where whoever can write here cannot write."""

    path: str
    """Relative to the project, or absolute."""

    @property
    def label(self) -> str:
        """How it is shown."""
        return self.path


@dataclass(frozen=True, slots=True)
class GitAnchor:
    """A git repository with a work tree: each head is a commit."""

    path: str
    push: bool = False
    """To its upstream, so that the history is no longer ours alone."""

    @property
    def label(self) -> str:
        """How it is shown."""
        return f"git {self.path}"


@dataclass(frozen=True, slots=True)
class WebAnchor:
    """Somebody who keeps what is posted; hand it back as a file: `audit verify --anchor FILE`."""

    hook: Webhook

    @property
    def label(self) -> str:
        """How it is shown."""
        return self.hook.label


Place = FileAnchor | GitAnchor | WebAnchor


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Where, and how often if something is new."""

    anchors: tuple[Place, ...] = ()
    every_s: float = 600.0
