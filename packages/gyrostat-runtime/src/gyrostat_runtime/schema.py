"""What goes into and out of a model: the columns a request may have, and the matrix that the model sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["number", "integer", "boolean", "category", "date"]
DATE_PARTS = ("year", "month", "day", "weekday", "seconds")
"""Parts a date column can become; `seconds` since midnight only where the column has a time of day."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table as a request spells it: names and values are those of the file."""

    name: str
    kind: Kind
    nullable: bool = False
    """Whether training had missing values here: then a missing one is answered, else refused."""
    categories: tuple[str, ...] = ()
    """Of a category: the values training had, in the file's spelling. Others are new, answered and counted.

    Of a boolean: the file's two spellings, false first, where requests may use them too; empty: true and false alone.
    """
    format: str = ""
    """Of a date: a strptime format; empty: ISO 8601."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the matrix that the model sees: an input column, or one part of a date."""

    name: str
    column: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What the model answers."""

    task: Literal["regression", "binary", "multiclass"]
    target: str
    classes: tuple[str, ...] = ()
    """In the file's own spelling, in the order of the model's probabilities."""
    class_kind: Literal["category", "integer", "boolean", "number"] = "category"
    """How a class travels in JSON: text, number, or true and false."""
    positive: str = ""
    threshold: float = 0.5
    """Binary: the positive class is answered from this probability on."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Inputs in the order of the file, features in the order of the model, and the output.

    A feature of an input of kind number, integer or boolean (false 0, true 1) is float64 with NaN for missing; of a
    category it is text with "" for missing. Dates become their parts before the model, in training and serving alike.
    """

    inputs: tuple[Column, ...]
    features: tuple[Feature, ...]
    output: Output
    personal: tuple[str, ...] = field(default=())
    """Inputs that are hashed in logs and masked in errors. They are not features unless `features` names them."""

    def as_json(self) -> dict[str, Any]:
        """JSON values only, as in a manifest."""
        return {
            "inputs": [_slim(c) for c in self.inputs],
            "features": [_slim(f) for f in self.features],
            "output": _slim(self.output),
            "personal": list(self.personal),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Schema:
        """Read what `as_json` wrote.

        Raises:
            KeyError, TypeError: it was written by something else.
        """

        def tuples(d: dict[str, Any]) -> dict[str, Any]:
            return {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}

        return cls(
            tuple(Column(**tuples(c)) for c in value["inputs"]),
            tuple(Feature(**f) for f in value["features"]),
            Output(**tuples(value["output"])),
            tuple(value.get("personal", ())),
        )


def _slim(part: Any) -> dict[str, Any]:
    values = {name: getattr(part, name) for name in part.__slots__}
    return {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in values.items()
        if v not in ("", (), None)
    }
