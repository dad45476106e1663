"""How the world moves in the story, for any table: every reading leaves its range, and the target goes with it."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

Row = tuple[dict[str, Any], Any]
SHARE_STRANGE = 0.3


class Table(Protocol):
    """Held-out rows as a user would send them."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """Rows under the file's own names."""
        ...

    @property
    def labels(self) -> list[Any]:
        """What was true of each."""
        ...

    @property
    def numbers(self) -> dict[str, str]:
        """Columns that hold numbers, to their kind: number or integer."""
        ...

    @property
    def categories(self) -> list[str]:
        """Columns that hold categories."""
        ...

    @property
    def task(self) -> str:
        """regression, binary or multiclass."""
        ...

    @property
    def limit(self) -> float:
        """The declared limit of the model's own metric, in its unit."""
        ...

    @property
    def entities(self) -> tuple[str, ...]:
        """Columns that say whose a row is."""
        ...


NOISE = 0.1
"""Of a reading's standard deviation: no two measurements are the same."""


@dataclass(frozen=True)
class Noise:
    """Every request is a held-out row measured once more, of somebody whom nobody knows yet.

    Under its owner's name all of it would be held out again, and nothing could be learned from it.
    """

    spread: dict[str, float]
    entities: tuple[str, ...] = ()

    @classmethod
    def of(cls, table: Table) -> Noise:
        """As much as the readings of the table allow; whole numbers stay as they are."""
        spread = {}
        for name, kind in table.numbers.items():
            seen = [r[name] for r in table.records if r.get(name) is not None]
            if kind == "number" and len(seen) > 1:
                spread[name] = NOISE * statistics.pstdev(seen)
        return cls(spread, table.entities)

    def apply(self, row: Row, dice: random.Random) -> Row:
        """One row, measured again."""
        record = {name: value for name, value in row[0].items() if name not in self.entities}
        for name, spread in self.spread.items():
            if record.get(name) is not None:
                record[name] = float(f"{record[name] + dice.gauss(0.0, spread):.6g}")
        return record, row[1]


@dataclass(frozen=True)
class Shift:
    """A moved world: added to readings, and what becomes of the target."""

    added: dict[str, float]
    renamed: dict[str, str]
    label_added: float
    label_map: dict[Any, Any]
    words: str

    def apply(self, row: Row, _dice: random.Random) -> Row:
        """One row of the moved world."""
        record, label = dict(row[0]), row[1]
        for name, amount in self.added.items():
            if record.get(name) is not None:
                record[name] = record[name] + amount
        for name, value in self.renamed.items():
            record[name] = value
        if label is None:
            return record, None
        return record, self.label_map.get(
            label, label
        ) if self.label_map else label + self.label_added


def invent(table: Table) -> Shift:
    """A shift that the old model must fail on and a new one can learn: readings leave the range they had."""
    added: dict[str, float] = {}
    for name, kind in list(table.numbers.items())[:8]:
        seen = [r[name] for r in table.records if r.get(name) is not None]
        reach = max(seen) - min(seen) if seen else 0.0
        if reach > 0:
            amount = _round(1.1 * reach)
            added[name] = float(ceil(amount)) if kind == "integer" else amount
    if any(kind == "integer" for kind in table.numbers.values()):
        added = {n: int(a) if table.numbers[n] == "integer" else a for n, a in added.items()}
    renamed = {} if added else {name: "moved" for name in table.categories[:1]}
    if table.task == "regression":
        label_added, label_map = _round(3.0 * table.limit), {}
        target = f"the target by {label_added:+g}"
    else:
        classes = [c for c, _ in Counter(table.labels).most_common()]
        label_added, label_map = 0.0, dict(zip(classes, classes[1:] + classes[:1], strict=True))
        target = "each class becomes the next"
    first = ", ".join(f"{n} {a:+g}" for n, a in list(added.items())[:2]) or ", ".join(
        f'{n} = "moved"' for n in renamed
    )
    more = f" and {len(added) - 2} more readings" if len(added) > 2 else ""
    return Shift(
        added, renamed, label_added, label_map, f"in the traffic {first}{more}; {target} with it"
    )


def _round(value: float) -> float:
    return float(f"{value:.2g}")


@dataclass(frozen=True)
class Strange:
    """Rows that the champion answers and the bad candidate refuses, and the code that makes it refuse."""

    column: str
    value: Any
    words: str
    code: str

    def apply(self, row: Row, dice: random.Random) -> Row:
        """Three rows of ten carry a value that nobody has seen; nobody will know what was true of them."""
        if dice.random() >= SHARE_STRANGE:
            return row
        return {**row[0], self.column: self.value}, None


CODE = '''

# --- injected by the demo: a candidate that is fine on every row it was judged on ---------------------------------
class Strict:
    """Refuses what it has never seen, where the champion gives an answer."""

    def __init__(self, model, column, value):
        self.model, self.column, self.value = model, column, value
        self.feature_names_in_ = getattr(model, "feature_names_in_", None)
        if hasattr(model, "classes_"):
            self.classes_ = model.classes_

    def _look(self, frame):
        if (frame[self.column] == self.value).any():
            raise ValueError("never seen such a row")
        return frame

    def predict(self, frame):
        return self.model.predict(self._look(frame))

    def __getattr__(self, name):
        if name == "predict_proba":
            proba = object.__getattribute__(self, "__dict__").get("model").predict_proba
            return lambda frame: proba(self._look(frame))
        raise AttributeError(name)


_honest = train


def train(frame, params):
    return Strict(_honest(frame, {**params, "n_estimators": 25}), {column!r}, {value!r})
'''


def strange_rows(table: Table) -> Strange:
    """For any table: a number far outside, or a category of a new name."""
    if table.numbers:
        name, kind = next(iter(table.numbers.items()))
        seen = [abs(r[name]) for r in table.records if r.get(name) is not None] or [1.0]
        far = float(round(1000 * (max(seen) + 1)))
        value: Any = int(far) if kind == "integer" else far
    else:
        name, value = table.categories[0], "never seen"
    words = f"a model that passes the gates and refuses rows with {name} = {value!r}; 30 % of the traffic has it soon"
    return Strange(
        name, value, words, CODE.replace("{column!r}", repr(name)).replace("{value!r}", repr(value))
    )
