"""What the demo sends can be learned from: nobody in it is one who was held out."""

import random

from gyrostat.demo.worlds import Noise, invent
from gyrostat.project import Rows

TABLE = Rows(
    [{"who": f"k{n % 9}", "size": n / 7, "n": n % 5, "kind": "ab"[n % 2]} for n in range(60)],
    ["yes" if n % 3 else "no" for n in range(60)],
    {"size": "number", "n": "integer"},
    ["kind"],
    "binary",
    0.7,
    ("who",),
)


def test_each_request_is_of_somebody_new_and_measured_once_more():
    noise, dice = Noise.of(TABLE), random.Random(1)
    row = (TABLE.records[8], "yes")
    sent = [noise.apply(row, dice)[0] for _ in range(20)]
    assert all("who" not in record and record["n"] == row[0]["n"] for record in sent)
    assert len({record["size"] for record in sent}) == 20


def test_a_moved_world_leaves_the_range_of_every_reading_and_turns_each_class():
    shift, dice = invent(TABLE), random.Random(1)
    moved = [shift.apply((r, y), dice) for r, y in zip(TABLE.records, TABLE.labels, strict=True)]
    for name in TABLE.numbers:
        assert min(r[name] for r, _ in moved) > max(r[name] for r in TABLE.records)
    assert all(new != old for (_, new), old in zip(moved, TABLE.labels, strict=True))
    assert isinstance(moved[0][0]["n"], int)
