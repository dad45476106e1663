"""Who follows a run is told when nobody goes on with it, and what it waits for."""

from types import SimpleNamespace

from processes.projects import AtRest

import gyrostat
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


def test_a_run_without_up_waits_for_the_budget_says_so_and_starts_when_it_is_raised(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(following, "WAIT_S", 0.2)
    file = AtRest(tmp_path).root / "config" / "config.yaml"
    text, lines = file.read_text(), []
    file.write_text(text.replace("4 per day", "1 per day"))

    def say(line):
        lines.append(line)
        if "the budget of 1 runs is used up" in line:
            file.write_text(text)

    def run():
        return following.run(
            gyrostat.Project(tmp_path), "wine", wait=True, key=None, refused_ok=False, reason="", actor="kim", say=say,
        )  # fmt: skip

    run()
    assert not any("budget" in line for line in lines)
    told = run()
    waits = [line for line in lines if line.startswith("  wait")]
    assert len(waits) == 1, waits
    assert "the budget of 1 runs is used up" in waits[0]
    assert "winequality-red.csv" in told.lines[0], (
        told
    )  # its own fault, not a declaration that nobody kept
