"""A small load generator in a process of its own: as fast as answers come, or at a rate. Prints JSON.

At a rate it is an open loop: every millisecond the requests that are due are sent, or wait for a connection that is
free, and this wait counts. So a server that stops for a while is seen by all requests that came meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import uvloop

TICK_S = 0.001
WARM_UP_S = 0.3
LAST_S = 10.0
"""What is under way at the end is waited for so long."""


class Client(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._needed = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, due: float) -> None:
        """Ask; the latency counts from `due`."""
        self._due = due
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if not self._needed:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._needed = end + 4 + _length(buffer[:end])
        if len(buffer) >= self._needed:
            is_right = buffer[9:12] == b"200"
            self._buffer, self._needed = b"", 0
            self._load.answered(self, self._due, is_right)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r")[0])


class Load:
    """All connections."""

    def __init__(self, request: bytes, per_s: float) -> None:
        self.request, self._per_s = request, per_s
        self.latencies: list[float] = []
        self.n_wrong = 0
        self._idle: list[Client] = []
        self._due: deque[float] = deque()
        self._is_counting = self._is_over = False
        self._n = 0

    async def run(self, port: int, connections: int, seconds: float) -> dict[str, float]:
        """The load, and what was seen of it after the warm-up."""
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: Client(self), "127.0.0.1", port)
            for _ in range(connections)
        ]
        self._idle = [client for _, client in made]
        ticking = asyncio.ensure_future(self._tick()) if self._per_s else None
        if ticking is None:
            while self._idle:
                self._idle.pop().send(time.perf_counter())
        await asyncio.sleep(WARM_UP_S)
        self._is_counting, began = True, time.perf_counter()
        await asyncio.sleep(seconds)
        lasted, self._is_over = time.perf_counter() - began, True
        if ticking is not None:
            await ticking
        for _ in range(int(LAST_S / TICK_S)):  # what is under way is an answer too, or a failure
            if len(self._idle) == connections:
                break
            await asyncio.sleep(TICK_S)
        self.n_wrong += connections - len(self._idle)
        for transport, _ in made:
            transport.close()
        found = sorted(self.latencies)
        return {
            "n": self._n,
            "per_s": len(found) / lasted,
            "p50_ms": 1000 * _quantile(found, 0.5),
            "p99_ms": 1000 * _quantile(found, 0.99),
            "n_wrong": self.n_wrong,
        }

    async def _tick(self) -> None:
        began, sent = time.perf_counter(), 0
        while not self._is_over:
            now = time.perf_counter()
            due = int((now - began) * self._per_s) - sent
            self._due.extend([now] * due)
            sent += due
            while self._due and self._idle:
                self._idle.pop().send(self._due.popleft())
            await asyncio.sleep(TICK_S)

    def answered(self, client: Client, due: float, is_right: bool) -> None:
        """One answer is here."""
        now = time.perf_counter()
        self._n += 1
        self.n_wrong += not is_right
        if self._is_counting and not self._is_over:
            self.latencies.append(now - due)
        if self._is_over:
            self._idle.append(client)
        elif not self._per_s:
            client.send(now)
        elif self._due:
            client.send(self._due.popleft())
        else:
            self._idle.append(client)

    def lost(self, client: Client) -> None:
        """A connection is gone. It is never idle again; the end counts those."""
        if client in self._idle:
            self._idle.remove(client)


def _quantile(found: list[float], share: float) -> float:
    return found[min(int(share * len(found)), len(found) - 1)] if found else float("nan")


def main() -> None:
    """Load one server."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("port", type=int)
    asked.add_argument("path")
    asked.add_argument("body", type=Path, help="A file with the body of every request.")
    asked.add_argument("--connections", type=int, default=64)
    asked.add_argument("--seconds", type=float, default=2.0)
    asked.add_argument("--per-s", type=float, default=0.0, help="0: as fast as answers come.")
    told = asked.parse_args()
    body = told.body.read_bytes()
    request = (
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (told.path.encode(), len(body), body)
    )
    load = Load(request, told.per_s)
    print(json.dumps(uvloop.run(load.run(told.port, told.connections, told.seconds))))


if __name__ == "__main__":
    main()
