"""The vocabulary: values that parts exchange, as frozen dataclasses without behaviour of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from gyrostat import notebook


class Task(StrEnum):
    """What a model answers."""

    REGRESSION = "regression"
    BINARY = "binary"
    MULTICLASS = "multiclass"


class Ref(NamedTuple):
    """The name of a thing: `<kind>/<model>/<id>`, or `entry/<position>`. Its page is `/` + the ref.

    Example:
        >>> str(Ref.parse("run/7", only_model="wine"))
        'run/wine/7'
    """

    kind: str
    model: str
    id: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part)

    @classmethod
    def parse(cls, text: str, *, only_model: str | None = None) -> Ref:
        """Read a ref; where a project has one model, its name may be left out.

        Raises:
            ValueError: `text` has not the form of a ref.
        """
        kind, *rest = text.strip("/").split("/")
        match rest:
            case [id] if kind == "entry":
                return cls(kind, "", id)
            case [model, id]:
                return cls(kind, model, id)
            case [id] if only_model is not None:
                return cls(kind, only_model, id)
        raise ValueError(f"{text!r} is no ref; a ref looks like run/wine/7 or entry/184")


class Answer(StrEnum):
    """The three answers that a decision can have. Undecided is not a weak yes: it has a deadline and a declared end."""

    ACCEPT = "accept"
    REJECT = "reject"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pure decision says: an answer, its reason and the numbers it was made of.

    `lower` and `upper` bound `value` with the stated confidence; they, not `value`, decide.
    """

    answer: Answer
    rule: str
    """Rule id with its version, such as `gates.champion/1`. Rules are added, never edited."""
    reason: str
    """One sentence with the numbers in it."""
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    limit: float | None = None
    needs: str = ""
    """Undecided: what is missing and how much of it."""

    def as_json(self) -> dict[str, Any]:
        """The shape in which a verdict stands in an entry."""
        return {
            name: value
            for name in self.__slots__
            if (value := getattr(self, name)) not in (None, "")
        }

    def __str__(self) -> str:
        return f"{self.answer}: {self.reason}" + (f" ({self.needs})" if self.needs else "")

    def _repr_html_(self) -> str:
        row = notebook.measure(str(self.answer), self.value, self.lower, self.upper, self.limit)
        return notebook.table(
            (*notebook.MEASURES, "reason"), [[*row, notebook.cell(self.needs or self.reason)]]
        )


@dataclass(frozen=True, slots=True)
class Margin:
    """How much worse is still the same: `+1pp` adds to a rate, `x1.2` multiplies, a bare number adds."""

    kind: Literal["points", "ratio", "plain"]
    value: float

    _FORM = re.compile(r"^(?:\+?(?P<points>[\d.]+)pp|x(?P<ratio>[\d.]+)|\+?(?P<plain>[\d.eE-]+))$")

    @classmethod
    def parse(cls, text: str | float) -> Margin:
        """Read `+1pp`, `x1.05` or `0.01`.

        Raises:
            ValueError: it is none of these, or below nothing.

        Example:
            >>> Margin.parse("+1pp")
            Margin(kind='points', value=0.01)
        """
        found = cls._FORM.match(str(text).strip())
        if not found:
            raise ValueError(
                f"{text!r} is no margin; write +1pp (points), x1.2 (ratio) or a number"
            )
        kind, raw = next((k, v) for k, v in found.groupdict().items() if v is not None)
        value = float(raw) / 100 if kind == "points" else float(raw)
        if value < 0 or (kind == "ratio" and value < 1):
            raise ValueError(
                f"{text!r}: a margin is how much worse is allowed, so at least +0 or x1"
            )
        return cls(kind, value)  # type: ignore[arg-type]

    def above(self, base: float) -> float:
        """The largest value that is not worse than `base` by more than this margin (less is better)."""
        return base * self.value if self.kind == "ratio" else base + self.value

    def __str__(self) -> str:
        match self.kind:
            case "points":
                return f"+{100 * self.value:g}pp"
            case "ratio":
                return f"x{self.value:g}"
        return f"{self.value:g}"


@dataclass(frozen=True, slots=True)
class Limit:
    """An absolute bound on a metric: what "good" means. Exactly one side is given."""

    metric: str
    max: float | None = None
    min: float | None = None

    @property
    def bound(self) -> float:
        """The number itself, whichever side it is on."""
        return self.max if self.max is not None else self.min  # type: ignore[return-value]


GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry before it has a place: everything its author knows.

    `body` holds JSON values only, never a row's values. `at` is the ledger's time its author judged by (seconds since
    1970, UTC); the entry gets a stamp of the ledger's own, never an earlier one.
    """

    kind: str
    at: float
    actor: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    body: dict[str, Any] = field(default_factory=dict)
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded fact. `position` orders the whole ledger, `seq` orders its stream; neither has gaps."""

    position: int
    stream: str
    seq: int
    fence: int | None
    kind: str
    at: float
    actor: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    body: dict[str, Any]
    key: str | None
    prev: str
    hash: str

    @property
    def ref(self) -> str:
        """How a person names it."""
        return f"entry/{self.position}"


@dataclass(frozen=True)
class Told:
    """What a method of the door answers: lines for a person, JSON values for a program, and how it ended."""

    lines: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    """0 done, 1 refused or undecided, 2 usage, 3 failed but retryable, 4 failed."""

    draw: Callable[[dict[str, Any]], str] | None = field(default=None, compare=False, repr=False)
    """How the facts show themselves in a notebook, as HTML; else it is the lines."""

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        drawn = self.draw(self.facts) if self.draw else ""
        return notebook.plain(str(self)) + drawn


@dataclass(frozen=True)
class RunTold(Told):
    """What became of a run that was asked for."""

    gates: dict[str, Verdict] = field(default_factory=dict)
    """The verdicts of its gates, by name; empty where it did not come that far."""

    @property
    def ref(self) -> str:
        """Its name, `run/wine/7`; empty where none was opened."""
        return self.facts.get("run") or ""
