"""`GET /metrics`: what was counted is what was asked, in a form that Prometheus reads."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import threading

import pytest
from serving.bench import arm, until

ROW = [2.0, 3.0, "kim"]
SAMPLE = re.compile(r"^([a-z_]+)\{((?:[a-z_]+=\"(?:[^\"\\\n]|\\.)*\",?)*)\} (\S+)$")
LABEL = re.compile(r"([a-z_]+)=\"((?:[^\"\\\n]|\\.)*)\"")


def scrape(server) -> dict[str, dict[frozenset, float]]:
    """The page as a strict reader sees it: samples by name and labels."""
    link = http.client.HTTPConnection(*server.address, timeout=10)
    try:
        link.request("GET", "/metrics")
        answer = link.getresponse()
        text = answer.read().decode()
    finally:
        link.close()
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(text)


def parse(text: str) -> dict[str, dict[frozenset, float]]:
    assert text.endswith("\n")
    found: dict[str, dict[frozenset, float]] = {}
    kinds: dict[str, str] = {}
    family = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert family not in kinds, f"{family} begins twice"
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family
            assert kind in ("counter", "gauge", "histogram")
            assert (kind == "counter") is name.endswith("_total")
            kinds[name] = kind
            continue
        match = SAMPLE.match(line)
        assert match, line
        name, labels, value = match.groups()
        stem = re.sub(r"_(bucket|sum|count)$", "", name)
        assert family in ((stem,) if kinds[family] == "histogram" else (name,)), line
        key = frozenset(LABEL.findall(labels))
        assert key not in found.setdefault(name, {}), f"twice: {line}"
        assert float(value) >= 0
        found[name][key] = float(value)
    return found


def pick(page, name, **labels) -> float:
    wanted = {(k, str(v)) for k, v in labels.items()}
    return sum(n for key, n in page.get(name, {}).items() if wanted <= key)


@pytest.mark.parametrize(
    "text",
    [
        '# HELP a a\n# TYPE a gauge\na{x="1"} 1\na{x="1"} 1\n',
        '# HELP a a\n# TYPE a counter\na{x="1"} 1\n',
        '# HELP a_total a\n# TYPE a_total gauge\na_total{x="1"} 1\n',
        '# HELP a a\n# TYPE a gauge\nb{x="1"} 1\n',
        '# HELP a a\n# TYPE a gauge\na{x=""1"} 1\n',
        '# HELP a a\n# TYPE a gauge\na{x="1"} 1',
    ],
)
def test_the_reader_of_these_tests_refuses_what_prometheus_would(text):
    with pytest.raises(AssertionError):
        parse(text)


def test_each_request_is_counted_once_by_route_arm_and_status(served):
    bench, server = served
    for _ in range(3):
        server.predict(ROW)
    row = {"alcohol": 2.0, "pH": 3.0, "who": "kim"}
    server.ask("POST", "/predict", row)
    server.predict(["2", 3.0, "kim"])
    server.predict(["2", 3.0, "kim"])
    server.ask("POST", "/invocations", b"who\nkim\n", headers={"Content-Type": "text/csv"})
    server.ask("GET", "/nothing")
    server.predict(ROW, path="/invocations/beer")
    page = scrape(server)
    total, common = "gyrostat_requests_total", {"model": "wine", "worker": "w0"}
    assert pick(page, total, **common) == 7
    plain = {"route": "invocations", "arm": "champion", "version": 1, "status": 200}
    assert pick(page, total, **common, **plain) == 3
    assert pick(page, total, route="predict", status=200) == 1
    assert pick(page, total, route="invocations", status=400, arm="") == 3
    assert pick(page, "gyrostat_errors_total", code="serving.wrong_type", **common) == 2
    assert pick(page, "gyrostat_errors_total", code="serving.missing_column") == 1
    assert pick(page, "gyrostat_http_errors_total", code="http.no_such_path", status=404) == 1
    assert pick(page, "gyrostat_http_errors_total", code="serving.no_such_model") == 1
    assert pick(page, "gyrostat_bundle_info", bundle=bench.route_bundle, version=1) == 1
    assert pick(page, "gyrostat_routes_seq", model="wine") == bench.seq
    assert pick(page, "gyrostat_ready") == pick(page, "gyrostat_info", worker="w0") == 1


def test_buckets_add_up_and_their_last_is_the_count(served):
    _, server = served
    for _ in range(20):
        server.predict(ROW)
    page = scrape(server)
    buckets = sorted(
        (float(dict(key)["le"]), n) for key, n in page["gyrostat_request_seconds_bucket"].items()
    )
    counts = [n for _, n in buckets]
    assert counts == sorted(counts)
    assert buckets[-1] == (float("inf"), 20)
    assert pick(page, "gyrostat_request_seconds_count") == 20
    assert 0 < pick(page, "gyrostat_request_seconds_sum") < 20 * buckets[-2][0]


def test_a_failing_arm_is_an_error_of_its_own_kind(bench):
    bench.route(arm(bench.bundle(5.0, fails_above=100.0)))
    server = bench.serve()
    until(lambda: server.ask("GET", "/ready")[0] == 200)
    assert server.predict([101.0, 3.0, "kim"])[0] == 503
    page = scrape(server)
    assert pick(page, "gyrostat_requests_total", arm="champion", status=503) == 1
    assert pick(page, "gyrostat_errors_total", route="invocations", code="model.failed") == 1


def test_without_a_champion_the_page_says_so(bench):
    server = bench.serve()
    assert server.predict(ROW)[0] == 503
    page = scrape(server)
    assert pick(page, "gyrostat_ready", model="wine") == 0
    assert pick(page, "gyrostat_errors_total", code="serving.no_champion") == 1
    assert "gyrostat_bundle_info" not in page


def test_the_page_answers_under_load_and_never_counts_back(served):
    _, server = served
    stop = threading.Event()
    sent: list[int] = []

    def flood() -> None:
        link, n = server.connect(), 0
        while not stop.is_set():
            assert server.predict(ROW, link=link)[0] == 200
            n += 1
        link.close()
        sent.append(n)

    threads = [threading.Thread(target=flood) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        seen = [pick(scrape(server), "gyrostat_requests_total") for _ in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]
    assert len(sent) == 6
    assert pick(scrape(server), "gyrostat_requests_total", status=200) == sum(sent)


NO_PROMTOOL = shutil.which("promtool") is None


@pytest.mark.skipif(
    NO_PROMTOOL and not os.environ.get("GYROSTAT_REQUIRE_SERVERS"),
    reason="promtool is not there (Debian: apt install prometheus)",
)
def test_prometheus_itself_finds_nothing_to_mend(served):
    _, server = served
    server.predict(ROW)
    server.predict(["2", 3.0, "kim"])
    server.ask("GET", "/nothing")
    link = server.connect()
    link.request("GET", "/metrics")
    page = link.getresponse().read()
    link.close()
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)  # fmt: skip
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
