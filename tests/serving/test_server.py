"""A real server over real sockets: what it answers, what it refuses, and what it survives."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from gyrostat_runtime import log
from gyrostat_runtime.log import Frame, Heartbeat, Sealed, Tail
from serving.bench import KINDS, STRICT, arm, until

ROW = [2.0, 3.0, "kim"]


def frames(bench, model="wine") -> list[Frame]:
    return list(log.read(bench.state / "log" / model))


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["who", "pH", "alcohol"], "data": [["kim", 3.0, 2.0]]}},
        {"dataframe_records": [{"alcohol": 2.0, "pH": 3.0, "who": "kim"}]},
        {"instances": [ROW]},
        {"inputs": {"alcohol": [2.0], "pH": [3.0], "who": ["kim"]}},
    ],
    ids=lambda body: next(iter(body)),
)
def test_each_of_the_four_forms_gives_the_same_answer(steady, body):
    _, server = steady
    status, answer = server.ask("POST", "/invocations", body)
    assert (status, answer["predictions"], answer["version"]) == (200, [10.0], 1)
    assert len(answer["id"]) == 26
    assert server.ask("POST", "/invocations/wine?x=1", body)[1]["predictions"] == [10.0]


def test_an_answer_stands_in_the_log_with_personal_columns_hashed(served):
    bench, server = served
    _, answer = server.predict(ROW, [1.0, None, "lee"], headers={"X-Gyrostat-Key": "client 7"})
    (frame,) = until(lambda: frames(bench))
    assert (frame.id, frame.arm, frame.status, frame.n) == (answer["id"], "champion", 200, 2)
    assert [row[:2] for row in frame.inputs] == [[2.0, 3.0], [1.0, None]]
    assert frame.outputs == answer["predictions"] == frame.scores
    assert frame.missing == {"pH": 1}
    raw = b"".join(p.read_bytes() for p in (bench.state / "log" / "wine").glob("*.seg"))
    assert not [word for word in (b"kim", b"lee", b"client 7") if word in raw]
    assert len({row[2] for row in frame.inputs}) == 2


def test_what_the_champions_schema_refuses_is_a_400_with_the_path_and_no_prediction(served):
    bench, server = served
    records = [
        {"alcohol": 2.0, "pH": 3.0, "who": "kim"},
        {"alcohol": "high", "pH": 3.0, "who": "kim"},
    ]
    status, answer = server.ask("POST", "/invocations", {"dataframe_records": records})
    assert (status, answer["error"]["at"]) == (400, "$.dataframe_records[1].alcohol")
    assert answer["error"].keys() == {"code", "at", "message", "request_id"}
    server.predict(ROW)
    assert [f.status for f in until(lambda: frames(bench))] == [200]
    assert server.ask("GET", "/status")[1]["models"]["wine"]["n_refused"] == 1


def test_what_is_not_there_is_told_in_the_one_form_of_errors(steady):
    _, server = steady
    told = {
        server.ask(method, path, headers=headers)[0]: server.ask(method, path, headers=headers)[1][
            "error"
        ]
        for method, path, headers in [
            ("GET", "/nothing", {}),
            ("GET", "/invocations", {}),
            ("POST", "/invocations", {"Content-Type": "text/plain"}),
        ]
    }
    assert told.keys() == {404, 405, 415}
    assert all(error.keys() == {"code", "at", "message", "request_id"} for error in told.values())
    assert "text/csv" in told[415]["message"]
    assert server.predict(ROW, path="/invocations/beer")[1]["error"]["message"].endswith(
        "there is: wine"
    )


def test_a_body_over_the_limit_is_refused_from_its_length_before_it_is_read(bench):
    bench.route(arm(bench.bundle(5.0)))
    server = bench.serve(max_body_bytes=5000)
    with socket.create_connection(server.address, timeout=10) as link:
        link.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50000000\r\n\r\n"
        )
        assert link.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_sends_all_before_it_listens_hears_the_refusal_too(bench, version):
    bench.route(arm(bench.bundle(5.0)))
    server = bench.serve(max_body_bytes=5000)
    with socket.create_connection(server.address, timeout=20) as link:
        head = f"POST /invocations HTTP/{version}\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        link.sendall(head.encode() + b"Content-Length: 50000000\r\n\r\n" + b" " * 50_000_000)
        answer = b"".join(iter(lambda: link.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_over_the_limit_is_refused_while_it_is_read(bench):
    bench.route(arm(bench.bundle(5.0)))
    server = bench.serve(max_body_bytes=5000)
    with socket.create_connection(server.address, timeout=10) as link:
        link.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        link.sendall((b"7d0\r\n" + b" " * 2000 + b"\r\n") * 3)
        assert link.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_large_body_below_the_limit_is_answered_like_a_small_one(steady):
    _, server = steady
    n = 30_000
    status, answer = server.predict(*([ROW] * n))
    assert (status, len(answer["predictions"]), set(answer["predictions"])) == (200, n, {10.0})


def test_before_a_champion_predictions_are_503_and_health_is_200(bench):
    server = bench.serve()
    # MLflow and SageMaker send requests to whoever answers 200 here.
    assert server.ask("GET", "/ping")[0] == 503
    assert server.ask("GET", "/ready")[0] == 503
    status, answer = server.predict(ROW)
    assert (status, answer["error"]["code"]) == (503, "serving.no_champion")
    bench.route(arm(bench.bundle(5.0)))
    until(lambda: server.ask("GET", "/ready")[0] == 200)
    assert server.predict(ROW)[0] == 200


def test_bare_invocations_needs_a_name_where_there_are_several_models(bench):
    bench.route(arm(bench.bundle(5.0)))
    bench.route(arm(bench.bundle(0.5, schema=KINDS, model="fruit")), model="fruit")
    server = bench.serve("wine", "fruit")
    assert server.predict(ROW)[0] == 404
    assert server.predict(ROW, path="/invocations/wine")[1]["predictions"] == [10.0]
    assert server.predict([3.0], path="/invocations/fruit")[1]["predictions"] == [1]
    (frame,) = until(lambda: frames(bench, "fruit"))
    assert frame.scores == [pytest.approx(0.970688, abs=1e-5)]


def test_twenty_swaps_under_load_fail_no_request_and_mix_no_versions(served):
    bench, server = served
    bundles = [(v, bench.bundle(float(10 * v))) for v in range(2, 5)]
    stop, seen, faults = threading.Event(), [], []

    def client():
        link = server.connect()
        while not stop.is_set():
            try:
                status, answer = server.predict(ROW, link=link)
            except (OSError, http.client.HTTPException, ValueError) as error:
                faults.append(repr(error))
                return
            constant = 5.0 if answer.get("version") == 1 else 10.0 * answer.get("version", 0)
            if status != 200 or answer["predictions"] != [constant + 5.0]:
                faults.append(str(answer))
            seen.append(answer.get("version"))
        link.close()

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    for i in range(20):
        version, digest = bundles[i % 3]
        bench.wait_for(bench.route(arm(digest, version)))
    stop.set()
    for thread in clients:
        thread.join()
    assert not faults
    assert set(seen) >= {2, 3, 4}
    assert sum(f.is_error for f in frames(bench)) == 0


def test_a_canary_gets_about_its_share_and_a_key_always_the_same_arm(served):
    bench, server = served
    other = bench.bundle(7.0)
    bench.wait_for(
        bench.route(
            arm(bench.route_bundle, share=0.75), arm(other, 2, role="candidate", share=0.25)
        )
    )
    link = server.connect()
    n = 600
    versions = [server.predict(ROW, link=link)[1]["version"] for _ in range(n)]
    # Five standard deviations of a draw of 600 at 1/4.
    assert abs(versions.count(2) - n / 4) < 5 * (n * 3 / 16) ** 0.5
    for key in ("a", "b", "c", "d"):
        headers = {"X-Gyrostat-Key": key}
        assert (
            len({server.predict(ROW, link=link, headers=headers)[1]["version"] for _ in range(10)})
            == 1
        )
    link.close()
    until(lambda: len(frames(bench)) == n + 40)
    assert {f.arm for f in frames(bench)} == {"champion", "candidate"}


def test_a_shadow_is_asked_and_logged_and_never_answers(served):
    bench, server = served
    other = bench.bundle(7.0)
    bench.wait_for(
        bench.route(
            arm(bench.route_bundle), arm(other, 2, role="candidate", share=0.0, shadow=True)
        )
    )
    answers = [server.predict(ROW)[1] for _ in range(5)]
    assert {a["version"] for a in answers} == {1}
    until(lambda: len(frames(bench)) == 10)
    shadows = {f.id: f for f in frames(bench) if f.arm == "shadow"}
    assert [shadows[a["id"]].outputs for a in answers] == [[12.0]] * 5
    assert {f.bundle for f in shadows.values()} == {other}


def test_a_tester_chooses_an_arm_of_the_routes_and_that_is_marked_and_not_copied(served):
    bench, server = served
    live, shadow = bench.bundle(7.0), bench.bundle(9.0)
    bench.wait_for(
        bench.route(
            arm(bench.route_bundle),
            arm(live, 2, role="candidate", share=0.0),
            arm(shadow, 3, role="candidate", share=0.0, shadow=True),
        )
    )
    wanted = {"challenger": 2, "champion": 1, "version=3": 3, "Version=2": 2}
    for asked, version in wanted.items():
        for path in ("/invocations", "/predict"):
            body = {"instances": [ROW]} if path == "/invocations" else dict(zip(("alcohol", "pH", "who"), ROW, strict=True))  # fmt: skip
            answer = server.ask("POST", path, body, headers={"X-Gyrostat-Arm": asked})
            assert (answer[0], answer[1]["version"]) == (200, version)
    status, answer = server.predict(ROW, headers={"X-Gyrostat-Arm": "version=4"})
    assert (status, answer["error"]["code"]) == (400, "serving.no_such_arm")
    assert "challenger, version=2" in answer["error"]["message"]
    server.predict(ROW)
    found = until(lambda: len(frames(bench)) == 10 and frames(bench))
    assert [f.is_asked for f in found] == [True] * 8 + [False] * 2
    assert [f.arm for f in found[:8]] == [
        *("candidate", "candidate", "champion", "champion"),
        *("candidate", "candidate", "candidate", "candidate"),
    ]
    assert {f.arm for f in found[8:]} == {"champion", "shadow"}


def test_of_a_share_of_the_predictions_the_inputs_are_logged_and_all_are_counted(bench):
    other = bench.bundle(7.0)
    shadow = arm(other, 2, role="candidate", share=0.0, shadow=True)
    bench.route(arm(bench.bundle(5.0)), shadow)
    server = bench.serve(serving={"log_sample": 0.25})
    until(lambda: server.ask("GET", "/ready")[0] == 200)
    link, n = server.connect(), 200
    for _ in range(n):
        server.predict([2.0, None, "kim"], link=link)
    link.close()
    found = until(lambda: len(frames(bench)) == 2 * n and frames(bench))
    with_inputs = [frame for frame in found if frame.inputs]
    # Five standard deviations of a draw of 200 at 1/4; the two arms log the same ones.
    assert abs(len(with_inputs) / 2 - n / 4) < 5 * (n * 3 / 16) ** 0.5
    assert len({frame.id for frame in with_inputs}) == len(with_inputs) / 2
    assert {len(frame.outputs) for frame in found} == {1}
    assert [frame.missing for frame in found] == [{"pH": 1}] * 2 * n


def test_a_shadow_that_fails_is_counted_against_itself_and_harms_no_answer(served):
    bench, server = served
    bad = bench.bundle(7.0, fails_above=1.5)
    bench.wait_for(
        bench.route(arm(bench.route_bundle), arm(bad, 2, role="candidate", share=0.0, shadow=True))
    )
    assert [server.predict(ROW)[0] for _ in range(5)] == [200] * 5
    until(lambda: len(frames(bench)) == 10)
    assert {(f.arm, f.status) for f in frames(bench)} == {("champion", 200), ("shadow", 503)}


def test_a_candidate_that_fails_is_a_503_and_an_error_in_its_log(served):
    bench, server = served
    bad = bench.bundle(7.0, fails_above=1.5)
    bench.wait_for(
        bench.route(arm(bench.route_bundle, share=0.0), arm(bad, 2, role="candidate", share=1.0))
    )
    assert server.predict([1.0, 3.0, "kim"])[0] == 200
    status, answer = server.predict(ROW)
    assert (status, answer["error"]["code"]) == (503, "model.failed")
    until(lambda: len(frames(bench)) == 2)
    good, failed = frames(bench)
    assert (good.is_error, failed.is_error) == (False, True)
    assert (failed.id, failed.arm, failed.status) == (
        answer["error"]["request_id"],
        "candidate",
        503,
    )


def test_a_stricter_candidates_refusal_counts_as_its_error(served):
    bench, server = served
    strict = bench.bundle(7.0, schema=STRICT)
    bench.wait_for(
        bench.route(arm(bench.route_bundle, share=0.0), arm(strict, 2, role="candidate", share=1.0))
    )
    assert server.predict([1.0, None, "kim"])[0] == 400
    (frame,) = until(lambda: frames(bench))
    assert (frame.arm, frame.status, frame.is_error) == ("candidate", 400, True)


@pytest.mark.parametrize("how", ["altered", "unsigned", "missing", "other_model"])
def test_a_bundle_that_cannot_be_trusted_is_refused_and_the_old_one_stays_also_after_a_restart(
    served, how
):
    bench, server = served
    digest = bench.bundle(7.0, model="beer" if how == "other_model" else "wine")
    folder = bench.state / "bundles" / digest
    match how:
        case "altered":
            with (folder / "model.onnx").open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\x7f")
        case "unsigned":
            (folder / "signature.json").unlink()
        case "missing":
            folder.rename(bench.state / "elsewhere")
    seq = bench.route(arm(digest, 2))
    said = until(lambda: bench.applied() if bench.applied().get("refused") == seq else None)
    assert said["seq"] == seq - 1
    assert said["cause"]
    assert server.predict(ROW)[1]["version"] == 1
    if how == "altered":
        server.kill()
        again = bench.serve()
        assert again.predict(ROW)[1]["version"] == 1
        assert bench.applied()["refused"] == seq
        # The way out is open: better routes are taken.
        bench.wait_for(bench.route(arm(bench.bundle(9.0), 3)))
        assert again.predict(ROW)[1]["version"] == 3


def test_routes_that_are_not_newer_are_refused_also_after_a_restart_until_a_new_epoch(served):
    bench, server = served
    old, new = bench.route_bundle, bench.bundle(7.0)
    bench.wait_for(bench.route(arm(new, 2), seq=9))
    bench.route(arm(old, 1), seq=8)
    until(lambda: bench.applied().get("refused") == 8)
    assert server.predict(ROW)[1]["version"] == 2
    server.kill()
    again = bench.serve()
    assert again.predict(ROW)[1]["version"] == 2
    bench.route(arm(old, 1), seq=1, epoch=2)
    until(lambda: bench.applied()["epoch"] == 2)
    assert again.predict(ROW)[1]["version"] == 1


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b'{"arms": []}', b"\xff", b'{"epoch": 1, "seq": 99, "arms": [3]}']
)
def test_a_routes_file_that_makes_no_sense_changes_nothing(served, text):
    bench, server = served
    (bench.state / "routes" / "wine.json").write_bytes(text)
    until(lambda: "cause" in bench.applied())
    assert server.predict(ROW)[1]["version"] == 1
    bench.wait_for(bench.route(arm(bench.bundle(9.0), 3)))
    assert server.predict(ROW)[1]["version"] == 3


def test_a_restart_with_nothing_but_the_state_folder_answers_the_same(served):
    bench, server = served
    before = server.predict(ROW)[1]["predictions"]
    server.kill()
    (bench.state / "routes" / "wine.json").unlink()
    assert bench.serve().predict(ROW)[1]["predictions"] == before


def test_a_kill_loses_at_most_the_sync_window_and_the_next_process_continues_the_log(served):
    bench, server = served
    link = server.connect()
    ids = []
    for _ in range(20):
        ids.append(server.predict(ROW, link=link)[1]["id"])
    until(lambda: len(frames(bench)) == 20)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    link.close()
    last = max((bench.state / "log" / "wine").glob("*.seg"))
    with last.open("ab") as file:
        file.write(b"\x99\x00\x00\x00torn")
    again = bench.serve()
    ids.append(again.predict(ROW)[1]["id"])
    until(lambda: len(frames(bench)) == 21)
    assert [f.id for f in frames(bench)] == ids == sorted(ids)


def test_sigterm_finishes_flushes_seals_and_exits_0(served):
    bench, server = served
    link = server.connect()
    _, answer = server.predict(ROW, link=link)
    assert server.stop() == 0
    link.close()
    values = [value for _, value in Tail(bench.state / "log" / "wine").poll()]
    assert [v.id for v in values if isinstance(v, Frame)] == [answer["id"]]
    assert isinstance(values[-1], Sealed)


def test_heartbeats_come_without_traffic(served):
    bench, _ = served
    tail, beats = Tail(bench.state / "log" / "wine"), []
    until(
        lambda: (
            len(beats.extend(v for _, v in tail.poll() if isinstance(v, Heartbeat)) or beats) >= 3
        )
    )
    assert beats[0].at < beats[1].at < beats[2].at
    assert abs(beats[0].at - time.time()) < 60


def test_labels_are_on_the_disk_when_they_are_acknowledged(served):
    bench, server = served
    id = server.predict(ROW)[1]["id"]
    wanted = [{"id": id, "label": 6.5}, {"id": "never-made", "label": 4}, {"id": id, "label": 7}]
    status, answer = server.ask("POST", "/labels", {"labels": wanted})
    server.kill()
    assert (status, answer["accepted"]) == (202, 3)
    assert [
        {"id": v.id, "label": v.label} for v in log.read_labels(bench.state / "labels" / "wine")
    ] == wanted


@pytest.mark.parametrize(
    ("labels", "at"),
    [
        ([{"id": "a", "label": 1}, {"id": "b", "label": "n/a"}], "$.labels[1].label"),
        ([{"id": "a", "label": True}], "$.labels[0].label"),
        ([{"id": "a", "label": None}], "$.labels[0].label"),
        ([{"label": 1}], "$.labels[0]"),
        ([{"id": 7, "label": 1}], "$.labels[0].id"),
        ([{"id": "a", "label": 1, "weight": 2}], "$.labels[0]"),
        ("none", "$"),
    ],
)
def test_one_wrong_label_stores_none_and_says_which_and_so(steady, labels, at):
    bench, server = steady
    status, answer = server.ask("POST", "/labels", {"labels": labels})
    assert (status, answer["error"]["at"]) == (400, at)
    assert "none of the labels in this request were stored" in answer["error"]["message"]
    assert list(log.read_labels(bench.state / "labels" / "wine")) == []


def test_the_server_loads_no_heavy_library_and_stays_small(steady):
    _, server = steady
    server.predict(ROW)
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    for library in ("pandas", "sklearn", "/scipy/", "polars", "mlflow", "pyarrow", "/lance"):
        assert library not in maps
    rss = psutil.Process(server.process.pid).memory_info().rss
    assert rss < 160e6  # 75 MB of imports, the graph, and what a body of 30,000 rows left behind


def test_status_names_each_arm(steady):
    bench, server = steady
    status, answer = server.ask("GET", "/status")
    (found,) = answer["models"]["wine"]["arms"]
    assert (status, found["bundle"], found["version"]) == (200, bench.route_bundle, 1)
    assert json.loads(json.dumps(answer)) == answer


class Sum:
    """A model without a graph: predicts the sum of a row."""

    def predict(self, frame):
        return frame.sum(axis=1).to_numpy()


def test_a_native_model_answers_from_a_host_and_comes_back_when_that_is_killed(bench):
    digest = bench.bundle(1.0, estimator=Sum())
    bench.route(arm(digest))
    server = bench.serve()
    until(lambda: server.ask("GET", "/ready")[0] == 200)
    assert server.predict(ROW)[1]["predictions"] == [5.0]
    (host,) = psutil.Process(server.process.pid).children()
    host.kill()
    until(lambda: server.predict(ROW)[0] == 200, seconds=30)
    assert server.ask("GET", "/status")[1]["models"]["wine"]["arms"][0]["flavour"] == "native"
    assert server.stop() == 0
    assert {(f.status, f.is_error) for f in frames(bench)} <= {(200, False), (503, True)}


GREED = 77.0


class Greedy(Sum):
    """Takes 600 MB and goes on and on, where a row says so."""

    def predict(self, frame):
        import time

        import numpy as np

        if frame.to_numpy()[0, 0] == GREED:
            self.kept = np.ones(600_000_000, np.uint8)
            time.sleep(3600)
        return super().predict(frame)


def test_a_native_model_that_takes_too_much_memory_owes_503_and_the_others_go_on(bench):
    greedy = bench.bundle(1.0, estimator=Greedy())
    bench.route(arm(greedy))
    bench.route(arm(bench.bundle(2.0, model="other")), model="other")
    server = bench.serve("wine", "other", serving={"memory_bytes": 500_000_000})
    wine, other = "/invocations/wine", "/invocations/other"
    until(lambda: server.ask("GET", "/ready")[0] == 200)
    assert server.predict(ROW, path=wine)[0] == 200
    (host,) = psutil.Process(server.process.pid).children()
    owed: list[tuple[int, dict]] = []
    client = threading.Thread(
        target=lambda: owed.append(server.predict([GREED, 3.0, "kim"], path=wine))
    )
    client.start()
    while client.is_alive():
        assert server.predict(ROW, path=other)[0] == 200
    ((status, answer),) = owed
    assert (status, answer["error"]["code"]) == (503, "model.memory")
    assert not host.is_running()
    until(lambda: server.predict(ROW, path=wine)[0] == 200, seconds=30)
    assert server.stop() == 0
    assert next(f.error for f in frames(bench) if f.is_error) == "model.memory"
    assert not [f for f in frames(bench, "other") if f.is_error]


class Ill:
    """A model without a graph that raises, hangs, or ends its process, on rows of an alcohol that nobody has."""

    def __init__(self, ill):
        self.ill = ill

    def predict(self, frame):
        if (frame.iloc[:, 0] > 1000).any():
            import os as system
            import time as clock

            if self.ill == "raises":
                raise ValueError
            clock.sleep(600) if self.ill == "hangs" else system._exit(1)
        return frame.sum(axis=1).to_numpy()


def test_requests_of_a_slow_model_share_calls_and_one_that_it_cannot_answer_takes_no_neighbour_along(
    bench,
):
    bench.route(arm(bench.bundle(1.0, estimator=Ill("raises"))))
    server = bench.serve()
    until(lambda: server.ask("GET", "/ready")[0] == 200)
    asked = [[float(n), 3.0, "kim"] for n in range(40)]
    asked[20][0] = 2000.0
    with ThreadPoolExecutor(len(asked)) as clients:
        answers = list(clients.map(server.predict, asked))
    (failed,) = [answer for status, answer in answers if status == 503]
    assert failed["error"]["code"] == "model.failed"
    right = [answer["predictions"] for status, answer in answers if status == 200]
    assert right == [[n + 3.0] for n in range(40) if n != 20]
    link = server.connect()
    link.request("GET", "/metrics")
    page = link.getresponse().read().decode()
    link.close()
    calls, shared = (
        float(re.search(rf"^gyrostat_requests_per_call_{what}{{.*}} (.*)$", page, re.M)[1])
        for what in ("count", "sum")
    )
    assert shared >= 40  # those that shared the failed call were asked again
    assert calls < shared


@pytest.mark.parametrize("ill", ["hangs", "crashes"])
def test_a_shadow_that_hangs_or_crashes_neither_fails_nor_holds_up_an_answer(bench, ill):
    champion = bench.bundle(5.0)
    shadow = bench.bundle(1.0, estimator=Ill(ill))
    bench.route(arm(champion), arm(shadow, 2, role="candidate", share=0.0, shadow=True))
    server = bench.serve()
    until(lambda: server.ask("GET", "/ready")[0] == 200)
    link, n = server.connect(), 300
    answers = [server.predict([2000.0, 3.0, "kim"], link=link) for _ in range(n)]
    link.close()
    assert {(status, answer["version"]) for status, answer in answers} == {(200, 1)}
    # One copy alone takes the seconds after which a process that hangs is ended: nobody waited for the three hundred.
    assert len([f for f in frames(bench) if f.arm == "shadow"]) < n / 10
    found = server.ask("GET", "/status")[1]["models"]["wine"]
    assert (found["n_errors"], found["log_dropped"]) == (0, 0)
    assert found["shadow_dropped"] > 0  # the queue has an end, and what it leaves out is said
    until(lambda: [f for f in frames(bench) if f.arm == "shadow" and f.status == 503], seconds=60)
    assert server.stop() == 0
