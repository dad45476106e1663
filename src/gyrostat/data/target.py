"""What is to be predicted: the task with its reason, the classes in the file's own spelling, and what cannot be learned."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from gyrostat.data import numerals
from gyrostat.data.inference import Inference
from gyrostat.data.names import quoted, shown
from gyrostat.data.numerals import NUMBER
from gyrostat.data.personal import masked
from gyrostat.data.readings import MISSING_WORDS, Guess, Note, format_of, word
from gyrostat.errors import DataError, NotYetError
from gyrostat.terms import Task

if TYPE_CHECKING:
    import polars as pl

MIN_ROWS = 20
MAX_CLASSES = 50
MIN_CLASS_ROWS = 5
FEW = 0.05
POSITIVE = (
    "yes", "true", "1", "y", "positive", "bad", "fail", "failed", "high", "예", "churned", "malignant",
)  # fmt: skip


def take(result: Inference, column: pl.Series, task: str | None) -> None:
    """Decide the task and its classes, and say them.

    Raises:
        DataError: nothing can be learned from it; says why, and how much is needed.
        NotYetError: a task that this release does not know.
    """
    if task is not None and task not in tuple(Task):
        raise NotYetError(
            f"The task {task!r} is not there yet; regression, binary and multiclass are."
        )
    name, guess, notes = result.target, result.columns[result.target], result.notes
    if guess.excluded:
        raise DataError(
            f"The target {quoted(name)} cannot be predicted: {guess.excluded}. Nothing was done."
        )
    labels = _labels(column, guess, notes)
    result.n_labelled = sum(labels.values())
    n_gone = result.n_rows - result.n_labelled
    if n_gone:
        what = f"{n_gone:,} of {result.n_rows:,} rows have no label and are left out"
        notes.append(Note(name, what, f"{result.n_labelled:,} stay"))
    if len(labels) == 1:
        (value,) = labels
        raise DataError(
            f"The target {quoted(name)} has one value, {quoted(masked(value))}, in all {result.n_labelled} rows: there is nothing to learn. Nothing was done.",
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
            f"The target {quoted(name)} is a date, which cannot be predicted. Nothing was done."
        )
    if task == "regression":
        raise DataError(
            f"The target {quoted(name)} is no number (for example {quoted(masked(next(iter(labels))))}), so it cannot be a regression. Nothing was done."
        )
    _take_classes(result, column, labels, task, is_numeric=is_numeric)


def _labels(column: pl.Series, guess: Guess, notes: list[Note]) -> Counter[str]:
    """How often each label stands, as it is spelled (numbers as this house writes them); without what counts as missing."""
    is_number = guess.kind in ("number", "integer")
    texts = numerals.plain(column, format_of(guess.format)) if is_number else column
    found = texts.rename("value").value_counts()
    counts = Counter(
        {v: n for v, n in found.sort("value").iter_rows() if v is not None and v.strip()}
    )
    if is_number:
        return Counter({v: n for v, n in counts.items() if NUMBER.fullmatch(v) and abs(float(v)) <= numerals.LARGEST})  # fmt: skip
    missing = set(guess.missing_words)
    if guess.kind == "category":
        words = [v for v in counts if v.strip().lower() in MISSING_WORDS]
        if words and len(counts) - len(words) >= 2:
            missing.update(v.strip() for v in words)
            guess.missing_words = tuple(sorted(missing))
            n = sum(counts[v] for v in words)
            notes.append(Note(guess.name, f"{n:,} labels count as missing", f"written {', '.join(map(repr, words))}"))  # fmt: skip
    return Counter({v: n for v, n in counts.items() if v.strip() not in missing})


def _are_codes(labels: Counter[str]) -> bool:
    """Whether whole numbers look like codes of classes: 0, 1, 2 ... without a gap, and all about equally frequent.

    Counts of something start at 0 too, but are ever rarer; grades and stars start elsewhere.
    """
    counts: Counter[int] = Counter()
    for text, n in labels.items():
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
    said = f"{guess.kind}, {plainly(low)} to {plainly(high)} -> regression"
    result.notes.append(Note(name, said, hint))
    by_value = sorted((float(v), n) for v, n in labels.items())
    half = (sum(labels.values()) + 1) // 2
    below = itertools.accumulate(n for _, n in by_value)
    middle = next(v for (v, _), n in zip(by_value, below, strict=True) if n >= half)
    first, last = by_value[0][0], by_value[-1][0]
    if first >= 0 and last > 10 * middle > 0:
        why = (
            f"largest {plainly(last)}, median {plainly(middle)}: the largest values rule the error"
        )
        result.notes.append(Note(name, "very skewed", why, do="judge by mae (limits: {mae: {max: ...}}), or predict its logarithm"))  # fmt: skip


def plainly(value: float) -> str:
    """A number without a point where it is whole."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _take_classes(
    result: Inference, column: pl.Series, labels: Counter[str], task: str | None, *, is_numeric: bool
) -> None:  # fmt: skip
    name, guess, notes = result.target, result.columns[result.target], result.notes
    spelled: Counter[str] = Counter()
    if is_numeric:
        for v, n in labels.items():
            spelled[plainly(float(v))] += n
    else:
        spelled = _joined(result, labels)
    if len(spelled) == 1:
        raise DataError(
            f"The target {quoted(name)} has one value, {quoted(masked(next(iter(spelled))))}, in all {result.n_labelled} rows: there is nothing to learn. Nothing was done.",
            rows=result.n_labelled,
        )
    if len(spelled) > MAX_CLASSES:
        first = next(iter(spelled))
        raise DataError(
            f"The target {quoted(name)} is {'a number' if is_numeric else 'text'} with {len(spelled)} different values (such as {quoted(masked(first))}); at most "
            f"{MAX_CLASSES} classes are understood. Is it an id, or a number in words? Nothing was done."
        )
    rare = {v: n for v, n in spelled.items() if n < MIN_CLASS_ROWS}
    kept = sorted((v for v in spelled if v not in rare), key=float if is_numeric else None)
    if guess.kind == "boolean":
        kept.sort(key=str.lower)
    for value, n in sorted(rare.items()):
        rows = _rows_of(column, value)
        where = f" (row{'s' * (len(rows) != 1)} {', '.join(map(str, rows))})" if rows else ""
        what = f"the class {value!r} has {n} row{'s' * (n != 1)}{where}: it could be trained or judged, not both"
        notes.append(Note(name, what, f"left out; at least {MIN_CLASS_ROWS} are needed", rows, "bring more rows of it, or give it another class"))  # fmt: skip
    if len(kept) < 2:
        raise DataError(
            f"The target {quoted(name)} has {len(kept)} class{'es' * (len(kept) != 1)} of at least {MIN_CLASS_ROWS} rows; two are needed. Nothing was done."
        )
    result.classes, result.rare = tuple(kept), tuple(sorted(rare))
    result.class_kind = {"integer": "integer", "number": "number", "boolean": "boolean"}.get(
        guess.kind, "category"
    )
    result.task = Task.BINARY if len(kept) == 2 and task != "multiclass" else Task.MULTICLASS
    if task == "binary" and len(kept) != 2:
        raise DataError(
            f"The target {quoted(name)} has {len(kept)} classes, so it is not binary. Nothing was done."
        )
    if result.task is Task.BINARY:
        low = {v.strip().lower(): v for v in kept}
        result.positive = next(
            (low[w] for w in POSITIVE if w in low), min(kept, key=lambda v: spelled[v])
        )
        how = f"positive class {result.positive!r}; output.positive changes it"
        notes.append(Note(name, f"{kept[0]}/{kept[1]} -> binary", how))
    else:
        listed = ", ".join(map(shown, kept[:6])) + (", ..." if len(kept) > 6 else "")
        hint = "task: regression in config/config.yaml treats them as numbers" if is_numeric else ""
        notes.append(Note(name, f"{len(kept)} classes ({listed}) -> multiclass", hint))
    least = min(kept, key=lambda v: spelled[v])
    share = spelled[least] / sum(spelled[v] for v in kept)
    if share < FEW:
        notes.append(Note(name, f"only {100 * share:.1f} % of the rows are {least!r} ({spelled[least]:,})", "a model that never says so looks good by accuracy", do="judge by f1 or recall: limits: {recall: {min: ...}}"))  # fmt: skip


def _joined(result: Inference, labels: Counter[str]) -> Counter[str]:
    """Labels that differ by case, padding or blanks alone as one class, in the spelling that is most usual."""
    by_word: dict[str, Counter[str]] = {}
    for v, n in labels.items():
        by_word.setdefault(word(v), Counter())[v.strip()] += n
    joined = Counter(
        {
            max(same.items(), key=lambda i: (i[1], i[0]))[0]: same.total()
            for same in by_word.values()
        }
    )
    if len(labels) > len(by_word):
        listed = ", ".join(quoted(v) for v in sorted(labels)[:20])
        what = (
            f"has {len(labels)} spellings of {len(by_word)} values once spaces and case are ignored"
        )
        result.notes.append(Note(result.target, what, f"{listed}; joined as {', '.join(quoted(v) for v in sorted(joined)[:10])}"))  # fmt: skip
        result.spellings = tuple(dict.fromkeys(v.strip() for v in sorted(labels)))
    return joined


def _rows_of(column: pl.Series, value: str) -> tuple[int, ...]:
    stripped = column.str.strip_chars()
    return tuple(n + 1 for n in (stripped == value).fill_null(False).arg_true().head(5).to_list())
