"""What each server says of the routes by which it answers: `routes/<model>.applied/<server>.json`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from gyrostat import pids


@dataclass(frozen=True, slots=True)
class Receipt:
    """One server's word about one model's routes."""

    server: str
    pid: int
    birth: str
    """Of that process; empty: an older release, which does not say."""
    epoch: int
    seq: int
    """Of the routes by which it answers; 0: of none."""
    waits: bool
    """It takes no requests yet, for another one answers them."""
    routes: dict[str, Any]
    """What it applied last, or an earlier process of its name did."""
    refused: float = -1
    """Seq of routes that it does not apply; -1: none; infinity: a file that says no seq."""
    cause: str = ""

    @property
    def is_living(self) -> bool:
        """Whether the process that said so still runs."""
        return pids.is_living(self.pid, self.birth)


def folder(state: Path, model: str) -> Path:
    """Where the receipts of a model are."""
    return state / "routes" / f"{model}.applied"


def receipts(state: Path, model: str) -> Iterator[Receipt]:
    """What all servers of a model said last, those that are gone too."""
    for path in sorted(folder(state, model).glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            said = json.loads(path.read_bytes())
            yield Receipt(
                path.stem, int(said["pid"]), str(said.get("birth", "")), int(said.get("epoch", 0)), int(said.get("seq", 0)),
                bool(said.get("waits")), dict(said.get("routes") or {}), _refused(said), str(said.get("cause", "")),
            )  # fmt: skip


def _refused(said: dict[str, Any]) -> float:
    seq = said.get("refused", -1)
    return inf if seq is None else float(seq)


def refusal(state: Path, model: str, routed_at: int) -> str:
    """Which server goes on with the routes that it has, for it refuses these or later ones, and why; empty: none does."""
    return next(
        (
            f"{r.server} refuses the routes: {r.cause}"
            for r in receipts(state, model)
            if r.refused >= routed_at > 0
        ),
        "",
    )


def is_at_work(state: Path, server: str, pid: int) -> bool:
    """Whether a server has said of each model that was released that it answers, and by what."""
    for routes in (state / "routes").glob("*.json"):
        said = (r for r in receipts(state, routes.stem) if r.server == server)
        if not any(r.pid == pid and not r.waits for r in said):
            return False
    return True


def forget(state: Path, *, but: set[str]) -> None:
    """Remove what servers said that do not come back; what they served last is in the receipts of those named."""
    for path in (state / "routes").glob("*.applied/*.json"):
        if path.stem not in but:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
