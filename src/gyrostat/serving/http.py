"""The hot route, answered where the bytes arrive: uvicorn's protocol with one short cut.

Limits, keep-alive, pipelining and shutdown stay uvicorn's. A `POST /invocations` on an idle connection to a model
that answers in microseconds is collected and answered in the parser's own callback; everything else, and everything
odd about such a request, goes to the ASGI app, which has the same routes. `HttpToolsProtocol` is a private class: the
release is pinned in pyproject.toml, and `tests/serving/test_http.py` holds what is used of it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gyrostat.serving.access import is_allowed
from gyrostat.serving.access_log import TRACE_HEADER, TRACE_RESPONSE, AccessLog, Trace, address
from gyrostat.serving.answers import Answer, Refusal, error, wire
from gyrostat.serving.predicting import INLINE_BYTES, Model, Models

_log = logging.getLogger(__name__)
KEY_HEADER = b"x-gyrostat-key"
ARM_HEADER = b"x-gyrostat-arm"
READ_TIMEOUT_S = 60.0
"""A request that has not arrived whole after this long is given up, with its connection."""
KNOWN_HEADS, HEAD_BYTES = 512, 1024
"""So many heads of hot requests are known again without being parsed, each of at most so many bytes."""
LAST_CALL_S = 0.3
"""Of a server that ends: so long a silent connection stays open for a request that is on its way."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the parser found in a head. The same bytes say the same, as long as the server lives."""

    model: Model
    key: bytes
    n_bytes: int
    """Of the body."""
    path: bytes


class HotProtocol(HttpToolsProtocol):
    """One connection. `models`, `known` and `hot_bytes` are set on a subclass for each server.

    A client sends the same head again and again. The parser reads it once; a request that comes in one piece with a head
    that is known is answered without it.
    """

    models: Models
    known: dict[bytes, _Known]
    lines: AccessLog | None = None
    hot_bytes: int = INLINE_BYTES
    """A larger body goes the long way, where it is answered aside or refused."""
    token: bytes = b""
    """What a request must carry; one that does not goes the long way, where it is refused."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parser: Any = self.parser
        self._hot: list[bytes] | None = None
        self._hot_bytes = 0
        self._hot_model: Model | None = None
        self._key = b""
        self._is_ending = False
        self._is_arriving = False
        self._closes_after = False
        self._head, self._trace = b"", b""
        self._late: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._heard_at = self._began = 0.0

    # ---- the parser's callbacks ----

    def on_message_begin(self) -> None:
        """A request begins."""
        # uvicorn makes the ASGI scope here; the hot path has no use for one, so that waits for `_go_cold`.
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._hot = None
        self._is_arriving = True

    def on_headers_complete(self) -> None:
        """Decide which way the request goes."""
        self._hot_model = self._find_hot()
        if self._hot_model is None:
            self._go_cold()
        else:
            self._hot, self._hot_bytes = [], 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._hot is None:
            super().on_body(body)
            return
        self._hot.append(body)
        self._hot_bytes += len(body)
        if self._hot_bytes > self.hot_bytes:
            self._replay()

    def on_message_complete(self) -> None:
        """The request is here whole."""
        self._is_arriving = False
        if self._hot is None:
            super().on_message_complete()
            self._close_if_asked()
            return
        model = self._hot_model
        if self.transport.is_closing():
            self._hot = None
        elif model is None or not model.is_inline or self.flow.write_paused:
            self._replay()
            super().on_message_complete()
            self._close_if_asked()
        else:
            body, self._hot = b"".join(self._hot), None
            keep_alive = (
                not self._is_ending
                and self._parser.should_keep_alive()
                and self._parser.get_http_version() != "1.0"
            )
            if keep_alive and self._head:
                self._remember(model, len(body))
            trace = Trace.of(self._trace) if self._trace else None
            answer = self._ask(model, body, self._key)
            self._write(answer, self.url, len(body), keep_alive=keep_alive, trace=trace)

    # ---- the connection's callbacks ----

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._heard_at = self.loop.time()
        if self.lines is not None:
            self._began = time.perf_counter()
        if self._is_arriving or self._is_ending or self._is_busy():
            super().data_received(data)
        else:
            head, _, body = data.partition(b"\r\n\r\n")
            known = self.known.get(head)
            if (
                known is not None
                and len(body) == known.n_bytes
                and known.model.is_inline
                and not self.flow.write_paused
                and not self.transport.is_closing()
            ):
                self._unset_keepalive_if_required()
                self._write(self._ask(known.model, body, known.key), known.path, len(body))
                return
            self._head = head
            super().data_received(data)
            self._head = b""
        if self._is_arriving:
            if self._late is None:
                self._late = self.loop.call_later(READ_TIMEOUT_S, self._give_up)
        elif self._late is not None:
            self._late.cancel()
            self._late = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is here."""
        super().connection_made(transport)
        # A connection over which nothing comes is closed like one that fell silent.
        self._heard_at = self.loop.time()
        self._look_if_silent()

    def connection_lost(self, exc: Exception | None) -> None:
        """A client is gone."""
        for timer in (self._late, self._idle):
            if timer is not None:
                timer.cancel()
        self._late = self._idle = None
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._parser = None  # it refers back to here

    def shutdown(self) -> None:
        """The server ends: finish what is in hand, then close."""
        self._is_ending = True
        if self._hot is not None and self._is_arriving:
            return  # half a request is here: it is answered, then the connection is closed
        if self._is_busy():
            super().shutdown()
        else:
            # A request may be on its way on this connection, or wait unread: closed now, it would be met by a reset.
            self.loop.call_later(LAST_CALL_S, self._end_idle)

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._end_with(400, "http.malformed", "this is not an HTTP request that can be read")

    # ---- our own ----

    def _find_hot(self) -> Model | None:
        if self._parser.get_method() != b"POST" or self.expect_100_continue or self._is_busy():
            return None
        model = self.models.find(self.url.partition(b"?")[0])
        if model is None or not model.is_inline or self._parser.should_upgrade():
            return None
        self._key, self._trace, is_json = b"", b"", False
        for name, value in self.headers:
            if name == b"content-type":
                is_json = is_json_type(value)
            elif name == b"content-length":
                if len(value) > 6 or int(value) > self.hot_bytes:
                    return None
            elif name == KEY_HEADER:
                self._key = value
            elif name == TRACE_HEADER:
                # Another one each time, so such a head is not worth being known.
                self._trace, self._head = value, b""
            elif name == b"content-encoding" or name == ARM_HEADER:
                return None
        if self.token and not is_allowed(self.headers, self.token):
            return None
        return model if is_json else None

    def _is_busy(self) -> bool:
        return (self.cycle is not None and not self.cycle.response_complete) or bool(self.pipeline)

    def _go_cold(self) -> None:
        self._head = b""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()
        # A body that is refused may still be on its way: closed before it is here, the client meets a reset, not the answer.
        self._closes_after, self.cycle.keep_alive = not self.cycle.keep_alive, True
        if self._is_ending:
            super().shutdown()  # answered, then closed

    def _close_if_asked(self) -> None:
        if self._closes_after:
            self._closes_after, self.cycle.keep_alive = False, False
            if self.cycle.response_complete:
                self.transport.close()

    def _replay(self) -> None:
        parts, self._hot = self._hot or [], None
        self._go_cold()
        for part in parts:
            super().on_body(part)

    def _remember(self, model: Model, n_bytes: int) -> None:
        """The first request of what has just come: by its head it is known from now on."""
        head, self._head = self._head, b""
        is_whole = head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r")
        has_length = any(name == b"content-length" for name, _ in self.headers)
        # Where lines end otherwise, or the body in itself, the parser may have seen another end of the head than we did.
        if is_whole and has_length and len(head) <= HEAD_BYTES:
            if len(self.known) >= KNOWN_HEADS:
                self.known.clear()
            self.known[head] = _Known(model, self._key, n_bytes, self.url)

    def _ask(self, model: Model, body: bytes, key: bytes) -> Answer:
        try:
            return model.answer(body, key)
        except Exception:  # noqa: BLE001 - the outer edge: to the parser any exception is a malformed request
            _log.exception("the server failed on a request")
            return error(
                500,
                "serving.internal",
                "the server failed on this request",
                at="",
                request_id=secrets.token_hex(8),
            )

    def _write(
        self, answer: Answer, url: bytes, n_in: int, *, keep_alive: bool = True, trace: Trace | None = None,
    ) -> None:  # fmt: skip
        more = b"%b: %b\r\n" % (TRACE_RESPONSE, trace.response) if trace is not None else b""
        headers = self.server_state.default_headers
        self.transport.write(wire(answer, headers, keep_alive=keep_alive, more=more))
        self.server_state.total_requests += 1
        if self.lines is not None:
            path = url.partition(b"?")[0].decode("latin-1")
            self.lines.add(
                "POST", path, answer.status, time.perf_counter() - self._began, n_in=n_in, n_out=len(answer.body),
                client=address(self.client), id=answer.id, trace=trace,
            )  # fmt: skip
        if not keep_alive:
            self.transport.close()

    def _look_if_silent(self) -> None:
        """Close a connection that has said nothing for too long. One timer for its whole life, as one for each answer costs."""
        left_s = self._heard_at + self.timeout_keep_alive - self.loop.time()
        if left_s > 0 or self._is_arriving or self._is_busy():
            wait_s = left_s if left_s > 0 else self.timeout_keep_alive
            self._idle = self.loop.call_later(wait_s, self._look_if_silent)
        elif not self.transport.is_closing():
            self.transport.close()

    def _end_idle(self) -> None:
        if not self._is_arriving and not self._is_busy() and not self.transport.is_closing():
            self.transport.close()

    def _give_up(self) -> None:
        self._late = None
        if self._is_arriving and not self.transport.is_closing():
            self._end_with(
                408, "http.too_slow", f"the request had not arrived after {READ_TIMEOUT_S:g} s"
            )

    def _end_with(self, status: int, code: str, message: str) -> None:
        if self.transport.is_closing():
            return
        self._hot, self._is_arriving = None, False
        if not self._is_busy():
            answer = error(status, code, message, at="", request_id=secrets.token_hex(8))
            self.transport.write(wire(answer, self.server_state.default_headers, keep_alive=False))
        self.transport.close()


@lru_cache(maxsize=64)
def is_json_type(content_type: bytes) -> bool:
    """Whether a Content-Type says JSON, in UTF-8 where it says a charset."""
    return _is_type(content_type, b"application/json")


def is_csv_type(content_type: bytes) -> bool:
    """Whether a Content-Type says CSV, in UTF-8 where it says a charset."""
    return _is_type(content_type, b"text/csv")


def _is_type(content_type: bytes, wanted: bytes) -> bool:
    kind, _, parameters = content_type.partition(b";")
    if kind.strip().lower() != wanted:
        return False
    for parameter in parameters.split(b";"):
        name, _, value = parameter.partition(b"=")
        if name.strip().lower() == b"charset" and value.strip(b' "').lower() not in (
            b"utf-8",
            b"utf8",
            b"us-ascii",
        ):
            return False
    return True


def check_encoding(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a packed body before it is read.

    Raises:
        Refusal: 415.
    """
    encoding = dict(headers).get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"", b"identity"):
        raise Refusal(
            415,
            "serving.encoding",
            f"a body packed with {encoding.decode('latin-1')[:40]} is not read: send it plain",
        )


def check_content(headers: list[tuple[bytes, bytes]], *, or_csv: bool = False) -> bool:
    """Refuse a body that is not plain JSON (or CSV, where that is read) before it is read.

    Returns:
        Whether it is CSV.

    Raises:
        Refusal: 415.
    """
    check_encoding(headers)
    kind = dict(headers).get(b"content-type")
    if kind is None:
        raise Refusal(
            415, "serving.content_type", "there is no Content-Type: send JSON as application/json"
        )
    if or_csv and is_csv_type(kind):
        return True
    if not is_json_type(kind):
        more = ", or CSV as text/csv" if or_csv else ""
        raise Refusal(
            415,
            "serving.content_type",
            f"{kind.decode('latin-1')[:80]!r} is not read here: send JSON in UTF-8 as application/json{more}",
        )
    return False
