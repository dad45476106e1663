"""The thirty tables: a row of the file, sent as a request, is what the model was trained on."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gyrostat_runtime.rows import read_json
from gyrostat_runtime.schema import Column, Schema

from gyrostat.data import frames, tables
from gyrostat.data.infer import Inference, infer

CASES = Path(__file__).parent.parent / "cases" / "tables"
LINES = re.findall(r"^\| `([^`]+)` \| `([^`]+)` .*\| (.+?) \|$", (CASES / "README.md").read_text("utf-8"), re.M)  # fmt: skip
READ = {name: target for name, target, demo in LINES if demo == "yes" or ("if" in demo and name != "no-header.csv")}  # fmt: skip
REFUSED = {name: target for name, target, _ in LINES if name not in READ}


def test_all_tables_are_sorted_into_read_and_refused() -> None:
    assert len(READ) == 26
    assert set(REFUSED) == {"no-header.csv", "one-value.csv", "five-rows.csv", "header-only.csv"}


def by_hand(path: Path) -> list[list[str]]:
    """The cells of a text table by the plainest means: what a client would have before it makes JSON of them."""
    data = path.read_bytes()
    encoding = {"korean-cp949.csv": "cp949", "decimal-comma.csv": "latin-1"}.get(path.name, "utf-8-sig")  # fmt: skip
    lines = data.decode(encoding).splitlines(keepends=True)
    skip = 3 if path.name == "comment-lines.csv" else 0
    separator = ";" if path.name == "decimal-comma.csv" else ","
    _, *rows = csv.reader(lines[skip:], delimiter=separator)
    return rows


def as_sent(cell: str, column: Column, inference: Inference, name: str) -> Any:
    """A cell as JSON: numbers as numbers, all else in the file's own spelling."""
    guess = inference.columns[column.name]
    text = cell.strip()
    if not text or text in guess.missing_words:
        return None
    match column.kind:
        case "number" | "integer":
            if name == "decimal-comma.csv":
                text = text.replace(".", "").replace(",", ".")
            sign = -1 if text.startswith("(") else 1
            return sign * json.loads(re.sub("[₩%,()]", "", text))
        case "boolean":
            return json.loads(text.lower()) if text.lower() in ("true", "false") else text
        case "category":
            return cell
    return text


@pytest.mark.parametrize("name", sorted(n for n in READ if n.endswith(".csv")))
def test_a_row_sent_as_a_request_is_the_row_that_was_trained_on(name: str) -> None:
    path = CASES / name
    df = tables.read(path, tables.sniff(path).settings)
    found = infer(df, READ[name])
    schema = found.schema()
    trained = frames.features(frames.typed(df, found), schema)
    order = list(found.columns)
    rows = by_hand(path)
    assert len(rows) == df.height
    sent = [
        {c.name: as_sent(row[order.index(c.name)], c, found, name) for c in schema.inputs if c.name in {f.column for f in schema.features}}
        for row in rows
    ]  # fmt: skip
    body = json.dumps({"dataframe_records": sent}, ensure_ascii=False, allow_nan=False).encode()
    asked = read_json(body, schema)
    kinds = {c.name: c.kind for c in schema.inputs}
    texts = [f.name for f in schema.features if kinds[f.column] == "category"]
    numbers = [f.name for f in schema.features if kinds[f.column] != "category"]
    assert len(texts) + len(numbers) == trained.shape[1] > 0
    if numbers:
        assert asked.num is not None
        np.testing.assert_array_equal(asked.num, trained[numbers].to_numpy())
        assert np.isfinite(asked.num[~np.isnan(asked.num)]).all()
    if texts:
        assert asked.cat is not None
        np.testing.assert_array_equal(asked.cat, trained[texts].to_numpy())
    assert asked.new == {}


def test_what_training_has_of_types_travels_as_json(tmp_path: Path) -> None:
    path = CASES / "types.parquet"
    df = tables.read(path, tables.sniff(path).settings)
    found = infer(df, "total")
    schema: Schema = found.schema()
    typed = frames.typed(df, found)
    body = json.dumps({"dataframe_records": frames.records(typed, schema)}, allow_nan=False)
    asked = read_json(body.encode(), schema)
    trained = frames.features(typed, schema)
    kinds = {c.name: c.kind for c in schema.inputs}
    numbers = [f.name for f in schema.features if kinds[f.column] != "category"]
    assert asked.num is not None
    np.testing.assert_array_equal(asked.num, trained[numbers].to_numpy())
    assert "Decimal" not in body
