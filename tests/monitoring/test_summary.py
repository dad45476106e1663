"""What is shown: drift and decay within their promises, over seeded runs; and the picture is a fold of the lines."""

import json

import numpy as np
import pytest
from monitoring.builders import T0, a_beat, a_frame, a_known, a_label

from gyrostat.monitoring.drift import FIRST_ROWS, Drift
from gyrostat.monitoring.quality import Quality
from gyrostat.monitoring.settings import DriftSettings, MonitoringSettings
from gyrostat.monitoring.summary import Live
from gyrostat.monitoring.watch import Monitor
from gyrostat.stats.sequential import bet_logs
from gyrostat.terms import Limit

LIMIT = Limit("rmse", max=1.2)


def a_label_line(errors, *, second=1, bundle="b1", limit=LIMIT):
    squared = np.asarray(errors) ** 2
    return {
        "second": second, "labelled_second": second, "routes_seq": 1, "bundle": bundle, "arm": "champion",
        "n_labels": len(squared), "loss": "squared", "loss_sum": float(squared.sum()),
        "loss_sq": float((squared**2).sum()), "hits": 0, "more": {}, "delay_s": 2.0,
        "bets": {"rmse": {"limit": limit.bound, "logs": bet_logs(limit.bound**2, squared).tolist()}},
    }  # fmt: skip


def counts_of(known, values, plans):
    by_name = {"alcohol": values, "plan": plans, "prediction": values}
    return {column.name: column.histogram(by_name[column.name]) for column in known.columns}


def rows(rng, n, shift=0.0):
    return (rng.normal(size=n) + shift).tolist(), ["ab"[i] for i in rng.integers(0, 2, n)]


def test_without_drift_the_budget_of_false_alarms_holds_even_when_it_is_generous():
    # 24 runs of 500 seconds at one alarm in 1,000 s: at most 12 are promised; the bounds are conservative besides.
    known, settings = a_known(), DriftSettings(shift=0.0, false_alarms_per_s=1 / 1000)
    n_alarms = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        drift = Drift(known, settings)
        for second in range(500):
            drift.add(second, 20, counts_of(known, *rows(rng, 20)))
        n_alarms += any(look["is_shown"] for look in drift.as_json().values())
    assert n_alarms <= 12


def test_a_shift_is_shown_soon_after_it_begins_also_after_a_long_quiet_time():
    known, rng = a_known(), np.random.default_rng(1)
    drift = Drift(known, DriftSettings())
    for second in range(300):
        drift.add(second, 100, counts_of(known, *rows(rng, 100)))
    assert not any(look["is_shown"] for look in drift.as_json().values())
    n = 0
    while not drift.as_json()["alcohol"]["is_shown"]:
        drift.add(300 + n, 100, counts_of(known, *rows(rng, 100, shift=1.4)))
        n += 1
        assert n < 20
    found = drift.as_json()
    assert found["alcohol"]["lower"] > 0.25
    assert found["alcohol"]["distance"] == pytest.approx(0.52, abs=0.06)
    assert not found["plan"]["is_shown"]


def test_a_shift_that_is_over_is_no_longer_shown():
    known, rng = a_known(), np.random.default_rng(2)
    drift = Drift(known, DriftSettings())
    for second in range(30):
        drift.add(second, 100, counts_of(known, *rows(rng, 100, shift=2.0)))
    assert drift.as_json()["alcohol"]["is_shown"]
    for second in range(30, 300):
        drift.add(second, 100, counts_of(known, *rows(rng, 100)))
    assert not drift.as_json()["alcohol"]["is_shown"]


def test_a_new_category_is_drift_and_few_rows_say_how_many_are_needed():
    known, rng = a_known(), np.random.default_rng(3)
    drift = Drift(known, DriftSettings())
    drift.add(1, FIRST_ROWS - 1, counts_of(known, *rows(rng, FIRST_ROWS - 1)))
    assert drift.as_json()["plan"]["needs"] == f"{FIRST_ROWS - 1} of {FIRST_ROWS} rows"
    for second in range(2, 30):
        values, _ = rows(rng, 100)
        drift.add(second, 100, counts_of(known, values, ["family"] * 80 + ["a"] * 20))
    assert drift.as_json()["plan"]["is_shown"]


def test_a_champion_within_its_limit_is_called_decayed_in_at_most_one_of_twenty_runs():
    n_decayed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        quality = Quality((Limit("rmse", max=1.0),))
        for _ in range(15):
            quality.add(a_label_line(rng.normal(size=20), limit=Limit("rmse", max=1.0)))
        n_decayed += quality.as_json()["rmse"]["is_decayed"]
    assert n_decayed <= 200 * 0.05 + 3 * (200 * 0.05 * 0.95) ** 0.5


def test_decay_after_a_long_good_time_is_shown_within_few_labels_and_the_value_follows():
    rng, quality = np.random.default_rng(4), Quality((LIMIT,))
    for _ in range(200):
        quality.add(a_label_line(rng.normal(size=50)))
    assert not quality.as_json()["rmse"]["is_decayed"]
    n = 0
    while not quality.as_json()["rmse"]["is_decayed"]:
        quality.add(a_label_line(2.0 * rng.normal(size=20)))
        n += 20
        assert n <= 400
    for _ in range(100):
        quality.add(a_label_line(2.0 * rng.normal(size=20)))
    found = quality.as_json()["rmse"]
    assert LIMIT.bound < found["lower"] < 2.0 < found["upper"]


def a_story(live_kwargs=None):
    """Lines of a champion, then of a second one."""
    known = a_known()
    rng = np.random.default_rng(5)
    monitor = Monitor(reference=lambda _: known, limits=(LIMIT,))
    lines = []
    for second in range(40):
        bundle, seq = ("b1", 1) if second < 25 else ("b2", 2)
        frames = [
            a_frame(
                100 * second + i, at=T0 + second + i / 100, value=float(rng.normal()), bundle=bundle, routes_seq=seq,
                status=500 if i == 0 else 200,
            )
            for i in range(10)
        ]  # fmt: skip
        monitor.take([*(("w0", f) for f in frames), a_beat(T0 + second + 1)], T0 + second + 3)
        monitor.take_labels([a_label(f, f.outputs[0] + 0.5) for f in frames[1:6]], T0 + second + 3)
        lines.append([*monitor.close(T0 + second + 3), *monitor.join(T0 + second + 3)])
    return known, lines


def a_live(known):
    return Live("wine", MonitoringSettings(), reference=lambda _: known, limits=(LIMIT,))


def test_the_picture_is_a_fold_of_the_lines_in_whatever_helpings():
    known, lines = a_story()
    whole, parts = a_live(known), a_live(known)
    whole.fold(line for helping in lines for line in helping)
    for helping in lines:
        parts.fold(helping)
        json.dumps(parts.as_json(T0), allow_nan=False)
    assert whole.as_json(T0 + 50) == parts.as_json(T0 + 50)


def test_the_picture_is_of_the_champion_that_serves_now():
    known, lines = a_story()
    live = a_live(known)
    live.fold(line for helping in lines[:20] for line in helping)
    assert live.as_json(T0)["champion"] == "b1"
    live.fold(line for helping in lines[20:] for line in helping)
    found = live.as_json(T0 + 50, closed=int(T0) + 39, parked=3)
    assert (found["champion"], found["routes_seq"], found["rows"], found["labels"]["n"]) == (
        "b2",
        2,
        150,
        75,
    )
    assert found["labels"]["share"] == 0.5
    assert found["labels"]["parked"] == 3
    assert found["service"]["error_rate"] == pytest.approx(0.1)
    assert found["service"]["requests_per_s"] == pytest.approx(10.0)
    assert found["service"]["p99"] == pytest.approx(0.002, rel=0.05)
    assert found["quality"]["rmse"]["value"] == pytest.approx(0.5)
    assert {(a["bundle"], a["n"]) for a in found["arms"]} == {("b1", 250), ("b2", 150)}


def test_a_model_without_traffic_or_reference_has_a_picture_too():
    live = Live("wine", MonitoringSettings(), reference=lambda _: None)
    assert live.as_json(T0)["service"]["n"] == 0
    _, lines = a_story()
    live.fold(line for helping in lines for line in helping)
    assert live.as_json(T0)["drift"] == {}
    json.dumps(live.as_json(T0), allow_nan=False)
