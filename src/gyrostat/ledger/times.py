"""Times as people write and read them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

_AGO = re.compile(r"^(?P<n>\d+(?:\.\d+)?)\s*(?P<unit>s|sec|m|min|h|d|w)(?:\s+ago)?$")
_UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse(text: str, *, now: float | None = None) -> float:
    """Seconds since 1970 of an ISO 8601 time (local unless it has an offset), or of `10m`, `6h`, `3d` ago.

    Raises:
        ValueError: it is neither.

    Example:
        >>> parse("2h", now=10_000.0)
        2800.0
    """
    now = time.time() if now is None else now
    if found := _AGO.match(text.strip()):
        return now - float(found["n"]) * _UNITS[found["unit"]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(
            f"{text!r} is no time. Write 2026-11-20T14:05 (local), with an offset, or 10m, 6h, 3d for so long ago."
        ) from None
    return moment.astimezone().timestamp() if moment.tzinfo is None else moment.timestamp()


def iso(at: float) -> str:
    """UTC with offset, for exports and `--json`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def local(at: float, *, now: float | None = None) -> str:
    """As short as it can be said today: `14:05:12`, else `20 Nov 14:05`, else with its year."""
    now = time.time() if now is None else now
    moment, today = (
        datetime.fromtimestamp(at).astimezone(),
        datetime.fromtimestamp(now).astimezone(),
    )
    if moment.date() == today.date():
        return f"{moment:%H:%M:%S}"
    if abs(today - moment) < timedelta(days=300):
        return f"{moment.day} {moment:%b %H:%M}"
    return f"{moment.day} {moment:%b %Y %H:%M}"


def span(seconds: float) -> str:
    """How long, in the largest unit that says it: `0.18 s`, `41 s`, `4 min`, `2.5 h`, `3 d`.

    Example:
        >>> span(250), span(0.18)
        ('4 min', '0.18 s')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172800 else f"{seconds / 86400:.3g} d"
