"""Each message once for each receiver, whatever fails, and repeats carry the same id."""

import itertools

import pytest
from adapters.notify.receivers import a_message

from gyrostat.adapters.notify import outbox
from gyrostat.adapters.notify.address import UndeliveredError
from gyrostat.adapters.notify.outbox import News, Place
from gyrostat.adapters.notify.settings import WHEN, Command, identity

MINUTE = 60.0


class Receiver:
    """Takes what it is told, or fails as it is asked to."""

    def __init__(self, tmp_path, when=WHEN):
        self.settings, self.path = Command("true", when), tmp_path / "place.json"
        self.got, self.failures, self.now, self.said = [], [], 1000.0, []

    def drain(self, messages):
        def deliver(message):
            if self.failures and (failure := self.failures.pop(0)):
                raise failure
            self.got.append(message)

        def news(place):
            for position, message in enumerate(messages, 1):
                if position > place.position:
                    yield News(position, message)

        place = outbox.read(self.path) or Place(0)
        return outbox.drain(
            self.path, self.settings, place, news, deliver, clock=lambda: self.now, tell=self.said.append
        )  # fmt: skip


@pytest.fixture
def receiver(tmp_path):
    return Receiver(tmp_path)


def news(n, kind="failed"):
    return [a_message(kind=kind, cause=str(i), id="") for i in range(n)]


def test_everything_is_told_in_order_and_once(receiver):
    receiver.drain(news(3))
    receiver.drain(news(5))
    assert [m.cause for m in receiver.got] == ["0", "1", "2", "3", "4"]
    assert len({m.id for m in receiver.got}) == 5


def test_what_nobody_declared_is_passed_over(tmp_path):
    receiver = Receiver(tmp_path, when=("stuck",))
    place = receiver.drain([*news(2), *news(1, "stuck"), None])
    assert ([m.kind for m in receiver.got], place.position) == (["stuck"], 4)


def test_a_failure_waits_longer_each_time_and_is_told_when_it_ends(receiver):
    receiver.failures = [UndeliveredError("down")] * 3
    waits = []
    for _ in range(3):
        place = receiver.drain(news(2))
        waits.append(place.due - receiver.now)
        receiver.drain(news(2))  # too early: not tried
        receiver.now = place.due
    assert waits == list(outbox.BACKOFF_S[:3])
    place = receiver.drain(news(2))
    assert ([m.cause for m in receiver.got], place.due, place.tries) == (["0", "1"], 0.0, 0)


def test_after_a_day_a_message_is_left_out_and_that_is_said(receiver):
    receiver.failures = [UndeliveredError("down"), UndeliveredError("down"), None]
    receiver.drain(news(2))
    receiver.now += outbox.GIVE_UP_S + MINUTE
    place = receiver.drain(news(2))
    assert ([m.cause for m in receiver.got], place.n_left_out, place.n_told) == (["1"], 1, 1)
    assert "left out" in receiver.said[-1]


def test_a_message_that_is_refused_for_ever_does_not_hold_up_the_next(receiver):
    receiver.failures = [UndeliveredError("400", is_final=True)] * outbox.REFUSALS
    for _ in range(outbox.REFUSALS):
        receiver.now += 3600
        place = receiver.drain(news(2))
    assert ([m.cause for m in receiver.got], place.n_left_out) == (["1"], 1)


def test_whoever_is_killed_between_telling_and_noting_tells_it_again_with_the_same_id(
    receiver, monkeypatch
):
    real, calls = outbox.write, itertools.count()

    def killed(path, place):
        if next(calls) == 1:
            raise KeyboardInterrupt
        real(path, place)

    monkeypatch.setattr(outbox, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        receiver.drain(news(3))
    receiver.drain(news(3))
    assert [m.cause for m in receiver.got] == ["0", "1", "1", "2"]
    assert len({m.id for m in receiver.got}) == 3


def test_the_id_differs_between_receivers():
    one, other = identity(Command("a")), identity(Command("b"))
    assert a_message().to(one).id != a_message().to(other).id
    assert a_message().to(one).id == a_message().to(one).id
