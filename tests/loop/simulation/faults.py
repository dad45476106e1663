"""Misfortune with names: what strikes is counted, so that a failing history can be told again without what does not matter.

Each kind of misfortune, and each thing that somebody decides, has random numbers of its own. So leaving one out changes as
little as can be of what comes after it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Set


class Dice:
    """Decides where something goes wrong, or somebody does something. `only`: nothing else than these does."""

    def __init__(self, seed: int, only: Set[str] | None = None) -> None:
        self.seed, self.only = seed, only
        self.rolls: dict[str, Callable[[], float]] = {}
        self.n: Counter[str] = Counter()
        self.lucks: dict[tuple[str, ...], random.Random] = {}
        self.struck: dict[str, str] = {}
        """Name of the misfortune (`a-call-is-lost.3`) -> whom it met."""
        self.is_calm = False

    def roll(self, what: str) -> float:
        """The next number of this kind, in [0, 1)."""
        roll = self.rolls.get(what)
        if roll is None:
            self.rolls[what] = roll = random.Random(f"{what} of {self.seed}").random
        return roll()

    def strikes(self, what: str, p: float, whom: str = "") -> bool:
        """Whether it goes wrong here, with probability `p`; never once the world is calm."""
        return not self.is_calm and self.roll(what) < p and self.admits(what, whom)

    def admits(self, what: str, whom: str = "") -> bool:
        """Give it the next name of its kind; whether it happens in this telling."""
        self.n[what] += 1
        name = f"{what.replace(' ', '-')}.{self.n[what]}"
        if self.only is not None and name not in self.only:
            return False
        self.struck[name] = whom
        return True

    def luck(self, *what: str) -> random.Random:
        """Random numbers for what goes by this name, whatever else has happened."""
        luck = self.lucks.get(what)
        if luck is None:
            self.lucks[what] = luck = random.Random(f"{what} of {self.seed}")
        return luck

    def tried(self) -> Counter[str]:
        """How often each kind of misfortune struck."""
        return Counter(name.rpartition(".")[0].replace("-", " ") for name in self.struck)
