"""Answers that leave only once their place in the log is on the disk: one fsync serves all that wait for one."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from gyrostat_runtime.log import Writer


class Commits:
    """Group commit of one model's log. On the event loop; the disk is waited for in a thread of its own."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, "commit")
        self._next: asyncio.Future[bool] | None = None
        self._running: asyncio.Task[None] | None = None

    async def done(self) -> bool:
        """Wait until all that was appended before this call is on the disk; False where the disk does not take it."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._running is None:
                self._running = asyncio.create_task(self._run())
        return await asyncio.shield(self._next)

    def close(self) -> None:
        """End the thread; nobody waits any more."""
        self._thread.shutdown()

    async def _run(self) -> None:
        # A sync that is under way began before the newest frames were there, so they wait for the one after it.
        while (waited := self._next) is not None:
            self._next = None
            try:
                run = asyncio.get_running_loop().run_in_executor
                waited.set_result(await run(self._thread, self._writer.sync))
            except Exception as fault:  # noqa: BLE001 - whatever it is, those who wait hear of it
                waited.set_exception(fault)
        self._running = None
