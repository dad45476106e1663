from datetime import UTC, datetime

import polars as pl
import pytest

from gyrostat.data import dates


@pytest.mark.parametrize(
    ("format", "texts"),
    [
        ("", ["2025-04-03", "2024-02-29", "soon", None]),
        ("", ["2025-04-03T01:02:03", "2025-04-03 23:59:59"]),
        ("", ["2025-04-03T01:02:03+09:00", "2025-04-03T01:02:03Z"]),
        ("%d.%m.%Y", ["03.04.2025", "3.4.2025", "31.02.2025", None]),
        ("%m/%d/%Y %H:%M", ["4/3/2025 1:02", "12/31/2024 23:59"]),
        ("%d %b %Y", ["3 Apr 2025", "31 Dec 2024"]),
    ],
)
def test_the_compiled_parser_reads_what_the_server_would(
    format: str, texts: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dates, "_MANY", 0)
    quick = dates.instants(pl.Series(texts, dtype=pl.String), format).to_list()
    slow = dates.moments(pl.Series(texts, dtype=pl.String), format)
    expected = [slow.get(t) for t in texts if t is not None]
    found = [at and at.replace(tzinfo=UTC) for at, t in zip(quick, texts, strict=True) if t is not None]  # fmt: skip
    assert found == expected


def test_an_offset_makes_one_instant() -> None:
    found = dates.instants(pl.Series(["2025-04-03T09:00:00+09:00", "2025-04-03T00:00:00Z"]))
    assert found[0] == found[1] == datetime(2025, 4, 3)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("text", "format", "is_swapped"),
    [
        ("01.13.2025", "%d.%m.%Y", True),
        ("30.02.2025", "%d.%m.%Y", False),
        ("13/01/2025", "%m/%d/%Y", True),
        ("2025-13-01", "", True),
        ("soon", "", False),
    ],
)
def test_day_and_month_in_the_other_order_is_told_from_no_date(
    text: str, format: str, is_swapped: bool
) -> None:
    assert dates.is_swapped(text, format) is is_swapped
