"""Who follows a run is told when nobody goes on with it."""

from types import SimpleNamespace

from gyrostat.processes import following


def looks(running, monkeypatch, *, is_up=True):
    monkeypatch.setattr(following, "GONE_S", 0.0)
    said = []
    alive = following._Alive(SimpleNamespace(processes=lambda: running), said.append if is_up else None)  # fmt: skip
    for _ in range(3):
        alive.look()
    return said


def test_an_up_that_has_ended_is_said_once(monkeypatch):
    (line,) = looks({}, monkeypatch)
    assert "`gyrostat up` has ended" in line


def test_a_loop_that_is_just_started_again_is_no_news(monkeypatch):
    assert looks({"up": object()}, monkeypatch) == []


def test_a_loop_in_the_own_process_needs_no_up(monkeypatch):
    assert looks({}, monkeypatch, is_up=False) == []
