"""What asks for a new model, and that repeats are one."""

import pytest

from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.retraining.triggers import triggers

ALL = RetrainingSettings(triggers=("decay", "drift", "new_data"), cooldown_s=0.0)


def a_live(
    *, at=1_800_000_000.0, champion="b1" * 32, is_decayed=False, is_drifted=False, n_labels=0
):
    return {
        "at": at,
        "champion": champion,
        "quality": {
            "rmse": {
                "value": 0.9, "lower": 0.8, "upper": 1.0, "limit": 0.7, "n": 890, "is_decayed": is_decayed, "decayed_at": 1_799_999_990 if is_decayed else None,
            }
        },
        "drift": {"alcohol": {"distance": 0.5, "lower": 0.3, "limit": 0.25, "n": 512, "is_shown": is_drifted, "shown_at": 1_799_999_990}},
        "labels": {"n": n_labels},
        "n_trained": 1000,
    }  # fmt: skip


def test_a_healthy_champion_asks_for_nothing_and_no_champion_neither():
    assert triggers(a_live(n_labels=199), ALL) == []
    assert triggers(a_live(champion="", is_decayed=True), ALL) == []


@pytest.mark.parametrize(
    ("changes", "by", "why"),
    [
        ({"is_decayed": True}, "decay", "rmse 0.9 (0.8 to 1) on 890 labels; limit 0.7"),
        ({"is_drifted": True}, "drift", "alcohol moved by 0.50 (at least 0.30; limit 0.25)"),
        (
            {"n_labels": 200},
            "new_data",
            "200 labelled predictions since training on 1,000 rows (20% ask for a new model)",
        ),
    ],
)
def test_each_reason_is_told_with_its_numbers_and_only_where_it_is_declared(changes, by, why):
    (found,) = triggers(a_live(**changes), ALL)
    assert (found.by, found.why) == (by, why)
    assert found.as_body() == {"by": by, "actor": "monitor", "why": why}
    others = tuple(kind for kind in ALL.triggers if kind != by)
    assert triggers(a_live(**changes), RetrainingSettings(triggers=others)) == []


def test_a_reason_that_lasts_has_one_key_until_it_is_time_to_remind():
    def key(at, champion="b1" * 32, cooldown_s=0.0):
        live = a_live(at=at, champion=champion, is_decayed=True)
        return triggers(live, RetrainingSettings(triggers=("decay",), cooldown_s=cooldown_s))[0].key

    start = 1_799_999_990.0
    assert key(start) == key(start + 899)
    assert key(start) != key(start + 900)
    assert key(start) != key(start, champion="b2" * 32)
    assert key(start, cooldown_s=3600.0) == key(start + 1799, cooldown_s=3600.0)


def test_new_data_is_told_once_for_each_share_of_rows():
    keys = {triggers(a_live(n_labels=n), ALL)[0].key for n in range(200, 800)}
    assert len(keys) == 3
