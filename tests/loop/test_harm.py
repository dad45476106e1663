"""Which changes lie closest before harm."""

import pytest

from gyrostat.ledger.chain import seal
from gyrostat.loop import harm
from gyrostat.terms import Draft


def entries(*told):
    """Of `(at, kind, by)`."""
    made = []
    for n, (at, kind, by) in enumerate(told, 1):
        draft = Draft(kind, at, "kim", body={"by": by})
        made.append(seal(draft, position=n, stream="production/wine", seq=n, fence=None, at=at, prev=""))  # fmt: skip
    return made


def test_harm_is_dated_by_its_first_sign_and_older_harm_is_another():
    found = entries((0, "regressed", ""), (9000, "triggered", "decay"), (9500, "champion_regressed", ""))  # fmt: skip
    assert harm.onset(found) == found[1]
    assert harm.onset(found[:1]) == found[0]


@pytest.mark.parametrize("by", ["drift", "person", "new_data"])
def test_a_wanted_run_is_harm_only_by_decay(by):
    assert harm.onset(entries((0, "triggered", by))) is None


def test_the_closest_change_before_comes_first_and_what_came_after_is_no_cause():
    found = entries((0, "declared", ""), (50, "triggered", "drift"), (60, "trained", ""), (90, "promoted", ""),
                    (100, "champion_regressed", ""), (101, "declared", ""))  # fmt: skip
    closest = harm.closest(found, found[4])
    assert [e.kind for e in closest] == ["promoted", "triggered", "declared"]
    assert harm.closest(found, found[4], n=1) == [found[3]]


def test_of_two_at_one_moment_the_later_entry_is_closer():
    found = entries((5, "declared", ""), (5, "promoted", ""), (5, "regressed", ""))
    assert [e.kind for e in harm.closest(found, found[2])] == ["promoted", "declared"]
