"""The declaration's grammar: which keys there are, what each may hold, and how it is written in units."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gyrostat.terms import Margin


class Mistake(Exception):
    """A value that cannot be meant; the reader adds where it stands."""

    def __init__(self, message: str, *, key: str = "", is_not_yet: bool = False) -> None:
        super().__init__(message)
        self.key, self.is_not_yet = key, is_not_yet


@dataclass(frozen=True)
class Value:
    """One leaf: how to read it, what to say is allowed, its default, and its JSON schema."""

    read: Callable[[Any], Any]
    allowed: str
    help: str
    default: Any = None
    schema: Mapping[str, Any] = field(default_factory=dict)
    is_required: bool = False


@dataclass(frozen=True)
class Group:
    """Keys with a name each."""

    keys: Mapping[str, Any]
    help: str
    short: str = ""
    """The key that a plain value stands for where the mapping could stand."""
    later: Mapping[str, str] = field(default_factory=dict)
    """Keys of a later release, with what works instead."""


@dataclass(frozen=True)
class Each:
    """Any name, each with the same kind of value."""

    item: Any
    help: str
    names: str = "any name"
    pattern: str = ".+"
    """Of a whole name."""
    known: tuple[str, ...] = ()
    """The names there are, where they are no names of the user's own."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Names that belong somewhere else, with where."""


def shown(value: Any) -> str:
    """A value as YAML would hold it, cut where it is long."""
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(key: object, known: Iterable[str]) -> str:
    """` Did you mean "guardrails"?`, or nothing where no known key is near."""
    spellings = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(key).lower(), spellings, 1, 0.6)
    return f' Did you mean "{spellings[close[0]]}"?' if close else ""


def refuse(value: Any, allowed: str, *, options: Iterable[str] = ()) -> Mistake:
    """The message that every wrong value gets.

    Args:
        options: Words of which the value may be a misspelling.
    """
    hint = nearest(value, options) if isinstance(value, str) else ""
    what = "no value stands here" if value is None else f"{shown(value)} is not allowed here"
    return Mistake(f"{what}.{hint} Allowed: {allowed}.")


UNITS = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
SIZES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
PERIODS = {
    "hour": 3600.0,
    "day": 86400.0,
    "week": 604800.0,
    "month": 30 * 86400.0,
    "year": 365 * 86400.0,
}
_NUMBER = r"(\d+(?:\.\d+)?)"
PERCENT = r"^\d+(\.\d+)?\s?%$"
MARGIN = r"^(\+?\d+(\.\d+)?(pp)?|x\d+(\.\d+)?)$"


def text(
    default: str | None = "", help: str = "", *, is_required: bool = False, allow_empty: bool = True
) -> Value:
    """Any text."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or (not value and not allow_empty):
            raise refuse(value, "a text; quote it if it looks like a number")
        return value

    schema = {"type": "string"} if allow_empty else {"type": "string", "minLength": 1}
    return Value(read, "a text", help, default, schema, is_required)


def choice(
    options: tuple[str, ...], default: str, help: str, later: Mapping[str, str] | None = None
) -> Value:
    """One of a few words; `later`: words of a later release, with what works instead."""
    allowed = ", ".join(option or '"" (the default)' for option in options)

    def read(value: Any) -> str:
        if later and isinstance(value, str) and value in later:
            raise Mistake(f"{shown(value)} is not there yet. {later[value]}", is_not_yet=True)
        if value not in options or not isinstance(value, str):
            raise refuse(value, allowed, options=options)
        return value

    return Value(read, allowed, help, default, {"enum": list(options)})


def number(
    default: float | None,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    whole: bool = False,
) -> Value:
    """A number within bounds."""
    kind = "a whole number" if whole else "a number"
    bounds = (
        f", {low:g} to {high:g}"
        if low is not None and high is not None
        else f", at least {low:g}"
        if low is not None
        else ""
    )

    def read(value: Any) -> float:
        is_number = isinstance(value, int if whole else (int, float)) and not isinstance(
            value, bool
        )
        if (
            not is_number
            or (low is not None and value < low)
            or (high is not None and value > high)
            or not math.isfinite(value)
        ):
            raise refuse(value, kind + bounds)
        return value

    schema = {"type": "integer" if whole else "number"}
    schema |= {k: v for k, v in (("minimum", low), ("maximum", high)) if v is not None}
    return Value(read, kind + bounds, help, default, schema)


def duration(default: str, help: str, *, low: float = 0.0, high: float = math.inf) -> Value:
    """`50ms`, `10min`, `24h`, `7d`; seconds inside."""
    allowed = "a time with its unit: 50ms, 30s, 10min, 24h, 7d"
    if high < math.inf:
        allowed += f"; {1000 * low:g}ms to {high:g}s"

    def read(value: Any) -> float:
        found = re.fullmatch(rf"{_NUMBER}\s?(ms|s|sec|min|m|h|d|w)", str(value).strip())
        seconds = float(found[1]) * UNITS[found[2]] if found else math.nan
        if not low <= seconds <= high:
            raise refuse(value, allowed)
        return seconds

    return Value(
        read,
        allowed,
        help,
        default,
        {"type": "string", "pattern": r"^\d+(\.\d+)?\s?(ms|s|sec|min|m|h|d|w)$"},
    )


def size(default: str, help: str) -> Value:
    """`200MB`, `2GB`; bytes inside."""
    allowed = "a size with its unit: 200MB, 2GB"

    def read(value: Any) -> int:
        if isinstance(value, dict) and set(value) == {"max"}:  # `size: {max: 200MB}` says the same
            value = value["max"]
        found = re.fullmatch(rf"{_NUMBER}\s?(B|kB|KB|MB|GB|TB)", str(value).strip())
        if not found:
            raise refuse(value, allowed)
        return int(float(found[1]) * SIZES[found[2]])

    return Value(
        read,
        allowed,
        help,
        default,
        {"type": "string", "pattern": r"^\d+(\.\d+)?\s?(B|kB|KB|MB|GB|TB)$"},
    )


def percent(default: str, help: str, *, low: float = 0.0, high: float = 1.0) -> Value:
    """`1%` or 0.01; a share inside."""
    allowed = f"a share: {low:.0%} to {high:.0%}, or {low:g} to {high:g}"

    def read(value: Any) -> float:
        share = _share(value)
        if share is None or not low <= share <= high:
            raise refuse(value, allowed)
        return share

    return Value(
        read,
        allowed,
        help,
        default,
        {
            "anyOf": [
                {"type": "number", "minimum": low, "maximum": high},
                {"type": "string", "pattern": PERCENT},
            ]
        },
    )


def _share(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    found = re.fullmatch(rf"{_NUMBER}\s?%", str(value).strip())
    return round(float(found[1]) / 100, 12) if found else None


def rate(default: str, help: str) -> Value:
    """`4 per day`; `(count, seconds)` inside."""
    allowed = "a count and a period: 4 per day, 1 per month"

    def read(value: Any) -> tuple[float, float]:
        found = re.fullmatch(rf"{_NUMBER}\s+per\s+(hour|day|week|month|year)", str(value).strip())
        if not found:
            raise refuse(value, allowed)
        return float(found[1]), PERIODS[found[2]]

    return Value(
        read,
        allowed,
        help,
        default,
        {"type": "string", "pattern": r"^\d+(\.\d+)?\s+per\s+(hour|day|week|month|year)$"},
    )


def margin(help: str) -> Value:
    """`+1pp`, `x1.2` or a number."""
    allowed = "+1pp (points), x1.2 (ratio) or a number"

    def read(value: Any) -> Margin:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise refuse(value, allowed)
        try:
            return Margin.parse(value)
        except ValueError as error:
            raise refuse(value, f"{allowed}, at least +0 or x1") from error

    return Value(
        read,
        allowed,
        help,
        None,
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": MARGIN}]},
    )


def texts(help: str) -> Value:
    """A list of texts."""

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise refuse(value, "a list of texts: [a, b]; quote what looks like a number")
        return tuple(value)

    return Value(read, "a list of texts", help, [], {"type": "array", "items": {"type": "string"}})


def flag(default: bool, help: str) -> Value:
    """True or false."""

    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise refuse(value, "true or false")
        return value

    return Value(read, "true or false", help, default, {"type": "boolean"})


def anything(default: Any, help: str) -> Value:
    """A mapping that is passed on as it is."""

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise refuse(value, "a mapping: {name: value}")
        return value

    return Value(read, "a mapping", help, default, {"type": "object"})


@dataclass(frozen=True)
class Bound:
    """A limit's number as it was written: whether its unit fits is known where the metric is."""

    value: float
    unit: str
    """`share`, `time` (seconds inside) or empty."""


def bound() -> Value:
    """A limit's number: plain, a share in percent, or a time in its unit."""
    allowed = "a number, a share (1%) or a time (50ms)"

    def read(value: Any) -> Bound:
        share = _share(value)
        if share is not None and math.isfinite(share):
            return Bound(share, "share" if isinstance(value, str) else "")
        found = re.fullmatch(rf"{_NUMBER}\s?(ms|s|min)", str(value).strip())
        if found and isinstance(value, str):
            return Bound(float(found[1]) * UNITS[found[2]], "time")
        raise refuse(value, allowed)

    either = r"^\d+(\.\d+)?\s?(%|ms|s|min)$"
    schema = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": either}]}
    return Value(read, allowed, "the bound itself", None, schema)
