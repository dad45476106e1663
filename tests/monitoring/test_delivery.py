"""However often and in whatever order events come, the counts and the bets are those of a clean stream, to the last bit (I5, R21, R22)."""

import random

import pytest
from gyrostat_runtime.log import Label
from hypothesis import given
from hypothesis import strategies as st
from monitoring.builders import T0, a_beat, a_frame, a_known, a_label, an_id

from gyrostat.monitoring.settings import MonitoringSettings
from gyrostat.monitoring.summary import Live
from gyrostat.monitoring.watch import Monitor
from gyrostat.terms import Limit

LIMITS = (Limit("rmse", max=1.0),)
KNOWN = a_known()
ARMS = [("b1", "champion", 1), ("b2", "canary", 2), ("b3", "shadow", 2)]


def a_monitor(**changes):
    return Monitor(**{"reference": lambda _: KNOWN, "limits": LIMITS} | changes)


predictions = st.lists(
    st.tuples(st.floats(0.0, 3.9), st.sampled_from(ARMS), st.floats(-4.0, 4.0)),
    min_size=1, max_size=12,
)  # fmt: skip
labelled = st.lists(
    st.tuples(st.integers(0, 14), st.floats(-4.0, 4.0), st.sampled_from(["", ".0", ".00", ".3"])),
    max_size=25,
)


@given(predictions, labelled, st.lists(st.integers(1, 5), min_size=40, max_size=40), st.randoms())
def test_delivered_up_to_five_times_and_shuffled_it_is_a_clean_stream(frames, labels, times, dice):
    made = [
        a_frame(n, at=T0 + after, value=value, bundle=bundle, arm=arm, routes_seq=seq)
        for n, (after, (bundle, arm, seq), value) in enumerate(frames)
    ]
    told = [  # some of them for predictions that nobody made
        Label(an_id(T0 + (frames[n][0] if n < len(frames) else 1), n) + row, value, T0 + 5 + i / 100, "test")
        for i, (n, value, row) in enumerate(labels)
    ]  # fmt: skip

    def come_to(events):
        monitor = a_monitor(mature_after_s=30.0)
        while events:
            n = dice.randint(1, len(events))
            part, events = events[:n], events[n:]
            monitor.take([("w0", e) for e in part if not isinstance(e, Label)], T0 + 8)
            monitor.take_labels([e for e in part if isinstance(e, Label)], T0 + 8)
            assert monitor.join(T0 + 8) == []
        monitor.take([a_beat(T0 + 9)], T0 + 9)
        lines = monitor.close(T0 + 9) + monitor.join(T0 + 60) + monitor.join(T0 + 600)
        live = Live("wine", MonitoringSettings(), reference=lambda _: KNOWN, limits=LIMITS)
        live.fold(lines)
        return lines, live.as_json(T0 + 600), monitor.counts["unknown"], monitor.n_parked

    clean = come_to([*made, *told])
    hostile = [e for e, n in zip([*made, *told], times, strict=False) for _ in range(n)]
    dice.shuffle(hostile)
    assert come_to(hostile) == clean
    assert sum(line["n"] for line in clean[0] if "n" in line) == len(frames)


@pytest.mark.parametrize("seed", range(4))
def test_of_contradicting_labels_the_latest_in_the_log_counts_whatever_batches_they_come_in(seed):
    frame = a_frame(1, at=T0, value=1.0)
    labels = [
        a_label(frame, float(n), row=row, after=n) for n, row in enumerate([None, 0, None, 0])
    ]
    dice, monitor = random.Random(seed), a_monitor(mature_after_s=10.0)
    dice.shuffle(labels)
    monitor.take([("w0", frame)], T0 + 1)
    for label in labels:
        monitor.take_labels([label], T0 + 5)
        assert monitor.join(T0 + 5) == []
    assert monitor.n_parked == 1
    (line,) = monitor.join(T0 + 11)
    assert (line["n_labels"], line["loss_sum"], line["delay_s"]) == (1, 4.0, 3.0)
    assert monitor.counts["changed"] == 3


def test_a_label_that_contradicts_one_already_counted_is_counted_as_that_and_changes_nothing():
    frame, monitor = a_frame(1, at=T0, value=1.0), a_monitor()
    monitor.take([("w0", frame)], T0 + 1)
    monitor.take_labels([a_label(frame, 2.0)], T0 + 2)
    assert len(monitor.join(T0 + 2)) == 1
    monitor.take_labels([a_label(frame, 9.0, after=3.0), a_label(frame, 2.0, after=4.0)], T0 + 5)
    assert monitor.join(T0 + 5) == []
    assert (monitor.counts["changed"], monitor.counts["doubled"], monitor.n_parked) == (1, 1, 0)


def test_a_label_for_a_version_that_was_rolled_back_counts_for_that_version_alone():
    monitor = a_monitor()
    removed = a_frame(1, at=T0, value=1.0, bundle="b2", arm="canary", routes_seq=7)
    after = a_frame(2, at=T0 + 5, value=1.0, routes_seq=9)
    monitor.take([("w0", removed), ("w0", after), a_beat(T0 + 9)], T0 + 9)
    closed = monitor.close(T0 + 9)
    assert [line["n"] for line in closed] == [1, 1]
    monitor.take_labels([a_label(removed, 3.0, after=60.0)], T0 + 60)
    (line,) = monitor.join(T0 + 60)
    assert (line["bundle"], line["routes_seq"], line["arm"]) == ("b2", 7, "canary")
    assert (line["labelled_second"], line["second"]) == (int(T0), int(T0 + 60))
    assert monitor.close(T0 + 60) == []


def test_what_is_dated_in_the_future_moves_no_closed_second_and_holds_nothing():
    monitor = a_monitor()
    now = a_frame(1, at=T0, value=1.0)
    ahead = a_frame(2, at=T0 + 3600, value=1.0)  # a server whose clock is an hour ahead
    monitor.take([("w0", now), ("w1", ahead), a_beat(T0 + 3)], T0 + 3)
    (line,) = monitor.close(T0 + 3)
    assert (line["second"], line["n"], monitor.closed) == (int(T0), 1, int(T0 + 1))
    labels = [
        a_label(now, 3.0, after=9e8),
        *[Label(an_id(T0 + 2e8, n), 1.0, T0 + 3) for n in range(9)],
    ]
    monitor.take_labels(labels, T0 + 3)
    assert (monitor.counts["unknown"], monitor.n_parked) == (9, 1)
    (line,) = monitor.join(T0 + 3)
    assert (line["second"], line["labelled_second"], line["n_labels"]) == (int(T0 + 3), int(T0), 1)
    assert monitor.close(T0 + 3) == []


@pytest.mark.parametrize("row", ["²", "x", "-1", "1" * 70, "0.0", ""])
def test_a_label_whose_row_is_no_number_does_no_harm(row):
    frame, monitor = a_frame(1, at=T0, value=1.0), a_monitor()
    monitor.take([("w0", frame)], T0 + 1)
    monitor.take_labels([Label(f"{frame.id}.{row}", 1.0, T0 + 1)], T0 + 1)
    monitor.join(T0 + 1)
    assert monitor.n_parked == 0
