"""What champion and candidate answer to the same table: how much is another answer, and, where the truth is known, a worse one.

Both answer it as a batch would; what decides is measured from the two files of answers, row beside row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat_runtime.schema import Output

from gyrostat.gates.bootstrap import difference_interval, metric_interval
from gyrostat.gates.evidence import spelled
from gyrostat.gates.metrics import Answers, Metric, applicable
from gyrostat.stats.intervals import wilson_interval
from gyrostat.terms import Limit, Margin

if TYPE_CHECKING:
    import polars as pl

MIN_LABELS = 20
"""Fewer say nothing about quality, and are not asked."""
MOST_LABELS = 100_000
"""Of more, so many are drawn: resampling all of a large table says no more."""


def measure(
    champion: Path,
    candidate: Path,
    *,
    target: str,
    output: Output,
    input: str,
    guardrails: Mapping[str, Margin],
    limits: Sequence[Limit],
    alpha: float,
    seed: int = 0,
) -> dict[str, Any]:
    """The evidence that `rollout.replay.judge` decides by; strict JSON values.

    Args:
        champion, candidate: Parquet files of answers to the same rows, as `gyrostat.batch` writes them.
        target: name of the column in both that holds labels; empty: there is none.
        alpha: what all intervals together may err by.
    """
    import polars as pl

    names = {"row": pl.col("row"), "one": pl.col("prediction"), "why": pl.col("error")}
    names["truth"] = pl.col(target) if target else pl.lit(None, pl.String)
    theirs = pl.read_parquet(champion).select(**names)
    mine = pl.read_parquet(candidate).select(other=pl.col("prediction"), why_not=pl.col("error"))
    both = theirs.hstack(mine)
    answered = both.filter(pl.col("why").is_null() & pl.col("why_not").is_null())
    labelled = _labelled(answered, output)
    metrics = {m.name: m for m in applicable(output.task)} if len(labelled) >= MIN_LABELS else {}
    # Probabilities are not compared: what a reader of the table takes is the answer.
    metrics = {name: m for name, m in metrics.items() if name not in ("brier", "log_loss")}
    compared = [name for name in guardrails if name in metrics]
    held = [limit for limit in limits if limit.metric in metrics]
    each = alpha / max(1, len(compared) + len(held) + ("error_rate" in guardrails))
    rails: dict[str, Any] = {}
    if "error_rate" in guardrails and (found := _errors(both, each)):
        rails["error_rate"] = found
    ours, others = (_answers(labelled, column, output) for column in ("other", "one"))
    for name in compared:
        rails[name] = _difference(metrics[name], ours, others, each, seed)
    bounds = {x.metric: _limit(metrics[x.metric], x, ours, each, seed) for x in held}
    return {
        "input": input, "n": both["why"].null_count(), "n_rows": both.height, "n_labels": labelled.height,
        "guardrails": {k: v for k, v in rails.items() if v}, "limits": {k: v for k, v in bounds.items() if v},
        **_changed(answered, output, alpha),
    }  # fmt: skip


def _errors(both: pl.DataFrame, alpha: float) -> dict[str, Any] | None:
    """Rows that the champion answers and the candidate does not, less those of which the opposite is so."""
    import polars as pl

    n = both.height
    if not n:
        return None
    no, not_mine = pl.col("why").is_not_null(), pl.col("why_not").is_not_null()
    worse, better, base = both.select(
        worse=(not_mine & ~no).sum(), better=(no & ~not_mine).sum(), base=no.sum()
    ).row(0)
    (low_worse, high_worse), (low_better, high_better) = (
        wilson_interval(k, n, alpha=alpha / 2) for k in (worse, better)
    )
    return {
        "value": (worse - better) / n, "lower": low_worse - high_better, "upper": high_worse - low_better, "base": base / n,
        "n": n, "cause": "errors",
    }  # fmt: skip


def _labelled(answered: pl.DataFrame, output: Output) -> pl.DataFrame:
    import polars as pl

    truth = pl.col("truth")
    if output.task == "regression":
        truth = truth.cast(pl.Float64, strict=False)
    known = answered.with_columns(truth=truth).filter(pl.col("truth").is_not_null())
    if output.task == "regression":
        known = known.filter(pl.col("truth").is_finite())
    return known.sample(MOST_LABELS, seed=0) if known.height > MOST_LABELS else known


def _answers(labelled: pl.DataFrame, column: str, output: Output) -> Answers:
    import numpy as np

    if output.task == "regression":
        truth, said = (np.asarray(labelled[c].to_numpy(), np.float64) for c in ("truth", column))
        return Answers(truth, said, None)
    names = ("truth", "one", "other")
    named = {c: [spelled(v, output) for v in labelled[c].to_list()] for c in names}
    known = (spelled(c, output) for c in output.classes)
    classes = dict.fromkeys(itertools.chain(known, *named.values()))
    place = {name: i for i, name in enumerate(classes)}
    truth, said = (np.array([place[v] for v in named[c]], np.int64) for c in ("truth", column))
    positive = place.get(spelled(output.positive, output) if output.positive else "", 1)
    return Answers(truth, said, None, len(place), positive)


def _difference(
    metric: Metric, ours: Answers, others: Answers, alpha: float, seed: int
) -> dict[str, Any] | None:
    bounds = difference_interval(metric, ours, others, confidence=1 - alpha, seed=seed)
    base = metric.value(others)
    value = metric.harm(metric.value(ours)) - metric.harm(base)
    if bounds is None or not math.isfinite(value):
        return None
    return {
        "value": value, "lower": bounds[0], "upper": bounds[1], "base": base if metric.is_less_better else 1.0 - base,
        "n": len(ours.y), "cause": "quality",
    }  # fmt: skip


def _limit(
    metric: Metric, limit: Limit, ours: Answers, alpha: float, seed: int
) -> dict[str, Any] | None:
    bounds = metric_interval(metric, ours, confidence=1 - alpha, seed=seed)
    if bounds is None:
        return None
    side = "max" if limit.max is not None else "min"
    return {
        "value": metric.value(ours), "lower": bounds[0], "upper": bounds[1], "limit": limit.bound, "side": side, "n": len(ours.y),
        "cause": "quality",
    }  # fmt: skip


def _changed(answered: pl.DataFrame, output: Output, alpha: float) -> dict[str, Any]:
    """How many answers are others, and of numbers by how much in the mean."""
    import polars as pl

    n = answered.height
    n_changed = int((answered["one"] != answered["other"]).sum())
    lower, upper = wilson_interval(n_changed, n, alpha=alpha) if n else (0.0, 1.0)
    found: dict[str, Any] = {
        "changed": {"value": n_changed / n if n else 0.0, "lower": lower, "upper": upper, "n": n}
    }
    if output.task != "regression" or n < 2:
        return found
    from statistics import NormalDist

    mean, deviation = answered.select(
        mean=(pl.col("other") - pl.col("one")).mean(), sd=(pl.col("other") - pl.col("one")).std()
    ).row(0)
    half = NormalDist().inv_cdf(1 - alpha / 2) * deviation / math.sqrt(n)
    moved = {"value": mean, "lower": mean - half, "upper": mean + half, "n": n}
    return found | {"moved": moved}
