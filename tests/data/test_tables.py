import csv
import gzip
import io
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gyrostat.data import files, records, tables
from gyrostat.data.settings import SourceSettings
from gyrostat.errors import DataError, UsageError


def write(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> dict[str, list[str | None]]:
    return tables.read(path, tables.sniff(path).settings).to_dict(as_series=False)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_finds_the_separator(tmp_path: Path, separator: str) -> None:
    path = write(tmp_path, "a,b,c\n1,2,x\n3,4,y\n".replace(",", separator))
    assert tables.sniff(path).settings.separator == separator
    assert read(path) == {"a": ["1", "3"], "b": ["2", "4"], "c": ["x", "y"]}


def test_text_stays_as_it_is_and_only_an_empty_field_is_null(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b\n007, x \nNA,\n"",""\n1.50,"say ""hi""\nthere"\n')
    assert read(path) == {"a": ["007", "NA", None, "1.50"], "b": [" x ", None, None, 'say "hi"\nthere']}  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8-sig", "이름,값\n뷁,1\n"),
        ("utf-8", "이름,값\n뷁,1\n"),
        ("cp949", "이름,값\n서울특별시,1\n똠방각하,2\n"),
        ("cp1252", "Straße,Fläche\nMühlgasse,1\nÖderweg,2\nGärtnerstraße,3\n"),
        ("latin-1", "ville,prix\nChâlons-en-Champagne,1\nSaint-Étienne,2\nNîmes,3\n"),
        ("utf-16", "a,b\nx,1\n"),
    ],
)
def test_reads_what_the_encoding_says(tmp_path: Path, encoding: str, text: str) -> None:
    lines = [line.split(",") for line in text.splitlines()]
    expected = {name: [row[n] for row in lines[1:]] for n, name in enumerate(lines[0])}
    assert read(write(tmp_path, text.encode(encoding))) == expected


@pytest.mark.parametrize(
    ("content", "skipped"),
    [
        ("# a, b, c\n\n# d\nx,y,z\n1,2,3\n4,5,6\n", 3),
        ("Sales of May\nx,y,z\n1,2,3\n4,5,6\n", 1),
        ("#,price,kind\n1,2.5,a\n2,3.5,b\n", 0),
        ("x,y,z\n1,2,3\n", 0),
    ],
)
def test_skips_what_is_no_part_of_the_table_and_says_so(
    tmp_path: Path, content: str, skipped: int
) -> None:
    path = write(tmp_path, content)
    sniffed = tables.sniff(path)
    assert sniffed.settings.skip_lines == skipped
    assert any("skipped" in note for note in sniffed.notes) == bool(skipped)
    assert len(read(path)) == 3


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_every_line_end_is_one(tmp_path: Path, end: str, last: bool) -> None:
    path = write(tmp_path, "a,b\n1,2\n3,4\n".replace("\n", end).removesuffix("" if last else end))
    assert read(path) == {"a": ["1", "3"], "b": ["2", "4"]}


@pytest.mark.parametrize("header", ["a,b", "a,b,"])
def test_a_separator_at_the_end_of_lines_adds_no_column(tmp_path: Path, header: str) -> None:
    path = write(tmp_path, f"{header}\n1,2,\n3,4,\n")
    assert read(path) == {"a": ["1", "3"], "b": ["2", "4"]}


def test_one_column_is_a_table(tmp_path: Path) -> None:
    assert read(write(tmp_path, "x\n1\n2\n")) == {"x": ["1", "2"]}


def test_names_are_trimmed_and_each_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, " a ,,a,column 2,a (column 3),a\n1,2,3,4,5,6\n4,5,6,7,8,9\n")
    sniffed, frame = tables.load(path)
    assert frame.columns == ["a", "column 2_", "a (column 3)_", "column 2", "a (column 3)", "a (column 6)"]  # fmt: skip
    assert frame.row(0) == ("1", "2", "3", "4", "5", "6")
    assert sniffed.repeated == ("a",)
    notes = "\n".join(sniffed.notes)
    assert "' a '" in notes
    assert "column 2 has no name" in notes
    assert "'a' stands 3 times (columns 1, 3, 6)" in notes


def test_without_a_header_columns_are_numbered(tmp_path: Path) -> None:
    path = write(tmp_path, "1,2\n3,4\n")
    found = tables.read(path, SourceSettings(path=str(path), header=False))
    assert found.to_dict(as_series=False) == {"column 1": ["1", "3"], "column 2": ["2", "4"]}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "is empty"),
        ("\ufeff\n \n", "is empty"),
        ("# only\n# comments\n", "only comments"),
        ("a,b\n", "2 columns and no rows"),
        ("a,b\n1,2\n\0,4\n", "NUL byte at line 3"),
        ("a,b\n1,2\n3\n4,5,6\n", "line 3 with 1"),
        ("5.2,1,red\n4.1,2,blue\n", "looks like values"),
        ('a,b\n1,"2\n3,4\n', "line 2: a quote is opened and never closed"),
        ("red,big\nblue,small\nred,small\nblue,big\n", "looks like values"),
        ("2024-01-01,north,12\n2024-01-02,south,13\n2024-01-03,north,14\n", "looks like values"),
        ("x" * 4096 + ",b\n1,2\n", "4,096 characters"),
        (",".join(f"c{n}" for n in range(10_000)) + "\n" + "1," * 9999 + "1\n", "10,000 columns"),
        ("x" * 3_000_000, "characters"),
        ("<!doctype html><html><body>sign in</body></html>", "is a page"),
        ("a,_side\n1,2\n", "'_side'"),
    ],
)
def test_what_is_no_table_is_said_in_one_line(tmp_path: Path, content: str, named: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        tables.read(path, tables.sniff(path).settings)
    message = str(caught.value)
    assert named in message
    assert message.endswith("Nothing was done.")
    assert "\n" not in message


@pytest.mark.parametrize("header", ["0,1,2,3,target", "2019,2020,2021,name", "q1,q2,0.5"])
def test_numbered_columns_and_years_are_names(tmp_path: Path, header: str) -> None:
    path = write(tmp_path, header + "\n" + ",".join("7" for _ in header.split(",")) + "\n")
    assert list(read(path)) == header.split(",")


def test_no_file_and_a_folder_are_usage_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UsageError, match="Nothing was done"):
            tables.sniff(path)


def test_a_wrong_encoding_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n\xe9,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"data\.source\.encoding"):
        tables.read(path, SourceSettings(path=str(path)))


def test_a_broken_parquet_is_a_data_error(tmp_path: Path) -> None:
    path = write(tmp_path, b"PAR1" + b"\x00" * 40 + b"PAR1", "t.parquet")
    with pytest.raises(DataError, match="Parquet"):
        tables.read(path, tables.sniff(path).settings)


@pytest.mark.parametrize("text", ["t{n} ", '"t,{n}"', '"a ""{n}""\nb"', '""', '"{n}\r\n"'])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_quick_reader_and_the_careful_one_agree(tmp_path: Path, text: str, end: str) -> None:
    rows = [f"{n},{'' if n % 7 == 0 else n / 3},{text.format(n=n)},\u00e9\u2028\x0b,#x" for n in range(500)]  # fmt: skip
    body = ("a,b,c,d,e" + end + end.join(rows)).encode()
    settings = SourceSettings("t.csv")
    quick = records.quickly(body, settings)
    assert quick is not None
    names, frame = records.carefully(body, settings, "t.csv")
    assert (quick[0], quick[1].rows()) == (names, frame.rows())


@settings(deadline=None)
@given(
    st.lists(st.lists(st.text('ab",;\n\r ', max_size=4), min_size=2, max_size=2), min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)  # fmt: skip
def test_what_the_quick_reader_takes_it_reads_right(
    rows: list[list[str]], end: str, is_raw: bool
) -> None:
    out = io.StringIO()
    # The writer itself leaves a lone CR bare.
    has_return = any("\r" in v for row in rows for v in row)
    quoting = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
    writer = csv.writer(out, lineterminator=end, quoting=quoting)
    writer.writerow(["x", "y"])
    writer.writerows(rows)
    # Raw: fields that were never quoted as they should be, so that many of them are broken.
    body = end.join(["x,y", *(",".join(r) for r in rows)]) if is_raw else out.getvalue()
    settings = SourceSettings("t.csv")
    quick = records.quickly(body.encode(), settings)
    try:
        _, careful = records.carefully(body.encode(), settings, "t.csv")
    except DataError:
        assert quick is None
        return
    if quick is not None:
        assert quick[1].rows() == careful.rows()
    if not is_raw:
        assert careful.rows() == [tuple(v or None for v in row) for row in rows]


@pytest.mark.parametrize("line", ["1", "1,2,3"])
def test_a_line_of_another_width_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, "a,b\n" + "1,2\n" * 30 + line + "\n" + "1,2\n" * 30)
    with pytest.raises(DataError, match=rf"1 of 61 rows .* line 32 with {len(line.split(','))}"):
        tables.read(path, tables.sniff(path).settings)


def test_one_line_too_short_and_one_too_long_do_not_hide_each_other(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,c\n1,2\n1,2,3,4\n" + "1,2,3\n" * 20)
    with pytest.raises(DataError, match=r"2 of 22 rows .* line 2 with 2"):
        tables.read(path, tables.sniff(path).settings)


# ---- packed, typed, and what is no table ---------------------------------------------------------

TEXT = "a,b\n1,x\n2,y\n"
ROWS = {"a": ["1", "2"], "b": ["x", "y"]}


def zipped(folder: Path, **members: bytes) -> Path:
    path = folder / "t.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


def test_a_packed_table_is_unpacked_and_said_to_be(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress(TEXT.encode("utf-16")), "t.csv.gz")
    assert read(path) == ROWS
    assert tables.sniff(path).notes[0] == "gzip"
    path = zipped(tmp_path, **{"inner.csv": TEXT.encode(), "__MACOSX__._inner.csv": b"\0"})
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 2
    assert read(path) == ROWS
    assert tables.sniff(path).notes[0] == "zip, inner.csv inside"


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"a.csv": b"x,y\n1,2\n", "b.csv": b"x,y\n1,2\n"}, "2 files (a.csv, b.csv)"),
        ({}, "no file"),
        ({"[Content_Types].xml": b"<x/>", "xl__workbook.xml": b"<x/>"}, "Excel"),
        ({"a.csv": b""}, "empty"),
        ({"a.gz": gzip.compress(b"x")}, "packed twice"),
    ],
)
def test_a_zip_that_is_not_one_table_is_refused(
    tmp_path: Path, members: dict[str, bytes], named: str
) -> None:
    with pytest.raises(DataError) as caught:
        tables.sniff(zipped(tmp_path, **members))
    assert named in str(caught.value)


def test_what_is_packed_to_burst_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_BOMB_FROM", 2**20)
    bomb = b"0" * 2**24
    for path in (write(tmp_path, gzip.compress(bomb), "t.gz"), zipped(tmp_path, a=bomb)):
        with pytest.raises(DataError, match="unpacks to more than 200 times"):
            tables.sniff(path)


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_half_a_packed_file_is_refused(tmp_path: Path, cut: float) -> None:
    text = "a,b\n" + "".join(f"{n},{n * 7919 % 10007}\n" for n in range(2000))
    whole = gzip.compress(text.encode())
    for name, content in (("t.gz", whole), ("t.zip", zipped(tmp_path, a=text.encode()).read_bytes())):  # fmt: skip
        path = write(tmp_path, content[: int(cut * len(content))], name)
        with pytest.raises(DataError, match="Is it whole"):
            tables.sniff(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\xd0\xcf\x11\xe0" + b"x" * 50, "Excel"),
        (b"SQLite format 3\0", "SQLite"),
        (b"%PDF-1.7 x", "PDF"),
        ("이름,값\n서울특별시,1\n".encode() + "서울,2\n".encode("cp949"), "two encodings: UTF-8, but not in line 3"),
        ("город,цена\nМосква,1\nСамара,2\n".encode("cp1251"), "no encoding that is known"),
        (bytes(range(1, 256)) * 4, "Nothing was done"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_what_it_is(tmp_path: Path, content: bytes, named: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        tables.read(path, tables.sniff(path).settings)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_wide_text_without_a_mark_is_read(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, TEXT.encode(encoding))
    assert read(path) == ROWS
    assert tables.sniff(path).settings.encoding == encoding


def test_the_encoding_is_judged_on_the_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path, b"name,n\n" + b"plain,1\n" * 200_000 + "Düsseldorf,2\n".encode("cp1252"))
    assert read(path)["name"][-1] == "Düsseldorf"


def test_json_lines_are_rows(tmp_path: Path) -> None:
    lines = (
        '{"a": 1.50, "b": "x", "c": true}\n\n{"c": false, "a": 12345678901234567890, "d": null}\n'
    )
    path = write(tmp_path, lines, "t.jsonl")
    assert tables.sniff(path).settings.format == "jsonl"
    assert read(path) == {"a": ["1.50", "12345678901234567890"], "b": ["x", None], "c": ["True", "False"], "d": [None, None]}  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('{"a": 1}\n{"a": [1]}\n', "line 2 has a list under 'a'"),
        ('{"a": 1}\n{"a": \n', "line 2 is no JSON"),
        ('{"a": 1}\n3\n', "line 2 is no object"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, lines: str, named: str) -> None:
    path = write(tmp_path, lines, "t.jsonl")
    with pytest.raises(DataError) as caught:
        tables.read(path, tables.sniff(path).settings)
    assert named in str(caught.value)


def test_half_a_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": list(range(1000))}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cannot be read as Parquet.*Is it whole"):
        tables.read(path, tables.sniff(path).settings)


@pytest.mark.parametrize("change", ["grows", "shrinks", "written over", "replaced"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = write(tmp_path, TEXT)
    other = path.read_bytes().swapcase()
    real = Path.open

    class Half(io.BytesIO):
        """Its first helping is read; then somebody else writes."""

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            monkeypatch.setattr(Path, "open", real)
            match change:
                case "grows":
                    path.write_bytes(path.read_bytes() + b"9,9\n")
                case "shrinks":
                    path.write_bytes(path.read_bytes()[:-3])
                case "written over":
                    path.write_bytes(other)
                case _:
                    path.with_name("new").write_bytes(other)
                    path.with_name("new").rename(path)
            return data

    monkeypatch.setattr(Path, "open", lambda self, *_: Half(self.read_bytes() if self != path else data))  # fmt: skip
    data = real(path, "rb").read()
    with pytest.raises(DataError, match="changed while it was read"):
        tables.read(path, SourceSettings(path=str(path)))


def test_how_a_file_differs_from_its_declaration_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "# new\na;b\n1;x\n2;y\n")
    assert tables.differences(path, SourceSettings(path=str(path))) == [
        "data.source.separator: ',' -> ';'", "data.source.skip_lines: 0 -> 1",
    ]  # fmt: skip
    assert tables.differences(tmp_path / "none.csv", SourceSettings("none.csv")) == []


@pytest.mark.parametrize(
    ("top", "skipped"),
    [
        ("Report of May, draft\n\n", 2),
        ("Report,,\n", 1),
        ("Sales\n2025\n", 2),
    ],
)
def test_titles_above_the_names_are_skipped(tmp_path: Path, top: str, skipped: int) -> None:
    path = write(tmp_path, top + "x,y,z\n" + "1,2,3\n" * 10)
    assert tables.sniff(path).settings.skip_lines == skipped
    assert list(read(path)) == ["x", "y", "z"]


def test_a_title_stands_above_two_columns_too(tmp_path: Path) -> None:
    path = write(tmp_path, "Sales of May\nx,y\n" + "1,2\n" * 10)
    assert tables.sniff(path).settings.skip_lines == 1
