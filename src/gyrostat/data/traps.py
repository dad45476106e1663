"""What is no feature, and why: what is empty, ids, what is personal, what gives the target away, groups, time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from gyrostat.data import dates, numerals, personal
from gyrostat.data.inference import Inference
from gyrostat.data.names import shown
from gyrostat.data.readings import Guess, Note, format_of, word

if TYPE_CHECKING:
    import polars as pl

MAX_CATEGORIES = 200
MIN_GROUPS = 10
_ID_NAME = re.compile(
    r"(?i:(^|[_\s.-])(id|no|nr|uuid|guid|key|idx)|^(id|uuid|index))$|[a-z](ID|Id|No|Nr)$|번호$|아이디$"
)
_ENTITY_NAME = re.compile(
    r"(?i:(^|[_\s.-])(customer|patient|user|member|subject|animal|client|account|device|machine|driver|student|household|person|employee|"
    r"player|participant|respondent|vehicle|sensor|kunde|patiënt)s?([_\s.-]?(code|name|number|num))?$)|^(고객|환자|회원|사용자|학생|직원|차량|기기|개체)(명|코드)?$"
)
_CODE_LIKE = r"^[A-Za-z가-힣]{1,6}[-_ ]?[0-9]{2,}$"


def find(result: Inference, df: pl.DataFrame) -> None:
    """Exclude what must not be a feature, each with its reason, and suggest how the rows should be split."""
    n = df.height
    target = _Target.of(df, result)
    leaks = []
    for guess in result.columns.values():
        name = guess.name
        if name == result.target:
            continue
        column = df[name]
        has_some = guess.kind == "category" or (
            guess.kind == "integer" and guess.n_distinct > n / 2
        )
        if (has_some or any(map(_is_masked, guess.missing_words))) and _is_personal(result, guess, column):  # fmt: skip
            continue
        if guess.excluded:
            continue
        n_filled = n - guess.n_missing
        is_key = guess.kind in ("category", "integer") and _ID_NAME.search(name.strip()) is not None
        if not n_filled:
            _exclude(result, guess, "empty")
        elif guess.n_distinct == 1 and not guess.n_missing:
            _exclude(result, guess, "it has one value in all rows")
        elif guess.kind == "integer" and guess.n_distinct == n and _is_counter(column, guess, name):
            _exclude(result, guess, "a row number")
        elif guess.n_distinct == n_filled > n / 2 and (guess.kind == "category" or is_key):
            is_prose = guess.kind == "category" and _is_prose(column)
            what = "free text, another one in each row" if is_prose else "an id: unique in each row"
            _exclude(result, guess, what)
        elif leak := _gives_away(column, guess, target):
            leaks.append(guess)
            _exclude(result, guess, leak, "known only afterwards?")
        elif _is_entity(guess, column, n_filled, is_key=is_key):
            what = (
                f"it repeats ({guess.n_distinct:,} values in {n:,} rows) and looks like an entity"
            )
            if not result.entity:
                result.group = result.entity = name
                what += ": taken as keys.entity and split.group"
            _exclude(result, guess, what, "each stays on one side of the split")
        elif guess.kind == "category" and guess.n_distinct > 20 and _is_prose(column):
            _exclude(result, guess, f"free text, {guess.n_distinct:,} different ones")
        elif guess.kind == "category" and guess.n_distinct > max(20, min(MAX_CATEGORIES, n / 2)):
            what = f"{guess.n_distinct:,} different texts in {n:,} rows: more an id than a category"
            _exclude(result, guess, what)
    _keep_something(result, leaks)
    _order(result, df)


def _exclude(result: Inference, guess: Guess, why: str, more: str = "") -> None:
    guess.excluded = why
    where = "data.personal" if guess.is_personal else "data.exclude"
    do = f"take {shown(guess.name)} out of {where} to have it"
    result.notes.append(Note(guess.name, "left out: " + why, more, do=do))


def _keep_something(result: Inference, leaks: list[Guess]) -> None:
    """Where nothing else is left to learn from, what gives the target away stays, and is said to."""
    if result.features or not leaks:
        return
    guess = leaks[0]
    why, guess.excluded = guess.excluded, ""
    result.notes = [note for note in result.notes if note.column != guess.name or why not in note.what]  # fmt: skip
    result.notes.append(Note(guess.name, f"kept, though {why}", "no other column is left to learn from"))  # fmt: skip


def _is_masked(text: str) -> bool:
    return personal.masked(text) != text


def _is_personal(result: Inference, guess: Guess, column: pl.Series) -> bool:
    found = personal.found(column)
    if found is None:
        return False
    what, n = found
    guess.is_personal, guess.categories, guess.missing_words, guess.declare = True, (), (), None
    guess.evidence = f"{n:,} rows hold what looks like {what}"
    # What was said of its values would show them.
    result.notes = [note for note in result.notes if note.column != guess.name]
    rows = "1 row holds" if n == 1 else f"{n:,} rows hold"
    _exclude(result, guess, f"personal: {rows} what looks like {what}")
    return True


def _is_prose(column: pl.Series) -> bool:
    """Whether its texts are sentences more than words."""
    filled = column.drop_nulls().head(5000)
    length = float(cast("float", filled.str.len_chars().mean() or 0))
    spaces = float(cast("float", filled.str.strip_chars().str.contains(r"\s").mean() or 0))
    return (length > 30 and spaces > 0.2) or (length > 15 and spaces > 0.5)


def _is_counter(column: pl.Series, guess: Guess, name: str) -> bool:
    """Whether distinct whole numbers count the rows: in order, or in any order without a name of their own."""
    numbers = _numbers(column, guess)
    steps = numbers.diff().drop_nulls()
    if len(steps) > 1 and bool((steps == 1).all()):
        return True
    is_nameless = re.fullmatch(r"(?i)column \d+_*|unnamed: \d+|index|row|rownum|row.?number|순번|연번", name) is not None  # fmt: skip
    span = (guess.high or 0) - (guess.low or 0)
    return (is_nameless or _ID_NAME.search(name) is not None) and span == len(column) - 1


def _is_entity(guess: Guess, column: pl.Series, n_filled: int, *, is_key: bool) -> bool:
    """Whether a column names things that come back in several rows."""
    if guess.kind not in ("category", "integer") or not MIN_GROUPS <= guess.n_distinct < n_filled:
        return False
    if is_key:
        return True
    mean = n_filled / guess.n_distinct
    if guess.n_distinct < 20 or mean < 1.5:
        return False
    if _ENTITY_NAME.search(guess.name.strip()):
        return mean >= 2
    if guess.kind != "category" or not 2 <= mean <= 30:
        return False
    return bool(column.drop_nulls().str.strip_chars().str.contains(_CODE_LIKE).all())


def _numbers(column: pl.Series, guess: Guess) -> pl.Series:
    import polars as pl

    plain = numerals.plain(column, format_of(guess.format))
    return plain.cast(pl.Float64, strict=False)


# ---- what gives the target away ------------------------------------------------------------------


@dataclass(frozen=True)
class _Target:
    """The labels in a form that columns can be held against."""

    name: str
    values: pl.Series
    is_number: bool
    n_distinct: int
    most: float
    """Share of the most usual class."""

    @classmethod
    def of(cls, df: pl.DataFrame, result: Inference) -> _Target:
        column, guess = df[result.target], result.columns[result.target]
        if not result.classes or result.class_kind in ("integer", "number"):
            values = _numbers(column, guess)
        else:
            plain = column.str.strip_chars()
            kept = {word(c) for c in result.classes}
            words = {v: word(v) for v in plain.drop_nulls().unique().to_list()}
            values = plain.replace_strict({v: w if w in kept else None for v, w in words.items()}, default=None)  # fmt: skip
        filled = values.drop_nulls()
        counts = filled.rename("value").value_counts()["count"]
        most = float(counts.max() or 0) / max(1, len(filled))  # type: ignore[arg-type]
        return cls(result.target, values, not result.classes, len(counts), most)


_SAMPLE = 2000
_CHANCE = math.log(1e-6)


def _gives_away(column: pl.Series, guess: Guess, target: _Target) -> str:
    """Why a column is the target in other words; empty if it is not.

    Each test can only fail on more rows where it fails on some, so a sample clears most columns.
    """
    import polars as pl

    if target.n_distinct < 2:
        return ""
    is_number = guess.kind in ("number", "integer")
    tests: list[Any] = []
    if guess.kind == "date":
        # When something happened is known before what follows from it; only whether it did can give a class away.
        tests = []
    elif target.is_number:
        if is_number and guess.n_distinct >= 10:
            tests.append((_rises, f"its order is that of {shown(target.name)} in every row"))
        if guess.n_distinct <= MAX_CATEGORIES:
            tests.append((_bins, f"each of its values stands for a range of {shown(target.name)} of its own"))  # fmt: skip
    else:
        if guess.n_distinct <= MAX_CATEGORIES:
            tests.append((_decides, f"it gives {shown(target.name)} away in every row"))
        if is_number and guess.n_distinct > 10:
            tests.append((_separates, f"it gives {shown(target.name)} away: sorted by it, the classes stand apart"))  # fmt: skip
    values: pl.Series | None = None
    n_pairs = 0
    for size in (_SAMPLE, len(column)):
        part = column.head(size)
        values = _numbers(part, guess) if is_number else _words(part, guess)
        pairs = pl.DataFrame({"a": values, "b": target.values.head(size)}).drop_nulls()
        n_pairs = pairs.height
        tests = [(test, why) for test, why in tests if n_pairs >= 20 and test(pairs, target)]
        if not tests or len(column) <= size:
            break
    if tests:
        holes = len(target.values) - target.values.null_count() - n_pairs
        told = tests[0][1]
        return told.replace("in every row", f"in all {n_pairs:,} rows where it is filled") if holes > 0 else told  # fmt: skip
    if not target.is_number and guess.n_missing and _presence(column, guess, target):
        return (
            f"it gives {shown(target.name)} away: whether it is filled says which class a row has"
        )
    return ""


def _words(column: pl.Series, guess: Guess) -> pl.Series:
    plain = column.str.strip_chars()
    gone = plain == ""
    if guess.missing_words:
        gone = gone | plain.is_in(list(guess.missing_words))
    return plain.set(gone.fill_null(False), None)


def _is_no_chance(n_rows: int, n_values: int, most: float) -> bool:
    """Whether so many rows that agree with the first of their value are no accident."""
    return most < 1 and (n_rows - n_values) * math.log(most) < _CHANCE


def _decides(pairs: pl.DataFrame, target: _Target) -> bool:
    n_values = pairs["a"].n_unique()
    if pairs["b"].n_unique() < 2 or not _is_no_chance(pairs.height, n_values, target.most):
        # Too few to say so: on a sample this must not clear what all rows would convict.
        return pairs.height == _SAMPLE and pairs.unique().height == n_values
    return pairs.unique().height == n_values


def _separates(pairs: pl.DataFrame, target: _Target) -> bool:
    import polars as pl

    ranges = pairs.group_by("b").agg(low=pl.col("a").min(), high=pl.col("a").max(), n=pl.len()).sort("low")  # fmt: skip
    if ranges.height < 2:
        return pairs.height == _SAMPLE
    if int(ranges["n"].min()) < 5 or pairs.height < 50:  # type: ignore[arg-type]
        return False
    return bool((ranges["low"].slice(1) > ranges["high"].head(ranges.height - 1)).all())


def _rises(pairs: pl.DataFrame, target: _Target) -> bool:
    if pairs["b"].n_unique() < 10 or pairs["a"].n_unique() < 10:
        return False
    ordered = pairs.sort("a", "b")
    up = ordered["b"].is_sorted()
    return up or pairs.sort("a", "b", descending=[False, True])["b"].is_sorted(descending=True)


def _bins(pairs: pl.DataFrame, target: _Target) -> bool:
    import polars as pl

    ranges = pairs.group_by("a").agg(low=pl.col("b").min(), high=pl.col("b").max()).sort("low", "high")  # fmt: skip
    if ranges.height < 3 or pairs.height < 10 * ranges.height or pairs["b"].n_unique() < 10:
        return False
    return bool((ranges["low"].slice(1) >= ranges["high"].head(ranges.height - 1)).all())


def _presence(column: pl.Series, guess: Guess, target: _Target) -> bool:
    import polars as pl

    filled = _words(column, guess).is_not_null()
    pairs = pl.DataFrame({"a": filled, "b": target.values}).drop_nulls()
    counts = pairs["a"].sum()
    if min(counts, pairs.height - counts) < 5 or not _is_no_chance(pairs.height, 2, target.most):
        return False
    return pairs.unique().height == 2 and pairs["b"].n_unique() == 2


# ---- time ----------------------------------------------------------------------------------------

_STEPS = ((60, "every minute"), (3600, "hourly"), (86400, "daily"), (7 * 86400, "weekly"))


def _order(result: Inference, df: pl.DataFrame) -> None:
    """Suggest a split by time where rows are ordered in it, and say why it is not taken."""
    for guess in result.columns.values():
        if guess.kind != "date" or guess.excluded or guess.name == result.target or guess.n_missing:
            continue
        at = dates.instants(_words(df[guess.name], guess), guess.format)
        is_unique = guess.n_distinct == df.height
        is_sorted = at.is_sorted() or at.is_sorted(descending=True)
        if guess.n_distinct < 20 or not (is_unique or (is_sorted and guess.n_distinct > 0.1 * df.height)):  # fmt: skip
            continue
        steps = at.unique().sort().diff().drop_nulls().dt.total_seconds()
        pace = next((said for s, said in _STEPS if float((steps == s).mean() or 0) > 0.9), "")  # type: ignore[arg-type]
        if not pace and bool(steps.is_between(28 * 86400, 31 * 86400).all()):
            pace = "monthly"
        facts = [
            "unique in each row" if is_unique else f"{guess.n_distinct:,} different ones",
            *([pace] if pace else []),
            "sorted" if is_sorted else "unsorted",
        ]
        cut, newest = (cast("Any", at.sort()[k]) for k in (int(0.8 * df.height), df.height - 1))
        length = newest - cut
        span = f"{length.days + 1}d" if length.days else f"{length.seconds // 3600 + 1}h"
        name = shown(guess.name)
        do = f"data.split: {{by: {name}, holdout: {span}}}"
        why = (
            f"{at.min():%Y-%m-%d} to {newest:%Y-%m-%d}; rows may be ordered in time: {do} holds out the latest 20 %; not taken: what is "
            f"held out is learned from only when it is older than {span}, so the loop answers a change that much later. Rows are held out at random"
        )
        result.notes.append(Note(guess.name, ", ".join(facts), why, do=do))
