"""One JSON line for each request, and W3C trace context, so that a request can be followed through other people's systems."""

from __future__ import annotations

import contextlib
import re
import secrets
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gyrostat.serving.answers import encode

TRACE_HEADER, TRACE_RESPONSE = b"traceparent", b"traceresponse"
FLUSH_S = 0.2
MOST_LINES = 50_000
LARGEST = 50_000_000
"""Bytes of a file; then it becomes `.1`, in place of the one before."""
ID = "gyrostat.id"
"""In the scope of a request: what its answer calls itself."""
_TRACE = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Trace:
    """Of one request: the trace that it belongs to, who called us in it, and what this server's part is called."""

    trace_id: str
    parent_id: str
    span_id: str
    flags: str

    @classmethod
    def of(cls, header: bytes) -> Trace | None:
        """The trace of a `traceparent` header (W3C Trace Context, level 1); None for what is none."""
        if not _TRACE.match(header[:55]) or (len(header) > 55 and header[:2] == b"00"):
            return None
        _, trace_id, parent_id, flags = header[:55].decode().split("-")
        return cls(trace_id, parent_id, secrets.token_hex(8), flags)

    @property
    def response(self) -> bytes:
        """The `traceresponse` header that tells the caller of our part."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}".encode()


class AccessLog:
    """Writes lines in groups, from a thread of its own: no answer waits for it.

    What does not fit (a disk that takes nothing) is dropped and counted; a later line says how many.

    Args:
        path: None: standard output.
    """

    def __init__(self, path: Path | None, worker: str) -> None:
        self._path, self._worker = path, worker
        self._lines: deque[bytes] = deque()
        self.n_dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="access log", daemon=True)
        self._thread.start()

    def add(
        self, method: str, path: str, status: int, seconds: float, *,
        n_in: int, n_out: int, client: str, id: str = "", trace: Trace | None = None,
    ) -> None:  # fmt: skip
        """A request was answered. `path` is without its query, which may hold anything."""
        if len(self._lines) >= MOST_LINES:
            self.n_dropped += 1
            return
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"), "worker": self._worker,
            "client": client, "method": method, "path": path[:200], "status": status, "ms": round(1000 * seconds, 3),
            "bytes_in": n_in, "bytes_out": n_out,
        }  # fmt: skip
        if id:
            line["id"] = id
        if trace is not None:
            line |= {
                "trace_id": trace.trace_id,
                "span_id": trace.span_id,
                "parent_id": trace.parent_id,
            }
        self._lines.append(encode(line))

    def flush(self) -> None:
        """Write what was added."""
        # One by one: another thread adds meanwhile, and what it adds must be in the one or in the next group.
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        if self.n_dropped:
            lines.append(encode({"worker": self._worker, "dropped": self.n_dropped}))
        data = b"\n".join(lines) + b"\n"
        try:
            if self._path is None:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            else:
                self._turn(self._path)
                with self._path.open("ab") as file:
                    file.write(data)
            self.n_dropped = 0
        except (OSError, ValueError):  # a full disk; an output that was closed
            self.n_dropped += len(lines) - bool(self.n_dropped)

    def close(self) -> None:
        """Write what is left."""
        self._stop.set()
        self._thread.join()
        self.flush()

    def _turn(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size >= LARGEST:
                path.replace(path.with_name(f"{path.name}.1"))

    def _keep(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self.flush()


class Followed:
    """The app with a line for each of its requests, where lines are wanted, and `traceresponse` for who sent a trace."""

    def __init__(self, app: ASGIApp, lines: AccessLog | None) -> None:
        self._app, self._lines = app, lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, n_in, n_out, status = time.perf_counter(), 0, 0, 500
        trace = Trace.of(dict(scope["headers"]).get(TRACE_HEADER, b""))

        async def counted() -> Message:
            nonlocal n_in
            message = await receive()
            n_in += len(message.get("body", b""))
            return message

        async def told(message: Message) -> None:
            nonlocal n_out, status
            if message["type"] == "http.response.start":
                status = message["status"]
                if trace is not None:
                    headers = [*message["headers"], (TRACE_RESPONSE, trace.response)]
                    message = {**message, "headers": headers}
            n_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted, told)
        finally:
            if self._lines is not None:
                self._lines.add(
                    scope["method"], scope["path"], status, time.perf_counter() - began, n_in=n_in, n_out=n_out,
                    client=address(scope.get("client")), id=scope.get(ID, ""), trace=trace,
                )  # fmt: skip


def address(client: Any) -> str:
    """Who asked, without the port."""
    return str(client[0]) if client else ""
