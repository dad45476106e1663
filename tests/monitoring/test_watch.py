"""The monitor counts what was said: each event once, whatever the order, and labels late, twice or for nothing."""

import itertools

import numpy as np
import pytest
from gyrostat_runtime.flight import Debt
from gyrostat_runtime.log import Label, Owed, Sealed
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from monitoring.builders import T0, a_beat, a_frame, a_known, a_label, an_id

from gyrostat.monitoring.reference import Reference
from gyrostat.monitoring.watch import RECENT, Monitor
from gyrostat.stats.sequential import LimitTest
from gyrostat.terms import Limit


def a_monitor(task="regression", **changes):
    known = a_known(task)
    return Monitor(
        **{
            "reference": lambda bundle: known if bundle.startswith("b") else None,
            "limits": (Limit("rmse", max=1.0),),
        }
        | changes
    )


def said(frames, writer="w0"):
    return [(writer, frame) for frame in frames]


def without_order(lines):
    """Lines about labels are made when labels come; what they say together must not depend on that."""
    traffic = [line for line in lines if "n" in line]
    total = {}
    for line in lines:
        if "n_labels" in line:
            key = (line["labelled_second"], line["routes_seq"], line["bundle"], line["arm"])
            n, loss = total.get(key, (0, 0.0))
            total[key] = (n + line["n_labels"], round(loss + line["loss_sum"], 9))
    return traffic, total


def test_a_second_is_closed_once_every_living_writer_is_past_it():
    monitor = a_monitor()
    monitor.take([*said([a_frame(1, at=T0 + 0.5)]), a_beat(T0 + 3), a_beat(T0 + 0.9, "w1")], T0 + 5)
    assert monitor.close(T0 + 5) == []
    monitor.take([a_beat(T0 + 1.0, "w1")], T0 + 5)
    (line,) = monitor.close(T0 + 5)
    assert (line["second"], line["n"], line["bundle"], line["arm"]) == (
        int(T0),
        1,
        "b1",
        "champion",
    )


@pytest.mark.parametrize("how", ["sealed", "silent"])
def test_a_writer_that_is_sealed_or_silent_holds_nothing_open(how):
    monitor = a_monitor()
    monitor.take([*said([a_frame(1, at=T0 + 0.5)], "w1"), a_beat(T0 + 40)], T0 + 5)
    assert monitor.close(T0 + 5) == []
    if how == "sealed":
        monitor.take([("w1", Sealed("w1", T0 + 6))], T0 + 6)
    monitor.take([a_beat(T0 + 40)], T0 + 40)
    assert [line["n"] for line in monitor.close(T0 + 40)] == [1]


def test_what_is_closed_is_never_changed_and_what_comes_late_counts_in_the_next_second():
    monitor = a_monitor()
    monitor.take([*said([a_frame(1, at=T0 + 0.5)]), a_beat(T0 + 2)], T0 + 3)
    assert len(monitor.close(T0 + 3)) == 1
    monitor.take(
        [*said([a_frame(2, at=T0 + 0.6)], "new"), a_beat(T0 + 4), a_beat(T0 + 4, "new")], T0 + 5
    )
    (line,) = monitor.close(T0 + 5)
    assert line["second"] == int(T0) + 2
    assert monitor.counts["late"] == 1


def test_it_counts_errors_slow_answers_new_and_missing_values_and_bins_of_the_reference():
    monitor = a_monitor(slow_s=lambda seq: 0.01)
    frames = [
        a_frame(1, at=T0, value=-9.0),
        a_frame(2, at=T0, value=9.0, latency_s=0.02, new={"plan": 1}, inputs=[[9.0, "z"]]),
        a_frame(3, at=T0, status=500, outputs=[], scores=[]),
        a_frame(4, at=T0, inputs=[[None, "a"]], missing={"alcohol": 1}),
        a_frame(
            5, at=T0, n=2, inputs=[[True, "a"], [0.0, None]], outputs=[1.0, 2.0], scores=[1.0, 2.0]
        ),
    ]
    monitor.take([*said(frames), a_beat(T0 + 2)], T0 + 3)
    (line,) = monitor.close(T0 + 3)
    assert (line["n"], line["rows"], line["errors"], line["slow"]) == (5, 6, 1, 1)
    assert (line["new"], line["missing"]) == ({"plan": 1}, {"alcohol": 1})
    assert sum(line["hist"]["alcohol"]) == 5
    assert line["hist"]["alcohol"][0] == 1
    assert line["hist"]["alcohol"][-1] == 1
    assert line["hist"]["plan"] == [2, 2, 1]
    assert sum(line["outputs"]) == 5
    assert sum(line["latency"].values()) == 5


def test_what_a_client_chose_the_arm_for_is_evidence_of_nothing():
    monitor = a_monitor()
    asked = [
        a_frame(1, at=T0 + 0.5, is_asked=True),
        a_frame(2, at=T0 + 0.5, arm="candidate", status=500, outputs=[], is_asked=True),
    ]
    plain = a_frame(3, at=T0 + 0.5)
    monitor.take([*said([*asked, plain]), a_beat(T0 + 2)], T0 + 3)
    monitor.take_labels([a_label(frame, 1.0) for frame in (*asked, plain)], T0 + 3)
    assert [(line["arm"], line["n"]) for line in monitor.close(T0 + 3)] == [("champion", 1)]
    assert [line["n_labels"] for line in monitor.join(T0 + 3)] == [1]
    assert (monitor.counts["unusable"], monitor.n_parked) == (2, 0)


def test_arms_bundles_and_routes_are_counted_apart():
    monitor = a_monitor()
    frames = [
        a_frame(1, at=T0),
        a_frame(2, at=T0, arm="candidate", bundle="b2"),
        a_frame(3, at=T0, routes_seq=2),
        a_frame(1, at=T0, arm="shadow", bundle="b2"),
    ]
    monitor.take([*said(frames), a_beat(T0 + 2)], T0 + 3)
    found = [
        (line["routes_seq"], line["bundle"], line["arm"], line["n"])
        for line in monitor.close(T0 + 3)
    ]
    assert sorted(found) == [
        (1, "b1", "champion", 1), (1, "b2", "candidate", 1), (1, "b2", "shadow", 1), (2, "b1", "champion", 1),
    ]  # fmt: skip
    assert monitor.counts["doubled"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_events_delivered_one_to_three_times_in_any_order_give_the_same_counts(seed):
    rng = np.random.default_rng(seed)
    frames = [
        a_frame(
            n,
            at=T0 + n * 0.05,
            arm="candidate" if n % 5 == 0 else "champion",
            value=float(rng.normal()),
        )
        for n in range(200)
    ]
    labels = [a_label(frame, frame.outputs[0] + 0.5) for frame in frames[::2]]

    def lines(frames, labels, n_helpings):
        monitor, found = a_monitor(), []
        for part in np.array_split(np.arange(len(frames)), n_helpings):
            monitor.take(said([frames[i] for i in part]), T0 + 11)
        for part in np.array_split(np.arange(len(labels)), n_helpings):
            monitor.take_labels([labels[i] for i in part], T0 + 11)
            found += monitor.join(T0 + 11)
        monitor.take([a_beat(T0 + 20)], T0 + 21)
        return without_order([*found, *monitor.close(T0 + 21)])

    def shuffled(events):
        again = list(itertools.chain(*([e] * int(rng.integers(1, 4)) for e in events)))
        return [again[i] for i in rng.permutation(len(again))]

    straight = lines(frames, labels, 1)
    assert sum(line["n"] for line in straight[0]) == 200
    assert sum(n for n, _ in straight[1].values()) == 100
    assert lines(shuffled(frames), shuffled(labels), 7) == straight


def test_a_label_counts_for_each_arm_that_answered_and_makes_bets_against_the_limit():
    monitor = a_monitor()
    frames = [a_frame(1, at=T0, value=2.0), a_frame(1, at=T0, value=3.0, arm="shadow", bundle="b2")]
    monitor.take(said(frames), T0 + 1)
    monitor.take_labels([a_label(frames[0], 5.0, after=7.0)], T0 + 8)
    lines = {line["arm"]: line for line in monitor.join(T0 + 8)}
    assert {arm: line["loss_sum"] for arm, line in lines.items()} == {
        "champion": 9.0,
        "shadow": 4.0,
    }
    assert lines["champion"]["more"] == {"absolute": [3.0, 9.0]}
    assert lines["champion"]["delay_s"] == 7.0
    assert lines["shadow"]["pair"] == {
        "n": 1,
        "champion": [9.0, 81.0],
        "shadow": [4.0, 16.0],
        "cross": 36.0,
    }
    assert "pair" not in lines["champion"]
    bets = lines["champion"]["bets"]["rmse"]
    assert bets["limit"] == 1.0
    direct = LimitTest(1.0).add(np.array([9.0])).log_e
    assert LimitTest(1.0).add_bets(bets["logs"]).log_e == pytest.approx(direct)


def test_rows_of_one_request_have_labels_of_their_own():
    monitor = a_monitor()
    frame = a_frame(1, at=T0, n=2, inputs=[[0.0, "a"]] * 2, outputs=[1.0, 2.0], scores=[1.0, 2.0])
    monitor.take(said([frame]), T0 + 1)
    monitor.take_labels(
        [a_label(frame, 1.0, row=0), a_label(frame, 5.0, row=1), a_label(frame, 5.0, row=9)], T0 + 1
    )
    (line,) = monitor.join(T0 + 1)
    assert (line["n_labels"], line["loss_sum"], line["hits"]) == (2, 9.0, 1)
    assert monitor.counts["unusable"] == 1


def test_of_conflicting_labels_the_latest_counts_and_one_already_counted_stays():
    monitor = a_monitor()
    frame = a_frame(1, at=T0, value=1.0)
    monitor.take(said([frame]), T0 + 1)
    monitor.take_labels([a_label(frame, 4.0, after=5.0), a_label(frame, 9.0, after=2.0)], T0 + 6)
    (line,) = monitor.join(T0 + 6)
    assert line["loss_sum"] == 9.0
    monitor.take_labels([a_label(frame, 1.0, after=6.0), a_label(frame, 4.0, after=7.0)], T0 + 8)
    assert monitor.join(T0 + 8) == []
    assert monitor.counts["changed"] == 2


def test_a_label_that_comes_before_its_prediction_waits_and_one_for_nothing_is_counted():
    monitor = a_monitor()
    frame = a_frame(1, at=T0, value=1.0)
    monitor.take_labels(
        [a_label(frame, 2.0), Label(an_id(T0, 99), 1.0, T0), Label("no id", 1.0, T0)], T0 + 1
    )
    assert monitor.join(T0 + 1) == []
    assert monitor.n_parked == 2
    monitor.take(said([frame]), T0 + 2)
    assert [line["n_labels"] for line in monitor.join(T0 + 2)] == [1]
    assert monitor.join(T0 + 200) == []
    assert (monitor.n_parked, monitor.counts["unknown"]) == (0, 2)


def test_rows_younger_than_the_maturity_count_nowhere_yet():
    monitor = a_monitor(mature_after_s=100.0)
    frame = a_frame(1, at=T0, value=1.0)
    monitor.take(said([frame]), T0 + 1)
    monitor.take_labels([a_label(frame, 2.0)], T0 + 2)
    assert monitor.join(T0 + 99) == []
    assert monitor.n_parked == 1
    assert [line["n_labels"] for line in monitor.join(T0 + 100.5)] == [1]


def test_predictions_too_old_for_memory_are_asked_for_and_joined_from_the_log():
    monitor = a_monitor()
    old = a_frame(0, at=T0, value=1.0)
    monitor.take(said([old]), T0 + 1)
    monitor.take(said([a_frame(n, at=T0 + 1) for n in range(1, RECENT + 1)]), T0 + 2)
    monitor.take_labels([a_label(old, 3.0)], T0 + 3)
    assert monitor.join(T0 + 3) == []
    assert monitor.wanted() == [old.id]
    (line,) = monitor.join(T0 + 4, monitor.found([old, old]))
    assert (line["n_labels"], line["loss_sum"]) == (1, 4.0)


def test_classes_are_compared_in_the_file_s_own_spelling():
    monitor = a_monitor("binary", limits=(Limit("accuracy", min=0.5),))
    frames = [a_frame(n, at=T0, outputs=["yes"], scores=[0.8]) for n in range(4)]
    monitor.take(said(frames), T0 + 1)
    monitor.take_labels(
        [a_label(f, label) for f, label in zip(frames, ["yes", "no", "yes", None], strict=True)],
        T0 + 1,
    )
    (line,) = monitor.join(T0 + 1)
    assert (line["loss"], line["n_labels"], line["hits"], line["loss_sum"]) == ("miss", 3, 2, 1.0)
    assert line["more"]["brier"][0] == pytest.approx(0.04 + 0.64 + 0.04)
    assert line["bets"]["accuracy"]["limit"] == 0.5
    assert monitor.counts["unusable"] == 1


@pytest.mark.parametrize("label", ["high", None, True, [1], 1e300])
def test_a_label_that_is_no_number_is_counted_and_does_no_harm(label):
    monitor = a_monitor()
    frame = a_frame(1, at=T0)
    monitor.take(said([frame]), T0 + 1)
    monitor.take_labels([a_label(frame, label)], T0 + 1)
    assert monitor.join(T0 + 1) == []
    assert monitor.counts["unusable"] == 1


def test_booleans_are_counted_in_the_spelling_of_the_file_too_and_dates_are_left_out():
    schema = Schema(
        (Column("smoker", "boolean", categories=("no", "yes")), Column("day", "date")),
        (Feature("smoker", "smoker"), Feature("day_month", "day", "month")),
        Output("regression", "y"),
    )
    number = {"kind": "number", "edges": [0.0], "counts": [5, 5], "n_missing": 0}
    columns = {"smoker": {"column": "smoker", **number}, "day_month": {"column": "day", **number}}
    (column,) = Reference.of(schema, {"n": 10, "columns": columns}).columns
    assert column.histogram([True, False, "yes", "no", "yes", None]) == [2, 3]


SEALED = ("w0", Sealed("w0", T0))


def owed(since, at, n=2, writer="w0"):
    return (writer, Owed(writer, at, since, (Debt(1, "b2", "candidate", n),)))


def test_what_a_dead_writer_owed_is_errors_of_its_arm_and_known_when_it_is_said_again():
    monitor = a_monitor()
    good = a_frame(1, at=T0 + 0.5, bundle="b2", arm="candidate")
    monitor.take([*said([good]), owed(0, T0 + 0.7), owed(0, T0 + 9), SEALED], T0)
    (line,) = monitor.close(T0 + 5)
    assert (line["arm"], line["n"], line["rows"], line["errors"]) == ("candidate", 3, 1, 2)
    assert sum(line["latency"].values()) == 1
    monitor.take([owed(0, T0 + 6), owed(4, T0 + 6), SEALED], T0 + 6)
    assert [line["errors"] for line in monitor.close(T0 + 9)] == [2]


def test_a_mark_says_of_what_was_owed_only_what_stands_in_closed_seconds():
    monitor = a_monitor()
    # A clock that was set back: the later debt must not be closed before the earlier one.
    monitor.take([owed(0, T0 + 0.5), owed(1, T0 + 8.5), owed(2, T0 + 3.5), SEALED], T0)
    assert monitor.owed == {}
    monitor.close(T0 + 6)
    assert monitor.owed == {"w0": 0}
    again = a_monitor(closed=monitor.closed)
    again.recall_owed(monitor.owed)
    again.take([owed(0, T0 + 0.5), owed(1, T0 + 8.5), owed(2, T0 + 3.5), SEALED], T0 + 6)
    assert [line["errors"] for line in again.close(T0 + 12)] == [4]
    assert again.owed == {"w0": 2}
