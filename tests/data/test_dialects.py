"""Any table written in any of these dialects comes back equal, or is refused in one line."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gyrostat.data import tables
from gyrostat.errors import DataError

WORDS = {
    "utf-8": st.text("abc äé 한글뷁,;\t\"'\n|#.\\", max_size=6),
    "utf-8-sig": st.text("abc äé 한글뷁,;\t\"'\n|", max_size=6),
    "utf-16": st.text("abc äé 한글뷁,;\t\"'\n|", max_size=6),
    "cp949": st.sampled_from(
        ["서울특별시", "부산", "똠방각하", "a,b", "나쁨", '"좋음"', "", "줄\n바꿈"]
    ),
    "cp1252": st.sampled_from(["Straße", "Köln", "Saint-Étienne", "€ 5", "", "a;b", 'say "hé"']),
}
NAMES = {"cp949": ["이름", "값", "지역", "비고"], "cp1252": ["Straße", "Wert", "Größe", "Ort"]}


@st.composite
def written(draw: st.DrawFn) -> tuple[bytes, list[str], list[list[str]]]:
    """`(bytes, names, rows)`: a table of a number and some texts, as a program or a person would save it."""
    encoding = draw(st.sampled_from(sorted(WORDS)))
    width = draw(st.integers(2, 4))
    n = draw(st.integers(3, 12))
    names = NAMES.get(encoding, ["n", "b c", "<5km", 'say "x"'])[:width]
    rows = [[f"{k * 7}.{k % 4}5", *(draw(WORDS[encoding]) for _ in range(width - 1))] for k in range(n)]  # fmt: skip
    out = io.StringIO()
    end = draw(st.sampled_from(["\n", "\r\n"]))
    writer = csv.writer(
        out,
        delimiter=draw(st.sampled_from([",", ";", "\t", "|"])),
        lineterminator=end,
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    top = draw(st.sampled_from(["", "# from a device\n#, a, b\n", "\n\n"]))
    writer.writerow(names)
    writer.writerows(rows)
    text = top.replace("\n", end) + out.getvalue()
    if draw(st.booleans()):
        text = text.removesuffix(end)
    data = text.encode(encoding)
    return gzip.compress(data) if draw(st.booleans()) else data, names, rows


@settings(max_examples=150, deadline=None)
@given(written())
def test_a_written_table_comes_back_equal_or_is_refused(
    table: tuple[bytes, list[str], list[list[str]]],
) -> None:
    data, names, rows = table
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(data)
        try:
            sniffed, found = tables.load(path)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert str(error).endswith("Nothing was done.")  # noqa: PT017
            return
        # The next reading, by the declaration alone, is the same.
        assert tables.read(path, sniffed.settings).equals(found)
        assert found.columns == names
        assert found.rows() == [tuple(v or None for v in row) for row in rows]
