"""The server that ours is measured against answers what the model answers; else the ratios would say nothing."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ["wine", "mixed"])
def test_the_bare_minimum_answers_as_the_model(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    from benchmarks.serving import models, servers

    served = models.KINDS[kind](tmp_path / kind)
    with servers.minimum(served, workers=1) as minimum:
        minimum.check(served, 3)
        # A right answer to another row is not right: the check can fail.
        _, value = minimum.ask(minimum.write(served.rows(1, 40)))
        assert not served.is_right(minimum.read(value), start=0)


def a_turn(**changes):
    from benchmarks.serving.load import Turn

    return Turn(**{"n": 10, "per_s": 1.0, "p50_ms": 1.0, "p99_ms": 1.0, "n_wrong": 0, "cpu_us": 1.0, **changes})  # fmt: skip


@pytest.mark.parametrize(
    ("turns", "held", "applied", "code"),
    [
        ([{}, {}, {}, {}], [50.0, 90.0, 100.0, 104.0], 2, 0),
        ([{}, {"n_wrong": 1}, {}, {}], [100.0] * 4, 2, 1),
        ([{}, {}, {}, {}], [100.0, 100.0, 100.0, 106.0], 2, 1),
        ([{}, {}, {}, {}], [100.0] * 4, 1, 1),
    ],
    ids=["held", "a request failed", "memory grew", "a swap was not applied"],
)
def test_a_soak_says_what_was_not_held(monkeypatch, turns, held, applied, code):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    from types import SimpleNamespace

    from benchmarks.serving import soak

    swapper = SimpleNamespace(n=applied, n_asked=2)
    assert soak._judged([a_turn(**turn) for turn in turns], held, swapper, 3) == code


def test_the_generator_counts_whatever_is_no_200_or_no_answer(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    import asyncio

    from benchmarks.serving import generator

    monkeypatch.setattr(generator, "LAST_S", 0.2)
    n_asked = 0

    async def answer(reader, writer):
        nonlocal n_asked
        while await reader.readuntil(b"\r\n\r\n"):
            n_asked += 1
            if n_asked == 5:
                return  # this connection is never answered
            if n_asked == 7:
                writer.close()
                return
            status = b"500 Wrong" if n_asked in (1, 20) else b"200 OK"
            writer.write(b"HTTP/1.1 %b\r\ncontent-length: 2\r\n\r\n{}" % status)

    async def story():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            found = generator.Load(b"POST / HTTP/1.1\r\n\r\n", per_s=200)
            return await found.run(port, connections=8, seconds=0.5)

    told = asyncio.run(story())
    assert n_asked > 20
    assert told["n_wrong"] == 4  # two of another status, one without an answer, one cut off
    assert told["n"] == n_asked - 2
