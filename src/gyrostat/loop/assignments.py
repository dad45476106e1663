"""Who was given which arm while a release went on, and what came of it: observations and prediction log, read together."""

from __future__ import annotations

import csv
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from gyrostat_runtime import keys

from gyrostat import observations, predictionlog
from gyrostat.errors import UsageError
from gyrostat.ledger import times
from gyrostat.stats.losses import loss_of_line, metric_of
from gyrostat.stats.sequential import MeansTest, Moments, cs_margin, rate_sequence

NAMES = {"champion": "champion", "candidate": "challenger"}
METRICS = {"squared": "rmse", "miss": "accuracy"}
"""What is shown of the loss that an observation line is about."""
COLUMNS: tuple[str, ...] = ("key", "prediction", "arm", "version", "first_seen", "predictions")


@dataclass
class Arm:
    """What one arm answered."""

    bundle: str
    n: int = 0
    errors: int = 0
    losses: Moments = field(default_factory=Moments)


@dataclass
class Split:
    """The steps of a release in which requests were divided between a champion and a challenger."""

    steps: frozenset[int]
    """Seqs of their routes."""
    arms: dict[str, Arm]
    seconds: list[int] = field(default_factory=list)
    loss: str = ""
    test: MeansTest = field(default_factory=MeansTest)
    """Stratified by step: shares move from one to the next, and with them perhaps the customers."""


@dataclass
class Assignment:
    """A key, or a prediction without one, and the arm that it was given."""

    key: str
    prediction: str
    arm: str
    bundle: str
    first_at: float
    n: int = 0


def split(state: Path, model: str, *, bundle: str = "") -> Split:
    """The newest release that had requests divided, or that of `bundle`.

    Raises:
        UsageError: there is none.
        DamagedError: the observations are not what was written.
    """
    folder = state / "observations" / model
    steps: dict[str, set[int]] = {}
    newest = ""
    for line, _ in observations.read(folder):
        if line["arm"] == "candidate" and "n" in line:
            newest = line["bundle"]
            steps.setdefault(newest, set()).add(line["routes_seq"])
    chosen = bundle or newest
    if chosen not in steps:
        raise UsageError(
            f"No request of {model} was divided between two arms{' with this version' if bundle else ''} "
            "(what was seen is kept for monitoring.keep). See: gyrostat changes"
        )
    found = Split(frozenset(steps[chosen]), {"champion": Arm(""), "candidate": Arm(chosen)})
    for line, _ in observations.read(folder):
        if line["routes_seq"] in found.steps and line["arm"] in found.arms:
            _add(found, line)
    return found


def _add(found: Split, line: Mapping[str, Any]) -> None:
    arm = found.arms[line["arm"]]
    if "n" in line:
        arm.bundle = line["bundle"]
        arm.n += line["n"]
        arm.errors += line["errors"]
        found.seconds = [*found.seconds[:1], line["second"]]
    elif (sums := loss_of_line(line, line["loss"])) is not None:
        found.loss = line["loss"]
        arm.losses = arm.losses.add(sums.n, sums.total, sums.squares)
        side = int(line["arm"] == "candidate")
        stratum = str(line["routes_seq"])
        found.test = found.test.add(stratum, side, sums.n, sums.total, sums.squares)


def compared(found: Split, *, alpha: float) -> dict[str, Any]:
    """Arms and the difference of their losses, challenger minus champion, as JSON values.

    `lower` and `upper` hold whenever one looks, with probability 1 - `alpha`; None where there are too few labels. Rows
    count as independent.
    """
    metric = METRICS.get(found.loss, "")
    arms: dict[str, Any] = {}
    for role, arm in found.arms.items():
        lower, upper = rate_sequence(arm.errors, arm.n, alpha=alpha)
        arms[NAMES[role]] = {
            "bundle": arm.bundle, "requests": arm.n, "errors": arm.errors, "error_rate": [lower, upper], "labels": arm.losses.n,
            **({metric: metric_of(metric, arm.losses.mean)} if metric and arm.losses.n else {}),
        }  # fmt: skip
    size, excess, variance = found.test.difference()
    half = cs_margin(size, variance, alpha=alpha) if size else inf
    known = size > 0
    return {
        "arms": arms,
        "difference": {
            "loss": found.loss, "value": excess if known else None, "lower": excess - half if known else None,
            "upper": excess + half if known else None, "confidence": 1 - alpha,
        },
    }  # fmt: skip


def assignments(state: Path, model: str, found: Split) -> Iterator[Assignment]:
    """Predictions without a key as they come, then each key with its arm, oldest first; a key that moved stands twice.

    What a tester asked for is no assignment. In memory are the keys.
    """
    known: dict[tuple[str, str], Assignment] = {}
    since, until = found.seconds[0] - 3600.0, found.seconds[-1] + 3600.0
    for frame in predictionlog.read(state, model, since=since, until=until):
        if frame.routes_seq not in found.steps or frame.arm not in found.arms or frame.is_asked:
            continue
        if not frame.key:
            yield Assignment("", frame.id, frame.arm, frame.bundle, frame.at, 1)
            continue
        place = (frame.key, frame.arm)
        if place not in known:
            known[place] = Assignment(frame.key, "", frame.arm, frame.bundle, frame.at)
        known[place].n += 1
    yield from known.values()


def hashed(state: Path, key: str) -> str:
    """A client's key as the log has it."""
    return hmac.digest(keys.log_key(state / "keys"), key.encode(), "sha256").hex()[:16]


def as_json(one: Assignment, versions: Mapping[str, int]) -> dict[str, Any]:
    """The columns of one assignment."""
    return {
        "key": one.key, "prediction": one.prediction, "arm": NAMES[one.arm], "version": versions.get(one.bundle),
        "first_seen": times.iso(one.first_at), "predictions": one.n,
    }  # fmt: skip


def write_csv(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """All assignments as a table; the file appears when it is whole."""
    making = path.with_name(f".{path.name}.making")
    with making.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    making.replace(path)
