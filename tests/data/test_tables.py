from pathlib import Path

import pytest

from gyrostat.data import tables
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


def test_a_decimal_comma_becomes_a_point_but_codes_stay(tmp_path: Path) -> None:
    path = write(tmp_path, "x;y;code\n1.234,50;3,5;A,1\n7;NA;B,2\n0,25;;C,3\n")
    sniffed = tables.sniff(path).settings
    assert (sniffed.decimal, sniffed.thousands) == (",", ".")
    assert read(path) == {"x": ["1234.50", "7", "0.25"], "y": ["3.5", "NA", None], "code": ["A,1", "B,2", "C,3"]}  # fmt: skip


def test_thousands_in_quotes_are_no_decimal_comma(tmp_path: Path) -> None:
    path = write(tmp_path, 'n,x\n"3,052",1.5\n"4,164",2.5\n')
    assert tables.sniff(path).settings.decimal == "."


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


def test_a_blank_name_gets_one_and_padding_goes(tmp_path: Path) -> None:
    path = write(tmp_path, " a ,,b\n1,2,3\n4,5,6\n")
    assert list(read(path)) == ["a", "column 2", "b"]
    notes = "\n".join(tables.sniff(path).notes)
    assert "' a '" in notes
    assert "column 2 has no name" in notes


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
        ("a,b,a\n1,2,3\n", "named 'a' (columns 1, 3)"),
        ("5.2,1,red\n4.1,2,blue\n", "looks like values"),
        ('a,b\n1,"2\n3,4\n', "line 2"),
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


def test_the_quick_reader_and_the_careful_one_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{n},{'' if n % 7 == 0 else n / 3},t{n} ,\u00e9\u2028\x0b,#x" for n in range(500)]
    path = write(tmp_path, "a,b,c,d,e\n" + "\n".join(rows))
    settings = tables.sniff(path).settings
    quick = tables.read(path, settings)
    monkeypatch.setattr(tables, "_read_quickly", lambda *_: None)
    assert tables.read(path, settings).equals(quick)


@pytest.mark.parametrize("line", ["1", "1,2,3"])
def test_a_line_of_another_width_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, "a,b\n" + "1,2\n" * 30 + line + "\n" + "1,2\n" * 30)
    with pytest.raises(DataError, match=rf"1 of 61 rows .* line 32 with {len(line.split(','))}"):
        tables.read(path, tables.sniff(path).settings)


def test_one_line_too_short_and_one_too_long_do_not_hide_each_other(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,c\n1,2\n1,2,3,4\n" + "1,2,3\n" * 20)
    with pytest.raises(DataError, match=r"2 of 22 rows .* line 2 with 2"):
        tables.read(path, tables.sniff(path).settings)
