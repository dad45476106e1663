"""Requests that wait while a slow model answers others are asked of it together. Nobody waits for company."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from gyrostat_runtime.rows import Rows
from gyrostat_runtime.session import Predictions, Session

MOST_ROWS = 64
"""Of one call, unless one request alone has more: a call has a deadline, and who comes first should not wait for all."""
ENDED, RESTART_S = ("model.died", "model.timeout", "model.memory"), 0.5
"""A native model whose process ended twice in a row is started again after 0.4 s; so long the neighbours wait."""


@dataclass(frozen=True, slots=True)
class _Request:
    rows: Rows
    answer: asyncio.Future[Predictions]


class Gather:
    """The way to one slow model. On the event loop; the model is asked in the executor's threads.

    An idle model is asked at once. What comes while it is busy waits, and the next call takes all that waits, in its
    order. Rows are checked before they get here; should the model fail on rows together, each request is asked alone, so
    that none suffers for its neighbours.

    Args:
        at_once: Calls that may run side by side.
        count: Told how many requests a call answers.
    """

    def __init__(
        self, session: Session, executor: Executor, *, at_once: int, count: Callable[[int], None]
    ) -> None:
        self._session, self._executor, self._at_once = session, executor, at_once
        self._count = count
        self._waiting: deque[_Request] = deque()
        self._n_calls = 0
        self._calls: set[asyncio.Task[None]] = set()
        """Held, or nobody would."""

    async def predict(self, rows: Rows) -> Predictions:
        """As `Session.predict`.

        Raises:
            ModelFault: the model did not answer these rows.
        """
        request = _Request(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._n_calls < self._at_once:
            self._n_calls += 1
            call = asyncio.create_task(self._call())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return await request.answer

    async def _call(self) -> None:
        while together := self._take():
            if len(together) > 1 and await self._answer(together) is None:
                continue
            for request in together:
                if fault := await self._answer([request]):
                    _fail(request, fault)
                    if len(together) > 1 and getattr(fault, "code", "") in ENDED:
                        await asyncio.sleep(RESTART_S)
        self._n_calls -= 1  # in the same breath as it found nobody: who comes now begins a call

    def _take(self) -> list[_Request]:
        """The oldest, and what fits beside it."""
        found: list[_Request] = []
        n = 0
        while self._waiting and (not found or n + self._waiting[0].rows.n <= MOST_ROWS):
            request = self._waiting.popleft()
            if not request.answer.done():  # its client may have gone
                found.append(request)
                n += request.rows.n
        return found

    async def _answer(self, together: list[_Request]) -> Exception | None:
        """Why the model did not answer these; None: it did."""
        self._count(len(together))
        rows = together[0].rows if len(together) == 1 else _joined([r.rows for r in together])
        run = asyncio.get_running_loop().run_in_executor
        try:
            found = await run(self._executor, self._session.predict, rows)
        except Exception as fault:  # noqa: BLE001 - it is whoever asked who hears of it
            return fault
        start = 0
        for request in together:
            end = start + request.rows.n
            if not request.answer.done():
                request.answer.set_result(
                    Predictions(found.values[start:end], found.scores[start:end])
                )
            start = end
        return None


def _fail(request: _Request, fault: Exception) -> None:
    if not request.answer.done():
        request.answer.set_exception(fault)


def _joined(parts: list[Rows]) -> Rows:
    """Of one schema, so they have the same matrices."""
    num, cat = _stacked([p.num for p in parts]), _stacked([p.cat for p in parts])
    return Rows(sum(p.n for p in parts), [], num, cat, {}, {})


def _stacked(parts: list[np.ndarray | None]) -> np.ndarray | None:
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if found else None
