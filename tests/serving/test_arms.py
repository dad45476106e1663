"""Routes are read strictly; the choice of an arm keeps shares, and keeps a key where it was."""

from types import SimpleNamespace

import pytest
from gyrostat_runtime.flight import InFlight
from serving.bench import WINE, arm

from gyrostat.serving.arms import BadRoutesError, Routes, Served, draw

LOADED = {name: SimpleNamespace(schema=WINE, is_inline=True) for name in ("a", "b", "c")}


def routes(*arms, **changes):
    return {
        "model": "wine",
        "epoch": 1,
        "seq": 1,
        "salt": "s",
        "arms": list(arms),
        "since": 0.0,
    } | changes


def served(share, salt="s"):
    """A champion `a` and a candidate `b` with `share`."""
    value = routes(arm("a", share=1 - share), arm("b", 2, role="candidate", share=share), salt=salt)
    return Served.of(Routes.from_json(value, "wine"), LOADED, 0.0, InFlight())


def keys_of_candidate(n, share, **how):
    now = served(share, **how)
    return {i for i in range(n) if now.choose(b"key %d" % i).spec.bundle == "b"}


def test_keys_fall_into_arms_by_share():
    n = 4000
    # Five standard deviations of a draw of n at 1/4.
    assert abs(len(keys_of_candidate(n, 0.25)) - n / 4) < 5 * (n * 3 / 16) ** 0.5


def test_a_key_that_has_the_candidate_keeps_it_while_its_share_grows():
    small, larger = keys_of_candidate(2000, 0.05), keys_of_candidate(2000, 0.25)
    assert small
    assert small < larger


def test_another_salt_draws_other_keys():
    assert keys_of_candidate(500, 0.25) != keys_of_candidate(500, 0.25, salt="t")
    assert 0 <= draw("", b"") < 1


@pytest.mark.parametrize(("share", "bundle"), [(0.0, "a"), (1.0, "b")])
def test_a_share_of_nothing_gets_nothing_and_of_all_everything(share, bundle):
    now = served(share)
    assert {now.choose(b"k%d" % i if i % 2 else b"").spec.bundle for i in range(400)} == {bundle}


def test_what_a_tester_asks_for_is_counted_in_no_slot_of_the_arms():
    now = served(0.25)
    chosen = now.only("challenger")
    chosen.choose(b"any key").slot.begin()
    assert (chosen.choose(b"").spec.bundle, chosen.champion) == ("b", now.champion)
    in_flight = InFlight()
    now = Served.of(now.routes, LOADED, 0.0, in_flight)
    now.only("champion").choose(b"").slot.begin()
    assert in_flight.debts() == ()


def test_a_shadow_is_never_chosen():
    value = routes(arm("a"), arm("c", 2, role="candidate", share=0.0, shadow=True))
    now = Served.of(Routes.from_json(value, "wine"), LOADED, 0.0, InFlight())
    assert {now.choose(b"").spec.bundle for _ in range(100)} == {"a"}
    assert [a.spec.bundle for a in now.shadows] == ["c"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        routes(),
        routes(arm("a", role="candidate")),
        routes(arm("a", share=0.5), arm("b", share=0.5)),
        routes(arm("a", share=0.5)),
        routes(arm("a", share=float("nan"))),
        routes(arm("a", share=1.5), arm("b", role="candidate", share=-0.5)),
        routes(arm("../a")),
        routes(arm("a"), model="beer"),
        routes(arm("a"), seq="new"),
        routes(arm("a", role="king")),
        routes("a"),
    ],
    ids=repr,
)
def test_routes_that_cannot_be_served_are_refused(value):
    with pytest.raises(BadRoutesError):
        Routes.from_json(value, "wine")
