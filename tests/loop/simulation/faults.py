"""Misfortune by numbers: what strikes is counted, so that a failing history can be told again without what does not matter."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Set


class Dice:
    """Decides where something goes wrong, or somebody does something. `only`: nothing else than these numbers does."""

    def __init__(self, seed: int, only: Set[int] | None = None) -> None:
        self.random = random.Random(f"misfortune of {seed}").random
        self.only = only
        self.n = 0
        self.struck: dict[int, str] = {}
        self.is_calm = False

    def strikes(self, what: str, p: float) -> bool:
        """Whether it goes wrong here, with probability `p`; never once the world is calm."""
        return not self.is_calm and self.random() < p and self.admits(what)

    def admits(self, what: str) -> bool:
        """Give it the next number; whether it happens in this telling."""
        self.n += 1
        if self.only is not None and self.n not in self.only:
            return False
        self.struck[self.n] = what
        return True

    def tried(self) -> Counter[str]:
        """How often each kind of misfortune struck; the kind is what stands before the colon."""
        return Counter(what.partition(":")[0] for what in self.struck.values())
