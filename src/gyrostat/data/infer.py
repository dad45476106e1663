"""What a table means: kinds, task, ids, personal columns, leaks.

Every guess is said with its numbers; what is not understood stops.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from gyrostat.data.readings import (
    INTEGER,
    MISSING_WORDS,
    NUMBER,
    Guess,
    Note,
    Reading,
    read_column,
)
from gyrostat.data.settings import (
    ColumnSettings,
    DataSettings,
    KeySettings,
    SourceSettings,
    SplitSettings,
)
from gyrostat.errors import DataError, NotYetError
from gyrostat.terms import Task

if TYPE_CHECKING:
    import polars as pl
    from gyrostat_runtime.schema import Kind, Schema

__all__ = ["INTEGER", "MISSING_WORDS", "NUMBER", "Guess", "Inference", "Note", "infer"]

MIN_ROWS = 20
MAX_CLASSES = 50
MIN_CLASS_ROWS = 5
MAX_CATEGORIES = 200
PERSONAL = {
    "mail addresses": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "phone numbers": r"(?:^|[^\d-])(?:\+\d{1,3}[ -]?)?\(?0?\d{1,3}\)?[ -]\d{3,4}[ -]\d{4}(?:[^\d-]|$)|^01[016-9]\d{7,8}$",
    "resident numbers": r"(?:^|\D)\d{6}-[1-8]\d{6}(?:\D|$)",
    "card numbers": r"(?:^|\D)\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}(?:\D|$)",
}
POSITIVE = (
    "yes", "true", "1", "y", "positive", "bad", "fail", "failed", "high", "예", "churned", "malignant",
)  # fmt: skip
_DATE_PARTS = ("year", "month", "day", "weekday")


@dataclass
class Inference:
    """Everything that was guessed about a table, and why."""

    n_rows: int
    target: str
    task: Task
    columns: dict[str, Guess]
    notes: list[Note] = field(default_factory=list)
    positive: str = ""
    threshold: float = 0.5
    classes: tuple[str, ...] = ()
    """In the file's own spelling, in the order in which scikit-learn sorts them."""
    rare: tuple[str, ...] = ()
    """Classes with too few rows; these rows are left out."""
    class_kind: str = "category"
    n_labelled: int = 0
    group: str = ""
    entity: str = ""

    @property
    def features(self) -> list[Guess]:
        """The columns that the model may see, in the order of the file."""
        return [g for g in self.columns.values() if not g.excluded and g.name != self.target]

    @property
    def inputs(self) -> list[Guess]:
        """All columns but the target: a request may have them all, also those that are no features."""
        return [g for g in self.columns.values() if g.name != self.target]

    @property
    def personal(self) -> tuple[str, ...]:
        """Columns that hold what belongs to a person."""
        return tuple(g.name for g in self.columns.values() if g.is_personal)

    def schema(self, personal: tuple[str, ...] | None = None) -> Schema:
        """Inputs in the order of the file, features (dates become parts) and output."""
        from gyrostat_runtime.schema import Column, Feature, Output, Schema

        inputs: list[Column] = []
        features: list[Feature] = []
        taken = set(self.columns)
        for g in self.inputs:
            shown = g.categories if g.kind == "boolean" or not g.excluded else ()
            is_nullable = g.n_missing > 0 or bool(g.excluded)
            inputs.append(Column(g.name, cast("Kind", g.kind), is_nullable, shown, g.format))
            if g.excluded:
                continue
            if g.kind != "date":
                features.append(Feature(g.name, g.name))
                continue
            for part in _DATE_PARTS:
                name = f"{g.name}_{part}"
                while name in taken:
                    name += "_"
                taken.add(name)
                features.append(Feature(name, g.name, part))
        output = Output(
            self.task.value,
            self.target,
            self.classes,
            cast("Any", self.class_kind),
            self.positive,
            self.threshold,
        )
        own = self.personal if personal is None else personal
        return Schema(tuple(inputs), tuple(features), output, own)

    def rules(self) -> dict[str, Any]:
        """What `checks.yaml` says: per column its kind, whether values may be missing, and its range with some room."""
        found: dict[str, Any] = {}
        for g in self.columns.values():
            if g.name == self.target:
                rule: dict[str, Any] = {"missing": "allowed"}
                if self.classes:
                    rule["values"] = [*self.classes, *self.rare]
                else:
                    rule["kind"] = g.kind
                found[g.name] = rule
            elif not g.excluded:
                rule = {"kind": g.kind, "missing": "allowed" if g.n_missing else "none"}
                if g.low is not None and g.high is not None:
                    rule["range"] = list(_with_room(g.low, g.high))
                found[g.name] = rule
        return {"columns": found}

    def declared_columns(self) -> dict[str, ColumnSettings]:
        """`data.columns`: what the values alone do not say, such as the order of a date or words for a missing value."""
        return {g.name: g.declare for g in self.columns.values() if g.declare is not None}

    def data_settings(self, source: SourceSettings) -> DataSettings:
        """The declaration that reads the table as it was read here."""
        personal = self.personal
        excluded = tuple(
            g.name for g in self.inputs if g.excluded and g.name not in (*personal, self.entity)
        )
        return DataSettings(
            source=source, target=self.target, task=self.task.value, positive=self.positive,
            keys=KeySettings(entity=self.entity), split=SplitSettings(group=self.group),
            columns=self.declared_columns(), exclude=excluded, personal=personal,
        )  # fmt: skip


def _with_room(low: float, high: float) -> tuple[float, float]:
    """Half the span beyond both ends in few digits, and no sign that the data never had."""
    room = 0.5 * (high - low)
    if room == 0:
        room = abs(low) or 1.0
    step = 10.0 ** (math.floor(math.log10(room)) - 1)
    digits = max(0, -math.floor(math.log10(step)))
    bottom = round(math.floor((low - room) / step) * step, digits)
    top = round(math.ceil((high + room) / step) * step, digits)
    return (0.0 if low >= 0 > bottom else bottom), (0.0 if high <= 0 < top else top)


def infer(
    df: pl.DataFrame,
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
    target = _find(df, target)
    if df.width < 2:
        raise DataError(
            f"The table has one column, {target!r}; at least one more is needed to predict it from. Nothing was done."
        )
    declared = settings.columns if settings else {}
    unknown = [name for name in declared if name not in df.columns]
    if unknown:
        raise DataError(
            f"data.columns names {unknown[0]!r}, which the table does not have. Columns: {', '.join(df.columns)}."
        )
    ignored = {*settings.exclude, *settings.personal, settings.keys.entity} if settings else set()
    readings = {
        name: _read(df[name], declared.get(name), is_target=name == target, is_ignored=name in ignored - {target})
        for name in df.columns
    }  # fmt: skip
    problems = [r.problem for r in readings.values() if r.problem]
    if problems:
        raise DataError("\n".join([*problems, "Nothing was done."]), problems=problems)
    columns = {name: r.guess for name, r in readings.items()}
    result = Inference(df.height, target, Task.REGRESSION, columns)
    result.notes = [note for r in readings.values() for note in r.notes]
    _take_target(result, df[target], task or (settings.task if settings else None))
    if settings and settings.positive:
        if settings.positive not in result.classes:
            raise DataError(
                f"output.positive is {settings.positive!r}, which is no class of {target!r}: {', '.join(result.classes) or 'it is a number'}."
            )
        result.positive = settings.positive
    if settings:
        result.threshold = settings.threshold
    if settings is None:
        _find_exclusions(result, df)
    else:
        _exclude_declared(result, settings, df.height)
    if not result.features:
        why = "; ".join(f"{g.name}: {g.excluded}" for g in columns.values() if g.excluded)
        raise DataError(f"No column is left to predict {target!r} from ({why}). Nothing was done.")
    return result


def _find(df: pl.DataFrame, target: str) -> str:
    if target in df.columns:
        return target
    if target.strip() in df.columns:
        return target.strip()
    by_case = {c.casefold(): c for c in df.columns}
    close = difflib.get_close_matches(target.strip().casefold(), by_case, 3, 0.5)
    like = f" Did you mean {', '.join(repr(by_case[c]) for c in close)}?" if close else ""
    shown = ", ".join(df.columns[:30]) + (", ..." if df.width > 30 else "")
    raise DataError(
        f"There is no column {target!r}.{like} Columns: {shown}. Nothing was done.",
        columns=df.columns,
    )


def _read(
    column: pl.Series, declared: ColumnSettings | None, *, is_target: bool, is_ignored: bool
) -> Reading:
    reading = read_column(column, declared, is_target=is_target)
    if is_ignored and reading.problem:
        # What is no feature need not be understood.
        reading = read_column(column, ColumnSettings(kind="category"))
    return reading


def _exclude_declared(result: Inference, settings: DataSettings, n_rows: int) -> None:
    columns = result.columns
    for name in (*settings.exclude, *settings.personal, settings.keys.entity):
        if name in columns and name != result.target:
            columns[name].excluded = "declared"
            columns[name].is_personal = name in settings.personal
    for guess in columns.values():
        # What came later and holds nothing must not stop a training.
        if not guess.excluded and guess.name != result.target and guess.n_missing == n_rows:
            guess.excluded = "empty"
    result.group, result.entity = settings.split.group, settings.keys.entity
    for key in ("group", "by"):
        name = getattr(settings.split, key)
        if name and name not in columns:
            raise DataError(
                f"data.split.{key} is {name!r}, which is no column of the table. Columns: {', '.join(columns)}."
            )


# ---- the target ----------------------------------------------------------------------------------


def _take_target(result: Inference, column: pl.Series, task: str | None) -> None:
    if task is not None and task not in tuple(Task):
        raise NotYetError(
            f"The task {task!r} is not there yet; regression, binary and multiclass are."
        )
    name, guess, notes = result.target, result.columns[result.target], result.notes
    labels = _labels(column, guess, notes)
    result.n_labelled = sum(labels.values())
    n_gone = result.n_rows - result.n_labelled
    if n_gone:
        what = f"{n_gone} of {result.n_rows} rows have no label and are left out"
        notes.append(Note(name, what, f"{result.n_labelled} stay"))
    if len(labels) == 1:
        (value,) = labels
        raise DataError(
            f"The target {name!r} has one value, {value!r}, in all {result.n_labelled} rows: there is nothing to learn. Nothing was done.",
            rows=result.n_labelled,
        )
    if result.n_labelled < MIN_ROWS:
        raise DataError(
            f"The table has {result.n_labelled} row{'s' * (result.n_labelled != 1)} with a label; at least {MIN_ROWS} are needed, "
            "so that some can be trained on and some held out to judge. Nothing was done.",
            rows=result.n_labelled,
            needed=MIN_ROWS,
        )
    is_numeric = guess.kind in ("number", "integer")
    is_two = guess.kind == "integer" and guess.n_distinct == 2
    is_coded = guess.kind == "integer" and _are_codes(labels)
    if is_numeric and (task == "regression" or (task is None and not is_two and not is_coded)):
        _take_numbers(result, labels)
        return
    if guess.kind == "date":
        raise DataError(
            f"The target {name!r} is a date, which cannot be predicted. Nothing was done."
        )
    if task == "regression":
        raise DataError(
            f"The target {name!r} is no number (for example {next(iter(labels))!r}), so it cannot be a regression. Nothing was done."
        )
    _take_classes(result, column, labels, task, is_numeric=is_numeric)


def _labels(column: pl.Series, guess: Guess, notes: list[Note]) -> Counter[str]:
    """How often each label stands, as it is spelled; without what counts as missing."""
    counts = Counter(v for v in column.to_list() if v is not None and v.strip())
    missing = set(guess.missing_words)
    if guess.kind == "category":
        words = [v for v in counts if v.strip().lower() in MISSING_WORDS]
        if words and len(counts) - len(words) >= 2:
            missing.update(v.strip() for v in words)
            guess.missing_words = tuple(sorted(missing))
            n = sum(counts[v] for v in words)
            notes.append(Note(guess.name, f"{n} labels count as missing", f"written {', '.join(map(repr, words))}"))  # fmt: skip
    return Counter({v: n for v, n in counts.items() if v.strip() not in missing})


def _are_codes(labels: Counter[str]) -> bool:
    """Whether whole numbers look like codes of classes: 0, 1, 2 ... without a gap, and all about equally frequent.

    Counts of something start at 0 too, but are ever rarer; grades and stars start elsewhere.
    """
    counts: Counter[int] = Counter()
    for text, n in labels.items():
        if NUMBER.fullmatch(text.strip()):
            counts[int(float(text))] += n
    return (
        3 <= len(counts) <= 20
        and sorted(counts) == list(range(len(counts)))
        and min(counts.values()) >= max(MIN_CLASS_ROWS, 0.5 * counts.total() / len(counts))
    )


def _take_numbers(result: Inference, labels: Counter[str]) -> None:
    guess, name = result.columns[result.target], result.target
    result.task = Task.REGRESSION
    low, high = guess.low or 0.0, guess.high or 0.0
    is_few = guess.kind == "integer" and guess.n_distinct <= MAX_CLASSES
    hint = "task: multiclass in config/config.yaml treats them as classes" if is_few else ""
    said = f"{guess.kind}, {_shown(low)} to {_shown(high)} -> regression"
    result.notes.append(Note(name, said, hint))
    floats = sorted(float(v) for v in labels.elements() if NUMBER.fullmatch(v.strip()))
    middle = floats[len(floats) // 2]
    if floats[0] > 0 and floats[-1] > 10 * middle:
        why = f"largest {_shown(floats[-1])}, median {_shown(middle)}: the largest values rule the error"
        result.notes.append(Note(name, "very skewed", why))


def _shown(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _take_classes(
    result: Inference,
    column: pl.Series,
    labels: Counter[str],
    task: str | None,
    *,
    is_numeric: bool,
) -> None:
    name, guess, notes = result.target, result.columns[result.target], result.notes
    if is_numeric:
        spelled: Counter[str] = Counter()
        for v, n in labels.items():
            if NUMBER.fullmatch(v.strip()):
                value = float(v)
                spelled[_shown(value)] += n
    elif guess.kind == "boolean":
        by_word = {v.lower(): v for v in guess.categories}
        spelled = Counter()
        for v, n in labels.items():
            spelled[by_word[v.strip().lower()]] += n
    else:
        spelled = labels
    merged = {re.sub(r"\s+", " ", v.strip()).casefold() for v in spelled}
    if len(merged) < len(spelled):
        listed = ", ".join(repr(v) for v in sorted(spelled)[:20])
        raise DataError(
            f"The target {name!r} has {len(spelled)} spellings of {len(merged)} values once spaces and case are ignored: {listed}. "
            "Write each class one way. Nothing was done.",
            spellings=sorted(spelled),
        )
    if len(spelled) > MAX_CLASSES:
        first = next(iter(spelled))
        raise DataError(
            f"The target {name!r} is {'a number' if is_numeric else 'text'} with {len(spelled)} different values (such as {first!r}); at most "
            f"{MAX_CLASSES} classes are understood. Is it an id, or a number in words? Nothing was done."
        )
    rare = {v: n for v, n in spelled.items() if n < MIN_CLASS_ROWS}
    kept = sorted((v for v in spelled if v not in rare), key=float if is_numeric else None)
    if guess.kind == "boolean":
        kept.sort(key=str.lower)
    places = {v: n for n, v in enumerate(column.to_list(), 1) if v is not None}
    for value, n in rare.items():
        rows = f"1 row (row {places[value]})" if n == 1 and value in places else f"{n} rows"
        what = f"the class {value!r} has {rows}: it could be trained or judged, not both"
        notes.append(Note(name, what, f"left out; at least {MIN_CLASS_ROWS} are needed"))
    if len(kept) < 2:
        raise DataError(
            f"The target {name!r} has {len(kept)} class{'es' * (len(kept) != 1)} of at least {MIN_CLASS_ROWS} rows; two are needed. Nothing was done."
        )
    result.classes, result.rare = tuple(kept), tuple(sorted(rare))
    result.class_kind = {"integer": "integer", "number": "number", "boolean": "boolean"}.get(
        guess.kind, "category"
    )
    result.task = Task.BINARY if len(kept) == 2 and task != "multiclass" else Task.MULTICLASS
    if task == "binary" and len(kept) != 2:
        raise DataError(
            f"The target {name!r} has {len(kept)} classes, so it is not binary. Nothing was done."
        )
    if result.task is Task.BINARY:
        low = {v.strip().lower(): v for v in kept}
        result.positive = next(
            (low[w] for w in POSITIVE if w in low), min(kept, key=lambda v: spelled[v])
        )
        how = f"positive class {result.positive!r}; output.positive changes it"
        notes.append(Note(name, f"{kept[0]}/{kept[1]} -> binary", how))
    else:
        shown = ", ".join(kept[:6]) + (", ..." if len(kept) > 6 else "")
        hint = "task: regression in config/config.yaml treats them as numbers" if is_numeric else ""
        notes.append(Note(name, f"{len(kept)} classes ({shown}) -> multiclass", hint))


# ---- what is no feature --------------------------------------------------------------------------


def _exclude(result: Inference, guess: Guess, why: str, more: str = "") -> None:
    guess.excluded = why
    result.notes.append(Note(guess.name, "left out: " + why, more))


def _find_exclusions(result: Inference, df: pl.DataFrame) -> None:
    n = df.height
    for guess in result.columns.values():
        name = guess.name
        if name == result.target:
            continue
        column = df[name]
        if guess.kind == "category" and _is_personal(result, guess, column):
            continue
        if guess.excluded:
            continue
        n_filled = n - guess.n_missing
        is_key = guess.kind in ("category", "integer") and _is_id_name(name)
        if not n_filled:
            _exclude(result, guess, "empty")
        elif guess.n_distinct == 1 and not guess.n_missing:
            _exclude(result, guess, "it has one value in all rows")
        elif guess.kind == "integer" and guess.n_distinct == n and _is_counter(column, name):
            _exclude(result, guess, "a row number")
        elif guess.n_distinct == n_filled > n / 2 and (guess.kind == "category" or is_key):
            what = (
                "free text, another one in each row"
                if _is_prose(column)
                else "an id: unique in each row"
            )
            _exclude(result, guess, what)
        elif _gives_away(df, result, guess):
            _exclude(result, guess, f"it gives {result.target} away in every row", "known only afterwards?")  # fmt: skip
        elif is_key and 2 < guess.n_distinct <= n / 3:
            what = f"it repeats ({guess.n_distinct} values in {n} rows) and looks like an entity"
            if not result.entity:
                result.group = result.entity = name
                what += ": taken as keys.entity and split.group"
            _exclude(result, guess, what, "each stays on one side of the split")
        elif guess.kind == "category" and guess.n_distinct > 20 and _is_prose(column):
            _exclude(result, guess, f"free text, {guess.n_distinct} different ones")
        elif guess.kind == "category" and guess.n_distinct > max(20, min(MAX_CATEGORIES, n / 2)):
            what = f"{guess.n_distinct} different texts in {n} rows: more an id than a category"
            _exclude(result, guess, what)
        elif guess.kind == "date" and guess.n_distinct == n:
            why = f"rows may be ordered in time: data.split: {{by: {name}, cut: ...}} judges on the latest; not taken, rows are held out at random"
            result.notes.append(Note(name, "unique in each row", why))


def _is_personal(result: Inference, guess: Guess, column: pl.Series) -> bool:
    for what, form in PERSONAL.items():
        n_found = int(column.str.strip_chars().str.contains(form).sum())
        if n_found:
            guess.is_personal, guess.categories = True, ()
            # What was said of its values would show them.
            result.notes = [note for note in result.notes if note.column != guess.name]
            rows = "1 row holds" if n_found == 1 else f"{n_found} rows hold"
            _exclude(result, guess, f"personal: {rows} what looks like {what}")
            return True
    return False


def _is_prose(column: pl.Series) -> bool:
    """Whether its texts are sentences more than words."""
    lengths = column.drop_nulls().str.len_chars()
    spaces = column.drop_nulls().str.strip_chars().str.contains(r"\s")
    return float(cast("float", lengths.mean() or 0)) > 30 or (
        float(cast("float", lengths.mean() or 0)) > 15
        and float(cast("float", spaces.mean() or 0)) > 0.5
    )


_ID_NAME = re.compile(
    r"(?i:(^|[_\s.-])(id|no|nr|uuid|guid|key|idx)|^(id|uuid|index))$|[a-z](ID|Id)$|번호$"
)


def _is_id_name(name: str) -> bool:
    return _ID_NAME.search(name.strip()) is not None


def _is_counter(column: pl.Series, name: str) -> bool:
    """Whether distinct whole numbers count the rows: in order, or in any order without a name of their own."""
    import polars as pl

    numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    steps = numbers.diff().drop_nulls()
    if len(steps) > 1 and bool((steps == 1).all()):
        return True
    low, high = cast("float", numbers.min()), cast("float", numbers.max())
    is_nameless = re.fullmatch(r"(?i)column \d+|unnamed: 0|index", name) is not None
    return (is_nameless or _is_id_name(name)) and high - low == len(column) - 1


def _gives_away(df: pl.DataFrame, result: Inference, guess: Guess) -> bool:
    """Whether a column is the target in other words: one value of it for each class, or the same number in each row."""
    import polars as pl

    if guess.kind not in ("number", "integer", "boolean", "category"):
        return False
    pairs = df.select(pl.col(guess.name).alias("a"), pl.col(result.target).alias("b"))
    pairs = pairs.drop_nulls()
    if result.classes:
        if guess.n_distinct > MAX_CLASSES:
            return False
        pairs = pairs.unique()
        n_left, n_right = pairs["a"].n_unique(), pairs["b"].n_unique()
        return n_left == n_right == pairs.height >= 2
    if guess.kind not in ("number", "integer") or pairs.height < MIN_ROWS:
        return False
    numbers = pairs.select(pl.all().str.strip_chars().cast(pl.Float64, strict=False)).drop_nulls()
    if numbers["a"].n_unique() < 10 or len(result.inputs) < 2:
        return False
    return bool((numbers["a"] == numbers["b"]).all())
