"""When a schedule comes due, against walking through every second minute of the zone's real clock."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gyrostat.schedule import Schedule, check, last_due, next_due

BERLIN = "Europe/Berlin"


def seconds(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def local(at: float, zone: str = BERLIN) -> str:
    return datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%m-%d %H:%M %Z")


def dues(schedule: Schedule, after: float, until: float) -> list[float]:
    found = []
    while (after := next_due([schedule], after)) <= until:
        found.append(after)
    return found


def walked(minutes: set[int], hours: set[int], weekdays: set[int], zone: str, after: float, until: float) -> list[float]:  # fmt: skip
    """The same by brute force: watch the zone's clock minute by minute, and note what it skips and what it repeats."""
    there, found, seen = ZoneInfo(zone), [], set()
    at = int(after // 60 * 60) - 2 * 86400
    shown = datetime.fromtimestamp(at, there).replace(tzinfo=None)
    while (at := at + 60) <= until:
        before, shown = shown, datetime.fromtimestamp(at, there).replace(tzinfo=None)
        passed, skipped = [], before + timedelta(minutes=1)
        while skipped <= shown:  # none where the clock went back, many where it jumped
            passed.append(skipped)
            skipped += timedelta(minutes=1)
        for time in passed or [shown]:
            is_due = time.minute in minutes and time.hour in hours and time.isoweekday() % 7 in weekdays  # fmt: skip
            if is_due and time not in seen:
                found.append(float(at))
            seen.add(time)
    return sorted({t for t in found if after < t <= until})


CLOCKS = st.sampled_from(
    [
        (BERLIN, "2026-03-29T01:00"), (BERLIN, "2026-10-25T01:00"), ("America/New_York", "2026-11-01T06:00"),
        ("Australia/Lord_Howe", "2026-04-04T15:00"), ("Australia/Lord_Howe", "2026-10-03T15:30"), ("Asia/Seoul", "2026-05-05T00:00"),
        ("Pacific/Apia", "2011-12-30T10:00"), ("Asia/Kathmandu", "1985-12-31T18:30"), ("UTC", "2026-01-01T00:00"),
        ("America/Sao_Paulo", "2018-11-04T03:00"),
    ]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    clock=CLOCKS,
    minutes=st.sets(st.sampled_from([0, 15, 30, 45, 59]), min_size=1),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=5),
    weekdays=st.sets(st.integers(0, 6), min_size=1),
    shift=st.integers(-36 * 60, 36 * 60),
)
def test_comes_due_as_the_zones_clock_shows(clock, minutes, hours, weekdays, shift):
    zone, middle = clock
    after = seconds(middle) + 60 * shift - 86400
    cron = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * {','.join(map(str, weekdays))}"
    schedule = Schedule(cron, zone)
    expected = walked(minutes, hours, weekdays, zone, after, after + 2.5 * 86400)
    assert dues(schedule, after, after + 2.5 * 86400) == expected
    last = last_due([schedule], after, after + 2.5 * 86400)
    assert last == (expected[-1] if expected else None)


@settings(max_examples=200, deadline=None)
@given(clock=CLOCKS, after=st.floats(-2e5, 2e5), span=st.floats(0, 4e5))
def test_the_last_is_the_last_of_all(clock, after, span):
    zone, middle = clock
    schedule, after = Schedule("*/20 0-4,12 * * *", zone), seconds(middle) + after
    assert last_due([schedule], after, after + span) == max(dues(schedule, after, after + span), default=None)  # fmt: skip


def test_a_time_that_the_clock_skips_comes_right_after_the_gap():
    found = dues(Schedule("30 2 * * *", BERLIN), seconds("2026-03-28"), seconds("2026-03-31"))
    assert [local(at) for at in found] == ["03-28 02:30 CET", "03-29 03:00 CEST", "03-30 02:30 CEST"]  # fmt: skip


def test_a_time_that_comes_twice_counts_once():
    found = dues(Schedule("30 2 * * *", BERLIN), seconds("2026-10-24"), seconds("2026-10-27"))
    assert [local(at) for at in found] == ["10-24 02:30 CEST", "10-25 02:30 CEST", "10-26 02:30 CET"]  # fmt: skip


def test_in_the_second_of_two_hours_the_last_is_of_the_first():
    schedule, until = Schedule("*/15 2 * * *", BERLIN), seconds("2026-10-25T01:10")
    assert local(until) == "10-25 02:10 CET"
    last = last_due([schedule], until - 86400, until)
    assert last is not None
    assert local(last) == "10-25 02:45 CEST"


def test_a_month_without_the_day_is_passed_over():
    found = dues(Schedule("0 0 31 * *"), seconds("2026-01-01"), seconds("2026-08-01"))
    assert [local(at, "UTC")[:5] for at in found] == ["01-31", "03-31", "05-31", "07-31"]


def test_a_leap_day_is_waited_for():
    assert next_due([Schedule("0 0 29 2 *")], seconds("2096-03-01")) == seconds("2104-02-29")


def test_day_of_month_or_day_of_week_as_cron_has_it():
    found = dues(Schedule("0 0 13 * fri"), seconds("2026-02-01"), seconds("2026-02-28"))
    assert [local(at, "UTC")[3:5] for at in found] == ["06", "13", "20", "27"]
    found = dues(Schedule("0 0 14 * fri"), seconds("2026-02-01"), seconds("2026-02-28"))
    assert [local(at, "UTC")[3:5] for at in found] == ["06", "13", "14", "20", "27"]


def test_the_first_of_several_comes_first():
    both = [Schedule("0 6 * * mon"), Schedule("0 12 1 * *")]
    assert next_due(both, seconds("2026-07-28")) == seconds("2026-08-01T12:00")
    assert next_due([], 0.0) == float("inf")


@pytest.mark.parametrize("cron", ["0 6 3 * *", "*/5 0-23/2 * jan-mar 1-5", "59 23 * * 7", "0 0 * * sat,sun"])  # fmt: skip
def test_cron_as_people_write_it_is_taken(cron):
    check(Schedule(cron, "Asia/Seoul"))


@pytest.mark.parametrize(
    ("cron", "zone", "says"),
    [
        ("0 6 3 *", "UTC", "has 4 fields"),
        ("60 6 3 * *", "UTC", "'60' is no minute. Allowed: 0 to 59"),
        ("0 6 3 * 8", "UTC", "day of the week"),
        ("0 6 0 * *", "UTC", "day of the month"),
        ("0 5-1 * * *", "UTC", "hour"),
        ("*/0 * * * *", "UTC", "minute"),
        ("5/2 * * * *", "UTC", "minute"),
        ("0 0 * foo *", "UTC", "jan, feb"),
        ("² * * * *", "UTC", "minute"),
        ("0 0 31 2 *", "UTC", "never comes"),
        ("0 0 * * *", "Mars/Olympus", "no time zone"),
        ("0 0 * * *", "../etc/passwd", "no time zone"),
        ("0 0 * * *", "", "no time zone"),
    ],
)
def test_what_cannot_be_followed_is_refused(cron, zone, says):
    with pytest.raises(ValueError, match=says):
        check(Schedule(cron, zone))


def test_the_same_moment_is_the_same_in_any_zone():
    at = seconds("2026-06-01T07:00", BERLIN)
    assert next_due([Schedule("0 14 * * *", "Asia/Seoul")], at - 1) == at
    assert datetime.fromtimestamp(at, UTC).hour == 5
