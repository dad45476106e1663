"""Print what each stage of a request costs, in microseconds of processor time, beside the bare minimum's whole.

Within one process, without a socket: `python -m benchmarks.serving.stages`. Each stage is measured alone, the best of many
short turns; the whole costs more than their sum, as the stages take each other's place in the processor's caches.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from benchmarks.serving import minimum, models
from benchmarks.serving.models import Served
from gyrostat.serving.answers import Answer, wire
from gyrostat.serving.forms import INVOCATIONS
from gyrostat.serving.http import HotProtocol
from gyrostat.serving.predicting import Model, Models
from gyrostat.serving.settings import ServingSettings

CALLS, TURNS = 40, 200
HEAD = b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
DATE = [(b"date", b"Sun, 29 Nov 2026 10:00:00 GMT")]


def cost_us(what: Callable[[], Any]) -> float:
    """The best of many short turns."""
    turns = timeit.repeat(what, number=CALLS, repeat=TURNS, timer=time.thread_time)
    return min(turns) / CALLS * 1e6


class Nowhere:
    """A transport that leads nowhere."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> None:
        return None


async def _no_app(scope: Any, receive: Any, send: Any) -> None: ...


def connection(model: Any) -> HotProtocol:
    """A connection to a server of one model."""
    kind = type("Bound", (HotProtocol,), {"models": model, "known": {}})
    config = uvicorn.Config(app=_no_app, log_config=None, lifespan="off", ws="none")  # fmt: skip
    state = ServerState()
    state.default_headers = DATE
    made = kind(config, state, {}, _loop=asyncio.get_running_loop())
    made.connection_made(Nowhere())  # type: ignore[arg-type]
    return made


async def measure(served: Served, n: int) -> dict[str, float]:
    """Costs of a request of `n` rows by stage."""
    body = models.instances(served.rows(n))
    data = HEAD % len(body) + body
    with ThreadPoolExecutor(1) as pool:
        model = Model(served.state, models.NAME, f"w{n}", ServingSettings(), pool=pool, opener=pool, sync_s=0.2)  # fmt: skip
        await model.receiver.start()
        now = model.served
        assert now is not None
        arm, id = now.champion, model.writer.next_id(time.time())
        rows = model._read(body, arm, INVOCATIONS)
        result = model._ask(arm, now, rows, body, INVOCATIONS)
        predictions = result.predictions
        assert predictions is not None
        answer = Answer(200, INVOCATIONS.write(predictions, id, 1, arm.loaded.schema))
        deaf = SimpleNamespace(is_inline=True, answer=lambda body, key: answer)
        shut = connection(SimpleNamespace(find=lambda path: deaf))
        whole, bare = (
            connection(Models([model], worker=f"w{n}")),
            minimum.Protocol(minimum.make_answer(str(served.onnx), 0)),
        )
        bare.connection_made(Nowhere())
        found = {
            "HTTP, in and out": cost_us(lambda: shut.data_received(data)),
            "  of it the answer's head": cost_us(lambda: wire(answer, DATE, keep_alive=True)),
            "a prediction id": cost_us(lambda: model.writer.next_id(time.time())),
            "JSON to a checked matrix": cost_us(lambda: model._read(body, arm, INVOCATIONS)),
            "the model": cost_us(lambda: arm.loaded.session.predict(rows)),
            "predictions to JSON": cost_us(
                lambda: INVOCATIONS.write(predictions, id, 1, arm.loaded.schema)
            ),
            "metrics": cost_us(lambda: model.meter.answer("invocations", "champion", 1, 200, 1e-4)),
            "requests in flight": cost_us(lambda: (arm.slot.begin(), arm.slot.end())),
            "the log": cost_us(lambda: model._log(id, now, arm, "champion", result, n, 1e-4, "")),
            "the whole": cost_us(lambda: whole.data_received(data)),
            "the bare minimum's whole": cost_us(lambda: bare.data_received(data)),
        }
        await model.close()
        return found


def main() -> None:
    """Measure and print."""
    print(f"load average {os.getloadavg()[0]:.1f}; microseconds of processor time")
    with tempfile.TemporaryDirectory() as folder:
        served = models.wine(Path(folder) / "wine")
        one, hundred = (uvloop.run(measure(served, n)) for n in (1, 100))
    print(f"{'':28}{'1 row':>10}{'100 rows':>10}")
    for stage, us in one.items():
        print(f"{stage:28}{us:>10.1f}{hundred[stage]:>10.1f}")


if __name__ == "__main__":
    main()
