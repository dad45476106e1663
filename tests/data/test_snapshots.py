import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gyrostat_runtime.log import Frame, Label, LabelWriter, Writer
from gyrostat_runtime.schema import Schema

from gyrostat.data import checks, frames, snapshots
from gyrostat.data.settings import SplitSettings
from gyrostat.errors import DamagedError, DataError, UsageError

HEADER = "id,size,kind,gift,made,price\n"


def lines(n: int, start: int = 0) -> list[str]:
    """Rows with a number, a category, a boolean and a date, some of them missing."""
    made = []
    for k in range(start, start + n):
        dice = random.Random(k)
        kind = dice.choice(["oak", "ash", ""])
        gift = dice.choice(["True", "False", ""])
        made.append(f"K{k:05},{dice.uniform(1, 9):.2f},{kind},{gift},2025-{1 + k % 12:02}-{1 + k % 28:02},{dice.gauss(50, 9):.1f}\n")  # fmt: skip
    return made


@pytest.fixture
def shop(project: Callable[..., Any]) -> Any:
    """120 rows; `id` is unique and no feature."""
    return project(HEADER + "".join(lines(120)), "price")


def rewrite(table: Any, rows: list[str], header: str = HEADER) -> None:
    table.path.write_text(header + "".join(rows), encoding="utf-8")


def log(table: Any, rows: list[list[Any]], labels: list[Any], *, at: float = 1000.0, arm: Any = "champion") -> list[str]:  # fmt: skip
    """Predictions of one row each, with labels where they are not None."""
    names = []
    writer = Writer(table.state / "log" / "m", f"w{os.getpid()}")
    label_writer = LabelWriter(table.state / "labels" / "m", f"l{os.getpid()}")
    for inputs, label in zip(rows, labels, strict=True):
        id = writer.next_id(at)
        writer.append(Frame(id, at, 1, "b", arm, 200, 0.001, inputs=[inputs], outputs=[1.0], scores=[1.0]))  # fmt: skip
        if label is not None:
            label_writer.append(Label(id, label, at + 1))
        names.append(id)
    writer.close()
    label_writer.close()
    return names


def schema_of(record: dict[str, Any]) -> Schema:
    return Schema.from_json(record["schema"])


# ---- identity ------------------------------------------------------------------------------------


def test_the_same_rows_are_the_same_snapshot(shop: Any) -> None:
    first = shop.take()
    assert first["passed"]
    assert (first["n_rows"], first["n_train"] + first["n_heldout"]) == (120, 120)
    assert first["n_train"] > first["n_heldout"] > 0
    assert shop.take() == first
    assert len(snapshots.records(shop.state, "m")) == 1


def test_the_order_of_rows_does_not_matter(shop: Any) -> None:
    first = shop.take()
    rows = lines(120)
    random.Random(1).shuffle(rows)
    rewrite(shop, rows)
    assert shop.take() == first


def test_one_changed_value_is_another_snapshot_and_the_old_one_reads_back(shop: Any) -> None:
    first = shop.take()
    before = shop.rows(first)
    changed = lines(120)
    changed[7] = changed[7].replace("K00007", "K99999")
    rewrite(shop, changed)
    second = shop.take()
    assert second["id"] != first["id"]
    assert shop.rows(first).equals(before)
    assert sorted(shop.rows(second)["id"]) != sorted(before["id"])


def test_rows_that_stand_twice_count_twice(shop: Any) -> None:
    first = shop.take()
    rewrite(shop, lines(120) + lines(1))
    second = shop.take()
    rewrite(shop, lines(120) + lines(1) + lines(1))
    third = shop.take()
    assert len({first["id"], second["id"], third["id"]}) == 3
    assert third["n_rows"] == shop.rows(third).height == 122


def test_another_split_is_another_snapshot(shop: Any) -> None:
    settings = replace(shop.settings, split=SplitSettings(holdout=0.5))
    assert shop.take(settings=settings)["id"] != shop.take()["id"]


def test_a_snapshot_is_found_by_the_beginning_of_its_id(shop: Any) -> None:
    record = shop.take()
    assert snapshots.record(shop.state, "m", record["id"][:7]) == record
    with pytest.raises(UsageError, match=record["id"]):
        snapshots.record(shop.state, "m", "ffff")


# ---- versions ------------------------------------------------------------------------------------


def size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*.lance") if f.is_file())


def test_a_small_change_costs_little(project: Callable[..., Any]) -> None:
    table = project(HEADER + "".join(lines(5000)), "price")
    table.take()
    place = table.state / "tables" / "m.lance"
    whole = size(place)
    rows = lines(5000)
    rewrite(table, rows[:2000] + rows[2010:] + lines(10, 9000))
    record = table.take()
    assert size(place) - whole < 0.2 * whole
    ids = set(table.rows(record)["id"])
    assert "K09000" in ids
    assert "K02005" not in ids
    assert table.rows(record).height == 5000


def test_a_row_was_seen_when_it_was_seen_first(shop: Any) -> None:
    shop.take(until=100.0)
    rewrite(shop, lines(130))
    record = shop.take(until=200.0)
    rows = shop.rows(record)
    seen = dict(zip(rows["id"], rows["_seen_at"], strict=True))
    assert seen["K00005"] == 100.0
    assert seen["K00125"] == 200.0


def test_a_large_change_forgets_no_first_sight(shop: Any) -> None:
    shop.take(until=100.0)
    rewrite(shop, lines(120)[:10] + lines(1500, 1000))
    shop.take(until=200.0)
    rewrite(shop, lines(120)[:10] + lines(20, 1000))
    rows = shop.rows(shop.take(until=300.0))
    assert dict(zip(rows["id"], rows["_seen_at"], strict=True)) == {
        **{f"K{n:05}": 100.0 for n in range(10)},
        **{f"K{n:05}": 200.0 for n in range(1000, 1020)},
    }


def test_other_columns_make_a_version_of_their_own(shop: Any) -> None:
    first = shop.take()
    rewrite(shop, [f"x,{row}" for row in lines(120)], "new," + HEADER)
    second = shop.take(settings=replace(shop.settings, exclude=("id", "new")))
    assert "new" in shop.rows(second).columns
    assert "new" not in shop.rows(first).columns


def test_what_stands_in_the_table_comes_back_typed(shop: Any) -> None:
    record = shop.take()
    rows = {row["id"]: row for row in shop.rows(record).to_dicts()}
    for line in lines(120):
        id, number, kind, gift, made, price = line.strip().split(",")
        row = rows[id]
        assert row["size"] == float(number)
        assert row["kind"] == (kind or None)
        assert row["gift"] == {"True": True, "False": False, "": None}[gift]
        assert (row["made"], row["price"]) == (made, float(price))


# ---- checks --------------------------------------------------------------------------------------


def test_broken_checks_are_recorded_and_nothing_can_be_read(shop: Any) -> None:
    rows = lines(120)
    rows[13] = rows[13].replace(rows[13].split(",")[1], "740.0")
    rows[87] = rows[87].replace(rows[87].split(",")[1], "")
    rewrite(shop, rows)
    record = shop.take()
    assert not record["passed"]
    assert (record["checks"]["n_broken"], record["checks"]["n_rows_broken"]) == (2, 2)
    report = "\n".join(checks.report_lines(record))
    assert "2 of 120 rows break 2 of" in report
    assert "e.g. row 14: 740.0" in report
    assert "e.g. row 88" in report
    with pytest.raises(DataError, match="data report"):
        shop.rows(record)


def test_the_same_rows_pass_once_the_rules_let_them(shop: Any) -> None:
    rules = shop.inference.rules()
    shop.declare({"columns": {**rules["columns"], "size": {"range": [0, 1]}}})
    broken = shop.take()
    shop.declare(rules)
    record = shop.take()
    assert record["id"] == broken["id"]
    assert record["passed"]
    assert shop.rows(record).height == 120


def test_text_where_numbers_were_breaks_the_rule(shop: Any) -> None:
    shop.take()
    rewrite(shop, [row.replace(row.split(",")[1], "big", 1) for row in lines(120)])
    (broken,) = [b for b in shop.take()["checks"]["broken"] if b["rule"] == "a number"]
    assert (broken["column"], broken["rows"]) == ("size", 120)


def test_infinity_never_becomes_a_snapshot(shop: Any) -> None:
    rows = lines(120)
    rows[20] = rows[20].replace(rows[20].split(",")[1], "1e400")
    rewrite(shop, rows)
    made = shop.take()
    assert not made["passed"]
    broken = made["checks"]["broken"]
    assert {b["rule"] for b in broken} >= {"a number"}
    assert all((b["column"], b["examples"]) == ("size", [{"row": 21, "value": "1e400"}]) for b in broken)  # fmt: skip
    with pytest.raises(DataError, match="did not pass"):
        shop.rows(made)


# ---- barred --------------------------------------------------------------------------------------


def test_a_barred_snapshot_gives_way_to_the_one_before(shop: Any) -> None:
    first = shop.take(until=100.0)
    rewrite(shop, lines(130))
    second = shop.take(until=200.0)
    assert shop.take(barred=frozenset({second["id"]})) == first
    assert shop.take(barred=frozenset({f"snapshot/m/{second['id'][:7]}"})) == first
    # An unchanged source never reopens a barred one.
    both = frozenset({first["id"], second["id"]})
    assert snapshots.take(shop.root, shop.state, "m", shop.settings, barred=both) is None


# ---- traffic -------------------------------------------------------------------------------------


def row_of(n: int) -> list[Any]:
    """Row n of the table as a request has it."""
    id, number, kind, gift, made, _ = lines(1, n)[0].strip().split(",")
    return [id, float(number), kind or None, {"True": True, "False": False, "": None}[gift], made]


def test_labelled_predictions_join_and_others_do_not(shop: Any) -> None:
    log(shop, [row_of(500), row_of(501), row_of(502)], [51.5, None, 48.0])
    log(shop, [row_of(503)], [1.0], arm="shadow")
    record = shop.take()
    assert (record["n_source"], record["n_traffic"]) == (120, 2)
    rows = shop.rows(record)
    traffic = rows.filter(rows["_origin"] == "traffic")
    assert dict(zip(traffic["id"], traffic["price"], strict=True)) == {"K00500": 51.5, "K00502": 48.0}  # fmt: skip
    assert set(traffic["_seen_at"]) == {1000.0}


def test_what_a_tester_chose_the_arm_for_is_no_row(shop: Any) -> None:
    writer = Writer(shop.state / "log" / "m", "tester")
    writer.append(Frame(id := writer.next_id(1000.0), 1000.0, 1, "b", "champion", 200, 0.001, inputs=[row_of(500)], outputs=[1.0], is_asked=True))  # fmt: skip
    writer.close()
    labels = LabelWriter(shop.state / "labels" / "m", "tester")
    labels.append(Label(id, 50.0, 1001.0))
    labels.close()
    assert shop.take()["n_traffic"] == 0


def test_a_labelled_prediction_whose_inputs_were_not_logged_is_no_row(shop: Any) -> None:
    log(shop, [row_of(500)], [51.5])
    writer = Writer(shop.state / "log" / "m", "sampled")
    writer.append(Frame(id := writer.next_id(1000.0), 1000.0, 1, "b", "champion", 200, 0.001, outputs=[1.0]))  # fmt: skip
    writer.close()
    labels = LabelWriter(shop.state / "labels" / "m", "sampled")
    labels.append(Label(id, 50.0, 1001.0))
    labels.close()
    assert shop.take()["n_traffic"] == 1


def test_traffic_is_left_alone_where_it_is_declared_so(shop: Any) -> None:
    log(shop, [row_of(500)], [51.5])
    assert shop.take(settings=replace(shop.settings, learn_from_traffic=False))["n_traffic"] == 0


def test_the_latest_label_counts_and_each_prediction_once(shop: Any) -> None:
    (id,) = log(shop, [row_of(500)], [51.5])
    writer = LabelWriter(shop.state / "labels" / "m", "later")
    writer.append(Label(f"{id}.0", 60.0, 1005.0))
    writer.append(Label(id, 40.0, 1003.0))
    writer.close()
    rows = shop.rows(shop.take())
    assert rows.filter(rows["_origin"] == "traffic")["price"].to_list() == [60.0]


def test_young_predictions_and_late_labels_count_nowhere(shop: Any) -> None:
    log(shop, [row_of(500)], [51.5], at=1000.0)
    assert shop.take(until=1000.5)["n_traffic"] == 0
    assert shop.take(until=1050.0, mature_after_s=60.0)["n_traffic"] == 0
    assert shop.take(until=1070.0, mature_after_s=60.0)["n_traffic"] == 1


def test_a_row_is_on_the_same_side_from_the_file_and_from_traffic(shop: Any) -> None:
    record = shop.take()
    rows = shop.rows(record)
    sides = dict(zip(rows["id"], rows["_side"], strict=True))
    log(shop, [row_of(n) for n in range(120)], [50.0 + n for n in range(120)])
    again = shop.rows(shop.take())
    traffic = again.filter(again["_origin"] == "traffic")
    assert traffic.height == 120
    assert dict(zip(traffic["id"], traffic["_side"], strict=True)) == sides


def test_a_new_category_from_traffic_is_known_afterwards(shop: Any) -> None:
    inputs = [[f"T{n}", 3.0 + n / 10, "elm", None, "2025-01-01"] for n in range(30)]
    log(shop, inputs, [50.0] * 30)
    kinds = {c.name: c for c in schema_of(shop.take()).inputs}
    assert kinds["kind"].categories == ("ash", "elm", "oak")


def test_the_window_keeps_the_newest_rows(shop: Any) -> None:
    log(shop, [row_of(500)], [51.5])
    record = shop.take(settings=replace(shop.settings, window=50))
    ids = set(shop.rows(record)["id"])
    assert record["n_rows"] == 50
    assert "K00500" in ids
    assert "K00119" in ids
    assert "K00000" not in ids


def test_inputs_of_another_schema_are_put_in_order(shop: Any) -> None:
    record = shop.take()
    schema = schema_of(record)
    logged = replace(schema, inputs=tuple(c for c in reversed(schema.inputs) if c.name != "gift"))
    place = shop.state / "bundles" / "b"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps({"schema": logged.as_json()}))
    log(shop, [["2025-03-04", "oak", 2.5, "T1"]], [50.0])
    rows = shop.rows(shop.take())
    row = rows.filter(rows["_origin"] == "traffic").to_dicts()[0]
    assert {k: row[k] for k in ("id", "size", "kind", "gift", "made")} == {"id": "T1", "size": 2.5, "kind": "oak", "gift": None, "made": "2025-03-04"}  # fmt: skip


# ---- kill ----------------------------------------------------------------------------------------

KILLED = """
    import os, signal, sys
    from pathlib import Path
    import pickle
    from gyrostat.data import snapshots
    root, settings, where = pickle.loads(bytes.fromhex(sys.argv[1]))
    def die(*args, **more):
        os.kill(os.getpid(), signal.SIGKILL)
    if where == "before the rows":
        snapshots._write = die
    elif where == "before the record":
        snapshots.write_atomic = die
    elif where == "between delete and append":
        import lance
        lance.write_dataset = die
    snapshots.take(root, root / ".gyrostat" / "dev", "m", settings)
"""


@pytest.mark.parametrize(
    "where", ["before the rows", "before the record", "between delete and append"]
)
def test_a_kill_leaves_the_old_snapshot_whole_and_the_next_one_right(shop: Any, where: str) -> None:
    import pickle

    first = shop.take()
    before = shop.rows(first)
    rewrite(shop, lines(120)[5:] + lines(10, 300))
    spec = pickle.dumps((shop.root, shop.settings, where)).hex()
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), spec], check=False, timeout=60)  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert [r["id"] for r in snapshots.records(shop.state, "m")] == [first["id"]]
    assert shop.rows(first).equals(before)
    second = shop.take()
    ids = shop.rows(second)["id"].to_list()
    assert sorted(ids) == [f"K{n:05}" for n in [*range(5, 120), *range(300, 310)]]
    assert shop.rows(first).equals(before)


# ---- what a model sees ---------------------------------------------------------------------------


def test_a_request_of_a_row_gives_the_same_features_as_the_snapshot(shop: Any) -> None:
    from gyrostat_runtime.rows import read_json

    record = shop.take()
    schema, rows = schema_of(record), shop.rows(record)
    matrix = frames.features(rows, schema)
    body = json.dumps({"dataframe_records": frames.records(rows, schema)}, allow_nan=False)
    asked = read_json(body.encode(), schema)
    assert asked.num is not None
    assert asked.cat is not None
    numbers = matrix.select_dtypes("float64").to_numpy()
    assert ((numbers == asked.num) | ((numbers != numbers) & (asked.num != asked.num))).all()
    assert (matrix.select_dtypes(object).to_numpy() == asked.cat).all()
    assert list(matrix.columns) == [f.name for f in schema.features]


@pytest.mark.parametrize("where", ["rows", "end", "cut"])
def test_a_snapshot_whose_stored_rows_are_damaged_is_not_learned_from(
    shop: Any, where: str
) -> None:
    taken = shop.take()
    wanted = shop.rows(taken).drop("_seen_at")  # the one column that no digest covers
    (path,) = (shop.state / "tables" / "m.lance" / "data").glob("*.lance")
    whole = path.read_bytes()
    places = range(40, len(whole) - 200, 997) if where == "rows" else range(len(whole) - 60, len(whole), 7)  # fmt: skip
    found = []
    for at in places:
        path.write_bytes(whole[:at] if where == "cut" else whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])  # fmt: skip
        try:
            assert shop.rows(taken).drop("_seen_at").equals(wanted), at  # a byte that means nothing
        except DamagedError as error:
            found.append(str(error))
    assert found
    assert all("Nothing was learned from it" in why for why in found)
    path.write_bytes(whole)
    assert shop.rows(taken).drop("_seen_at").equals(wanted)
