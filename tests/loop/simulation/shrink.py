"""From a failing history to the smallest one that still fails: what went wrong before, and is needed for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .history import History


def shrink(
    seed: int, bugs: frozenset[str] = frozenset(), *, n_tellings: int = 600
) -> tuple[History, list[str]]:
    """The history with the fewest misfortunes that fails, and how; `dice.struck` says which they are.

    Chunks of misfortunes are left out, halves first, then smaller ones, as long as it still fails in any way. Leaving one
    out changes what happens after it, so each telling counts its own.
    """
    best = History(seed, bugs)
    harm = best.run()
    if not harm:
        raise ValueError(f"the history of seed {seed} does not fail")
    left = n_tellings

    def tell(only: list[str]) -> bool:
        nonlocal best, harm, left
        left -= 1
        history = History(seed, bugs, only=frozenset(only))
        found = history.run()
        if found and len(history.dice.struck) < len(best.dice.struck):
            best, harm = history, found
            return True
        return False

    minimise(lambda: list(best.dice.struck), tell, lambda: left > 0)
    return best, harm


def minimise(
    struck: Callable[[], list[Any]], fails: Callable[[list[Any]], bool], goes_on: Callable[[], bool]
) -> None:
    """Delta debugging: leave out chunk after chunk, and halve the chunks when none can go."""
    size = max(1, len(struck()) // 2)
    while struck() and goes_on():
        at, is_smaller = 0, False
        while at < len(struck()) and goes_on():
            numbers = struck()
            if fails(numbers[:at] + numbers[at + size :]):
                is_smaller = True
            else:
                at += size
        if size == 1 and not is_smaller:
            return
        size = max(1, size // 2) if not is_smaller else min(size, max(1, len(struck()) // 2))
