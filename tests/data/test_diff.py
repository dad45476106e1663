import random
from collections.abc import Callable
from typing import Any

import pytest

from gyrostat.data import diff, snapshots
from gyrostat.errors import UsageError


def table(n: int, *, shift: float = 0.0, city: str = "Seoul") -> list[str]:
    dice = random.Random(3)
    return [f"{dice.gauss(0, 1) + shift:.4f},{dice.choice(['Bonn', city])},{k * 37 % 101}" for k in range(n)]  # fmt: skip


@pytest.fixture
def shop(project: Callable[..., Any]) -> Any:
    return project("size,city,price\n" + "\n".join(table(200)) + "\n", "price")


def rewrite(shop: Any, rows: list[str], header: str = "size,city,price") -> None:
    shop.path.write_text(header + "\n" + "\n".join(rows) + "\n", encoding="utf-8")
    shop.declare({"columns": {}})


def test_rows_are_counted_however_often_they_stand(shop: Any) -> None:
    old = shop.take()
    rows = table(200)
    rewrite(shop, [*rows[5:], rows[9], "0.5,Bonn,7"])
    new = shop.take()
    found = diff.diff(shop.state, "m", old["id"], new["id"])
    assert found["rows"] == {"old": 200, "new": 197, "same": 195, "gone": 5, "added": 2}
    assert "195 the same, 5 gone, 2 added" in "\n".join(diff.lines(found))


def test_what_moved_most_stands_first_with_its_values(shop: Any) -> None:
    old = shop.take()
    rewrite(shop, table(200, shift=3.0, city="Busan"))
    new = shop.take()
    found = diff.diff(shop.state, "m", old["id"], new["id"])
    size, city = found["changed"]
    assert (size["column"], city["column"]) == ("size", "city")
    assert size["shift"] > 0.8
    assert size["mean"][1] - size["mean"][0] == pytest.approx(3.0)
    assert (city["added"], city["gone"]) == (["Busan"], ["Seoul"])


def test_columns_that_came_and_went_are_named(shop: Any) -> None:
    old = shop.take()
    rewrite(shop, [f"{row},{n}" for n, row in enumerate(table(200))], "length,city,price,n")
    new = shop.take()
    found = diff.diff(shop.state, "m", old["id"], new["id"])
    assert found["columns"] == {"added": ["length", "n"], "gone": ["size"], "other_kind": []}
    assert found["changed"] == []


def test_a_snapshot_differs_from_itself_in_nothing(shop: Any) -> None:
    made = shop.take()
    found = diff.diff(shop.state, "m", made["id"], made["id"])
    assert (found["rows"]["gone"], found["rows"]["added"], found["changed"]) == (0, 0, [])
    with pytest.raises(UsageError, match="no snapshot"):
        diff.diff(shop.state, "m", made["id"], "abc")
    assert snapshots.records(shop.state, "m") == [made]
