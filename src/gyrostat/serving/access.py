"""Who may ask: on loopback whoever is on this machine, on other addresses only who has the token."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from gyrostat.errors import UsageError
from gyrostat.serving.answers import error

VARIABLE = "GYROSTAT_TOKEN"
OPEN = ("/health", "/ping", "/ready", "/v2/health/live", "/v2/health/ready")
"""Paths that say nothing but up or not; orchestrators ask for them without a token."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")


def token_for(host: str, environ: Mapping[str, str]) -> str:
    """The token that requests to this address need; empty on loopback where none is set.

    Raises:
        UsageError: there is none, or one that cannot be used; nothing listens yet.
    """
    token = environ.get(VARIABLE, "")
    if token and not _TOKEN.fullmatch(token):
        raise UsageError(
            f"{VARIABLE} must have 16 to 512 of letters, digits and ._~+/=-, such as `openssl rand -hex 32` gives. "
            "Nothing was started."
        )
    if not token and not _is_loopback(host):
        raise UsageError(
            f"On {host} others reach the server, so a token is needed: set {VARIABLE} "
            "(`openssl rand -hex 32` gives one), or stay on 127.0.0.1. Nothing was started."
        )
    return token


def is_allowed(headers: Iterable[tuple[bytes, bytes]], token: bytes) -> bool:
    """Whether a request carries the token, once, as `Authorization: Bearer`."""
    said = [value for name, value in headers if name == b"authorization"]
    if len(said) != 1:
        return False
    kind, _, given = said[0].partition(b" ")
    return kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), token)


class Door:
    """Answers 401 to a request without the token; the app behind it sees the others."""

    def __init__(self, app: ASGIApp, token: str, open_paths: Iterable[str] = ()) -> None:
        self._app, self._token = app, token.encode()
        self._open = frozenset((*OPEN, *open_paths))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        is_open = scope["type"] != "http" or (
            scope["method"] in ("GET", "HEAD") and scope["path"] in self._open
        )
        if is_open or is_allowed(scope["headers"], self._token):
            await self._app(scope, receive, send)
            return
        answer = error(
            401,
            "http.no_token",
            "this server answers with its token only: send it as Authorization: Bearer TOKEN",
            at="",
            request_id=secrets.token_hex(8),
        )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer.body)),
            (b"www-authenticate", b"Bearer"),
        ]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
