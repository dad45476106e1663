"""A declaration that changed is an event, with its diff, who changed it and what was loosened."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from gyrostat import config
from gyrostat.loop import reconcile
from gyrostat.ports import Ledger
from gyrostat.terms import Draft

STREAM = "declaration"
FIRST = "first"


def last(ledger: Ledger) -> dict[str, Any] | None:
    """The body of the last `declared` event; None before the first."""
    entries = ledger.tail(STREAM)
    return entries[-1].body if entries else None


def declare(ledger: Ledger, loaded: config.Loaded, actor: str) -> bool:
    """Put the declaration on record if it is not the one on record; whether it was new."""
    entries = ledger.tail(STREAM)
    before = entries[-1].body["digest"] if entries else ""
    if before == loaded.digest:
        return False
    config.store(loaded)
    changed, loosened = _compared(loaded, before)
    body = {
        "digest": loaded.digest, "diff": changed, "actor": actor, "commit": _commit(loaded.project),
        "loosened": loosened, "env": loaded.env,
    }  # fmt: skip
    key = f"declared/{len(entries) + 1}/{loaded.digest}"
    ref = f"declaration/{loaded.digest[:12]}"
    for model, what in loosened.items():
        told = {"digest": loaded.digest, "loosened": what, "actor": actor}
        ledger.append(
            f"production/{model}",
            Draft("declared", ledger.now(), actor, outputs=(ref,), body=told, key=key),
            expect_seq=None,
            fence=None,
        )
    ledger.append(
        STREAM,
        Draft("declared", ledger.now(), actor, outputs=(ref,), body=body, key=key),
        expect_seq=None,
        fence=None,
    )
    return True


def ask_for_first(ledger: Ledger, loaded: config.Loaded, actor: str) -> None:
    """A model that never had a run wants one; the key keeps it at one."""
    for model in loaded.declaration.models:
        stream = f"retraining/{model}"
        if ledger.knows(stream, FIRST) or reconcile.facts_of(ledger, stream).run:
            continue
        body = {"by": "first", "why": "no champion yet", "actor": actor}
        ledger.append(
            stream,
            Draft("triggered", ledger.now(), actor, body=body, key=FIRST),
            expect_seq=None,
            fence=None,
        )


def _compared(
    loaded: config.Loaded, before: str
) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    if not before:
        return [], {}
    try:
        old_values, old = (
            config.stored_values(loaded.state, before),
            config.stored(loaded.state, before),
        )
    except OSError:
        return [], {}
    loosened = {
        name: what
        for name, settings in loaded.declaration.models.items()
        if name in old.models and (what := config.loosened(old.models[name], settings))
    }
    return config.diff(old_values, loaded.values), loosened


def _commit(project: Path) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(project), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
