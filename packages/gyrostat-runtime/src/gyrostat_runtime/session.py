"""One model that is verified, loaded and warm; and a slot in which one takes the place of another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from gyrostat_runtime import bundle
from gyrostat_runtime.errors import BundleFault, ModelFault
from gyrostat_runtime.onnx_check import check_graph
from gyrostat_runtime.rows import Rows
from gyrostat_runtime.schema import Output, Schema

if TYPE_CHECKING:
    import onnxruntime

MODEL_ONNX = "model.onnx"
MODEL_NATIVE = "model.pkl"


@dataclass(slots=True)
class Predictions:
    """What a model answered."""

    values: list[Any]
    """JSON values in the file's own spelling: a number, or a class as text, number, true or false."""
    scores: np.ndarray
    """`(n,)` float64 for a regression, `(n, c)` probabilities in the order of `schema.output.classes` else."""


class _Runner(Protocol):
    """The model itself: from rows to `(n,)` values or `(n, c)` probabilities."""

    def scores(self, rows: Rows) -> np.ndarray: ...
    def close(self) -> None: ...


class Session:
    """A bundle that answers. Made by `open` only.

    Thread safety: `predict` may be called from many threads; a native model answers them one after the other.
    """

    def __init__(self, digest: str, manifest: bundle.Manifest, runner: _Runner) -> None:
        self.digest = digest
        """The bundle's identity."""
        self.manifest = manifest
        self.schema: Schema = manifest.schema
        self._runner = runner
        self._spell = _spelling(manifest.schema.output)

    @classmethod
    def open(
        cls,
        folder: Path,
        keyring: Mapping[str, str],
        *,
        threads: int = 1,
        python: str | None = None,
        timeout_s: float = 5.0,
        memory_bytes: int = 0,
    ) -> Session:
        """Verify a bundle, load its model and answer one made-up row, so that the first request is not the slow one.

        Args:
            threads: Of one ONNX call.
            python: The interpreter that runs a native model; None: this one.
            timeout_s: Deadline of one call to a native model.
            memory_bytes: What the process of a native model may take; 0: 2 GB more than at its first answer.

        Raises:
            BundleFault: it cannot be trusted (then nothing in it was opened), or its model does not load, does not
                fit its schema or does not answer.
        """
        manifest = bundle.verify(folder, keyring)
        digest = bundle.digest(folder)
        runner: _Runner
        if manifest.flavour == "onnx":
            runner = _Graph(
                bundle.read_file(folder, manifest, MODEL_ONNX), manifest.schema, threads
            )
        else:
            from gyrostat_runtime.host import Host

            if MODEL_NATIVE not in manifest.files:
                raise _not_loadable(f"it has no {MODEL_NATIVE}", MODEL_NATIVE)
            try:
                runner = Host(
                    folder, python, timeout_s, manifest=manifest, memory_bytes=memory_bytes
                )
            except ModelFault as fault:
                raise _not_loadable(fault.message, MODEL_NATIVE) from None
        session = cls(digest, manifest, runner)
        try:
            session.predict(typical_rows(manifest.schema))
        except ModelFault as fault:
            session.close()
            raise _not_loadable(f"it does not answer a row: {fault.message}", "") from None
        return session

    def predict(self, rows: Rows) -> Predictions:
        """Answer every row, or none.

        Raises:
            ModelFault: the model raised, died, took too long, or answered with what is no finite number.
        """
        if not rows.n:
            n_classes = len(self.schema.output.classes)
            return Predictions([], np.empty((0, n_classes) if n_classes else 0))
        scores = self._runner.scores(rows)
        is_finite = isfinite(scores.item()) if scores.size == 1 else np.isfinite(scores).all()
        if not is_finite:
            raise ModelFault(
                "the model answered with what is no finite number", code="model.not_finite"
            )
        return Predictions(self._spell(scores), scores)

    def close(self) -> None:
        """Let the model go. Calling it twice is allowed, predicting after it is not."""
        self._runner.close()


class Slot:
    """Holds the session that answers now; another takes its place without a request in between failing.

    Thread safety: all methods may be called from any thread.
    """

    def __init__(self, session: Session) -> None:
        self._lock = threading.Lock()
        self._session = session
        self._in_flight: dict[int, int] = {}
        self._leaving: dict[int, Session] = {}

    @property
    def session(self) -> Session:
        """The one that answers now; for looking at, not for predicting."""
        return self._session

    def predict(self, rows: Rows) -> tuple[Session, Predictions]:
        """Answer with whichever session holds the slot as the call begins; says which one it was.

        Raises:
            ModelFault: as `Session.predict`.
        """
        with self._held() as session:
            return session, session.predict(rows)

    def swap(self, new: Session) -> None:
        """Move one pointer. The old session is closed once the calls it still answers are done, by the last of them."""
        with self._lock:
            old, self._session = self._session, new
            if old is new:
                return
            self._leaving.pop(id(new), None)  # it comes back before its last call ended
            key = id(old)
            if self._in_flight.get(key):
                self._leaving[key] = old
                return
        old.close()

    def close(self) -> None:
        """Close the session that holds the slot."""
        self._session.close()

    def _held(self) -> _Held:
        return _Held(self)

    def _enter(self) -> Session:
        with self._lock:
            session = self._session
            self._in_flight[id(session)] = self._in_flight.get(id(session), 0) + 1
            return session

    def _leave(self, session: Session) -> None:
        key = id(session)
        with self._lock:
            self._in_flight[key] -= 1
            if self._in_flight[key]:
                return
            del self._in_flight[key]
            leaving = self._leaving.pop(key, None)
        if leaving is not None:
            leaving.close()


class _Held:
    __slots__ = ("_session", "_slot")

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def __enter__(self) -> Session:
        self._session = self._slot._enter()
        return self._session

    def __exit__(self, *_: object) -> None:
        self._slot._leave(self._session)


def typical_rows(schema: Schema, n: int = 1) -> Rows:
    """Made-up rows that any model of this schema answers: the first category of each text column, ones for numbers."""
    cells = {c.name: c for c in schema.inputs}
    numeric: list[float] = []
    text: list[str] = []
    for feature in schema.features:
        column = cells[feature.column]
        if column.kind == "category":
            text.append(column.categories[0] if column.categories else "")
        elif feature.part == "year":
            numeric.append(2020.0)
        else:
            numeric.append(1.0)
    num = np.array([numeric] * n, dtype=np.float64) if numeric else None
    cat = np.array([text] * n, dtype=object) if text else None
    return Rows(n, [[None] * len(schema.inputs) for _ in range(n)], num, cat, {}, {})


# ---- ONNX ----------------------------------------------------------------------------------------


class _Graph:
    """An ONNX graph in this process."""

    def __init__(self, model: bytes, schema: Schema, threads: int) -> None:
        check_graph(model)
        self._session = _load(model, threads)
        # Past the Python around it, which asks in each call what the contract below has settled, for as long as the graph takes.
        self._run = getattr(self._session, "_sess", self._session).run
        self._n_classes = len(schema.output.classes)
        n_cat = sum(_is_text(schema, f.column) for f in schema.features)
        self._num_type, self._out = _contract(
            self._session, len(schema.features) - n_cat, n_cat, self._n_classes
        )

    def scores(self, rows: Rows) -> np.ndarray:
        feed: dict[str, np.ndarray] = {}
        if self._num_type is not None:
            num = cast("np.ndarray", rows.num)
            feed["num"] = num if num.dtype == self._num_type else num.astype(self._num_type)
        if rows.cat is not None:
            feed["cat"] = rows.cat
        try:
            raw = cast("np.ndarray", self._run(self._out, feed, None)[0])
        except Exception as error:  # noqa: BLE001 - the runtime's errors share no other base
            raise ModelFault(
                f"the model failed: {_first_line(error)}", code="model.failed"
            ) from None
        wanted = (rows.n, self._n_classes or 1)
        if raw.shape != wanted:
            raise ModelFault(
                f"the model answered in the shape {raw.shape}, not {wanted}", code="model.failed"
            )
        scores = raw.astype(np.float64, copy=False)
        return scores if self._n_classes else scores[:, 0]

    def close(self) -> None:
        # The runtime frees the graph with the last reference; a call that still runs holds one.
        pass


def _load(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime as rt

    options = rt.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = rt.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # Idle threads that spin take the processor from the workers beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # An arena keeps the memory of the largest request for ever.
    options.enable_cpu_mem_arena = False
    try:
        return rt.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - as above
        raise _not_loadable(f"the runtime refuses it: {_first_line(error)}", MODEL_ONNX) from None


def _contract(
    session: onnxruntime.InferenceSession, n_num: int, n_cat: int, n_classes: int
) -> tuple[type | None, list[str]]:
    """The number type the graph reads and its output's name; refuses a graph that does not fit its schema."""
    wanted = {name: n for name, n in (("num", n_num), ("cat", n_cat)) if n}
    inputs = {i.name: i for i in session.get_inputs()}
    if inputs.keys() != wanted.keys():
        raise _not_loadable(
            f"its inputs are {sorted(inputs)}, its schema needs {sorted(wanted)}", MODEL_ONNX
        )
    types = {"num": ("tensor(float)", "tensor(double)"), "cat": ("tensor(string)",)}
    for name, n in wanted.items():
        found = inputs[name]
        if found.type not in types[name] or not _fits(found.shape, n):
            raise _not_loadable(
                f"input {name!r} is {found.type} {found.shape}, its schema needs {n} columns of "
                f"{' or '.join(types[name])}",
                MODEL_ONNX,
            )
    outputs = session.get_outputs()
    if [o.name for o in outputs] != ["output"]:
        raise _not_loadable(
            f"its outputs are {[o.name for o in outputs]}, one named 'output' is needed", MODEL_ONNX
        )
    if outputs[0].type not in types["num"] or not _fits(outputs[0].shape, n_classes or 1):
        raise _not_loadable(
            f"its output is {outputs[0].type} {outputs[0].shape}, "
            f"{n_classes or 1} columns of numbers are needed",
            MODEL_ONNX,
        )
    if not n_num:
        return None, ["output"]
    return (np.float64 if inputs["num"].type == "tensor(double)" else np.float32), ["output"]


def _fits(shape: list[Any], n: int) -> bool:
    # A width that the converter left open is settled by the warm-up; a fixed number of rows is not.
    return (
        len(shape) == 2
        and not isinstance(shape[0], int)
        and (shape[1] == n or not isinstance(shape[1], int))
    )


# ---- answers -------------------------------------------------------------------------------------


def _spelling(output: Output) -> Callable[[np.ndarray], list[Any]]:
    if output.task == "regression":
        return lambda scores: scores.tolist()
    classes = [_class_value(text, output.class_kind) for text in output.classes]
    if output.task == "binary" and output.positive in output.classes:
        place = output.classes.index(output.positive)
        yes, no, threshold = classes[place], classes[1 - place], output.threshold
        return lambda scores: [yes if p >= threshold else no for p in scores[:, place].tolist()]
    # Converted and original trees differ in the last digits; rounded, an exact tie goes to the first in both.
    return lambda scores: [classes[i] for i in scores.round(5).argmax(axis=1).tolist()]


def _class_value(text: str, kind: str) -> Any:
    match kind:
        case "integer":
            return int(float(text)) if not text.lstrip("+-").isdigit() else int(text)
        case "number":
            return float(text)
        case "boolean":
            return text.strip().lower() in ("true", "1", "1.0")
    return text


def _is_text(schema: Schema, column: str) -> bool:
    return any(c.name == column and c.kind == "category" for c in schema.inputs)


def _first_line(error: Exception) -> str:
    # Converters and the runtime put whole graphs into their messages.
    with suppress(IndexError):
        return str(error).strip().splitlines()[0][:300]
    return type(error).__name__


def _not_loadable(why: str, file: str) -> BundleFault:
    return BundleFault(f"the bundle cannot be used: {why}", code="bundle.not_loadable", file=file)
