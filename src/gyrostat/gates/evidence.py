"""What the gates judge by: measured on held-out rows, through the very session that will serve.

The evidence is JSON; `judge` turns it and the declaration into verdicts, today or in a year.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gyrostat_runtime.rows import Rows, from_columns
from gyrostat_runtime.schema import Output, Schema

from gyrostat.errors import JobError
from gyrostat.gates.bootstrap import difference_interval, metric_interval
from gyrostat.gates.metrics import METRICS, Answers, Metric, applicable
from gyrostat.gates.settings import GateSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

N_ROUNDS, N_CALLS = 3, 300
MOST_LATENCY_S = 10.0
"""Longest a round of single predictions takes: a slow model is known to be slow after fewer calls."""
BATCH = 2000


class Predicts(Protocol):
    """A session, as far as it matters here."""

    @property
    def schema(self) -> Schema:
        """What goes in and comes out."""
        ...

    def predict(self, rows: Rows) -> Any:
        """`Predictions`: values in the file's spelling, and scores."""
        ...


@dataclass(frozen=True)
class Asked:
    """A model's answers on the rows that it does not refuse."""

    predicted: Array
    """Regression: (n,) float64. Classes: (n,) texts as `spelled`."""
    scores: Array | None
    """Classes: (n, c) probabilities in the order of the model's own classes."""
    classes: tuple[str, ...]
    is_answered: Array
    """(n_rows,) whether the row was answered; the others are in no array above."""


def evaluate(
    candidate: Predicts,
    champion: Predicts | None,
    *,
    heldout: Mapping[str, Sequence[Any]],
    truth: Any,
    train_truth: Any,
    settings: GateSettings,
    size_bytes: int,
    champion_bundle: str = "",
    seen_at: Any = None,
    champion_made_at: float | None = None,
    is_unseen: Any = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a packed candidate on held-out rows; strict JSON values.

    Args:
        heldout: Columns of the held-out rows in the file's spelling, at least the schema's inputs.
        truth: (n,) target of these rows: numbers, or class labels (text, number or boolean).
        train_truth: Target of the training rows: what a model that looks at nothing answers.
        champion: What serves now; None: there is none.
        seen_at: (n,) when each held-out row came to be known, seconds since 1970.
        champion_made_at: When the champion's snapshot was cut; rows seen later are newer than it.
        is_unseen: (n,) whether the champion was not trained on each held-out row; None: it was on none.

    Raises:
        JobError: there is no held-out row that the candidate answers.
        ModelFault: a model failed on a row that its schema accepts.
    """
    import numpy as np

    output = candidate.schema.output
    columns = {
        c.name: _listed(heldout[c.name]) for c in candidate.schema.inputs if c.name in heldout
    }
    asked = ask(candidate, columns)
    truth = np.asarray(truth)
    if not asked.is_answered.any():
        raise JobError(
            f"The candidate answers none of the {len(truth)} held-out rows: no gate can judge it. "
            "Hold out more rows (data.split.holdout), or look at what it refuses: gyrostat data report"
        )
    known = champion.schema.output.classes if champion else ()
    classes = _all_classes(output, known, truth, train_truth)
    is_known = asked.is_answered
    mine = answers(asked, truth[is_known], output, classes)
    evidence = measure(
        mine,
        output=output,
        train_truth=_truth(train_truth, output, classes),
        settings=settings,
        seed=seed,
    )
    evidence["champion"] = None
    if champion is not None:
        theirs_asked = ask(champion, columns)
        both = is_known & theirs_asked.is_answered
        if is_unseen is not None:
            both = both & np.asarray(is_unseen, dtype=bool)
        evidence["champion"] = compare(
            _only(mine, both[is_known]),
            _only(
                answers(
                    theirs_asked, truth[theirs_asked.is_answered], champion.schema.output, classes
                ),
                both[theirs_asked.is_answered],
            ),
            settings=settings,
            bundle=champion_bundle,
            is_newer=_newer(seen_at, champion_made_at, both),
            seed=seed,
        )
    evidence["latency_p99"] = latency_p99(candidate, columns)
    evidence["size_bytes"] = int(size_bytes)
    evidence["n_heldout"] = len(truth)
    evidence["n_refused"] = int((~is_known).sum())
    return evidence


def measure(
    answers: Answers, *, output: Output, train_truth: Array, settings: GateSettings, seed: int
) -> dict[str, Any]:
    """Every metric of the task with its interval, and the model that looks at nothing on the same rows."""
    found = {
        metric.name: _measured(metric, answers, settings, seed)
        for metric in applicable(output.task)
        if answers.scores is not None or metric.name not in ("log_loss", "brier")
    }
    name = settings.champion.metric
    if name not in found:
        raise JobError(
            f"gates.champion.metric is {name!r}, which a {output.task} model does not have; "
            f"it has {', '.join(found)}. Nothing was judged."
        )
    metric, nothing = METRICS[name], trivial(train_truth, answers, output)
    bounds = difference_interval(
        metric, answers, nothing, confidence=settings.confidence, seed=seed
    )
    value = metric.value(nothing)
    difference = metric.harm(metric.value(answers)) - metric.harm(value)
    return {
        "metrics": found,
        "trivial": {
            "name": name,
            "value": _finite(value),
            "difference": _finite(difference),
            "lower": bounds[0] if bounds else None,
            "upper": bounds[1] if bounds else None,
            "n": len(answers.y),
        },
    }


def compare(
    mine: Answers,
    theirs: Answers,
    *,
    settings: GateSettings,
    bundle: str,
    is_newer: Array | None,
    seed: int,
) -> dict[str, Any]:
    """Candidate against champion on the same rows: on those newer than its snapshot where there are enough."""
    metric, which = METRICS[settings.champion.metric], "all"
    if is_newer is not None and int(is_newer.sum()) >= settings.min_newer_rows:
        mine, theirs, which = _only(mine, is_newer), _only(theirs, is_newer), "newer"
    found: dict[str, Any] = {
        "bundle": bundle,
        "metric": metric.name,
        "n": len(mine.y),
        "rows": which,
    }
    if not len(mine.y):
        return found | {"difference": None, "lower": None, "upper": None, "value": None}
    value = metric.value(theirs)
    difference = metric.harm(metric.value(mine)) - metric.harm(value)
    bounds = difference_interval(metric, mine, theirs, confidence=settings.confidence, seed=seed)
    lower, upper = bounds or (None, None)
    return found | {
        "difference": _finite(difference),
        "lower": lower,
        "upper": upper,
        "value": _finite(value),
    }


def trivial(train_truth: Array, answers: Answers, output: Output) -> Answers:
    """What a model answers that has seen the training targets and looks at no row: the mean, or the frequent class.

    Its probabilities are the shares of the classes in training.
    """
    import numpy as np

    n = len(answers.y)
    if output.task == "regression":
        return Answers(answers.y, np.full(n, float(np.mean(train_truth))), None)
    counts = np.bincount(train_truth[train_truth >= 0], minlength=answers.n_classes)
    shares = counts / max(1, counts.sum())
    return Answers(
        answers.y,
        np.full(n, int(counts.argmax())),
        np.broadcast_to(shares, (n, answers.n_classes)),
        answers.n_classes,
        answers.positive,
    )


def ask(session: Predicts, columns: Mapping[str, Sequence[Any]]) -> Asked:
    """Put every row to a model as a request would, and note which ones its schema refuses."""
    import numpy as np

    output, n = session.schema.output, len(next(iter(columns.values()), ()))
    is_answered = np.ones(n, dtype=bool)
    values: list[Any] = []
    scores: list[Any] = []
    for rows, places in _batches(session.schema, columns, n, is_answered):
        if places:
            predictions = session.predict(rows)
            values += predictions.values
            scores.append(np.asarray(predictions.scores))
    if output.task == "regression":
        return Asked(np.asarray(values, dtype=np.float64), None, (), is_answered)
    texts = np.array([spelled(v, output) for v in values], dtype=object)
    width = len(output.classes)
    stacked = np.concatenate(scores) if scores else np.empty((0, width))
    return Asked(texts, stacked, output.classes, is_answered)


def answers(asked: Asked, truth: Array, output: Output, classes: tuple[str, ...]) -> Answers:
    """Answers beside the truth, with all models' classes numbered alike."""
    import numpy as np

    if output.task == "regression":
        return Answers(np.asarray(truth, dtype=np.float64), asked.predicted, None)
    place = {c: i for i, c in enumerate(classes)}
    scores = None
    if asked.scores is not None:
        scores = np.zeros((len(asked.predicted), len(classes)))
        for i, name in enumerate(asked.classes):
            scores[:, place[spelled(name, output)]] = asked.scores[:, i]
    return Answers(
        _truth(truth, output, classes),
        np.array([place[c] for c in asked.predicted], dtype=np.int64),
        scores,
        len(classes),
        place.get(
            spelled(output.positive, output) if output.positive else "", min(1, len(classes) - 1)
        ),
    )


def latency_p99(session: Predicts, columns: Mapping[str, Sequence[Any]]) -> float | None:
    """Seconds within which 99 % of single predictions are answered; None where no row is.

    The best of three rounds: what else runs on this machine only ever adds to it.
    """
    from time import perf_counter

    import numpy as np

    singles = [rows for rows in _single_rows(session.schema, columns)]
    if not singles:
        return None
    rounds = []
    for _ in range(N_ROUNDS):
        taken, started = [], perf_counter()
        for i in range(N_CALLS):
            begin = perf_counter()
            session.predict(singles[i % len(singles)])
            end = perf_counter()
            taken.append(end - begin)
            if end - started > MOST_LATENCY_S / N_ROUNDS:
                break
        rounds.append(float(np.quantile(taken, 0.99, method="higher")))
    return min(rounds)


def spelled(value: Any, output: Output) -> str:
    """One text for a class, whether it comes from a file, from Python or from JSON.

    Integers and numbers by value (1, 1.0 and "1" are the same), booleans by truth, categories as they are written.
    """
    text = str(value)
    match output.class_kind:
        case "boolean":
            return "true" if text.strip().casefold() in ("true", "1", "1.0") else "false"
        case "integer" | "number":
            number = float(value)
            return str(int(number)) if number.is_integer() and abs(number) < 2**53 else text
    return text


def _measured(
    metric: Metric, answers: Answers, settings: GateSettings, seed: int
) -> dict[str, Any]:
    bounds = metric_interval(metric, answers, confidence=settings.confidence, seed=seed)
    lower, upper = bounds or (None, None)
    return {
        "name": metric.name,
        "value": _finite(metric.value(answers)),
        "lower": lower,
        "upper": upper,
        "n": len(answers.y),
    }


def _batches(
    schema: Schema, columns: Mapping[str, Sequence[Any]], n: int, is_answered: Array
) -> Any:
    """`(rows, how many)`; a batch with a row that the schema refuses is read row by row."""
    from gyrostat_runtime.errors import InputFault

    for start in range(0, n, BATCH):
        stop = min(start + BATCH, n)
        try:
            yield from_columns({k: v[start:stop] for k, v in columns.items()}, schema), stop - start
            continue
        except InputFault:
            pass
        for i in range(start, stop):
            try:
                rows = from_columns({k: v[i : i + 1] for k, v in columns.items()}, schema)
            except InputFault:
                is_answered[i] = False
                continue
            yield rows, 1


def _single_rows(schema: Schema, columns: Mapping[str, Sequence[Any]]) -> Any:
    from gyrostat_runtime.errors import InputFault

    n = len(next(iter(columns.values()), ()))
    for i in range(min(n, N_CALLS)):
        try:
            yield from_columns({k: v[i : i + 1] for k, v in columns.items()}, schema)
        except InputFault:
            continue


def _all_classes(output: Output, *others: Any) -> tuple[str, ...]:
    """The candidate's classes, then those that only the champion or the data know; as `spelled`."""
    import numpy as np

    found = [spelled(c, output) for c in output.classes]
    if output.task != "regression":
        for other in others:
            found += sorted({spelled(v, output) for v in np.asarray(other).tolist()})
    return tuple(dict.fromkeys(found))


def _truth(truth: Any, output: Output, classes: tuple[str, ...]) -> Array:
    import numpy as np

    if output.task == "regression":
        return np.asarray(truth, dtype=np.float64)
    place = {c: i for i, c in enumerate(classes)}
    return np.array(
        [place.get(spelled(v, output), -1) for v in np.asarray(truth).tolist()], dtype=np.int64
    )


def _only(answers: Answers, which: Array) -> Answers:
    scores = None if answers.scores is None else answers.scores[which]
    return Answers(
        answers.y[which], answers.predicted[which], scores, answers.n_classes, answers.positive
    )


def _newer(seen_at: Any, made_at: float | None, both: Array) -> Array | None:
    import numpy as np

    if seen_at is None or made_at is None:
        return None
    return (np.asarray(seen_at, dtype=np.float64) > made_at)[both]


def _listed(values: Sequence[Any]) -> list[Any]:
    """A column as Python values, whichever frame it comes from."""
    for method in ("to_list", "tolist"):
        if hasattr(values, method):
            return getattr(values, method)()
    return list(values)


def _finite(value: float) -> float | None:
    import math

    return float(value) if math.isfinite(value) else None
