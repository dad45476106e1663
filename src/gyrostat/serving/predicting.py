"""One request from its body to its answer and its place in the log."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import queue
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from gyrostat_runtime import keys
from gyrostat_runtime.errors import InputFault, ModelFault, RuntimeFault
from gyrostat_runtime.log import Frame, Writer
from gyrostat_runtime.rows import Rows
from gyrostat_runtime.session import Predictions, Session

from gyrostat.serving.answers import Answer, Refusal, error
from gyrostat.serving.arms import Arm, Loaded, Served
from gyrostat.serving.commits import Commits
from gyrostat.serving.forms import INVOCATIONS, Form
from gyrostat.serving.gather import MOST_ROWS, Gather
from gyrostat.serving.metrics import Meter
from gyrostat.serving.routes import Receiver
from gyrostat.serving.settings import ServingSettings

_log = logging.getLogger(__name__)
HEARTBEAT_S = 0.25
INLINE_BYTES = 200_000
"""A larger body is read in another thread, or everybody else would wait for it."""
_MOST_IN_THREADS = 256
_SHADOW_ITEMS = 256
_SHADOW_BYTES = 32_000_000


class Model:
    """One model of the project: its routes, its log, and how its requests are answered.

    All methods run on the event loop, unless they say otherwise.
    """

    def __init__(
        self,
        state: Path,
        name: str,
        worker: str,
        settings: ServingSettings,
        *,
        pool: ThreadPoolExecutor,
        opener: ThreadPoolExecutor,
        sync_s: float,
    ) -> None:
        self.name, self.settings = name, settings
        self.writer = Writer(state / "log" / name, worker, sync_s=sync_s)
        self.receiver = Receiver(
            state, name, worker, opener, self.writer.in_flight, memory_bytes=settings.memory_bytes
        )
        self.n_requests = 0
        """Requests that the champion's schema accepts; each is a prediction or an error in the log."""
        self.n_refused = 0
        """Requests that it does not accept: the caller's fault, no prediction."""
        self.n_errors = 0
        self.meter = Meter()
        self._sample = settings.log_sample
        self._commits = Commits(self.writer) if settings.durable else None
        self._pool = pool
        self._in_threads = 0
        self._gathers: WeakKeyDictionary[Session, Gather] = WeakKeyDictionary()
        self._shadow = _Shadow(self)
        self._log_key = _log_key(state)

    @property
    def served(self) -> Served | None:
        """What it answers with now."""
        return self.receiver.served

    @property
    def n_in_flight(self) -> int:
        """Requests that other threads answer now, the waiting ones among them."""
        return self._in_threads

    @property
    def n_shadow_waiting(self) -> int:
        """Copies that wait for shadow arms."""
        return self._shadow.n_waiting

    @property
    def n_shadow_dropped(self) -> int:
        """Copies that shadow arms never saw."""
        return self._shadow.n_dropped

    @property
    def is_inline(self) -> bool:
        """Whether `answer` may be called on the event loop for a small body."""
        served = self.receiver.served
        return served is not None and served.is_inline

    @property
    def is_durable(self) -> bool:
        """Whether an answer waits for its place in the log: then only `take` gives it."""
        return self._commits is not None

    async def take(self, body: bytes, key: bytes, form: Form, asked: bytes = b"") -> Answer:
        """Answer by the shorter way; of a durable model only what the log has on the disk.

        Args:
            asked: The arm that the client wants, as `Served.only` reads it; empty: the routes choose.
        """
        if self._commits is None:
            return await self._by_shorter_way(body, key, form, asked)
        if self.writer.last_error:  # then nothing is computed that could not be kept
            return self._not_kept(form)
        before = self.writer.losses
        answer = await self._by_shorter_way(body, key, form, asked)
        is_kept = await self._commits.done() and self.writer.losses == before
        return answer if is_kept else self._not_kept(form)

    async def _by_shorter_way(self, body: bytes, key: bytes, form: Form, asked: bytes) -> Answer:
        if self.is_inline and len(body) <= INLINE_BYTES and not asked:
            return self.answer(body, key, form)
        return await self.answer_aside(body, key, form, asked)

    def _not_kept(self, form: Form) -> Answer:
        self.meter.refuse(form.route, 503, "serving.not_kept")
        return Refusal(
            503,
            "serving.not_kept",
            f"model {self.name!r} answers only what its prediction log keeps (serving.durable), and the disk does not take it: "
            f"{self.writer.last_error or 'a write failed'}. Try again",
            retry_after_s=2,
        ).answer(self.writer.next_id(time.time()))

    def answer(self, body: bytes, key: bytes, form: Form = INVOCATIONS) -> Answer:
        """Answer at once, in this thread."""
        started = time.perf_counter()
        served, id = self._begin()
        if served is None:
            return self._not_released(id, form)
        arm = served.choose(key)
        try:
            table = self._read(body, served.champion, form)
        except InputFault as fault:
            return self._refused(fault, id, form)
        arm.slot.begin()
        result = self._ask(arm, served, table, body, form)
        return self._finish(id, started, served, arm, table, result, body, key, form)

    async def answer_aside(
        self, body: bytes, key: bytes, form: Form = INVOCATIONS, asked: bytes = b""
    ) -> Answer:
        """Answer with the work done in other threads: a model that takes its time, a large body, or an arm that was asked for."""
        started = time.perf_counter()
        served, id = self._begin()
        if served is None:
            return self._not_released(id, form)
        if self._in_threads >= _MOST_IN_THREADS:
            self.meter.refuse(form.route, 503, "serving.overloaded")
            return Refusal(
                503,
                "serving.overloaded",
                f"{self._in_threads} requests are being answered already; nothing was computed. Try again.",
                retry_after_s=1,
            ).answer(id)
        if asked:
            try:
                served = served.only(asked.decode("latin-1").strip().lower())
            except LookupError as fault:
                told = InputFault(str(fault), code="serving.no_such_arm", at="X-Gyrostat-Arm")
                return self._refused(told, id, form)
        arm = served.choose(key)
        self._in_threads += 1
        # Both may be needed until the end; routes may change meanwhile.
        for loaded in (held := (arm.loaded, served.champion.loaded)):
            loaded.in_flight += 1
        try:
            run = asyncio.get_running_loop().run_in_executor
            try:
                if len(body) > INLINE_BYTES:
                    table = await run(self._pool, self._read, body, served.champion, form)
                else:
                    table = self._read(body, served.champion, form)
            except InputFault as fault:
                return self._refused(fault, id, form)
            arm.slot.begin()
            if arm.loaded.is_inline or table.n > MOST_ROWS:
                result = await run(self._pool, self._ask, arm, served, table, body, form)
            else:
                result = await self._ask_together(arm, served, table, body, form)
            return self._finish(id, started, served, arm, table, result, body, key, form)
        finally:
            self._in_threads -= 1
            for loaded in held:
                self.receiver.release(loaded)

    async def beat(self) -> None:
        """Write heartbeats until cancelled."""
        while True:
            self.writer.heartbeat(time.time())
            await asyncio.sleep(HEARTBEAT_S)

    def status(self) -> dict[str, Any]:
        """JSON values for `GET /status`."""
        found: dict[str, Any] = {
            "arms": [],
            "n_requests": self.n_requests,
            "n_refused": self.n_refused,
            "n_errors": self.n_errors,
            "shadow_dropped": self._shadow.n_dropped,
            "log_dropped": self.writer.dropped,
            "log_error": self.writer.last_error,
            **self.receiver.refused,
        }
        if (served := self.served) is not None:
            found |= {
                "epoch": served.routes.epoch,
                "seq": served.routes.seq,
                "since": served.routes.since,
                "applied_at": served.applied_at,
                "arms": [
                    {
                        "bundle": arm.spec.bundle,
                        "version": arm.spec.version,
                        "role": arm.spec.role,
                        "share": arm.spec.share,
                        "shadow": arm.spec.shadow,
                        "flavour": arm.loaded.session.manifest.flavour,
                        "is_inline": arm.loaded.is_inline,
                    }
                    for arm in (*served.live, *served.shadows)
                ],
            }
        return found

    async def close(self) -> None:
        """Finish the shadow copies that can be, flush the log, close the bundles."""
        run = asyncio.get_running_loop().run_in_executor
        await run(None, self._shadow.close)
        await self.receiver.close()
        if self._commits is not None:
            await run(None, self._commits.close)
        await run(None, self.writer.close)

    def _begin(self) -> tuple[Served | None, str]:
        return self.receiver.served, self.writer.next_id(time.time())

    def _not_released(self, id: str, form: Form) -> Answer:
        self.meter.refuse(form.route, 503, "serving.no_champion")
        return Refusal(
            503,
            "serving.no_champion",
            f"model {self.name!r} has no champion yet, so nothing can answer; `gyrostat status` says what it waits for",
            retry_after_s=2,
        ).answer(id)

    def _read(self, body: bytes, arm: Arm, form: Form) -> Rows:
        """In any thread."""
        s = self.settings
        return form.read(body, arm.loaded.schema, missing=s.missing, new_category=s.new_category)

    def _refused(self, fault: InputFault, id: str, form: Form) -> Answer:
        self.meter.refuse(form.route, fault.status, fault.code)
        self.n_refused += 1
        return error(fault.status, fault.code, fault.message, at=fault.at, request_id=id)

    def _ask(self, arm: Arm, served: Served, table: Rows, body: bytes, form: Form) -> _Result:
        """In any thread: what this arm makes of rows that the champion's schema accepts."""
        try:
            if arm is not served.champion and not arm.has_champions_schema:
                table = self._read(body, arm, form)
            return _Result(table, arm.loaded.session.predict(table), 200, None)
        except Exception as fault:  # noqa: BLE001 - the outer edge: it is recorded as this arm's error
            return self._failed(table, fault)

    async def _ask_together(
        self, arm: Arm, served: Served, table: Rows, body: bytes, form: Form
    ) -> _Result:
        """The same of a model that takes its time, with what others ask of it meanwhile."""
        try:
            if arm is not served.champion and not arm.has_champions_schema:
                table = self._read(body, arm, form)
            return _Result(table, await self._gather(arm.loaded).predict(table), 200, None)
        except Exception as fault:  # noqa: BLE001 - as above
            return self._failed(table, fault)

    def _gather(self, loaded: Loaded) -> Gather:
        session = loaded.session
        gather = self._gathers.get(session)
        if gather is None:
            # A native model answers one call after the other; a second one of a graph fills what the first leaves idle.
            at_once = 1 if session.manifest.flavour == "native" else 2
            gather = Gather(session, self._pool, at_once=at_once, count=self.meter.call)
            self._gathers[session] = gather
        return gather

    def _failed(self, table: Rows, fault: Exception) -> _Result:
        if isinstance(fault, InputFault):
            return _Result(None, None, fault.status, fault)
        if isinstance(fault, ModelFault):
            return _Result(table, None, 503, fault)
        _log.error("%s: an arm failed in a way that is not the model's own", self.name, exc_info=fault)  # fmt: skip
        return _Result(table, None, 500, fault)

    def _finish(
        self,
        id: str,
        started: float,
        served: Served,
        arm: Arm,
        table: Rows,
        result: _Result,
        body: bytes,
        key: bytes,
        form: Form,
    ) -> Answer:
        spec = arm.spec
        if result.predictions is not None:
            written = form.write(result.predictions, id, spec.version, arm.loaded.schema)
            answer = Answer(200, written, id=id)
        else:
            answer = result.as_error(id, spec.version)
            self.n_errors += 1
            self.meter.errors[form.route, result.code] += 1
        self.n_requests += 1
        hashed = self._hashed(key.decode("latin-1")) if key else ""
        latency_s = time.perf_counter() - started
        self.meter.answer(form.route, spec.role, spec.version, answer.status, latency_s)
        self._log(id, served, arm, spec.role, result, table.n, latency_s, hashed)
        arm.slot.end()
        for shadow in served.shadows:
            self._shadow.add((id, served, shadow, table, body, hashed, form))
        return answer

    def _log(
        self,
        id: str,
        served: Served,
        arm: Arm,
        role: Any,
        result: _Result,
        n: int,
        latency_s: float,
        key: str,
    ) -> None:
        """In any thread."""
        table, predictions = result.table, result.predictions
        outputs, scores, code = (
            (predictions.values, _scores(predictions, arm), "")
            if predictions is not None
            else ([], [], result.code)
        )
        inputs, new, missing = [], {}, {}
        if table is not None:
            new, missing = table.new, table.missing
            if self._sample >= 1 or _place(id) < self._sample:
                inputs = self._masked(table, arm)
        self.writer.append(
            Frame(
                id, time.time(), served.routes.seq, arm.spec.bundle, role, result.status, latency_s, key, n,
                inputs, outputs, scores, new, missing, code, arm.is_asked,
            )
        )  # fmt: skip

    def _masked(self, table: Rows, arm: Arm) -> list[list[Any]]:
        schema = arm.loaded.schema
        if not schema.personal:
            return table.inputs
        places = [i for i, column in enumerate(schema.inputs) if column.name in schema.personal]
        masked = [list(row) for row in table.inputs]
        for row in masked:
            for i in places:
                if row[i] is not None:
                    row[i] = self._hashed(row[i] if isinstance(row[i], str) else json.dumps(row[i]))
        return masked

    def _hashed(self, text: str) -> str:
        return hmac.digest(
            self._log_key, text.encode("utf-8", "surrogatepass"), hashlib.sha256
        ).hex()[:16]


class _Result:
    """What an arm made of a request."""

    __slots__ = ("fault", "predictions", "status", "table")

    def __init__(
        self,
        table: Rows | None,
        predictions: Predictions | None,
        status: int,
        fault: Exception | None,
    ) -> None:
        self.table, self.predictions, self.status, self.fault = table, predictions, status, fault

    @property
    def code(self) -> str:
        """Of the error."""
        return getattr(self.fault, "code", "serving.internal")

    def as_error(self, id: str, version: int) -> Answer:
        fault = self.fault
        if isinstance(fault, InputFault):
            return error(
                fault.status,
                fault.code,
                f"version {version}: {fault.message}",
                at=fault.at,
                request_id=id,
            )
        if isinstance(fault, ModelFault):
            # What the model said of its failure may hold anything; it stands in the server's own log.
            return error(
                503,
                fault.code,
                f"version {version} of the model could not answer; the request itself is fine",
                at="$",
                request_id=id,
                retry_after_s=1,
            )
        return error(
            500, "serving.internal", "the server failed on this request", at="$", request_id=id
        )


def _place(id: str) -> float:
    """A prediction's fixed place in [0, 1), so that all arms that saw it log its inputs, or none does."""
    return zlib.crc32(id.encode()) / 2**32


def _scores(predictions: Predictions, arm: Arm) -> list[float]:
    scores = predictions.scores
    output = arm.loaded.schema.output
    if scores.ndim == 1:
        return predictions.values
    if output.task == "binary" and output.positive in output.classes:
        return scores[:, output.classes.index(output.positive)].tolist()
    return scores.max(axis=1).tolist()


_Copy = tuple[str, Served, Arm, Rows, bytes, str, Form]


class _Shadow:
    """Lets shadow arms answer copies, in a thread of its own, after the answer was made; a full queue drops."""

    def __init__(self, model: Model) -> None:
        self.n_dropped = 0
        self._model = model
        self._queue: queue.SimpleQueue[_Copy | None] = queue.SimpleQueue()
        self._n_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closing = False
        self._thread: threading.Thread | None = None

    @property
    def n_waiting(self) -> int:
        return self._queue.qsize()

    def add(self, copy: _Copy) -> None:
        """On the event loop."""
        if self._queue.qsize() >= _SHADOW_ITEMS or self._n_bytes + len(copy[4]) > _SHADOW_BYTES:
            self.n_dropped += 1
            return
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
            self._thread.start()
        copy[2].loaded.in_flight += 1
        self._n_bytes += len(copy[4])
        self._queue.put(copy)

    def close(self) -> None:
        """Wait for what is being answered; what still stands in the queue is dropped."""
        self._is_closing = True
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        assert self._loop is not None
        while (copy := self._queue.get()) is not None:
            if self._is_closing:
                self.n_dropped += 1
                continue
            id, served, arm, table, body, key, form = copy
            started = time.perf_counter()
            arm.slot.begin()  # the slots of shadows are this thread's
            try:
                result = self._model._ask(arm, served, table, body, form)
                latency_s = time.perf_counter() - started
                self._model._log(id, served, arm, "shadow", result, table.n, latency_s, key)
                arm.slot.end()
            finally:
                self._loop.call_soon_threadsafe(self._done, arm, len(body))

    def _done(self, arm: Arm, n_bytes: int) -> None:
        self._n_bytes -= n_bytes
        self._model.receiver.release(arm.loaded)


class Models:
    """All models of a server, by name."""

    def __init__(self, models: Iterable[Model], *, worker: str) -> None:
        self.by_name: Mapping[str, Model] = {model.name: model for model in models}
        self.worker = worker
        self._only = next(iter(self.by_name.values())) if len(self.by_name) == 1 else None
        self._hot = {name: model for name, model in self.by_name.items() if not model.is_durable}
        self._only_hot = self._only if self._hot else None

    def get(self, name: str, *, path: str) -> Model:
        """A model by its name; the empty name is the only one there is.

        Raises:
            Refusal: 404, with the names that are there.
        """
        model = self.by_name.get(name) if name else self._only
        if model is not None:
            return model
        known = ", ".join(sorted(self.by_name)) or "none"
        if not name:
            raise Refusal(
                404,
                "serving.which_model",
                f"there are several models here: use {path}/<model> with one of {known}",
            )
        raise Refusal(
            404,
            "serving.no_such_model",
            f"there is no model {name[:100]!r} here; there is: {known}",
        )

    def find(self, path: bytes) -> Model | None:
        """The model of a hot path, `/invocations` or `/invocations/<model>`; None for everything else.

        A durable model has none: its answers wait for the disk.
        """
        if path == b"/invocations":
            return self._only_hot
        if path.startswith(b"/invocations/"):
            return self._hot.get(path[13:].decode("latin-1"))
        return None


def _log_key(state: Path) -> bytes:
    try:
        return keys.log_key(state / "keys")
    except RuntimeFault as fault:
        # Personal columns must never be logged in the clear, and a hash without a key can be guessed.
        raise RuntimeFault(
            f"the server cannot start without a key for personal columns: {fault}"
        ) from None
