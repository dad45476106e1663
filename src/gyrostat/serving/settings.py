"""`server:` and `serving:` of the declaration: where predictions are answered, and what counts as an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`server`: one for the project."""

    port: int = 8080
    host: str = "127.0.0.1"
    workers: int = 1
    max_body_bytes: int = 16_000_000
    log_sync_s: float = 0.2
    """Predictions of at most this long may be lost from the log when the process is killed or the power fails."""
    access_log: str = "off"
    """off; file: `access/<worker>.jsonl` in the state's folder; stdout."""


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """`models.<name>.serving`."""

    missing: str = "as_trained"
    """as_trained: a missing value is answered where training had some, else refused; refuse: always refused."""
    new_category: str = "answer"
    """answer (and counted), or refuse."""
    durable: bool = False
    """An answer leaves only once its place in the log is on the disk."""
    log_sample: float = 1.0
    """Share of the predictions that are logged with their inputs; all are logged and counted."""
    memory_bytes: int = 0
    """Of a native model's process, then another takes its place; 0: 2 GB more than at its first answer."""
