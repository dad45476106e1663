"""A model that was fitted elsewhere, in a notebook: kept by its digest, and held to rows that nobody judges it by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat_runtime.files import write_atomic

from gyrostat.errors import JobError, UsageError

if TYPE_CHECKING:
    import pandas

DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Offer:
    """What was offered: the pickle's digest, and the rows it is said to be fitted on, as digests only."""

    folder: Path
    digest: str
    what: str
    """Class of the model."""
    columns: tuple[str, ...]
    n_rows: int

    @property
    def model(self) -> Path:
        """The pickle."""
        return self.folder / "model.pkl"

    def rows(self) -> list[bytes]:
        """A digest for each row, over `columns`."""
        raw = (self.folder / "rows").read_bytes()
        return [raw[i : i + DIGEST_BYTES] for i in range(0, len(raw), DIGEST_BYTES)]


def _folder(state: Path, model: str, digest: str) -> Path:
    return state / "offers" / model / digest


def keep(state: Path, name: str, model: Any, X: Any, y: Any) -> Offer:
    """Pickle a fitted model and note the rows; the same model and rows are the same offer.

    Raises:
        UsageError: it cannot be pickled, is no fitted model, or `X` and `y` are not of one length.
    """
    import cloudpickle
    import pandas as pd

    frame = X.to_pandas() if hasattr(X, "to_pandas") else X
    if not isinstance(frame, pd.DataFrame) or not len(frame):
        raise UsageError(f"X must be a frame with named columns and rows, got {type(X).__name__}. Nothing was offered.")  # fmt: skip
    if not frame.columns.is_unique:
        raise UsageError("X has two columns of one name. Nothing was offered.")
    if len(frame) != len(y):
        raise UsageError(f"X has {len(frame):,} rows, y has {len(y):,}. Nothing was offered.")
    if not callable(getattr(model, "predict", None)):
        raise UsageError(f"{type(model).__name__} has no predict(); a fitted scikit-learn model is needed. Nothing was offered.")  # fmt: skip
    try:
        content = cloudpickle.dumps(model)
    except Exception as error:
        raise UsageError(f"The model cannot be pickled: {type(error).__name__}: {str(error)[:300]}. Nothing was offered.") from error  # fmt: skip
    columns = tuple(map(str, frame.columns))
    rows = b"".join(digests(frame, columns))
    digest = hashlib.sha256(hashlib.sha256(content).digest() + rows).hexdigest()
    folder = _folder(state, name, digest)
    folder.mkdir(parents=True, exist_ok=True)
    what = type(model).__name__
    facts = {"what": what, "columns": columns, "n_rows": len(frame), "pickle": hashlib.sha256(content).hexdigest()}  # fmt: skip
    write_atomic(folder / "model.pkl", content)
    write_atomic(folder / "rows", rows)
    write_atomic(folder / "offer.json", json.dumps(facts, ensure_ascii=False).encode())
    return Offer(folder, digest, what, columns, len(frame))


def read(state: Path, name: str, digest: str) -> Offer:
    """An offer that was kept, its bytes checked.

    Raises:
        JobError: it is gone, or was changed since.
    """
    folder = _folder(state, name, digest)
    try:
        facts = json.loads((folder / "offer.json").read_bytes())
        found = hashlib.sha256((folder / "model.pkl").read_bytes()).digest()
        rows = (folder / "rows").read_bytes()
    except OSError as error:
        raise JobError(f"the offered model {digest[:12]} is gone: {error.strerror}") from error
    if hashlib.sha256(found + rows).hexdigest() != digest:
        raise JobError(f"the offered model {digest[:12]} was changed since it was offered")
    return Offer(folder, digest, facts["what"], tuple(facts["columns"]), facts["n_rows"])


def digests(frame: pandas.DataFrame, columns: tuple[str, ...]) -> list[bytes]:
    """A digest of each row's features: numbers and booleans as floats, texts as texts, nothing for missing."""
    parts: list[list[str]] = []
    for name in columns:
        column = frame[name]
        if column.dtype.kind in "biuf":
            # + 0.0: minus nothing is nothing.
            values = column.astype("float64") + 0.0
            parts.append(["" if v != v else repr(v) for v in values.tolist()])
        else:
            values = column.astype(object).where(column.notna(), "").tolist()
            # Numbers and booleans with holes come as objects.
            is_number = [isinstance(v, (bool, int, float)) for v in values]
            parts.append([repr(float(v) + 0.0) if n else str(v) for v, n in zip(values, is_number, strict=True)])  # fmt: skip
    return [
        hashlib.blake2b("\x1f".join(f"{len(v)}'{v}" for v in row).encode(), digest_size=DIGEST_BYTES).digest()
        for row in zip(*parts, strict=True)
    ]  # fmt: skip


def compare(offer: Offer, train: pandas.DataFrame, heldout: pandas.DataFrame) -> dict[str, int]:
    """How many of the offered rows are training rows of this snapshot, and how many are none of its rows.

    Raises:
        JobError: some are rows that candidates are judged by, or a column is none of the model's inputs.
    """
    lacking = [name for name in offer.columns if name not in train.columns]
    if lacking:
        raise JobError(
            f"the offered X has columns that requests do not have: {', '.join(lacking[:5])}; there are {', '.join(map(str, train.columns))}"
        )
    known = set(digests(train, offer.columns))
    judged_by = set(digests(heldout, offer.columns)) - known
    rows = offer.rows()
    n_heldout = sum(row in judged_by for row in rows)
    if n_heldout:
        raise JobError(
            f"{n_heldout:,} of {len(rows):,} offered rows are held out: candidates are judged by them, so none may be fitted "
            'on them. Fit on the training side: project.data.open(side="train")'
        )
    n_train = sum(row in known for row in rows)
    return {"n_train": n_train, "n_other": len(rows) - n_train}
