"""A line for each request, whichever way it went, and the trace it belongs to."""

from __future__ import annotations

import json
import re

import pytest
from serving.bench import arm, until

from gyrostat.serving import access_log
from gyrostat.serving.access_log import AccessLog, Trace

ROW = [2.0, 3.0, "kim"]
TRACE_ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACE = f"00-{TRACE_ID}-{PARENT}-01"


@pytest.fixture
def lined(bench):
    """A server that writes lines, and what reads them once there are so many."""
    bench.route(arm(bench.bundle(5.0)))
    server = bench.serve(access_log="file")
    until(lambda: server.ask("GET", "/ready")[0] == 200)

    def lines(n):
        file = bench.state / "access" / "w0.jsonl"
        found = lambda: [line for line in map(json.loads, file.read_text().splitlines()) if line["path"] not in ("/ready", "/health")]  # noqa: E731 # fmt: skip
        return until(lambda: file.exists() and len(found()) >= n and found())

    return server, lines


def test_each_request_has_its_line_on_the_hot_and_on_the_long_way(lined):
    server, lines = lined
    ids = [server.predict(ROW)[1]["id"] for _ in range(2)]  # the second by a head that is known
    ids.append(server.ask("POST", "/predict?secret=1", {"alcohol": 2.0, "pH": 3.0, "who": "kim"})[1]["id"])  # fmt: skip
    server.predict(["x", 3.0, "kim"])
    server.ask("GET", "/nothing")
    found = lines(5)
    assert [line["path"] for line in found] == [*["/invocations"] * 2, "/predict", "/invocations", "/nothing"]  # fmt: skip
    assert [line["status"] for line in found] == [200, 200, 200, 400, 404]
    assert [line["id"] for line in found[:3]] == ids
    assert {line["client"] for line in found} == {"127.0.0.1"}
    assert {line["worker"] for line in found} == {"w0"}
    assert all(0 < line["ms"] < 60_000 and line["bytes_out"] > 0 for line in found)
    assert all(line["bytes_in"] > 0 for line in found[:4])
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize("path", ["/invocations", "/predict"])
def test_a_trace_is_passed_on_and_answered_with_our_part_in_it(lined, path):
    server, lines = lined
    body = {"instances": [ROW]} if path == "/invocations" else {"alcohol": 2.0, "pH": 3.0, "who": "kim"}  # fmt: skip
    spans = []
    for n in range(2):
        link = server.connect()
        head = {"Content-Type": "application/json", "traceparent": TRACE}
        link.request("POST", path, json.dumps(body), head)
        answer = link.getresponse()
        assert answer.status == 200
        part = re.fullmatch(rf"00-{TRACE_ID}-([0-9a-f]{{16}})-01", answer.headers["traceresponse"])
        link.close()
        spans.append(part[1])
        line = lines(n + 1)[-1]
        assert (line["trace_id"], line["parent_id"], line["span_id"]) == (TRACE_ID, PARENT, spans[-1])  # fmt: skip
    assert len({*spans, PARENT}) == 3


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        TRACE[:-1],
        TRACE + "0",
        TRACE.upper(),
        f"ff-{TRACE_ID}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
    ],
)
def test_what_is_no_trace_is_none(header):
    assert Trace.of(header.encode()) is None


def test_a_later_version_of_the_header_is_read_as_far_as_it_is_known():
    assert Trace.of(f"01{TRACE[2:]}-more".encode()).trace_id == TRACE_ID


def test_a_file_that_is_full_makes_room_and_a_disk_that_is_full_costs_lines_that_are_counted(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(access_log, "LARGEST", 300)
    monkeypatch.setattr(access_log, "FLUSH_S", 60)
    path = tmp_path / "w0.jsonl"
    lines = AccessLog(path, "w0")

    def add(n):
        for _ in range(n):
            lines.add("GET", "/", 200, 0.001, n_in=0, n_out=2, client="::1")
        lines.flush()

    add(3)
    add(1)
    assert len((tmp_path / "w0.jsonl.1").read_text().splitlines()) == 3
    lines._path = tmp_path / "nowhere" / "w0.jsonl"
    add(2)
    add(1)
    lines._path = path
    add(1)
    lines.close()
    said = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(said) == 3
    assert said[-1] == {"worker": "w0", "dropped": 3}
