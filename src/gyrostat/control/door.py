"""Who may speak to the control room: exact Host, same Origin, plain forms, a strict content policy.

Plain ASGI and outermost, so that no route can be forgotten (reliability-security findings: A3 to A6, DNS rebinding).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE = ("GET", "HEAD")
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


class Door:
    """Refuses before routing whatever did not come from this machine's own browser tab or command line."""

    def __init__(self, app: App, *, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost", "[::1]")}
        self.origins = {b"http://" + host for host in self.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 421, 403, 405 or 415 itself, or pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal:
            await _refuse(send, *refusal)
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        found = {
            name: [value for key, value in headers if key == name]
            for name in (b"host", b"origin", b"sec-fetch-site", b"content-type")
        }
        if len(found[b"host"]) != 1 or found[b"host"][0] not in self.hosts:
            return (
                421,
                "This control room answers to 127.0.0.1 and localhost at its own port, nothing else.",
            )
        if scope["method"] in SAFE:
            return None
        if scope["method"] != "POST":
            return 405, "Only GET, HEAD and POST are spoken here."
        if found[b"origin"] and (
            len(found[b"origin"]) != 1 or found[b"origin"][0] not in self.origins
        ):
            return 403, "A form of another site was refused."
        if found[b"sec-fetch-site"] and found[b"sec-fetch-site"] != [b"same-origin"]:
            return 403, "A form of another site was refused."
        if not found[b"origin"] and not found[b"sec-fetch-site"]:
            return (
                403,
                "A decision needs to come from this page, or from the command line: gyrostat approve.",
            )
        form = found[b"content-type"][:1] or [b""]
        if not form[0].startswith(b"application/x-www-form-urlencoded"):
            return 415, "Only plain forms are taken here."
        return None


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": {"code": f"control.{status}", "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
