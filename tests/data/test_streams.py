"""A table in pieces is the table: whatever the pieces' bounds, and whatever the file is."""

import gzip
import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyrostat.data import streams, tables
from gyrostat.data.settings import SourceSettings
from gyrostat.errors import DataError, UsageError

SOURCE = SourceSettings("data/wine.csv")
CELLS = st.text(st.sampled_from('a";,\n é"'), max_size=6)


def read(path, wanted, source=SOURCE):
    """`(rows, faults by row in the whole table, pieces)`."""
    found, faults, n = [], {}, 0
    for piece in map(lambda raw: raw.parse(), streams.open_stream(path, frozenset(wanted), source).pieces()):  # fmt: skip
        faults |= {n + row: why for row, why in piece.faults.items()}
        n += piece.frame.height
        found.append(piece.frame)
    return pl.concat(found), faults, len(found)


def quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=30), st.integers(4, 60), st.booleans()
)
def test_a_text_table_in_pieces_is_the_table_that_training_reads(
    tmp_path_factory, rows, size, ends
):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    text = "a,b\n" + "\n".join(f"{quoted(a)},{quoted(b)}" for a, b in rows) + "\n" * ends
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(streams, "BLOCK_BYTES", size)
        found, faults, n_pieces = read(path, ("a", "b"))
    assert found.equals(tables.read(path, SOURCE))
    assert not faults
    assert n_pieces > 1 or len(text) < 40 + size


def test_a_quote_in_the_middle_of_a_field_is_a_character(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 16)
    path = tmp_path / "t.csv"
    path.write_text('a,b\n5" pipe,1\n6" pipe,2\n7" pipe,3\n')
    found, _, n_pieces = read(path, ("a", "b"))
    assert found["a"].to_list() == ['5" pipe', '6" pipe', '7" pipe']
    assert n_pieces > 1


@pytest.mark.parametrize(
    "source",
    [
        SourceSettings("x.csv", encoding="cp949", separator=";", skip_lines=2),
        SourceSettings("x.csv", encoding="utf-16", separator="\t"),
        SourceSettings("x.csv", encoding="utf-8", separator="|", header=False),
    ],
)
def test_text_is_read_in_the_declared_dialect(tmp_path, monkeypatch, source):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 7)
    lines = ["도시,가격".replace(",", source.separator)] * source.header
    lines += [f"서울{source.separator}{n}" for n in range(20)]
    path = tmp_path / "t.csv"
    path.write_bytes(
        "\r\n".join(["제목", "둘"][: source.skip_lines] + lines).encode(source.encoding)
    )
    names = ("도시", "가격") if source.header else ("column 1", "column 2")
    found, _, n_pieces = read(path, names, source)
    assert found.equals(tables.read(path, source))
    assert n_pieces > 1


def test_a_line_of_another_width_is_a_fault_of_that_row_alone(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3\n\n5,6,\n7,8,9\n")
    found, faults, _ = read(path, ("a", "b"))
    assert found["a"].to_list() == ["1", None, "5", None]
    assert list(faults) == [1, 3]
    assert "the row has 1 fields, the header has 2" in faults[1]


def test_gzip_is_unpacked_as_it_is_read_and_a_cut_one_is_said(tmp_path):
    path = tmp_path / "t.csv.gz"
    packed = gzip.compress(b"a,b\n" + b"1,2\n" * 5000)
    path.write_bytes(packed)
    assert read(path, ("a",))[0].height == 5000
    path.write_bytes(packed[:-20])
    with pytest.raises(DataError, match="Is it whole"):
        read(path, ("a",))


def test_json_lines_say_which_line_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 50)
    path = tmp_path / "t.jsonl"
    lines = [json.dumps({"a": n / 2, "b": "x", "c": True}) for n in range(9)]
    path.write_text("\n".join([*lines, "{", "[1]", '{"a": [1], "b": "y"}', '{"b": "z"}']))
    stream = streams.open_stream(path, frozenset("ab"), SOURCE)
    assert stream.columns == ("a", "b", "c")
    found, faults, n_pieces = read(path, ("a", "b"))
    assert found["a"].to_list() == [*(str(n / 2) for n in range(9)), None, None, None, None]
    assert [*faults] == [9, 10, 11]
    assert n_pieces > 1


def test_parquet_keeps_types_and_gives_only_what_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "PIECE_ROWS", 1024)
    path = tmp_path / "t.parquet"
    table = pa.table({" a ": list(range(5000)), "b": ["x"] * 5000, "c": [1.5] * 5000})
    pq.write_table(table, path, row_group_size=3000)
    found, _, n_pieces = read(path, ("a", "c"))
    assert found.columns == ["a", "c"]
    assert found["a"].to_list() == list(range(5000))
    assert found.dtypes == [pl.Int64, pl.Float64]
    assert n_pieces > 4


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
        (b"PK\x03\x04", "unpack it first"),
        (b'a,b\n"1,2\n' + b"3,4\n" * 9, "cannot be read as a table"),
        (b"a,b\n1,\xff\xfe2\n", "UTF-8|utf-8"),
        (b"a,b\n1,\x002\n", "NUL"),
    ],
)
def test_what_is_no_table_is_said(tmp_path, data, says):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=says):
        read(path, ("a", "b"))


def test_a_file_that_is_not_there_is_the_callers_mistake(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        streams.open_stream(tmp_path / "none.csv", frozenset(), SOURCE)
