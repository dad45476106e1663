"""Cron with a zone: when a schedule comes due. Pure and exact; the same moments whoever asks, and whenever.

The clock of a zone skips an hour in spring and has one twice in autumn. A local time that is skipped counts at the first
moment after the gap, and one that comes twice counts once, the first time. So each time that is written down comes exactly
once, and in order.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS = (
    ("minute", 0, 59, ()), ("hour", 0, 23, ()), ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("", *MONTHS)), ("day of the week", 0, 7, (*DAYS, "sun")),
)  # fmt: skip
MOST_DAYS = 9 * 366
"""Between two 29ths of February lie at most eight years."""
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """`{schedule: {cron: "0 6 3 * *", zone: Asia/Seoul}}`."""

    cron: str
    """minute, hour, day of the month, month, day of the week, as cron has them."""
    zone: str = "UTC"
    """By its name in the time zone database."""

    def __str__(self) -> str:
        return f"{self.cron} {self.zone}"


@dataclass(frozen=True, slots=True)
class _Times:
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    is_either: bool
    """Both the day of the month and that of the week are given: cron takes a day that is one of the two."""

    def has(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        is_day, is_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return is_day or is_weekday if self.is_either else is_day and is_weekday


def check(schedule: Schedule) -> None:
    """Refuse what cannot be followed.

    Raises:
        ValueError: one sentence that names the field and what is allowed.
    """
    times = _parse(schedule.cron)
    _zone(schedule.zone)
    if not any(times.has(date(2000, 1, 1) + n * DAY) for n in range(MOST_DAYS)):
        raise ValueError(f"{schedule.cron!r} never comes: no month has such a day.")


def next_due(schedules: Iterable[Schedule], after: float) -> float:
    """The first moment later than `after` at which one of them comes due; infinity without any.

    Example:
        >>> next_due([Schedule("0 6 3 * *", "Asia/Seoul")], 0.0)  # 1970-01-03 06:00 in Seoul
        162000.0
    """
    return min((_next(schedule, after) for schedule in schedules), default=float("inf"))


def last_due(schedules: Iterable[Schedule], after: float, until: float) -> float | None:
    """The last moment in (`after`, `until`] at which one of them came due: however many there were, it stands for all."""
    came = [_last(s, until) for s in schedules if _next(s, after) <= until]
    return max(came, default=None)


def local_date(schedule: Schedule, at: float) -> str:
    """The day in the schedule's zone, as 2026-11-29."""
    return _local(at, _zone(schedule.zone)).date().isoformat()


@lru_cache(maxsize=256)
def _next(schedule: Schedule, after: float) -> float:
    zone, times = _zone(schedule.zone), _parse(schedule.cron)
    # Moments are in the order of local times, so none before this local time comes later.
    start = _local(after, zone)
    return next(at for local in _onward(times, start) if (at := _moment(local, zone)) > after)


def _last(schedule: Schedule, until: float) -> float:
    zone, times = _zone(schedule.zone), _parse(schedule.cron)
    # An hour that comes twice counts the first time, so a later local time may lie before.
    start = max(_local(until + shift, zone) - timedelta(seconds=shift) for shift in (-86400, 0, 86400))  # fmt: skip
    return next(at for local in _backward(times, start) if (at := _moment(local, zone)) <= until)


def _local(at: float, zone: tzinfo) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)).astimezone(zone).replace(tzinfo=None)  # fmt: skip


def _moment(local: datetime, zone: tzinfo) -> float:
    """Seconds since 1970 of a local time."""
    there = local.replace(tzinfo=zone)
    before, after = there.utcoffset(), there.replace(fold=1).utcoffset()
    assert before is not None
    assert after is not None
    naive = (local - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001 - local times have no zone
    if after <= before:  # nothing special, or the first of two
        return naive - before.total_seconds()
    # The clock skips this time: find where it does so, to the second.
    early, late = naive - after.total_seconds(), naive - before.total_seconds()
    gap_offset = _local(late, zone) - timedelta(seconds=late)
    while late - early > 1:
        middle = (early + late) // 2
        is_over = _local(middle, zone) - timedelta(seconds=middle) == gap_offset
        early, late = (early, middle) if is_over else (middle, late)
    return late


def _onward(times: _Times, start: datetime) -> Iterator[datetime]:
    for day in _days(times, start.date(), DAY):
        for hour in times.hours:
            for minute in times.minutes:
                local = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001
                if local > start - MINUTE:
                    yield local


def _backward(times: _Times, start: datetime) -> Iterator[datetime]:
    for day in _days(times, start.date(), -DAY):
        for hour in reversed(times.hours):
            for minute in reversed(times.minutes):
                local = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001
                if local <= start:
                    yield local


def _days(times: _Times, first: date, step: timedelta) -> Iterator[date]:
    days = (first + n * step for n in range(MOST_DAYS))
    return islice((day for day in days if times.has(day)), MOST_DAYS)


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # also where no time zone database is installed
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"{name!r} is no time zone that this machine knows. Allowed: a name such as Asia/Seoul, Europe/Berlin or UTC."
        ) from error


@lru_cache(maxsize=256)
def _parse(cron: str) -> _Times:
    parts = cron.split()
    if len(parts) != len(FIELDS):
        names = ", ".join(name for name, *_ in FIELDS)
        raise ValueError(f"{cron!r} has {len(parts)} fields. Allowed: five, as in cron: {names}.")
    minutes, hours, days, months, weekdays = (
        _values(text, *field) for text, field in zip(parts, FIELDS, strict=True)
    )
    is_either = not parts[2].startswith("*") and not parts[4].startswith("*")
    weekdays = {day % 7 for day in weekdays}
    return _Times(
        tuple(sorted(minutes)), tuple(sorted(hours)), frozenset(days), frozenset(months), frozenset(weekdays), is_either,
    )  # fmt: skip


def _values(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            start, end = low, high
        else:
            start = _value(first, name, low, high, names, text)
            end = _value(last, name, low, high, names, text) if dash else start
        is_step = step.isascii() and step.isdigit() and int(step) > 0
        if end < start or (slash and (not is_step or not (dash or span == "*"))):
            raise _refused(text, name, low, high, names)
        found.update(range(start, end + 1, int(step) if slash else 1))
    return found


def _value(text: str, name: str, low: int, high: int, names: tuple[str, ...], field: str) -> int:
    if text and text.lower() in names:
        return names.index(text.lower())
    if text.isascii() and text.isdigit() and low <= int(text) <= high:
        return int(text)
    raise _refused(field, name, low, high, names)


def _refused(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> ValueError:
    words = f" or {', '.join(n for n in dict.fromkeys(names) if n)}" if names else ""
    return ValueError(
        f"{text!r} is no {name}. Allowed: {low} to {high}{words}, as *, a list (1,2), a range (1-5) or steps (*/2)."
    )
