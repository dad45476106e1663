"""Who is told: receivers as they are declared, in `notify:`. A secret is a name here (`env:NAME`), never its value."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

WHEN = ("person_needed", "rolled_back", "stuck", "failed")
"""What calls for a message."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A POST of JSON."""

    kind: ClassVar[str] = "webhook"
    url: str
    """`https://...` or `env:NAME`; what is in the variable is not shown anywhere."""
    token: str = ""
    """`env:NAME` of what is sent as `Authorization: Bearer ...`."""
    private: bool = False
    """Whether the address may be private, loopback or link-local."""
    when: tuple[str, ...] = WHEN

    @property
    def label(self) -> str:
        """How it is shown."""
        return self.url


@dataclass(frozen=True, slots=True)
class Command:
    """A program that gets the message as JSON on its standard input; exit 0 means told."""

    kind: ClassVar[str] = "command"
    command: str
    """Split as a shell would, run without one, in the project's folder."""
    when: tuple[str, ...] = WHEN

    @property
    def label(self) -> str:
        """How it is shown."""
        return self.command


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail by SMTP."""

    kind: ClassVar[str] = "mail"
    smtp: str
    """`host:port`."""
    sender: str
    to: tuple[str, ...]
    user: str = ""
    """`env:NAME`."""
    password: str = ""
    """`env:NAME`."""
    tls: str = "starttls"
    """starttls, tls (from the first byte) or none (of a private server only)."""
    private: bool = False
    when: tuple[str, ...] = WHEN

    @property
    def label(self) -> str:
        """How it is shown."""
        return f"mail to {', '.join(self.to)}"


Receiver = Webhook | Command | Mail


def identity(receiver: Receiver) -> str:
    """What its cursor is kept under: the same however `when` changes."""
    text = json.dumps([receiver.kind, _identifying(receiver)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def secrets_of(receiver: Receiver) -> list[str]:
    """The variables it needs, as `env:NAME`."""
    values = (getattr(receiver, f.name) for f in fields(receiver))
    return [v for v in values if isinstance(v, str) and v.startswith("env:")]


def _identifying(receiver: Receiver) -> dict[str, Any]:
    where = {"url", "command", "smtp", "to"}
    return {name: value for name, value in asdict(receiver).items() if name in where}
