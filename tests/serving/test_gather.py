"""Requests of a slow model share calls: nobody waits for company, and a bad neighbour costs nobody an answer."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from gyrostat_runtime.errors import ModelFault
from gyrostat_runtime.rows import Rows
from gyrostat_runtime.session import Predictions

from gyrostat.serving.gather import MOST_ROWS, Gather

POISON, BUG = -1.0, -2.0


def rows(*values: float) -> Rows:
    num = np.array([[v] for v in values])
    return Rows(len(values), [], num, np.array([["a"]] * len(values), dtype=object), {}, {})


class Slow:
    """A model that answers twice the value, and lets go of its first call only when told."""

    def __init__(self):
        self.calls = []
        self.is_let_go = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def predict(self, rows):
        self.calls.append(rows.num[:, 0].tolist())
        if len(self.calls) == 1:
            asyncio.run_coroutine_threadsafe(self.is_let_go.wait(), self.loop).result(10)
        if POISON in self.calls[-1]:
            raise ModelFault("poison", code="model.failed")
        if BUG in self.calls[-1]:
            raise ZeroDivisionError
        assert rows.cat.shape == (rows.n, 1)
        doubled = rows.num[:, 0] * 2
        return Predictions(doubled.tolist(), doubled)


def together(*asked: Rows, at_once: int = 1) -> SimpleNamespace:
    """What comes of these requests, the first of which is under way when the others come."""

    async def go():
        model, counted = Slow(), []
        with ThreadPoolExecutor(4) as pool:
            gather = Gather(model, pool, at_once=at_once, count=counted.append)
            tasks = [asyncio.create_task(gather.predict(one)) for one in asked[:1]]
            while not model.calls:
                await asyncio.sleep(0.001)
            tasks += [asyncio.create_task(gather.predict(one)) for one in asked[1:]]
            await asyncio.sleep(0.01)
            model.is_let_go.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        values = [f.values if isinstance(f, Predictions) else type(f) for f in found]
        return SimpleNamespace(values=values, calls=model.calls, counted=counted)

    return asyncio.run(go())


def test_an_idle_model_is_asked_at_once_and_what_comes_meanwhile_shares_the_next_call():
    seen = together(rows(1.0), rows(2.0), rows(3.0, 4.0), rows(5.0))
    assert seen.values == [[2.0], [4.0], [6.0, 8.0], [10.0]]
    assert seen.calls == [[1.0], [2.0, 3.0, 4.0, 5.0]]
    assert seen.counted == [1, 3]


@pytest.mark.parametrize(("bad", "fault"), [(POISON, ModelFault), (BUG, ZeroDivisionError)])
def test_what_the_model_cannot_answer_fails_alone(bad, fault):
    seen = together(rows(1.0), rows(2.0), rows(bad), rows(3.0))
    assert seen.values == [[2.0], [4.0], fault, [6.0]]


def test_a_call_grows_no_larger_than_its_deadline_allows():
    many = [rows(*range(MOST_ROWS // 2 + 1)) for _ in range(3)]
    seen = together(rows(1.0), *many)
    assert [len(call) for call in seen.calls] == [1, *[MOST_ROWS // 2 + 1] * 3]
    assert seen.values[1:] == [[2.0 * v for v in range(MOST_ROWS // 2 + 1)]] * 3


def test_a_model_that_may_be_asked_twice_at_once_is():
    seen = together(rows(1.0), rows(2.0), at_once=2)
    assert seen.calls == [[1.0], [2.0]]


def test_who_asks_again_as_soon_as_it_was_answered_is_answered_too():
    """The call before is over then, but its task has not been put away."""

    async def go():
        model = Slow()
        model.is_let_go.set()
        with ThreadPoolExecutor(4) as pool:
            gather = Gather(model, pool, at_once=1, count=lambda n: None)
            return [(await gather.predict(rows(float(n)))).values for n in range(20)]

    answered = asyncio.run(asyncio.wait_for(go(), 30))
    assert answered == [[2.0 * n] for n in range(20)]


def test_a_client_that_is_gone_costs_no_call():
    async def go():
        model = Slow()
        with ThreadPoolExecutor(4) as pool:
            gather = Gather(model, pool, at_once=1, count=lambda n: None)
            first = asyncio.create_task(gather.predict(rows(1.0)))
            while not model.calls:
                await asyncio.sleep(0.001)
            gone = asyncio.create_task(gather.predict(rows(2.0)))
            last = asyncio.create_task(gather.predict(rows(3.0)))
            await asyncio.sleep(0.001)
            gone.cancel()
            await asyncio.sleep(0.01)
            model.is_let_go.set()
            assert [(await one).values for one in (first, last)] == [[2.0], [6.0]]
            return model.calls

    assert asyncio.run(go()) == [[1.0], [3.0]]
