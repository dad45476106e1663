"""The control room: one live page over what `status` knows, and the two answers that a person can give.

Server-rendered; a stream of ticks tells open pages that the ledger or the measurements moved on, and each visible page
fetches itself again. Forms work without JavaScript.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gyrostat.control import view
from gyrostat.control.door import App, Door
from gyrostat.errors import GyrostatError
from gyrostat.terms import Told

HERE = Path(__file__).parent
TICK_S, PING_S = 0.5, 15.0


class Source(Protocol):
    """What the page reads and does: the door of the project."""

    def status(self) -> Told:
        """The one picture."""
        ...

    def recent(self, model: str, *, limit: int) -> dict[str, Any]:
        """The newest news."""
        ...

    def answer(self, ref: str, answer: str, *, reason: str, actor: str) -> Told:
        """Say yes or no."""
        ...

    def pulse(self) -> str:
        """Changes when something did."""
        ...


def _fingerprint() -> str:
    files = sorted((HERE / "static").iterdir())
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()[:8]


class Hub:
    """Tells every open browser that something moved on; ends all streams when the server stops."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.now = ""
        self.is_over = False
        self.changed = asyncio.Condition()

    async def watch(self) -> None:
        """Look twice a second what the newest entry and measurement are."""
        while not self.is_over:
            with contextlib.suppress(GyrostatError, OSError):
                pulse = await run_in_threadpool(self.source.pulse)
                if pulse != self.now:
                    self.now = pulse
                    await self.wake()
            await asyncio.sleep(TICK_S)

    async def wake(self) -> None:
        """Let every stream look."""
        async with self.changed:
            self.changed.notify_all()

    async def stream(self) -> AsyncIterator[str]:
        """Ticks for one browser; a comment now and then, so that proxies keep the line."""
        seen = self.now
        yield f"retry: 1000\ndata: {seen}\n\n"
        while not self.is_over:
            async with self.changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), PING_S)
            if self.now == seen:
                yield ": still here\n\n"
            else:
                seen = self.now
                yield f"data: {seen}\n\n"


def build(source: Source, *, port: int, actor: str) -> tuple[App, Hub]:
    """The whole application behind its door; `actor` is who answers on this page (the user who typed `up`)."""
    hub = Hub(source)
    pages = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    fingerprint = _fingerprint()

    def render(model: str | None) -> tuple[int, str]:
        facts = source.status().facts["models"]
        chosen = model if model is not None and model in facts else next(iter(facts))
        status = 200 if model in (None, chosen) else 404
        recent = source.recent(chosen, limit=12)
        context = view.overview(chosen, facts, recent)
        return status, pages.get_template("overview.html").render(
            context | {"v": fingerprint, "version": hub.now}
        )

    async def overview(request: Request) -> Response:
        status, page = await run_in_threadpool(render, request.query_params.get("model"))
        return HTMLResponse(page, status, headers={"Cache-Control": "no-store"})

    async def events(_request: Request) -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(hub.stream(), media_type="text/event-stream", headers=headers)

    async def answers(request: Request) -> Response:
        form = await request.form()
        ref, answer = str(form.get("ref", "")), str(form.get("answer", ""))
        if answer not in ("approved", "rejected"):
            return PlainTextResponse("An answer is approved or rejected.", 400)
        try:
            await run_in_threadpool(source.answer, ref, answer, reason="", actor=actor)
        except GyrostatError as error:
            return PlainTextResponse(str(error), 409)
        await hub.wake()
        return RedirectResponse("/", 303)

    async def status(_request: Request) -> Response:
        told = await run_in_threadpool(source.status)
        return JSONResponse(told.facts)

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok")

    @contextlib.asynccontextmanager
    async def life(_app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(hub.watch())
        yield
        hub.is_over = True
        task.cancel()

    app = Starlette(
        routes=[
            Route("/", overview),
            Route("/events", events),
            Route("/answers", answers, methods=["POST"]),
            Route("/status", status),
            Route("/health", health),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        lifespan=life,
    )
    app.add_middleware(GZipMiddleware, minimum_size=600)
    return Door(app, port=port), hub
