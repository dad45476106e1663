"""How values show themselves."""

from xml.etree import ElementTree

import pytest

from gyrostat import notebook, told
from gyrostat.terms import Answer, RunTold, Told, Verdict

NASTY = "<script>alert('x')</script>"


def test_lines_are_escaped_and_the_facts_drawn_below_them():
    shown = Told((NASTY,), {"n": 3}, draw=lambda facts: f"<b>{facts['n']}</b>")._repr_html_()
    assert shown == f"{notebook.plain(NASTY)}<b>3</b>"
    assert "<script" not in shown


def test_a_bar_has_its_bounds_and_its_limit_inside_the_picture():
    drawn = ElementTree.fromstring(notebook.bar(0.6, lower=0.55, upper=0.65, limit=0.7))
    value, band = drawn.findall("rect")
    limit = drawn.find("line")
    assert limit is not None
    assert float(band.get("x", "")) < float(value.get("width", "")) < float(limit.get("x1", ""))
    assert float(limit.get("x1", "")) < notebook.WIDTH


def test_what_lies_below_nothing_is_drawn_from_nothing_to_it():
    rect = ElementTree.fromstring(notebook.bar(-2.0, limit=1.0)).find("rect")
    assert rect is not None
    assert (rect.get("x"), float(rect.get("width", "")) > 0) == ("0.0", True)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_no_number_is_no_bar(value):
    assert notebook.bar(value, limit=1.0) == ""


def test_a_verdict_shows_its_numbers_and_reason():
    verdict = Verdict(Answer.ACCEPT, "gates.limit/1", f"rmse {NASTY}", 0.58, 0.56, 0.6, 0.7)
    shown = verdict._repr_html_()
    assert "0.56 to 0.6" in shown
    assert "<script" not in shown
    assert str(verdict) == f"accept: rmse {NASTY}"


def test_a_run_shows_its_gates_by_name():
    facts = {"run": "run/wine/7", "gates": {NASTY: {"answer": "reject", "value": 0.8, "limit": 0.7}}}  # fmt: skip
    run = RunTold(("over",), facts, 1, told.verdicts_drawn)
    assert run.ref == "run/wine/7"
    assert "reject" in run._repr_html_()
    assert "<script" not in run._repr_html_()
