"""The classes of a fitted model in the file's own spelling: what `answers[:, i]` is the probability of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gyrostat_runtime.schema import Schema

from gyrostat.errors import JobError


def align(schema: Schema, model: Any) -> tuple[Schema, str]:
    """The schema with the model's classes in the model's order, and a note where that needed a guess.

    A class that no training row had is dropped: the model cannot answer it.

    Raises:
        JobError: the model answers something else than the task says, or a class that the data do not have.
    """
    output = schema.output
    has_classes = hasattr(model, "classes_")
    if has_classes != (output.task != "regression"):
        kind = type(model).__name__
        found = "classes" if has_classes else "numbers"
        raise JobError(
            f"The model ({kind}) answers {found}, but the task of {output.target!r} is {output.task}. "
            "Nothing was packed. Change `data.task` in config/config.yaml, or the model."
        )
    if not has_classes:
        return schema, ""
    if getattr(model.classes_, "ndim", 1) != 1 or isinstance(model.classes_, list):
        raise JobError(
            "The model answers several targets at once; one is possible. Nothing was packed."
        )
    mine = [_plain(c) for c in model.classes_]
    if len(mine) < 2:
        raise JobError(
            f"The model knows one class only ({mine[0]}): no other was among its training rows. Nothing was packed."
        )
    places = _places(mine, output.classes)
    note = ""
    if places is None and mine == list(range(len(output.classes))):
        # Codes, as scikit-learn's LabelEncoder gives them: the sorted classes are numbered.
        is_number = output.class_kind in ("integer", "number")
        names = sorted(output.classes, key=float if is_number else str)
        places = [output.classes.index(name) for name in names]
        note = f"the model's classes 0 to {len(mine) - 1} were read as the sorted classes {', '.join(names)}"
    if places is None:
        known = ", ".join(output.classes)
        raise JobError(
            f"The model answers the classes {', '.join(map(str, mine))}; {output.target!r} has {known}. "
            "Nothing was packed. Train on the target as it is given."
        )
    classes = tuple(output.classes[i] for i in places)
    return replace(schema, output=replace(output, classes=classes)), note


def _places(mine: Sequence[Any], classes: Sequence[str]) -> list[int] | None:
    """Where each of the model's classes stands in the schema, or None where one has no clear place."""
    for spelling in (str, _number, _truth):
        place: dict[Any, int] = {
            key: i for i, c in enumerate(classes) if (key := spelling(c)) is not None
        }
        found = [place.get(spelling(c)) for c in mine]
        if len(place) == len(classes) and None not in found and len(set(found)) == len(found):
            return [i for i in found if i is not None]
    return None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _truth(value: Any) -> bool | None:
    text = str(value).strip().casefold()
    if text in ("true", "1", "1.0"):
        return True
    return False if text in ("false", "0", "0.0") else None


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
