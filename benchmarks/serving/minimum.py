"""The bare minimum of a model server: uvloop, httptools, msgspec, one call of the session, and nothing else.

No check of a value, no route, no log, no metric, no limit, no error: what a server could reach that did none of it.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httptools
import msgspec
import numpy as np
import onnxruntime
import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_encode = msgspec.json.Encoder().encode
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}
Answer = Callable[[bytes], bytes]


class _Numbers(msgspec.Struct):
    instances: list[list[float]]


class _Mixed(msgspec.Struct):
    instances: list[list[float | str]]


def answer_numbers(session: Any) -> Answer:
    """Of a graph that takes numbers alone."""
    decode, kind = msgspec.json.Decoder(_Numbers).decode, _number_type(session)

    def answer(body: bytes) -> bytes:
        num = np.array(decode(body).instances, kind)
        return _encode({"predictions": session.run(["output"], {"num": num})[0][:, 0].tolist()})

    return answer


def answer_mixed(session: Any, n_numbers: int) -> Answer:
    """Of a graph that takes numbers and texts; in a request the numbers come first."""
    decode, kind = msgspec.json.Decoder(_Mixed).decode, _number_type(session)

    def answer(body: bytes) -> bytes:
        rows = decode(body).instances
        num = np.array([row[:n_numbers] for row in rows], kind)
        cat = np.array([row[n_numbers:] for row in rows], object)
        found = session.run(["output"], {"num": num, "cat": cat})[0]
        return _encode({"predictions": found[:, 0].tolist()})

    return answer


def echo(body: bytes) -> bytes:
    """No model at all: the ceiling of whoever asks."""
    return b'{"predictions":[0.0]}'


class Protocol(asyncio.Protocol):
    """One connection."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = []

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = self._answer(b"".join(self._body))
        self._transport.write(_HEAD % (len(body), body))


def load(path: str) -> Any:
    """A session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _number_type(session: Any) -> type:
    return next(_TYPES[i.type] for i in session.get_inputs() if i.name == "num")


def make_answer(model: str, n_numbers: int) -> Answer:
    """Of a graph; of none where `model` is empty."""
    if not model:
        return echo
    session = load(model)
    return answer_mixed(session, n_numbers) if n_numbers else answer_numbers(session)


async def _serve(answer: Answer, sock: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(answer), sock=sock)
    await server.serve_forever()


def main() -> None:
    """Serve until ended."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--fd", type=int, required=True, help="A listening socket.")
    asked.add_argument("--model", default="", help="A graph; none: a constant is answered.")
    asked.add_argument("--numbers", type=int, default=0, help="Numbers before the texts of a row.")
    told = asked.parse_args()
    uvloop.run(_serve(make_answer(told.model, told.numbers), socket.socket(fileno=told.fd)))


if __name__ == "__main__":
    main()
