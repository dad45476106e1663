"""The model server as one process: models, routes and logs behind one listening socket."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from gyrostat.serving.access import Door
from gyrostat.serving.access_log import AccessLog, Followed
from gyrostat.serving.app import make_app
from gyrostat.serving.http import HotProtocol
from gyrostat.serving.labels import LabelLog
from gyrostat.serving.predicting import INLINE_BYTES, Model, Models
from gyrostat.serving.settings import ServerSettings, ServingSettings
from gyrostat.serving.vertex import Vertex

_log = logging.getLogger(__name__)
GRACE_S = 3
"""What is being answered when SIGTERM comes has this long to end."""
OPENING_S = 15.0
"""How long the bundles of the last good routes may take to open where nobody else answers meanwhile."""
LOOK_S = 0.1
KEEP_ALIVE_S = 75
"""Longer than the idle time of common load balancers, so that they close first, not in the middle of a request."""


def serve(
    state: Path,
    *,
    sock: socket.socket,
    worker: str,
    settings: ServerSettings,
    models: Mapping[str, ServingSettings],
    token: str = "",
    vertex: Vertex = Vertex(),  # noqa: B008 - frozen
) -> None:
    """Answer requests on a listening socket until SIGTERM or SIGINT; then finish what is in hand and return.

    Everything it needs is in `state`: keys, routes, bundles. Ledger, loop and control room may be gone.

    Args:
        worker: The name of this process among the server's workers, and of its part of the logs.
        token: What every request must carry, but those for health; empty: nothing.

    Raises:
        RuntimeFault: there is no key for personal columns.
        OSError: the folder cannot be written.
    """
    # uvicorn raises the signal again once it has ended; that would make an orderly end look like a crash.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
    with ThreadPoolExecutor(8, "predict") as pool, ThreadPoolExecutor(2, "open") as opener:
        made = [
            Model(
                state, name, worker, serving, pool=pool, opener=opener, sync_s=settings.log_sync_s
            )
            for name, serving in models.items()
        ]
        logs = {name: LabelLog(state, name, worker, sync_s=settings.log_sync_s) for name in models}
        all_models = Models(made, worker=worker)
        app: ASGIApp = make_app(
            all_models,
            logs,
            max_body_bytes=settings.max_body_bytes,
            needs_token=bool(token),
            vertex=vertex,
        )
        if token:
            app = Door(app, token, [vertex.health_route] if vertex.health_route else [])
        lines = _lines(state, worker, settings.access_log)
        app = Followed(app, lines)
        config = uvicorn.Config(
            app,
            http=type(
                "Protocol",
                (HotProtocol,),
                {
                    "models": all_models,
                    "known": {},
                    "lines": lines,
                    "hot_bytes": min(INLINE_BYTES, settings.max_body_bytes),
                    "token": token.encode(),
                },
            ),
            loop="uvloop",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        _Server(config, made, logs).run(sockets=[sock])
        if lines is not None:
            lines.close()


def _lines(state: Path, worker: str, where: str) -> AccessLog | None:
    if where == "off":
        return None
    if where == "stdout":
        return AccessLog(None, worker)
    (state / "access").mkdir(exist_ok=True)
    return AccessLog(state / "access" / f"{worker}.jsonl", worker)


class _Server(uvicorn.Server):
    """uvicorn's server; it opens the socket's door only once the last good routes answer.

    Connections wait in the socket's queue meanwhile, which is better than being told that nothing is there. Where another
    server answers on the same socket, the door stays closed until this one can do what that one does.
    """

    def __init__(
        self, config: uvicorn.Config, models: list[Model], logs: dict[str, LabelLog]
    ) -> None:
        super().__init__(config)
        self._models, self._logs = models, logs
        self._keeping: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        receivers = [model.receiver for model in self._models]
        starting = [asyncio.create_task(receiver.start()) for receiver in receivers]
        if starting:
            await asyncio.wait(starting, timeout=OPENING_S)
        for model in self._models:
            self._keep(model.beat(), model.name)
            self._keep(model.receiver.keep(), model.name)
        while not all(receiver.may_open for receiver in receivers):
            if self.should_exit:  # then uvicorn does not come back to `shutdown`
                await self._close()
                return
            await asyncio.sleep(LOOK_S)
        for receiver in receivers:
            receiver.open()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        await self._close()

    async def _close(self) -> None:
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*[model.close() for model in self._models])
        for log in self._logs.values():
            log.close()

    def _keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work)
        self._keeping.append(task)
        task.add_done_callback(lambda t: self._ended(t, name))

    def _ended(self, task: asyncio.Task[None], name: str) -> None:
        if task.cancelled():
            return
        # Without heartbeats or routes the loop is blind and its decisions never arrive: better to start again.
        _log.error("%s: a task of the server ended: %r; the server stops", name, task.exception())
        self.should_exit = True
