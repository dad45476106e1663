import json
from pathlib import Path
from typing import Any

import pytest

from gyrostat.data import report, tables
from gyrostat.data.infer import infer

CASES = Path(__file__).parent.parent / "cases" / "tables"


def of(name: str, target: str) -> dict[str, Any]:
    df = tables.read(CASES / name, tables.sniff(CASES / name).settings)
    return report.facts(df, infer(df, target))


def test_each_column_has_a_kind_a_role_and_a_reason() -> None:
    found = of("visits.csv", "dose")
    roles = {c["name"]: c["role"] for c in found["columns"]}
    assert roles == {"animal_no": "entity", "dose": "target"} | dict.fromkeys(set(roles) - {"animal_no", "dose"}, "feature")  # fmt: skip
    assert all(c["why"] for c in found["columns"])
    assert found["n_twice"] == 25
    json.dumps(found, allow_nan=False)


def test_a_finding_has_its_rows_and_what_to_do() -> None:
    found = of("late-mixed.csv", "strength")
    (finding,) = [f for f in found["findings"] if f["rows"]]
    assert (finding["column"], finding["rows"]) == ("dose", [387, 392, 399])
    assert finding["do"]
    assert "do: correct them in the file" in "\n".join(report.lines(found))


def test_nobodys_values_are_printed_anywhere() -> None:
    found = of("members.csv", "left")
    df = tables.read(CASES / "members.csv", tables.sniff(CASES / "members.csv").settings)
    told = "\n".join([json.dumps(found, ensure_ascii=False), *report.lines(found), report.page(found, "t")])  # fmt: skip
    assert {c["role"] for c in found["columns"]} == {"personal", "left out", "feature", "target"}
    for name in ("mail", "phone", "rrn", "remark"):
        for value in df[name].to_list():
            assert value not in told


@pytest.mark.parametrize("name", ["<5km", "<script>alert(1)</script>", '"&<b>'])
def test_a_page_shows_names_and_values_as_text(tmp_path: Path, name: str) -> None:
    rows = "".join(f'{n % 7}.5,"=cmd|calc<i>{n % 3}",{n * 37 % 101}\n' for n in range(60))
    quoted = '"' + name.replace('"', '""') + '"'
    path = tmp_path / "t.csv"
    path.write_text(f"x,{quoted},y\n{rows}", encoding="utf-8")
    df = tables.read(path, tables.sniff(path).settings)
    assert df[name][0] == "=cmd|calc<i>0"
    page = report.page(report.facts(df, infer(df, "y")), "a <title>", ["x > 5"])
    for raw in (name, "calc<i>", "a <title>"):
        assert raw not in page
    assert "&lt;i&gt;" in page


def test_a_name_that_moves_the_cursor_is_made_harmless(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\x1b[2Jb,y\n" + "".join(f"{n % 7},{n}\n" for n in range(60)))
    df = tables.read(path, tables.sniff(path).settings)
    assert df.columns == ["a\x1b[2Jb", "y"]
    assert "\x1b" not in "\n".join(report.lines(report.facts(df, infer(df, "y"))))
