"""The simulation itself: what it reaches, that it tells the same again, and mistakes that no history needs to meet."""

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gyrostat.errors import LedgerError
from gyrostat.ledger import entries
from gyrostat.ledger.chain import seal
from gyrostat.loop import reconcile
from gyrostat.rollout import production
from gyrostat.terms import Draft
from tests.loop.simulation import releases
from tests.loop.simulation.history import History
from tests.loop.simulation.mistakes import planted
from tests.loop.simulation.shrink import minimise, shrink
from tests.loop.simulation.world import SimulatedWorld


@pytest.fixture
def calm():
    """Builds a world where nothing goes wrong, for one mistake at a time."""

    def build(*mistakes: str) -> SimulatedWorld:
        history = History(1, frozenset(mistakes))
        history.dice.is_calm = True
        history.world.sources["m"] = []
        return history.world

    return build


def test_one_seed_is_one_story():
    one, two = History(7), History(7)
    one.run()
    two.run()
    assert one.log == two.log
    assert one.dice.struck == two.dice.struck
    assert len(one.log) > 20


def test_a_story_without_misfortune_and_people_comes_to_rest_too():
    history = History(3, only=frozenset())
    assert history.run() == []
    assert not history.dice.struck
    assert len(history.log) > 5


def test_a_failing_history_is_shrunk_to_what_it_needs():
    mistake = frozenset(["router_takes_any"])
    seed = next(seed for seed in itertools.count() if History(seed, mistake).run())
    whole = History(seed, mistake)
    whole.run()
    small, harm = shrink(seed, mistake, n_tellings=120)
    assert len(small.dice.struck) < len(whole.dice.struck) / 3
    again = History(seed, mistake, only=frozenset(small.dice.struck))
    assert again.run() == harm
    assert again.log == small.log


@pytest.mark.parametrize("needed", [{3}, {1, 99}, {10, 11, 57}, set()])
def test_shrinking_finds_exactly_what_is_needed(needed):
    struck = list(range(1, 101))

    def fails(numbers: list[int]) -> bool:
        nonlocal struck
        if needed <= set(numbers):
            struck = numbers
            return True
        return False

    minimise(lambda: struck, fails, lambda: True)
    assert set(struck) == needed


def test_a_history_that_holds_is_not_shrunk():
    with pytest.raises(ValueError, match="does not fail"):
        shrink(0)


def test_histories_reach_every_kind_of_entry_and_every_kind_of_misfortune():
    wanted = {
        kind
        for life, kinds in entries.KINDS.items()
        for kind in kinds
        if life in reconcile.LIVES
    } | {"recalled", "carded"}  # fmt: skip
    unkind = {
        "a loop is killed", "a loop freezes", "a clock jumps", "a call is lost", "a call comes late", "a call comes twice",
        "an answer is lost", "a stale read", "a look that fails", "no server lives", "the monitor lags", "work dies", "work hangs",
        "work fails once", "work fails", "a commit of unknown outcome", "no room for an entry", "the ledger cannot be read",
        "the disk is full for a while", "the machine sleeps", "another release", "replaced by another release",
    }  # fmt: skip
    for seed in range(400):
        history = History(seed)
        history.run()
        wanted -= {e.kind for e in history.log}
        unkind -= set(history.dice.tried())
        if not wanted and not unkind:
            break
    assert not wanted
    assert not unkind


@pytest.mark.parametrize(
    ("mistake", "ends_at"), [("", 8), ("router_takes_any", 7), ("router_checks_lease_only", 7)]
)
def test_a_late_copy_does_not_move_the_router_back(calm, mistake, ends_at):
    """Also when it comes from the very holder of the lease, so that its lease's number proves nothing."""
    world = calm(*filter(None, [mistake]))
    value = {"arms": [], "promoted_seq": 0}
    for seq in (7, 8, 7):
        world.show("production/m", "router", seq, value)
    assert world.router["production/m"][0] == ends_at
    assert any("went back" in harm for harm in world.watch.found) == bool(mistake)


@pytest.mark.parametrize(("mistake", "is_found"), [("", False), ("late_start_accepted", True)])
def test_a_late_start_of_work_that_is_over_starts_nothing(calm, mistake, is_found):
    world = calm(*filter(None, [mistake]))
    for seq in (8, 7):
        world.start("run/m/1", "snapshot", f"run/m/1#{seq}", (), {"barred": []})
    assert (("snapshot", "run/m/1#7") in world.jobs) == is_found
    assert any("after it was called off" in harm for harm in world.watch.found) == is_found


@pytest.mark.parametrize(("mistake", "is_listed"), [("", True), ("torn_append", False)])
def test_a_write_that_failed_has_changed_nothing(mistake, is_listed):
    """A life whose last entry was not written is not over: the next loop takes it up and writes it."""
    history = History(1, frozenset(filter(None, [mistake])))
    opened = Draft("run_asked", history.now(), "outside", body={"barred": []}, key="k")
    history.dice.is_calm = True
    history.append("run/m/1", opened, expect_seq=None, fence=None)
    history.world.full_until = float("inf")
    step = {"seen": {}, "now": 0.0, "release": 1, "cause": "", "declaration": "declared-0"}
    with pytest.raises(LedgerError, match="the disk is full"):
        history.append("run/m/1", Draft("opened", 0.0, "loop", body=step), expect_seq=1, fence=None, is_last=True)  # fmt: skip
    assert len(history.log) == 1
    assert ("run/m/1" in history.streams()) == is_listed


@pytest.mark.parametrize(("mistake", "is_harmed"), [("", False), ("previous_kept", True)])
def test_the_bundle_to_go_back_to_is_not_one_that_regressed_meanwhile(mistake, is_harmed):
    """The champion before is imported again and regresses as candidate; then a person wants the champion gone."""
    old, new = (production.Offer(f"bundle-{n}", f"run/m/{n}", f"data-{n}", f"production/m#{n}", n) for n in (1, 2))  # fmt: skip
    again = old._replace(entry="production/m#9")
    facts = production.Facts(
        "production/m", state=production.State.CANARY, champion=new, previous=old, candidate=again, steps=(0.5,)
    )  # fmt: skip
    place = {"position": 1, "stream": "production/m", "fence": None, "at": 0.0, "prev": ""}
    asked = {"bundle": new.bundle, "with_data": False, "to": "", "actor": "kim"}
    with planted(frozenset(filter(None, [mistake])), with_next_release=False):
        regressed = Draft("regressed", 0.0, "loop", again.ref, body={"cause": "errors"})
        facts = production.fold(facts, seal(regressed, seq=10, **place))
        facts = production.fold(facts, seal(Draft("rollback_asked", 0.0, "kim", body=asked), seq=11, **place))  # fmt: skip
        answers = {arm["bundle"] for arm in production.routes(facts)}
        if facts.unwanted:
            rolled_back = Draft(
                "rolled_back", 0.0, "loop", (new.bundle,), body={"cause": "by hand"}
            )
            facts = production.fold(facts, seal(rolled_back, seq=12, **place))
            answers = {arm["bundle"] for arm in production.routes(facts)}
    assert (old.bundle in answers) == is_harmed


def test_loops_of_two_releases_take_turns_and_leave_nothing_behind():
    of_this = [getattr(module, name) for module, name, _ in releases.SWAPPED]
    said_by = set()
    for seed in itertools.count():
        history = History(seed)
        assert history.run() == []
        said_by |= {(e.body["release"], e.kind) for e in history.log if "release" in e.body}
        if {(1, "offered"), (2, "offered"), (2, "carded")} <= said_by:
            break
    assert (1, "carded") not in said_by
    assert [getattr(module, name) for module, name, _ in releases.SWAPPED] == of_this
