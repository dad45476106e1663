"""From a routes file to open, warm bundles: what is verified and ready becomes what answers, nothing else ever does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gyrostat_runtime import keys
from gyrostat_runtime.errors import ModelFault, RuntimeFault
from gyrostat_runtime.files import write_atomic
from gyrostat_runtime.flight import InFlight
from gyrostat_runtime.session import Session, typical_rows

from gyrostat import pids
from gyrostat.serving.arms import BadRoutesError, Loaded, Routes, Served
from gyrostat.serving.receipts import folder, receipts

_log = logging.getLogger(__name__)
POLL_S = 0.05


class Receiver:
    """Keeps one model's `Served` in step with its routes file.

    Runs on the event loop; bundles are opened in other threads. A file that cannot be served leaves what is served as
    it is, and the refusal is written beside it. What was applied is written with its routes, so that a restart
    answers the same even where the file itself is gone or names a bundle that is refused. Until it is opened, its
    receipts say that this server takes no requests.
    """

    def __init__(
        self,
        state: Path,
        model: str,
        worker: str,
        opener: ThreadPoolExecutor,
        in_flight: InFlight,
        *,
        memory_bytes: int = 0,
    ) -> None:
        self.state, self.model, self.worker = state, model, worker
        self._in_flight, self._memory_bytes = in_flight, memory_bytes
        self.served: Served | None = None
        self.refused: dict[str, Any] = {}
        """`refused` and `cause` of the routes that were refused last; empty once others were applied."""
        self._file = state / "routes" / f"{model}.json"
        self._applied_file = folder(state, model) / f"{worker}.json"
        self._opener = opener
        self._opening: dict[str, asyncio.Task[Loaded]] = {}
        self._open: dict[str, Loaded] = {}
        self._seen: tuple[int, int, int] | None = None
        self._applying: asyncio.Task[None] | None = None
        self._floor = (0, 0)
        """Place of the routes that were applied last, also by an earlier process or another server."""
        self._is_open, self._birth = False, pids.birth(os.getpid())
        self._said: dict[str, Any] = {}
        self._unwritten: dict[str, Any] | None = None

    async def start(self) -> None:
        """Serve what the routes file says, else what was applied last."""
        last = self._last_applied()
        if last is not None:
            self._floor = last.place
        self._look(or_equal=True)
        if self._applying is not None:
            await asyncio.wait([self._applying])
        if self.served is None and last is not None:
            refused = dict(self.refused)
            await self._apply(last)
            if self.served is not None and refused:
                self._refuse(refused["refused"], refused["cause"])

    @property
    def may_open(self) -> bool:
        """Whether requests are answered here at least as well as elsewhere: it serves, or no other server does."""
        return self.served is not None or not any(
            r.server != self.worker and r.seq and not r.waits and r.is_living
            for r in receipts(self.state, self.model)
        )

    def open(self) -> None:
        """Requests come in from now on; said before the first does, for the loop counts on who answers by what."""
        self._is_open = True
        if self._said:
            self._write(self._said)

    async def keep(self) -> None:
        """Follow the routes file until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            self._look()
            if self._unwritten is not None:
                self._write(self._unwritten)

    async def close(self) -> None:
        """Close every bundle. Nothing is served after this."""
        if self._applying is not None:
            self._applying.cancel()
        self.served = None
        tasks = list(self._opening.values())
        if tasks:
            await asyncio.wait(tasks, timeout=2)
        for loaded in list(self._open.values()):
            self._close(loaded)

    def release(self, loaded: Loaded) -> None:
        """A call in another thread has ended."""
        loaded.in_flight -= 1
        if loaded.is_retired and loaded.in_flight == 0:
            self._opener.submit(_closed, loaded.session)

    def _look(self, *, or_equal: bool = False) -> None:
        try:
            info = self._file.stat()
            seen = (info.st_mtime_ns, info.st_ino, info.st_size)
            if seen == self._seen:
                return
            self._seen = seen
            value = json.loads(self._file.read_bytes())
            routes = Routes.from_json(value, self.model)
        except FileNotFoundError:
            return  # nothing was ever released, or somebody took the file away: what is served goes on
        except (OSError, ValueError, RecursionError, BadRoutesError) as error:
            self._refuse(None, f"{self._file.name} cannot be read: {error}")
            return
        if routes.place < self._floor or (routes.place == self._floor and not or_equal):
            if routes.place != self._floor:
                self._refuse(
                    routes.seq,
                    f"epoch {routes.epoch} seq {routes.seq} is not above epoch {self._floor[0]} seq {self._floor[1]}",
                )
            return
        if self._applying is not None:
            # Newer routes may be the way out of what is being opened just now: do not wait for that.
            self._applying.cancel()
        self._applying = asyncio.create_task(self._apply(routes))

    async def _apply(self, routes: Routes) -> None:
        names = list(dict.fromkeys(a.bundle for a in routes.arms))
        try:
            found = [await asyncio.shield(self._opened(name)) for name in names]
        except (RuntimeFault, OSError) as error:
            self._refuse(routes.seq, str(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever a bundle does, what is served goes on
            _log.exception("%s: a bundle cannot be opened", self.model)
            self._refuse(routes.seq, f"the bundle cannot be opened: {type(error).__name__}")
            return
        at = time.time()
        self.served = Served.of(routes, dict(zip(names, found, strict=True)), at, self._in_flight)
        self.refused = {}
        self._floor = routes.place
        self._write(
            {
                "epoch": routes.epoch,
                "seq": routes.seq,
                "at": at,
                "routes": routes.raw,
            },
        )
        self._close_unnamed()

    def _close_unnamed(self) -> None:
        named = (
            {a.bundle for a in self.served.routes.arms} if self.served is not None else set[str]()
        )
        for name in self._open.keys() - named - self._opening.keys():
            self._close(self._open.pop(name))

    def _opened(self, name: str) -> asyncio.Task[Loaded]:
        task = self._opening.get(name)
        if task is None:
            task = self._opening[name] = asyncio.create_task(self._load(name))
            # Who asked may have turned to newer routes; a fault of what nobody wants is no news.
            task.add_done_callback(lambda t: t.cancelled() or t.exception())
        return task

    async def _load(self, name: str) -> Loaded:
        try:
            if name not in self._open:
                loaded = await asyncio.get_running_loop().run_in_executor(
                    self._opener, self._open_bundle, name
                )
                self._open[name] = loaded
            return self._open[name]
        finally:
            del self._opening[name]
            if self._applying is None or self._applying.done():
                self._close_unnamed()

    def _open_bundle(self, name: str) -> Loaded:
        ring: Mapping[str, str] = keys.keyring(self.state / "keys")
        session = Session.open(self.state / "bundles" / name, ring, memory_bytes=self._memory_bytes)
        try:
            self._check(session, name)
            return Loaded(session, session.schema, _time_a_call(session))
        except BaseException:
            session.close()
            raise

    def _check(self, session: Session, name: str) -> None:
        if session.digest != name:
            raise RuntimeFault(f"the bundle in {name[:12]} has the digest {session.digest[:12]}")
        if session.manifest.model != self.model:
            raise RuntimeFault(
                f"bundle {name[:12]} is of model {session.manifest.model!r}, not {self.model!r}"
            )

    def _close(self, loaded: Loaded) -> None:
        loaded.is_retired = True
        if loaded.in_flight == 0:
            self._opener.submit(_closed, loaded.session)

    def _refuse(self, seq: int | None, cause: str) -> None:
        self.refused = {"refused": seq, "cause": cause}
        _log.warning("%s: routes %s refused: %s", self.model, seq, cause)
        applied: dict[str, Any] = {}
        if self.served is not None:
            routes = self.served.routes
            applied = {
                "epoch": routes.epoch,
                "seq": routes.seq,
                "at": self.served.applied_at,
                "routes": routes.raw,
            }
        elif (old := self._last_applied()) is not None:
            # The last good routes stay on record, but this process does not serve them yet.
            applied = {"epoch": 0, "seq": 0, "at": time.time(), "routes": old.raw}
        self._write(applied | self.refused)

    def _write(self, said: dict[str, Any]) -> None:
        self._said = said
        value = said | {"pid": os.getpid(), "birth": self._birth}
        if not self._is_open:
            value["waits"] = True
        try:
            self._applied_file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._applied_file, json.dumps(value, allow_nan=False).encode())
            self._unwritten = None
        except OSError as error:
            # A full disk stops no prediction; the receipt is late, and said as soon as it can be.
            if self._unwritten is None:
                _log.warning("%s: the receipt cannot be written: %s", self.model, error)
            self._unwritten = said

    def _last_applied(self) -> Routes | None:
        """What this model's servers applied last: where one takes the place of another, it is the other's word."""
        found = []
        for receipt in receipts(self.state, self.model):
            with contextlib.suppress(BadRoutesError):
                found.append(Routes.from_json(receipt.routes, self.model))
        return max(found, key=lambda routes: routes.place, default=None)


def _closed(session: Session) -> None:
    try:
        session.close()
    except Exception:  # noqa: BLE001 - nobody waits for this
        _log.exception("a bundle did not close cleanly")


def _time_a_call(session: Session) -> float:
    """Seconds of a call with one row, the best of three after one that does not count; infinite where it fails."""
    clock: Callable[[], float] = time.perf_counter
    taken: list[float] = []
    row = typical_rows(session.schema)
    try:
        for _ in range(4):
            started = clock()
            session.predict(row)
            taken.append(clock() - started)
    except ModelFault:
        # A made-up row proves nothing about the model; requests will.
        return math.inf
    return min(taken[1:])
