import re
import time
from datetime import UTC, datetime

import pytest

from gyrostat.ledger.times import iso, local, parse, span

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [("30s", 30), ("10m", 600), ("10 min", 600), ("6h", 21600), ("3d ago", 259200), ("1w", 604800), ("1.5h", 5400)],
)  # fmt: skip
def test_so_long_ago_is_counted_from_now(text, ago_s):
    assert parse(text, now=NOW) == NOW - ago_s


@pytest.mark.parametrize(
    "text", ["2023-11-14T22:13:20+00:00", "2023-11-15T07:13:20+09:00", " 2023-11-14T22:13:20Z "]
)
def test_a_time_with_an_offset_means_that_moment(text):
    assert parse(text) == NOW


def test_a_time_without_offset_is_local(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    try:
        assert parse("2023-11-15T07:13:20") == NOW
        assert local(NOW, now=NOW + 60) == "07:13:20"
        assert local(NOW, now=NOW + 3 * 86400) == "15 Nov 07:13"
        assert local(NOW, now=NOW + 400 * 86400) == "15 Nov 2023 07:13"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "yesterday", "10", "h", "2023-13-01", "-3h"])
def test_what_is_no_time_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=re.escape("is no time. Write 2026-11-20T14:05")):
        parse(text)


def test_an_export_has_its_offset_and_reads_back():
    assert iso(NOW) == "2023-11-14T22:13:20.000+00:00"
    assert datetime.fromisoformat(iso(NOW)) == datetime.fromtimestamp(NOW, UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.184, "0.18 s"), (9.0, "9 s"), (41.2, "41 s"), (89, "89 s"), (250, "4 min"), (9000, "2.5 h"), (259200, "3 d")],
)  # fmt: skip
def test_a_span_is_said_in_the_largest_unit_that_says_it(seconds, text):
    assert span(seconds) == text
