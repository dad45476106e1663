"""What the hot route relies on in uvicorn's private protocol class: order, framing, keep-alive and the end of things."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from types import SimpleNamespace

import httptools
import pytest
import uvicorn
from serving.bench import until
from uvicorn.server import ServerState

from gyrostat.serving import http as hot
from gyrostat.serving.answers import Answer
from gyrostat.serving.http import HotProtocol, is_json_type

BODY = b'{"instances": [[2.0, 3.0, "kim"]]}'
HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
POST = HEAD % len(BODY) + b"\r\n" + BODY


def get(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"


def answers(link: socket.socket, n: int | None = None) -> list[tuple[int, dict]]:
    """The next `n` answers, or all until the server closes."""
    found: list[tuple[int, dict]] = []
    stream = link.makefile("rb")
    while n is None or len(found) < n:
        line = stream.readline()
        if not line:
            assert n is None
            return found
        size = 0
        while (header := stream.readline().lower()) != b"\r\n":
            if header.startswith(b"content-length:"):
                size = int(header.partition(b":")[2])
        found.append((int(line.split()[1]), json.loads(stream.read(size))))
    return found


@pytest.fixture
def link(steady):
    """A connection to a server that is shared."""
    with socket.create_connection(steady[1].address, timeout=10) as link:
        yield link


def test_pipelined_requests_of_both_ways_are_answered_in_their_order(link):
    link.sendall(POST + get(b"/health") + POST + get(b"/version") + get(b"/nothing") + POST)
    found = answers(link, 6)
    assert [status for status, _ in found] == [200, 200, 200, 200, 404, 200]
    assert [next(iter(answer)) for _, answer in found] == [
        "predictions",
        "status",
        "predictions",
        "gyrostat",
        "error",
        "predictions",
    ]


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_request_may_arrive_in_pieces_of_any_size(link, size):
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(0, len(POST), size):
        link.sendall(POST[i : i + size])
    ((status, answer),) = answers(link, 1)
    assert (status, answer["predictions"]) == (200, [10.0])


def test_chunks_are_one_body(link):
    head = HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + b"\r\n"
    pieces = [BODY[:5], BODY[5:6], BODY[6:]]
    link.sendall(
        head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n" + POST
    )
    assert [answer["predictions"] for _, answer in answers(link, 2)] == [[10.0], [10.0]]


@pytest.mark.parametrize(
    "request_",
    [
        POST.replace(b"HTTP/1.1", b"HTTP/1.0"),
        POST.replace(b"Host: x", b"Host: x\r\nConnection: close"),
    ],
    ids=["HTTP/1.0", "close"],
)
def test_a_client_that_wants_one_answer_gets_one_and_the_end(link, request_):
    link.sendall(request_ + POST)
    assert [status for status, _ in answers(link)] == [200]


def test_bytes_that_are_not_http_are_a_400_in_our_form_and_the_end(link):
    link.sendall(POST + b"\x16\x03\x01\x02\x00\r\n\r\n")
    (good, bad) = answers(link)
    assert (good[0], bad[0]) == (200, 400)
    assert bad[1]["error"].keys() == {"code", "at", "message", "request_id"}


def test_sigterm_answers_a_request_that_is_half_here(served):
    _, server = served
    with socket.create_connection(server.address, timeout=10) as link:
        link.sendall(POST[:-5])
        until(lambda: server.ask("GET", "/health")[0] == 200)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.ask("GET", "/health")[0] == 0)
        link.sendall(POST[-5:])
        assert [status for status, _ in answers(link)] == [200]
    assert server.process.wait(10) == 0


class Wire:
    """A transport that keeps what is written."""

    def __init__(self):
        self.sent = b""
        self.is_closed = False

    def write(self, data):
        self.sent += data

    def close(self):
        self.is_closed = True

    def is_closing(self):
        return self.is_closed

    def get_extra_info(self, name):
        return None

    def pause_reading(self): ...
    def resume_reading(self): ...


class Loop:
    """Timers that a test fires itself."""

    def __init__(self):
        self.timers, self.now = [], 0.0

    def time(self):
        return self.now

    def call_later(self, seconds, call):
        self.timers.append((self.now + seconds, call))
        return SimpleNamespace(cancel=lambda: None)


@pytest.fixture
def connection():
    """A hot protocol on a wire, with a model that does what `connection.model.answer` says."""
    model = SimpleNamespace(is_inline=True, answer=lambda body, key: Answer(200, b"{}"))
    models = SimpleNamespace(find=lambda path: model if path == b"/invocations" else None)
    kind = type("Bound", (HotProtocol,), {"models": models, "known": {}})
    config = uvicorn.Config(app=lambda: None, log_config=None, lifespan="off", ws="none")
    protocol = kind(config, ServerState(), {}, _loop=Loop())
    wire = Wire()
    protocol.connection_made(wire)
    return SimpleNamespace(protocol=protocol, wire=wire, model=model, loop=protocol.loop)


def unparsed(connection):
    """What comes from now on must be answered without the parser."""

    def feed_data(data):
        raise AssertionError("parsed")

    connection.protocol.parser = SimpleNamespace(feed_data=feed_data)


def said(connection):
    """Bodies that reached the model, with their keys."""
    found = []
    connection.model.answer = lambda body, key: found.append((body, key)) or Answer(200, body)
    return found


def a_post(body, *lines, path=b"/invocations", end=b"\r\n"):
    head = [
        b"POST %b HTTP/1.1" % path,
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *lines,
    ]
    return end.join([*head, b"", body])


def test_a_head_that_was_read_once_is_known_and_its_body_is_not(connection):
    found = said(connection)
    connection.protocol.data_received(a_post(b"1234", b"X-Gyrostat-Key: kim"))
    connection.protocol.data_received(a_post(b"12", b"X-Gyrostat-Key: lee"))
    unparsed(connection)
    connection.protocol.data_received(a_post(b"5678", b"X-Gyrostat-Key: kim"))
    connection.protocol.data_received(a_post(b"56", b"X-Gyrostat-Key: lee"))
    assert found == [(b"1234", b"kim"), (b"12", b"lee"), (b"5678", b"kim"), (b"56", b"lee")]
    assert connection.wire.sent.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert connection.wire.sent.endswith(b"content-length: 2\r\n\r\n56")


@pytest.mark.parametrize(
    "pieces",
    [
        [a_post(b"1234")[:-1], b"4"],
        [a_post(b"1234") * 2],
        [a_post(b"1234") + a_post(b"1234")[:-2], b"34"],
        [b"\r\n" + a_post(b"1234")],
    ],
)
def test_what_comes_otherwise_than_in_one_piece_is_parsed_though_its_head_is_known(
    connection, pieces
):
    connection.protocol.data_received(a_post(b"1234"))
    found = said(connection)
    for piece in pieces:
        connection.protocol.data_received(piece)
    assert {body for body, _ in found} == {b"1234"}
    assert len(found) == b"".join(pieces).count(b"POST")


@pytest.mark.parametrize(
    "first",
    [
        a_post(b"1234", b"Connection: close"),
        a_post(b"1234").replace(b"HTTP/1.1", b"HTTP/1.0"),
        a_post(b"1234", b"X-Long: " + b"a" * hot.HEAD_BYTES),
        b"POST /invocations HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\n1234\r\n0\r\n\r\n",
        a_post(b"1234", path=b"/ping"),
    ],
)
def test_a_head_that_asks_for_more_than_an_answer_is_parsed_each_time(connection, first):
    with contextlib.suppress(Exception):
        connection.protocol.data_received(first)
    assert connection.protocol.known == {}


def test_a_head_whose_lines_end_by_themselves_is_parsed_each_time(connection):
    """The parser takes them; we would look for another end of the head."""
    connection.protocol.data_received(a_post(b"1234", end=b"\n") + b"\r\n\r\n1234")
    assert connection.protocol.known == {}


def test_a_known_head_goes_the_long_way_once_its_model_takes_its_time(connection):
    connection.protocol.data_received(a_post(b"1234"))
    connection.model.is_inline = False
    found = said(connection)
    with contextlib.suppress(Exception):  # this app is none
        connection.protocol.data_received(a_post(b"5678"))
    assert found == []


def test_however_many_heads_come_only_so_many_are_kept(connection):
    for n in range(hot.KNOWN_HEADS * 2):
        connection.protocol.data_received(a_post(b"1234", b"X-Gyrostat-Key: %d" % n))
    assert 0 < len(connection.protocol.known) <= hot.KNOWN_HEADS


def test_a_fault_of_our_own_is_a_500_without_insides_and_the_connection_lives(connection):
    def fail(body, key):
        raise RuntimeError("secret detail")

    connection.model.answer = fail
    connection.protocol.data_received(POST)
    assert connection.wire.sent.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in connection.wire.sent
    assert not connection.wire.is_closed


def test_a_connection_is_closed_so_long_after_it_last_said_something_and_never_in_the_middle(
    connection,
):
    loop, patience = connection.loop, connection.protocol.timeout_keep_alive

    def look():
        """Fire the one timer that looks for silence, when it is due."""
        loop.now, call = loop.timers.pop(0)
        call()

    loop.now = 1.0
    connection.protocol.data_received(POST)
    look()
    assert loop.now == patience
    assert not connection.wire.is_closed  # it fell silent later than it came
    connection.protocol.data_received(POST[:-1])
    loop.timers.pop()  # which gives up a request that never ends
    look()
    look()
    assert not connection.wire.is_closed  # half a request is here
    connection.protocol.data_received(POST[-1:])
    look()
    assert connection.wire.is_closed


def test_a_request_that_never_ends_is_given_up_with_a_408(connection):
    connection.protocol.data_received(POST[:-1])
    (give_up,) = [call for seconds, call in connection.loop.timers if seconds == hot.READ_TIMEOUT_S]
    give_up()
    assert connection.wire.sent.startswith(b"HTTP/1.1 408 ")
    assert connection.wire.is_closed


def ended(connection):
    """The server ends while nothing is going on; what closes the connection a moment later."""
    connection.protocol.shutdown()
    assert not connection.wire.is_closed
    (close,) = [call for seconds, call in connection.loop.timers if seconds == hot.LAST_CALL_S]
    return close


def test_a_request_that_was_on_its_way_when_the_server_ended_is_answered_and_the_connection_closed(
    connection,
):
    close = ended(connection)
    connection.protocol.data_received(POST)
    assert connection.wire.sent.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in connection.wire.sent.lower()
    assert connection.wire.is_closed
    close()


def test_a_silent_connection_is_closed_a_moment_after_the_server_ended(connection):
    ended(connection)()
    assert connection.wire.sent == b""
    assert connection.wire.is_closed


def test_a_request_that_is_arriving_in_that_moment_is_waited_for(connection):
    close = ended(connection)
    connection.protocol.data_received(POST[:-1])
    close()
    assert not connection.wire.is_closed
    connection.protocol.data_received(POST[-1:])
    assert connection.wire.sent.startswith(b"HTTP/1.1 200 ")
    assert connection.wire.is_closed


def test_the_parser_still_has_what_the_short_cut_uses():
    parser = httptools.HttpRequestParser(SimpleNamespace())
    assert {"get_method", "get_http_version", "should_keep_alive", "should_upgrade"} <= set(
        dir(parser)
    )


@pytest.mark.parametrize(
    ("header", "is_json"),
    [
        (b"application/json", True),
        (b"Application/JSON ; charset=UTF-8", True),
        (b'application/json; charset="utf-8"', True),
        (b"application/json; charset=latin-1", False),
        (b"application/jsonl", False),
        (b"text/csv", False),
        (b"", False),
    ],
)
def test_json_is_known_by_its_type_not_by_the_letters(header, is_json):
    assert is_json_type(header) is is_json
