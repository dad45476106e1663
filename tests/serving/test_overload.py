"""More requests than a model can answer: who waits is bounded, the others hear when to come again, and the rest of the server goes on."""

from __future__ import annotations

import asyncio
import json

import pytest
from serving.bench import arm, until

from gyrostat.serving import predicting

N = 2 * predicting._MOST_IN_THREADS
BODY = json.dumps({"instances": [[2.0, 3.0, "kim"]]}).encode()
POST = (
    b"POST /invocations/%b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%b"
)


class Lazy:
    """A model without a graph that takes its time."""

    def predict(self, frame):
        import time

        time.sleep(0.3)
        return frame.sum(axis=1).to_numpy()


@pytest.fixture
def lazy(bench):
    """A server of a slow model, `wine`, and of a quick one, `other`."""
    bench.route(arm(bench.bundle(1.0, estimator=Lazy())))
    bench.route(arm(bench.bundle(2.0, model="other")), model="other")
    server = bench.serve("wine", "other")
    until(lambda: server.ask("GET", "/ready")[0] == 200, seconds=60)
    return server


async def ask(address, data):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), head.lower(), body


def test_some_wait_the_others_are_told_to_come_again_and_health_metrics_and_neighbours_answer(lazy):
    async def flood():
        slow = POST % (b"wine", len(BODY), BODY)
        asked = [asyncio.create_task(ask(lazy.address, slow)) for _ in range(N)]
        beside = []
        while not all(one.done() for one in asked):
            for path in (b"/health", b"/metrics"):
                beside.append(await ask(lazy.address, b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path))  # fmt: skip
            beside.append(await ask(lazy.address, POST % (b"other", len(BODY), BODY)))
        return [one.result() for one in asked], beside

    answers, beside = asyncio.run(flood())
    right = [json.loads(body)["predictions"] for status, _, body in answers if status == 200]
    refused = [(head, json.loads(body)) for status, head, body in answers if status == 503]
    assert len(right) + len(refused) == N
    assert right == [[5.0]] * len(right)
    assert len(right) >= predicting._MOST_IN_THREADS
    assert refused
    assert all(b"retry-after: 1" in head for head, _ in refused)
    assert {value["error"]["code"] for _, value in refused} == {"serving.overloaded"}
    assert len(beside) >= 3
    assert {status for status, *_ in beside} == {200}
    assert lazy.predict([2.0, 3.0, "kim"], path="/invocations/wine")[0] == 200  # over at once
