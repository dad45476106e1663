"""What a receiver is told."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that somebody must know, in words and as values."""

    kind: str
    """person_needed, rolled_back, stuck or failed."""
    cause: str
    """What it is about for ever: the hash of the entry that called for it."""
    ref: str
    """The entry."""
    about: str
    """version/..., run/... or the model's name."""
    model: str
    project: str
    env: str
    at: str
    what: str
    """What happened, one sentence."""
    harm: str
    """What users felt of it."""
    done: str
    """What the loop did about it."""
    command: str
    """What to type."""
    id: str = ""
    """The same whenever this message goes to this receiver, so that it can drop a repeat."""

    def to(self, receiver: str) -> Message:
        """The message with its id for one receiver."""
        key = hashlib.sha256(f"{self.kind} {self.cause} {receiver}".encode()).hexdigest()[:32]
        return replace(self, id=key)

    @property
    def title(self) -> str:
        """One line."""
        words = {
            "person_needed": "a person is needed",
            "rolled_back": "rolled back",
            "stuck": "stuck",
            "failed": "failed",
            "test": "test",
        }
        return f"{self.model} ({self.project}, {self.env}): {words[self.kind]}: {self.what}"

    @property
    def text(self) -> str:
        """All of it, for people."""
        rows = [("ref", f"{self.ref}  {self.about}  {self.at}"), ("harm", self.harm), ("done", self.done), ("type", self.command)]  # fmt: skip
        return "\n".join([self.title, *(f"  {name:5} {value}" for name, value in rows if value)])

    def as_json(self) -> dict[str, Any]:
        """The values, and `text`, which chat services show."""
        return {"text": self.text, "title": self.title, **asdict(self)}
