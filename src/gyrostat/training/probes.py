"""Does the graph answer what the model answers? Asked on real rows and on rows made to find out.

5,000 real rows miss errors that 5,000 probes show on every third: the values between two that training has seen are
where trees split, so that is where a graph that computes in another precision goes the other way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gyrostat_runtime.schema import Schema

from gyrostat.training.onnx_convert import text_features
from gyrostat.training.onnx_shape import CAT, NUM, OUTPUT

if TYPE_CHECKING:
    import pandas as pd

MOST_P = 1e-5
"""Largest difference of a probability; faithful conversions differ by at most 5e-6."""
MOST_SD = 5e-5
"""Largest difference of a regression, in standard deviations of its predictions; faithful ones: at most 4e-5."""
TIE = 2e-5
"""Two classes closer than this are a tie, which the label rule of the server decides."""
N_REAL, N_PROBES, N_SINGLE, N_ALONE, N_RAISING = 5000, 5000, 24, 500, 50


@dataclass(frozen=True)
class Parity:
    """Whether graph and model agree, and how far they are apart."""

    agrees: bool
    largest_difference: float
    """Of a probability, or in standard deviations of the predictions; where rows failed: infinite."""
    n: int
    """Rows that were compared."""
    n_ties: int = 0
    """Rows on which the two best classes are closer than `TIE`."""
    reason: str = ""
    """Why they do not agree, with the worst row's kind."""


def answers(model: Any, frame: pd.DataFrame) -> Any:
    """What the fitted model itself answers: (n, c) probabilities, or (n, 1) numbers; float64."""
    import numpy as np

    if hasattr(model, "classes_"):
        return np.asarray(model.predict_proba(frame), dtype=np.float64)
    return np.asarray(model.predict(frame), dtype=np.float64).reshape(len(frame), -1)


def compare(
    graph: bytes,
    model: Any,
    schema: Schema,
    rows: pd.DataFrame,
    *,
    nullable: set[str] | None = None,
    seed: int = 0,
    n_probes: int = N_PROBES,
) -> Parity:
    """Ask both the same questions.

    Args:
        graph: A graph with inputs `num` and `cat` and the output `output`.
        rows: Rows that the model was trained on or could be asked, at least one; columns as `schema.features`.
        nullable: Features in which a missing value is asked too; by default those in which `rows` has some.
    """
    from threadpoolctl import threadpool_limits

    # Thousands of small calls: threads that spin between them would take the processors from everybody else.
    with threadpool_limits(1):
        return _compare(graph, model, schema, rows, nullable, seed, n_probes)


def _compare(
    graph: bytes,
    model: Any,
    schema: Schema,
    rows: pd.DataFrame,
    nullable: set[str] | None,
    seed: int,
    n_probes: int,
) -> Parity:
    import numpy as np

    run = runner(graph, schema)
    rng = np.random.default_rng(seed)
    real = (
        rows
        if len(rows) <= N_REAL
        else rows.iloc[np.sort(rng.choice(len(rows), N_REAL, replace=False))]
    )
    if nullable is None:
        nullable = missing_in(rows, schema)
    scale, is_classifier = 1.0, hasattr(model, "classes_")
    largest, n, n_ties = 0.0, 0, 0
    questions: list[tuple[str, pd.DataFrame]] = [
        ("real rows", real),
        ("probes", probes(rows, schema, rng, n_probes)),
        ("edge rows", edges(rows, schema, nullable)),
        *(("single rows", real.iloc[[i]]) for i in range(min(N_SINGLE, len(real)))),
    ]
    for kind, frame in questions:
        frame, expected = _expected(model, frame)
        if kind == "real rows" and not is_classifier:
            scale = _scale(expected)
        raises = ~np.isfinite(expected).all(axis=1)
        if raises.any():
            n_answered = sum(
                _answers(run, frame.iloc[[i]]) for i in np.flatnonzero(raises)[:N_RAISING]
            )
            if n_answered:
                reason = f"the model fails on {int(raises.sum())} of {len(frame)} {kind}, the graph answers them"
                return Parity(False, float("inf"), n, n_ties, reason)
            frame, expected = frame.loc[~raises], expected[~raises]
            if not len(frame):
                continue
        try:
            found = run(frame)
        # The runtime raises its own classes for shapes and strings alike; all of them mean: not this graph.
        except Exception as error:  # noqa: BLE001
            line = str(error).strip().split("\n", 1)[0][:160]
            return Parity(False, float("inf"), n, n_ties, f"the graph fails on {kind}: {line}")
        n += len(frame)
        if found.shape != expected.shape:
            return Parity(
                False,
                float("inf"),
                n,
                n_ties,
                f"the graph answers {found.shape}, not {expected.shape}",
            )
        difference = np.abs(found - expected) / scale
        if not np.isfinite(found).all():
            n_bad = int((~np.isfinite(found)).any(axis=1).sum())
            return Parity(
                False,
                float("inf"),
                n,
                n_ties,
                f"no finite answer on {n_bad} of {len(frame)} {kind}",
            )
        worst = difference.max(axis=1)
        largest = max(largest, float(worst.max()))
        most = MOST_P if is_classifier else MOST_SD
        if (worst > most).any():
            n_off = int((worst > most).sum())
            unit = "in a probability" if is_classifier else "standard deviations"
            reason = f"{n_off} of {len(frame)} {kind} differ by up to {worst.max():.2g} {unit} (at most {most:g})"
            return Parity(False, largest, n, n_ties, reason)
        if is_classifier:
            ties, n_other = _labels(found, expected)
            n_ties += ties
            if n_other:
                return Parity(
                    False, largest, n, n_ties, f"another class on {n_other} of {len(frame)} {kind}"
                )
    return Parity(True, largest, n, n_ties)


def runner(graph: bytes, schema: Schema) -> Callable[[pd.DataFrame], Any]:
    """The graph as a function of a frame; it answers (n, columns) float64.

    Raises:
        Exception: onnxruntime cannot load it; its classes have no common base of their own.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    texts = text_features(schema)
    numbers = [f.name for f in schema.features if f.name not in texts]
    names = {NUM: numbers, CAT: texts}
    inputs = {i.name: (names[i.name], i.type) for i in session.get_inputs()}

    def run(frame: pd.DataFrame) -> Any:
        feed = {}
        for name, (columns, kind) in inputs.items():
            dtype = object if "string" in kind else np.float64 if "double" in kind else np.float32
            with np.errstate(over="ignore"):
                feed[name] = np.ascontiguousarray(frame[columns].to_numpy(dtype=dtype))
        return np.asarray(session.run([OUTPUT], feed)[0], dtype=np.float64)

    return run


def missing_in(rows: pd.DataFrame, schema: Schema) -> set[str]:
    """Features in which some row has no value."""
    texts = set(text_features(schema))
    return {
        f.name
        for f in schema.features
        if bool((rows[f.name] == "").any() if f.name in texts else rows[f.name].isna().any())
    }


def probes(rows: pd.DataFrame, schema: Schema, rng: Any, n: int) -> pd.DataFrame:
    """Real rows in which each value is replaced with probability 1/2: by a seen one, or by one between two seen."""
    import numpy as np

    texts = set(text_features(schema))
    probed = rows.iloc[rng.integers(0, len(rows), n)].reset_index(drop=True).copy()
    for feature in schema.features:
        seen = rows[feature.name].to_numpy()
        replace = rng.random(n) < 0.5
        if feature.name in texts:
            probed.loc[replace, feature.name] = seen[rng.integers(0, len(seen), int(replace.sum()))]
            continue
        values = np.unique(seen[np.isfinite(seen)])
        if not len(values):
            continue
        if (values == np.round(values)).all() and len(values) > 2:
            # Between two integers of a column of integers no request can be; any other of its range can.
            new = rng.integers(int(values[0]), int(values[-1]), n, endpoint=True).astype(np.float64)
        else:
            middles = values[:-1] + np.diff(values) / 2
            pool = middles if len(middles) else values
            new = np.where(rng.random(n) < 0.5, rng.choice(values, n), rng.choice(pool, n))
        probed.loc[replace, feature.name] = new[replace]
    return probed


def edges(rows: pd.DataFrame, schema: Schema, nullable: set[str]) -> pd.DataFrame:
    """One row with each oddity that the server lets through: missing, unseen, empty, non-ASCII, least, greatest."""
    import numpy as np
    import pandas as pd

    texts = set(text_features(schema))
    base = rows.iloc[0].to_dict()
    found: list[dict[str, Any]] = []
    for feature in schema.features:
        name = feature.name
        if name in texts:
            oddities: list[Any] = ["never seen before", "서울 Łódź ’", "0", "nan", "None"]
            oddities += [""] if name in nullable else []
        else:
            values = rows[name].to_numpy()
            values = values[np.isfinite(values)]
            oddities = [values.min(), values.max()] if len(values) else []
            oddities += [np.nan] if name in nullable else []
        found += [base | {name: value} for value in oddities]
    nothing = {name: "" if name in texts else np.nan for name in base if name in nullable}
    found.append(base | nothing)
    frame = pd.DataFrame(found, columns=list(rows.columns))
    return frame.astype({name: object if name in texts else np.float64 for name in frame.columns})


def _expected(model: Any, frame: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    """The model's answers; NaN in the rows on which it raises: there the graph has to fail as well.

    Where it raises, each row is a call of its own, so only the first `N_ALONE` rows are asked.
    """
    import numpy as np

    with _quiet():
        try:
            return frame, answers(model, frame)
        except Exception:  # noqa: BLE001 user code may raise anything
            frame = frame.iloc[:N_ALONE]
            width = len(model.classes_) if hasattr(model, "classes_") else 1
            found = np.full((len(frame), width), np.nan)
            for i in range(len(frame)):
                with contextlib.suppress(Exception):
                    found[i] = answers(model, frame.iloc[[i]])
            return frame, found


def _answers(run: Callable[[pd.DataFrame], Any], row: pd.DataFrame) -> bool:
    """Whether the graph gives one row an answer that a server would pass on."""
    import numpy as np

    with contextlib.suppress(Exception):
        return bool(np.isfinite(run(row)).all())
    return False


def _scale(expected: Any) -> float:
    import numpy as np

    sd = float(np.nanstd(expected))
    return sd if sd > 0 else max(1.0, float(np.nanmax(np.abs(expected))))


def _labels(found: Any, expected: Any) -> tuple[int, int]:
    """How many rows are a tie, and how many others have another class."""
    import numpy as np

    top = np.sort(expected, axis=1)
    is_tie = top[:, -1] - top[:, -2] <= TIE if expected.shape[1] > 1 else np.zeros(len(found), bool)
    is_other = found.round(5).argmax(axis=1) != expected.round(5).argmax(axis=1)
    return int(is_tie.sum()), int((is_other & ~is_tie).sum())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    # Unknown categories and names of features are what the probes are about; the model's warnings say nothing more.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
