import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from gyrostat.data import tables
from gyrostat.data.infer import Inference, infer


def of(columns: Mapping[str, Sequence[object]], target: str, tmp_path: Path) -> Inference:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join("" if v is None else str(v) for v in row) for row in rows)]  # fmt: skip
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return infer(tables.read(path, tables.sniff(path).settings), target)


@pytest.fixture
def dice() -> random.Random:
    return random.Random(11)


N = 300


def labels(dice: random.Random) -> list[str]:
    return [dice.choice(["won", "lost"]) for _ in range(N)]


def noise(dice: random.Random) -> list[float]:
    return [round(dice.gauss(0, 1), 4) for _ in range(N)]


def test_more_words_than_classes_give_it_away_too(tmp_path: Path, dice: random.Random) -> None:
    y = labels(dice)
    how = [dice.choice(["by knock-out", "by points"]) if v == "won" else "not" for v in y]
    found = of({"x": noise(dice), "how": how, "y": y}, "y", tmp_path)
    assert "gives y away in every row" in found.columns["how"].excluded
    assert not found.columns["x"].excluded


def test_a_leak_with_holes_is_one(tmp_path: Path, dice: random.Random) -> None:
    y = labels(dice)
    code = [None if dice.random() < 0.3 else int(v == "won") for v in y]
    found = of({"x": noise(dice), "code": code, "y": y}, "y", tmp_path)
    n = sum(c is not None for c in code)
    assert f"gives y away in all {n} rows where it is filled" in found.columns["code"].excluded


def test_being_filled_gives_it_away(tmp_path: Path, dice: random.Random) -> None:
    y = labels(dice)
    reason = [dice.choice(["price", "service", "moved"]) if v == "lost" else None for v in y]
    found = of({"x": noise(dice), "reason": reason, "y": y}, "y", tmp_path)
    assert "whether it is filled" in found.columns["reason"].excluded


def test_a_date_that_only_one_class_has_gives_it_away(tmp_path: Path, dice: random.Random) -> None:
    y = labels(dice)
    left = [f"2025-0{dice.randint(1, 9)}-11" if v == "lost" else None for v in y]
    found = of({"x": noise(dice), "left": left, "y": y}, "y", tmp_path)
    assert "whether it is filled" in found.columns["left"].excluded


def test_classes_that_stand_apart_when_sorted_are_given_away(
    tmp_path: Path, dice: random.Random
) -> None:
    y = labels(dice)
    score = [round(dice.random() + (v == "won"), 5) for v in y]
    found = of({"x": noise(dice), "score": score, "y": y}, "y", tmp_path)
    assert "sorted by it" in found.columns["score"].excluded


@pytest.mark.parametrize("other", ["copy", "scaled", "rank", "falling", "band"])
def test_a_number_in_other_words_is_given_away(
    tmp_path: Path, dice: random.Random, other: str
) -> None:
    y = noise(dice)
    makes = {
        "copy": lambda v: v,
        "scaled": lambda v: round(v * 1300 + 7, 1),
        "rank": lambda v: sorted(y).index(v),
        "falling": lambda v: round(-(v**3), 9),
        "band": lambda v: "low" if v < -0.5 else "middle" if v < 0.5 else "high",
    }
    found = of({"x": noise(dice), "other": [makes[other](v) for v in y], "y": y}, "y", tmp_path)
    assert "every row" in found.columns["other"].excluded or "range" in found.columns["other"].excluded  # fmt: skip
    assert not found.columns["x"].excluded


def test_a_strong_feature_is_no_leak(tmp_path: Path, dice: random.Random) -> None:
    x = noise(dice)
    y = [round(v + dice.gauss(0, 0.05), 4) for v in x]
    kind = ["a" if v + dice.gauss(0, 0.3) > 0 else "b" for v in x]
    found = of({"x": x, "kind": kind, "y": y}, "y", tmp_path)
    assert [g.name for g in found.features] == ["x", "kind"]
    again = of({"x": x, "y": y, "kind": kind}, "kind", tmp_path)
    assert [g.name for g in again.features] == ["x", "y"]


def test_few_rows_convict_nobody(tmp_path: Path) -> None:
    y = ["a", "b"] * 12
    found = of({"x": [n % 5 for n in range(24)], "once": ["u"] * 12 + ["v"] * 12, "y": y}, "y", tmp_path)  # fmt: skip
    assert not found.columns["once"].excluded


def test_the_only_column_stays_and_is_said_to_give_it_away(tmp_path: Path) -> None:
    found = of({"x": list(range(2, 202, 2)), "y": [v / 2 for v in range(1, 101)]}, "y", tmp_path)
    assert [g.name for g in found.features] == ["x"]
    assert any("kept, though" in note.what for note in found.notes if note.column == "x")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("customer", lambda k: k),
        ("patient_id", lambda k: 1000 + k),
        ("고객", lambda k: f"손님{k}"),
        ("unit", lambda k: f"P-{k:03}"),
        ("userId", lambda k: k * 17),
    ],
)
def test_what_comes_back_is_an_entity(
    tmp_path: Path, dice: random.Random, name: str, values: object
) -> None:
    assert callable(values)
    who = [values(n % 50) for n in range(N)]
    dice.shuffle(who)
    found = of({"x": noise(dice), name: who, "y": noise(dice)}, "y", tmp_path)
    assert (found.entity, found.group) == (name, name)
    assert "looks like an entity" in found.columns[name].excluded


@pytest.mark.parametrize(
    ("name", "values"),
    [("room_no", lambda k: k % 5), ("city", lambda k: f"city {k}"), ("amount", lambda k: k)],
)
def test_a_category_or_a_number_is_no_entity(
    tmp_path: Path, dice: random.Random, name: str, values: object
) -> None:
    assert callable(values)
    found = of({"x": noise(dice), name: [values(dice.randrange(50)) for _ in range(N)], "y": noise(dice)}, "y", tmp_path)  # fmt: skip
    assert found.entity == ""
    assert not found.columns[name].excluded


def test_sorted_days_suggest_a_split_with_its_cut(tmp_path: Path, dice: random.Random) -> None:
    days = [f"2025-{1 + n // 28:02}-{1 + n % 28:02}" for n in range(300)]
    found = of({"day": days, "x": noise(dice), "y": noise(dice)}, "y", tmp_path)
    (note,) = [n for n in found.notes if n.column == "day" and "sorted" in n.what]
    assert "unique in each row" in note.what
    assert note.do == "data.split: {by: day, holdout: 65d}"
    assert "not taken" in note.why


@pytest.mark.parametrize(
    "value",
    ["kim@example.invalid", "010-1234-5678", "+82 10-1234-5678", "01012345678", "700101-1234567", "123-45-6789", "1234-5678-1234-5678", "DE89 3704 0044 0532 0130 00"],
)  # fmt: skip
def test_a_persons_value_is_found_and_never_said(
    tmp_path: Path, dice: random.Random, value: str
) -> None:
    texts = [dice.choice(["fine", "late"]) for _ in range(N)]
    texts[7] = value
    # In a column of numbers too, where it is one odd cell.
    odd: list[object] = [*noise(dice)]
    odd[9] = value
    found = of({"text": texts, "odd": odd, "x": noise(dice), "y": noise(dice)}, "y", tmp_path)
    # With a leading zero alone it is a number among numbers.
    assert found.personal == (("text",) if value.isdecimal() else ("text", "odd"))
    assert found.declared_columns() == {}
    told = "\n".join(map(str, found.notes)) + str(found.rules())
    assert value not in told
    assert not any(value in g.categories for g in found.columns.values())
