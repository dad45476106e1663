"""Mergeable histograms of times: sixteen bins an octave, so quantiles are right to 4.5 %."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, log2

PER_OCTAVE = 16
SMALLEST_S = 1e-5
LAST = 24 * PER_OCTAVE


def bucket(seconds: float) -> int:
    """The bin of a time: 0 is up to 10 microseconds, the last about three minutes and all above."""
    if not seconds > SMALLEST_S:
        return 0
    return min(LAST, ceil(log2(seconds / SMALLEST_S) * PER_OCTAVE - 1e-9))


def upper_edge(index: int) -> float:
    """The longest time in a bin, in seconds."""
    return SMALLEST_S * 2 ** (index / PER_OCTAVE)


def quantile(counts: Mapping[str, int], share: float) -> float | None:
    """The time that `share` of all do not exceed; None when there are none.

    Example:
        >>> f"{quantile({'0': 98, '160': 2}, 0.99):.5f}"
        '0.01024'
    """
    wanted = share * sum(counts.values())
    if wanted <= 0:
        return None
    seen = 0
    for index in sorted(counts, key=int):
        seen += counts[index]
        if seen >= wanted - 1e-9:
            return upper_edge(int(index))
    return None


def count_above(counts: Mapping[str, int], seconds: float) -> int:
    """How many surely took longer: bins wholly above `seconds`."""
    if seconds < SMALLEST_S:
        first = 1
    else:
        first = floor(log2(seconds / SMALLEST_S) * PER_OCTAVE + 1e-9) + 2
    return sum(n for index, n in counts.items() if int(index) >= first)


def merge(into: dict[str, int], counts: Mapping[str, int]) -> None:
    """Add `counts` to `into`."""
    for index, n in counts.items():
        into[index] = into.get(index, 0) + n
