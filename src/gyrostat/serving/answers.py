"""What leaves the server: answers and errors as bytes, in the one form that every error has."""

from __future__ import annotations

import http
from dataclasses import dataclass
from typing import Any

import msgspec

encode = msgspec.json.Encoder().encode
JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer."""

    status: int
    body: bytes
    retry_after_s: int | None = None
    allow: str = ""
    """Of a 405: the methods that are there."""
    id: str = ""
    """Of the prediction, or of the error."""


class Refusal(Exception):
    """An answer that is no prediction; nothing internal stands in it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        at: str = "$",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.at = status, code, message, at
        self.retry_after_s = retry_after_s

    def answer(self, request_id: str) -> Answer:
        """The bytes of it."""
        return error(
            self.status,
            self.code,
            self.message,
            at=self.at,
            request_id=request_id,
            retry_after_s=self.retry_after_s,
        )


def error(
    status: int,
    code: str,
    message: str,
    *,
    at: str,
    request_id: str,
    retry_after_s: int | None = None,
    allow: str = "",
) -> Answer:
    """An error as every one of them looks; a long text that came from outside is not sent back whole."""
    if len(message) > 1000:
        message = message[:999] + "…"
    if len(at) > 500:
        at = at[:499] + "…"
    value: dict[str, Any] = {"code": code, "at": at, "message": message, "request_id": request_id}
    try:
        body = encode({"error": value})
    except UnicodeEncodeError:
        clean = {k: v.encode("utf-8", "replace").decode() for k, v in value.items()}
        body = encode({"error": clean})
    return Answer(status, body, retry_after_s, allow, request_id)


_LINES = {
    s.value: b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: "
    % (s.value, s.phrase.encode())
    for s in http.HTTPStatus
}


def wire(
    answer: Answer,
    default_headers: list[tuple[bytes, bytes]],
    *,
    keep_alive: bool,
    more: bytes = b"",
) -> bytes:
    """The whole answer as it goes over the socket. `more`: lines of its head."""
    head = b"%b%d\r\n%b%b" % (
        _LINES[answer.status],
        len(answer.body),
        _said(default_headers),
        more,
    )
    if answer.retry_after_s is not None or answer.allow:
        head += _lines(extra_headers(answer))
    if not keep_alive:
        head += b"connection: close\r\n"
    return b"%b\r\n%b" % (head, answer.body)


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


_last_said: tuple[list[tuple[bytes, bytes]], bytes] = [], b""


def _said(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The lines of headers that come with every answer; the server makes a new list of them each second."""
    global _last_said
    if headers is not _last_said[0]:
        _last_said = headers, _lines(headers)
    return _last_said[1]


def extra_headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Headers besides type and length."""
    found = []
    if answer.retry_after_s is not None:
        found.append((b"retry-after", b"%d" % answer.retry_after_s))
    if answer.allow:
        found.append((b"allow", answer.allow.encode("latin-1")))
    return found
