"""kill -9 of the real loop before, in and after what it does: the record is that of an undisturbed run, and nothing is done twice."""

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
    rig.n_points = -len(rig.points())
    kinds = rig.kinds(rig.release(2.0))
    rig.n_points += len(rig.points())
    return kinds


def holds(rig: Rig, wanted: dict[str, list[str]], *, alpha: float, n_kills: int) -> None:
    """A release under so many kills, spread over all points, comes to what an undisturbed one comes to."""
    before_kills, run = len(rig.kills()), rig.run() + 1
    rig.plan(every=max(1, rig.n_points // n_kills), phase=int(alpha))
    before = rig.release(alpha)
    rig.plan(0)
    kills = rig.kills()[before_kills:]
    assert len(kills) >= 0.8 * min(n_kills, rig.n_points)
    found = rig.kinds(before)
    for stream, kinds in wanted.items():
        assert found[stream] == kinds, kills
    assert set(rig.jobs(run).values()) == {1}
    assert rig.failed == []
    assert rig.project.audit_verify().facts["is_whole"]


def test_ten_kills_in_one_release_change_nothing_of_its_record(
    rig: Rig, wanted: dict[str, list[str]]
) -> None:
    holds(rig, wanted, alpha=3.0, n_kills=10)


@pytest.mark.slow
def test_sixty_kills_in_one_release_change_nothing_of_its_record(
    rig: Rig, wanted: dict[str, list[str]]
) -> None:
    holds(rig, wanted, alpha=4.0, n_kills=60)
