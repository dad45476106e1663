"""kill -9 of the real system before, in and after what it does: the record is that of an undisturbed run, and nothing is done twice."""

import random
from collections.abc import Iterator

import pytest

from .rig import Rig, make


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A project with a champion."""
    folder = tmp_path_factory.mktemp("chaos") / "homes"
    make(folder)
    found = Rig(folder)
    with found.running():
        found.wait("version 1", lambda: found.version() == 1 and found.is_at_rest())
        yield found


@pytest.fixture(scope="module")
def wanted(rig: Rig) -> dict[str, list[str]]:
    """What a release says when nothing happens."""
    points = len(rig.plan("loop").points())
    kinds = rig.kinds(rig.release(2.0))
    rig.n_points = len(rig.plan("loop").points()) - points
    return kinds


def holds(rig: Rig, wanted: dict[str, list[str]], before: int, run: int) -> None:
    """A release comes to what an undisturbed one comes to."""
    found = rig.kinds(before)
    for stream, kinds in wanted.items():
        assert found[stream] == kinds, rig.killed
    assert set(rig.jobs(run).values()) == {1}
    assert rig.wrong(before) == []


def test_ten_kills_of_the_loop_in_one_release_change_nothing_of_its_record(
    rig: Rig, wanted: dict[str, list[str]]
) -> None:
    plan, run = rig.plan("loop"), rig.run() + 1
    n_before = len(plan.kills())
    plan.make(every=max(1, rig.n_points // 10), phase=3)
    before = rig.release(3.0)
    plan.make(0)
    assert len(plan.kills()) - n_before >= 8
    holds(rig, wanted, before, run)


def test_deaths_of_up_in_one_release_change_nothing_of_its_record_and_fail_no_request(
    rig: Rig, wanted: dict[str, list[str]]
) -> None:
    """It dies before it writes down itself, and each child that it has just started."""
    plan, run, n_asked = rig.plan("supervisor"), rig.run() + 1, rig.n_asked
    n_lost = len(rig.lost)
    before, version = rig.project.ledger.position(), rig.version()
    plan.make(every=1, only=["the run file of"])
    rig.ask_for(4.0)
    rig.kill_one("supervisor")
    rig.wait("its deaths", lambda: len(plan.kills()) == 5)
    plan.make(0)
    rig.wait("the release", lambda: rig.version() > version and rig.is_at_rest())
    rig.wait("everything to be there again", lambda: len(rig.killed[-1].resumed) == 2)
    holds(rig, wanted, before, run)
    assert rig.n_asked > n_asked
    assert rig.lost[n_lost:] == []


TAKING_OVER = ("taking over", "who stays", "signal", "start of server", "run file of server", "seal of server", "of before")  # fmt: skip


@pytest.mark.slow
def test_an_up_that_dies_at_each_point_at_which_it_takes_over_fails_no_request(rig: Rig) -> None:
    plan, n_asked = rig.plan("supervisor"), rig.n_asked
    n_before, n_failed, n_lost = len(plan.kills()), len(rig.failed), len(rig.lost)
    plan.make(every=1, only=TAKING_OVER)
    rig.kill_one("supervisor")
    rig.wait("its last point", lambda: "after forgetting the servers of before" in plan.kills())
    plan.make(0)
    rig.wait("everything to be there again", lambda: len(rig.killed[-1].resumed) == 2)
    assert len(plan.kills()) - n_before >= 16
    assert rig.n_asked > n_asked + 500
    assert (rig.failed[n_failed:], rig.lost[n_lost:]) == ([], []), (
        f"{plan.kills()}\n{(rig.folder / 'up.log').read_text()}"
    )


@pytest.mark.slow
def test_sixty_kills_of_whatever_runs_leave_nothing_undone_or_done_twice(rig: Rig) -> None:
    before, n_before = rig.project.ledger.position(), len(rig.killed)
    rig.ask_for(50.0)
    for what in ("training", "runner", "loop", "monitor", "server", "supervisor"):
        rig.kill_one(what)
    rig.storm(54, random.Random(1))
    assert len(rig.killed) - n_before == 60
    assert rig.wrong(before) == []
