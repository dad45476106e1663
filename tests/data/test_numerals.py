import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gyrostat.data import numerals
from gyrostat.data.numerals import PLAIN, NumberFormat


def form_of(values: list[str], table: NumberFormat = PLAIN) -> str:
    found = numerals.recognise(pl.Series(values), pl.Series([1] * len(values)), table)
    return "" if found.form is None else str(found.form)


def read(values: list[str], form: str) -> list[str]:
    return numerals.plain(pl.Series(values), numerals.parse(form)).to_list()


@pytest.mark.parametrize(
    ("values", "form", "plain"),
    [
        (["1,234", "12"], "1,234.5", ["1234", "12"]),
        (["1.234,50", "3"], "1.234,5", ["1234.50", "3"]),
        (["1.234.567", "12"], "1.234,5", ["1234567", "12"]),
        (["1.234", "2.5"], "1234.5", ["1.234", "2.5"]),
        (["0,5", "-1,25"], "1234,5", ["0.5", "-1.25"]),
        (["₩12,000", "-₩3"], "₩1,234.5", ["12000", "-3"]),
        (["(1,234)", "55"], "1,234.5", ["-1234", "55"]),
        (["12.5%", "-3 %"], "1234.5%", ["12.5", "-3"]),
        (["1 234,5", "2,1"], "1 234,5", ["1234.5", "2.1"]),
        (["1\u00a0234,5", "2,1"], "1 234,5", ["1234.5", "2.1"]),
        (["1'234.50", "2"], "1'234.5", ["1234.50", "2"]),
        (["12 kg", "3.5 kg"], "1234.5kg", ["12", "3.5"]),
        (["12,34,567.5", "1,234"], "1,234.5", ["1234567.5", "1234"]),
        (["€ 1.234,00", "€ -5,00"], "€1.234,5", ["1234.00", "-5.00"]),
        (["1,5E-3", "2,0"], "1234,5", ["1.5E-3", "2.0"]),
        (["1234-", "\u22125"], "1234.5", ["-1234", "-5"]),
    ],
)
def test_a_way_to_write_numbers_is_recognised_and_read(
    values: list[str], form: str, plain: list[str]
) -> None:
    assert form_of(values) == form
    assert read(values, form) == plain


@pytest.mark.parametrize(
    "values",
    [["abc", "1"], ["A12", "A13"], ["03.04.2025", "1.1.2024"], ["1.2.3.4", "1.2.3.5"], ["$1", "€2"], ["12.5%", "0.1"], ["1 kg", "2 m"], ["1-2", "3-4"]],
)  # fmt: skip
def test_what_is_no_number_or_not_the_same_is_none(values: list[str]) -> None:
    assert form_of(values) == ""


def test_two_currencies_are_named() -> None:
    found = numerals.recognise(pl.Series(["$1", "€2"]), pl.Series([5, 5]))
    assert "'$' and '€'" in found.why_not


def test_what_could_be_read_in_two_ways_is_read_as_the_rest_of_the_table() -> None:
    comma = NumberFormat(",", ".")
    assert [form_of(["1,234"]), form_of(["1,234"], comma)] == ["1,234.5", "1.234,5"]
    assert [form_of(["1.234"]), form_of(["1.234"], comma)] == ["1234.5", "1.234,5"]
    # What it says itself counts more.
    assert form_of(["0.123", "1.234"], comma) == "1234.5"


@pytest.mark.parametrize("value", ["1.234,5", "1,2,3", "--5", "(5", "(-5)", "1e5x", "$5", ""])
def test_another_form_stays_as_it_is(value: str) -> None:
    assert read([value], "₩1,234.5") == [value]


@pytest.mark.parametrize("form", ["", "5", "%d", "kg1234.5m", "1.234.5", "12345"])
def test_a_pattern_that_shows_no_form_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match=r"1234\.5"):
        numerals.parse(form)


UNITS = [("", False), ("%", False), ("₩", True), ("€", False), ("kg", False), ("USD", True)]


@settings(deadline=None)
@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=30),
    st.integers(0, 3),
    st.sampled_from([(".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'")]),
    st.sampled_from(UNITS),
    st.booleans(),
)  # fmt: skip
def test_any_column_written_in_a_form_comes_back_equal(
    values: list[int], digits: int, marks: tuple[str, str], unit: tuple[str, bool], brackets: bool
) -> None:
    decimal, thousands = marks
    form = NumberFormat(decimal, thousands, *unit)

    def write(value: int) -> str:
        text = f"{abs(value) / 10**digits:,.{digits}f}"
        text = text.replace(",", "t").replace(".", decimal).replace("t", thousands)
        text = f"{unit[0]}{text}" if unit[1] else f"{text}{unit[0]}"
        if value >= 0:
            return text
        return f"({text})" if brackets else f"-{text}"

    def expected(value: int) -> float:
        return value / 10**digits

    texts = pl.Series([write(v) for v in values])
    # As declared it always comes back.
    assert [float(v) for v in numerals.plain(texts, form)] == [expected(v) for v in values]
    found = numerals.recognise(texts.unique(), texts.value_counts(sort=False)["count"], form)
    assert found.form is not None
    assert [float(v) for v in numerals.plain(texts, found.form)] == [expected(v) for v in values]
    assert numerals.parse(str(found.form)) == found.form
