"""What a table means: kinds, task, ids, personal columns, leaks.

Every guess is said with its numbers; what is not understood stops.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from gyrostat.data.settings import ColumnSettings, DataSettings
from gyrostat.errors import DataError, NotYetError
from gyrostat.terms import Task

if TYPE_CHECKING:
    import polars
    from gyrostat_runtime.schema import Kind, Schema

MIN_ROWS = 20
MAX_CLASSES = 50
MIN_CLASS_ROWS = 5
MAX_CATEGORIES = 200
MISSING_WORDS = frozenset(
    {"na", "n/a", "nan", "none", "null", "-", "--", "?", "#n/a", "n.a.", "nil"}
)
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
INTEGER = re.compile(r"[+-]?\d+")
INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
AMOUNT = re.compile(
    r"\(?[₩$€£¥]?\s?-?\d{1,3}(,\d{3})+(\.\d+)?\)?|\(?[₩$€£¥]\s?-?\d[\d,]*(\.\d+)?\)?|[+-]?\d+(\.\d+)?\s?%|\(\d[\d,]*(\.\d+)?\)"
)
ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?\s?(Z|[+-]\d{2}:?\d{2})?")
DATE_FORMATS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%Y.%m.%d", "%d-%m-%Y", "%Y%m%d")
PERSONAL = {
    "mail addresses": re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"),
    "phone numbers": re.compile(r"(?<!\d)(\+\d{1,3}[ -]?)?0\d{1,2}[ -]\d{3,4}[ -]\d{4}(?!\d)"),
    "resident numbers": re.compile(r"(?<!\d)\d{6}-[1-8]\d{6}(?!\d)"),
}
POSITIVE = (
    "yes",
    "true",
    "1",
    "y",
    "positive",
    "bad",
    "fail",
    "failed",
    "high",
    "예",
    "churned",
    "malignant",
)


@dataclass(frozen=True)
class Note:
    """One guess: about which column, what, and why."""

    column: str
    what: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.column}: {self.what}" + (f" ({self.why})" if self.why else "")


@dataclass
class Guess:
    """What one column is taken for."""

    name: str
    kind: str
    n_missing: int
    missing_words: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    format: str = ""
    low: float | None = None
    high: float | None = None
    excluded: str = ""
    """Why it is no feature; empty: it is one."""
    is_personal: bool = False


@dataclass
class Inference:
    """Everything that was guessed about a table, and why."""

    n_rows: int
    target: str
    task: Task
    columns: dict[str, Guess]
    notes: list[Note] = field(default_factory=list)
    positive: str = ""
    classes: tuple[str, ...] = ()
    class_kind: str = "category"
    n_labelled: int = 0
    group: str = ""
    entity: str = ""

    @property
    def features(self) -> list[Guess]:
        """The columns that the model may see, in the order of the file."""
        return [g for g in self.columns.values() if not g.excluded and g.name != self.target]

    def schema(self, personal: tuple[str, ...] = ()) -> Schema:
        """Inputs, features (dates become parts) and output."""
        from gyrostat_runtime.schema import Column, Feature, Output, Schema

        inputs, features = [], []
        for g in self.features:
            inputs.append(
                Column(
                    g.name,
                    cast("Kind", g.kind),
                    g.n_missing > 0,
                    g.categories if g.kind == "category" else (),
                    g.format,
                )
            )  # type: ignore[arg-type]
            if g.kind == "date":
                features += [
                    Feature(f"{g.name}_{part}", g.name, part)
                    for part in ("year", "month", "day", "weekday")
                ]
            else:
                features.append(Feature(g.name, g.name))
        output = Output(self.task.value, self.target, self.classes, self.class_kind, self.positive)  # type: ignore[arg-type]
        return Schema(tuple(inputs), tuple(features), output, personal)

    def rules(self) -> dict[str, Any]:
        """What `checks.yaml` says: per column its kind, whether values may be missing, and its range with some room."""
        found: dict[str, Any] = {}
        for g in self.columns.values():
            if g.excluded and g.name != self.target:
                continue
            rule: dict[str, Any] = {"kind": g.kind, "missing": "allowed" if g.n_missing else "none"}
            if g.name == self.target:
                rule["missing"] = "allowed"
                if self.classes:
                    rule = {"missing": "allowed", "values": list(self.classes)}
            elif g.low is not None and g.high is not None:
                room = 0.5 * (g.high - g.low)
                rule["range"] = [_tidy(g.low - room, g.low), _tidy(g.high + room, g.high)]
            found[g.name] = rule
        return {"columns": found}


def _tidy(value: float, seen: float) -> float:
    """Few digits, and no sign that the data never had."""
    if seen >= 0 > value:
        return 0.0
    return float(f"{value:.3g}")


def infer(
    df: polars.DataFrame,
    target: str,
    *,
    task: str | None = None,
    settings: DataSettings | None = None,
) -> Inference:
    """Take a table of texts (see `tables.read`) for what it is.

    Args:
        df: all columns text, null for an empty field.
        target: the column to predict; padding is ignored.
        task: overrules the guess.
        settings: an earlier declaration: its kinds, exclusions and personal columns count instead of guesses.

    Raises:
        DataError: the table cannot be learned from, or holds what is not understood; says where.
    """
    target = target.strip()
    if target not in df.columns:
        close = difflib.get_close_matches(target, df.columns, 3, 0.5)
        like = f" Did you mean {', '.join(repr(c) for c in close)}?" if close else ""
        raise DataError(
            f"There is no column {target!r}.{like} Columns: {', '.join(df.columns)}. Nothing was done.",
            columns=df.columns,
        )
    declared = settings.columns if settings else {}
    problems: list[str] = []
    notes: list[Note] = []
    columns: dict[str, Guess] = {}
    for name in df.columns:
        guess = _guess(
            name, df[name].to_list(), declared.get(name), notes, problems, is_target=name == target
        )
        columns[name] = guess
    if problems:
        raise DataError("\n".join([*problems, "Nothing was done."]), problems=problems)
    if len(df.columns) < 2:
        raise DataError(
            f"The table has one column, {target!r}; at least one more is needed to predict it from. Nothing was done."
        )
    result = Inference(df.height, target, Task.REGRESSION, columns, notes)
    _take_target(result, df[target].to_list(), task or (settings.task if settings else None))
    if settings and settings.positive:
        if settings.positive not in result.classes:
            raise DataError(
                f"output.positive is {settings.positive!r}, which is no class of {target!r}: {', '.join(result.classes)}."
            )
        result.positive = settings.positive
    if settings is None:
        _find_exclusions(result, df)
    else:
        for name in (*settings.exclude, *settings.personal, settings.keys.entity):
            if name in columns and name != target:
                columns[name].excluded = "declared"
        for (
            guess
        ) in columns.values():  # what came later and holds nothing new must not stop a training
            if not guess.excluded and guess.n_missing == df.height:
                guess.excluded = "empty"
    if not result.features:
        why = "; ".join(f"{g.name}: {g.excluded}" for g in columns.values() if g.excluded)
        raise DataError(f"No column is left to predict {target!r} from ({why}). Nothing was done.")
    return result


def _guess(
    name: str,
    raw: list[str | None],
    declared: ColumnSettings | None,
    notes: list[Note],
    problems: list[str],
    *,
    is_target: bool,
) -> Guess:
    values = [v.strip() if v is not None else None for v in raw]
    present = [v for v in values if v]
    words = Counter(v for v in present if v.lower() in MISSING_WORDS)
    extra = set(declared.missing) if declared else set()
    known = [v for v in present if v not in words and v not in extra]
    if declared and declared.kind:
        return _declared(name, values, declared)
    infinite = [
        n
        for n, v in enumerate(values, 1)
        if v and (INFINITE.fullmatch(v) or (NUMBER.fullmatch(v) and abs(float(v)) == float("inf")))
    ]
    is_number = [bool(NUMBER.fullmatch(v)) for v in known]
    n_number = sum(is_number)
    if infinite and n_number > 0.5 * len(known):
        rows = ", ".join(map(str, infinite[:10]))
        problems.append(
            f"{name} holds infinity in {len(infinite)} row{'s' * (len(infinite) > 1)}: {rows}. Write a number, or leave it blank."
        )
        return Guess(name, "number", 0)
    if (
        known
        and all(re.fullmatch(r"0\d+", v) or INTEGER.fullmatch(v) for v in known)
        and any(re.fullmatch(r"0\d+", v) for v in known)
    ):
        return _category(name, values, notes, "leading zeros: a code, kept as text")
    if known and any(INTEGER.fullmatch(v) and len(v.lstrip("+-")) > 15 for v in known):
        return _category(name, values, notes, "more digits than a number can hold: kept as text")
    if known and n_number >= 0.95 * len(known):
        odd = [
            (n, v)
            for n, v in enumerate(values, 1)
            if v and v not in words and v not in extra and not NUMBER.fullmatch(v)
        ]
        missing_words = (*words, *extra, *dict.fromkeys(v for _, v in odd))
        if words:
            notes.append(
                Note(
                    name,
                    f"{sum(words.values())} values count as missing",
                    "written " + ", ".join(map(repr, words)),
                )
            )
        if odd:
            cells = ", ".join(f"row {n}: {v!r}" for n, v in odd[:10])
            notes.append(
                Note(
                    name,
                    f"{len(odd)} of {len(values)} values are no numbers and count as missing",
                    cells,
                )
            )
        return _number(name, values, frozenset(missing_words), notes)
    amounts = [v for v in known if AMOUNT.fullmatch(v)]
    if len(amounts) > 0.5 * len(known) > 0:
        problems.append(
            f"{name} is written as amounts (row {values.index(amounts[0]) + 1}: {amounts[0]!r}), which could be read in two ways. "
            "Write plain numbers: 12.5 or 1234, no signs, no thousands."
        )
        return Guess(name, "number", 0)
    if (
        known
        and {v.lower() for v in known} <= {"true", "false"}
        and len({v.lower() for v in known}) == 2
    ):
        return Guess(name, "boolean", len(values) - len(known), tuple(words))
    if not is_target and (date := _date(name, values, words, notes)):
        return date
    return _category(name, values, notes, "")


def _declared(name: str, values: list[str | None], declared: ColumnSettings) -> Guess:
    missing = frozenset(declared.missing)
    if declared.kind in ("number", "integer"):
        return _number(name, values, missing, [])
    n_missing = sum(not v or v in missing for v in values)
    categories = (
        tuple(sorted({v for v in values if v and v not in missing}))
        if declared.kind == "category"
        else ()
    )
    return Guess(name, declared.kind, n_missing, declared.missing, categories, declared.format)


def _number(
    name: str, values: list[str | None], missing: frozenset[str], notes: list[Note]
) -> Guess:
    numbers = [v for v in values if v and v not in missing and NUMBER.fullmatch(v)]
    floats = [float(v) for v in numbers]
    is_integer = bool(floats) and all(f.is_integer() and abs(f) < 2**53 for f in floats)
    if is_integer and all(re.fullmatch(r"(19|20)\d{2}(0[1-9]|1[0-2])", v) for v in numbers):
        notes.append(
            Note(name, "a number that looks like a month", "such as 202401; taken as a number")
        )
    kind = "integer" if is_integer else "number"
    return Guess(
        name, kind, len(values) - len(numbers), tuple(sorted(missing)),
        low=min(floats, default=None), high=max(floats, default=None),
    )  # fmt: skip


def _category(name: str, values: list[str | None], notes: list[Note], why: str) -> Guess:
    if why:
        notes.append(Note(name, "a category", why))
    levels = sorted({v for v in values if v})
    return Guess(name, "category", sum(not v for v in values), (), tuple(levels))


def _date(
    name: str, values: list[str | None], words: Counter[str], notes: list[Note]
) -> Guess | None:
    known = [v for v in values if v and v not in words]
    if not known:
        return None
    n_missing = len(values) - len(known)
    if all(ISO.fullmatch(v) for v in known):
        try:
            for v in known:
                datetime.fromisoformat(v)
        except ValueError:
            return None
        notes.append(
            Note(
                name,
                "a date",
                f"ISO 8601, {min(known)[:10]} to {max(known)[:10]}; its parts are features",
            )
        )
        return Guess(name, "date", n_missing, tuple(words))
    fitting = []
    for form in DATE_FORMATS:
        try:
            moments = [datetime.strptime(v, form) for v in known]  # noqa: DTZ007
        except ValueError:
            continue
        if form == "%Y%m%d" and not all(len(v) == 8 for v in known):
            continue
        fitting.append((form, moments))
    if not fitting:
        return None
    form, moments = fitting[0]
    if len(fitting) > 1 and form == "%d/%m/%Y":
        guess = Guess(name, "date", n_missing, tuple(words), format=form)
        guess.excluded = "day and month could be swapped in every row; set columns.<name>.format"
        notes.append(Note(name, "left out", guess.excluded))
        return guess
    order = "day first in all rows" if form.startswith("%d") else form
    notes.append(
        Note(
            name,
            "a date",
            f"{order}, {min(moments):%Y-%m-%d} to {max(moments):%Y-%m-%d}, {n_missing} missing; its parts are features",
        )
    )
    return Guess(name, "date", n_missing, tuple(words), format=form)


def _take_target(result: Inference, raw: list[str | None], task: str | None) -> None:
    name, guess, notes = result.target, result.columns[result.target], result.notes
    missing = frozenset(guess.missing_words)
    labels = [v.strip() if v and v.strip() not in missing else "" for v in raw]
    present = [v for v in labels if v]
    result.n_labelled = len(present)
    if len(present) < len(labels):
        notes.append(
            Note(
                name,
                f"{len(labels) - len(present)} of {len(labels)} rows have no label and are left out",
                f"{len(present)} stay",
            )
        )
    distinct = Counter(present)
    if len(distinct) == 1:
        value = next(iter(distinct))
        raise DataError(
            f"The target {name!r} has one value, {value!r}, in all {len(present)} rows: there is nothing to learn. Nothing was done."
        )
    if len(present) < MIN_ROWS:
        raise DataError(
            f"The table has {len(present)} row{'s' * (len(present) != 1)} with a label; at least {MIN_ROWS} are needed, so that some can be "
            "trained on and some held out to judge. Nothing was done.", rows=len(present), needed=MIN_ROWS,
        )  # fmt: skip
    is_numeric = guess.kind in ("number", "integer")
    if (
        is_numeric
        and task in (None, "regression")
        and not (guess.kind == "integer" and len({float(v) for v in present}) == 2 and task is None)
    ):
        result.task = Task.REGRESSION
        low, high = guess.low or 0.0, guess.high or 0.0
        word = "integer" if guess.kind == "integer" else "number"
        hint = (
            "task: multiclass in config/config.yaml treats them as classes"
            if word == "integer" and len(distinct) <= MAX_CLASSES
            else ""
        )
        notes.append(Note(name, f"{word}, {low:g} to {high:g} -> regression", hint))
        floats = sorted(float(v) for v in present)
        if floats[0] > 0 and floats[-1] > 20 * floats[len(floats) // 2]:
            notes.append(
                Note(
                    name,
                    "very skewed",
                    f"largest {floats[-1]:g}, median {floats[len(floats) // 2]:g}",
                )
            )
        return
    if task == "regression":
        raise DataError(
            f"The target {name!r} is no number (row 1: {present[0]!r}), so it cannot be a regression. Nothing was done."
        )
    _take_classes(result, present, task, is_numeric=is_numeric)


def _take_classes(
    result: Inference, present: list[str], task: str | None, *, is_numeric: bool
) -> None:
    name, guess, notes = result.target, result.columns[result.target], result.notes
    spelled = Counter(str(int(float(v))) if guess.kind == "integer" else v for v in present)
    merged = {re.sub(r"\s+", " ", v).casefold() for v in spelled}
    if len(merged) < len(spelled):
        listed = ", ".join(repr(v) for v in sorted(spelled))
        raise DataError(
            f"The target {name!r} has {len(spelled)} spellings of {len(merged)} values once spaces and case are ignored: {listed}. "
            "Write each class one way. Nothing was done."
        )
    rare = {v: n for v, n in spelled.items() if n < MIN_CLASS_ROWS}
    kept = sorted(v for v in spelled if v not in rare)
    if is_numeric:
        kept.sort(key=float)
    for value, n in rare.items():
        notes.append(
            Note(
                name,
                f"the class {value!r} has {n} row{'s' * (n > 1)}: too few to be trained and judged, so they are left out",
            )
        )
    if len(kept) < 2:
        raise DataError(
            f"The target {name!r} has {len(kept)} classes of at least {MIN_CLASS_ROWS} rows; two are needed. Nothing was done."
        )
    if len(kept) > MAX_CLASSES:
        raise DataError(
            f"The target {name!r} is text with {len(kept)} different values (such as {kept[0]!r}); at most {MAX_CLASSES} classes are "
            "understood. Is it an id, or a number in words? Nothing was done."
        )
    result.classes = tuple(kept)
    result.class_kind = (
        "integer"
        if guess.kind == "integer"
        else "number"
        if is_numeric
        else "boolean"
        if guess.kind == "boolean"
        else "category"
    )
    result.task = Task.BINARY if len(kept) == 2 else Task.MULTICLASS
    if task == "binary" and result.task is not Task.BINARY:
        raise DataError(
            f"The target {name!r} has {len(kept)} classes, so it is not binary. Nothing was done."
        )
    if task == "multiclass":
        result.task = Task.MULTICLASS
    if task and task not in tuple(Task):
        raise NotYetError(
            f"The task {task!r} is not there yet; regression, binary and multiclass are."
        )
    if result.task is Task.BINARY:
        low = {v.lower(): v for v in kept}
        result.positive = next(
            (low[w] for w in POSITIVE if w in low), min(kept, key=lambda v: spelled[v])
        )
        notes.append(
            Note(
                name,
                f"{kept[0]}/{kept[1]} -> binary",
                f"positive class {result.positive!r}; output.positive changes it",
            )
        )
    else:
        notes.append(Note(name, f"{len(kept)} classes ({', '.join(kept[:6])}) -> multiclass"))


def _exclude(result: Inference, guess: Guess, why: str, more: str = "") -> None:
    guess.excluded = why
    result.notes.append(Note(guess.name, "left out: " + why, more))


def _find_exclusions(result: Inference, df: polars.DataFrame) -> None:
    n = df.height
    target = df[result.target]
    for guess in list(result.columns.values()):
        name = guess.name
        if name == result.target or guess.excluded:
            continue
        values = [v for v in df[name].to_list() if v and v.strip()]
        distinct = len(set(values))
        for what, form in PERSONAL.items():
            n_found = (
                sum(bool(form.search(v)) for v in values) if guess.kind in ("category",) else 0
            )
            if n_found:
                guess.is_personal = True
                _exclude(result, guess, f"personal: {n_found} rows hold what looks like {what}")
                break
        if guess.excluded:
            continue
        if guess.n_missing == n or not values:
            _exclude(result, guess, "empty")
        elif distinct == 1 and guess.n_missing == 0:
            _exclude(result, guess, "it has one value in all rows")
        elif guess.kind == "integer" and _is_counter(values):
            _exclude(result, guess, "a row number")
        elif (
            guess.kind in ("category", "integer")
            and distinct == len(values) == n
            and (guess.kind == "category" or _is_id_name(name))
        ):
            _exclude(result, guess, "an id: unique in each row")
        elif _gives_away(df[name], target, result, guess):
            _exclude(
                result,
                guess,
                f"it gives {result.target} away in every row",
                "known only afterwards?",
            )
        elif _is_id_name(name) and guess.kind in ("category", "integer") and 2 < distinct <= n / 3:
            result.group = result.group or name
            result.entity = result.entity or name
            _exclude(
                result,
                guess,
                f"it repeats ({distinct} values in {n} rows) and looks like an entity",
                "each stays on one side of the split",
            )
        elif guess.kind == "category" and (
            sum(map(len, values)) > 30 * len(values) and distinct > 20
        ):
            _exclude(result, guess, "free text")
        elif guess.kind == "category" and distinct > max(20, min(MAX_CATEGORIES, n / 2)):
            _exclude(
                result, guess, f"{distinct} different texts in {n} rows: more an id than a category"
            )
        elif guess.kind == "date" and distinct == n:
            result.notes.append(
                Note(
                    name,
                    "unique in each row",
                    "rows may be ordered in time: data.split: {by: "
                    + name
                    + ", cut: ...} judges on the latest",
                )
            )


def _is_id_name(name: str) -> bool:
    return bool(
        re.search(r"(^|[_\s-])(id|no|nr|uuid|key)$|^(id|uuid|index)$", name.strip(), re.IGNORECASE)
    )


def _is_counter(values: list[str]) -> bool:
    numbers = [float(v) for v in values if NUMBER.fullmatch(v)]
    return len(numbers) > 2 and all(b - a == 1 for a, b in pairwise(numbers))


def _gives_away(
    column: polars.Series, target: polars.Series, result: Inference, guess: Guess
) -> bool:
    """Whether a column is the target in other words."""
    pairs = {
        (a, b)
        for a, b in zip(column.to_list(), target.to_list(), strict=True)
        if a is not None and b is not None
    }
    n_left, n_right = len({a for a, _ in pairs}), len({b for _, b in pairs})
    if result.classes:
        return n_left == n_right == len(pairs) and n_left >= 2
    if guess.kind not in ("number", "integer") or n_right < 10:
        return False
    found = [
        (float(a), float(b))
        for a, b in pairs
        if NUMBER.fullmatch(a.strip()) and NUMBER.fullmatch(b.strip())
    ]
    return len(found) > 10 and all(a == b for a, b in found)
