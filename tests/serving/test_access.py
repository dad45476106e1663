"""Other addresses than loopback: only with a token, on the hot way and the long one."""

from __future__ import annotations

import pytest
from serving.alone import Alone, free_port, make_project, refuse
from serving.bench import until

from gyrostat.errors import UsageError
from gyrostat.serving.access import is_allowed, token_for

TOKEN = "c0ffee-c0ffee-c0ffee"
ROW = {"alcohol": 2.0, "pH": 3.0, "who": "kim"}
BEARER = {"Authorization": "Bearer " + TOKEN}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "models.example.org"])
def test_an_address_that_others_reach_needs_a_token(host):
    with pytest.raises(UsageError, match="set GYROSTAT_TOKEN") as found:
        token_for(host, {})
    assert "\n" not in str(found.value)
    assert token_for(host, {"GYROSTAT_TOKEN": TOKEN}) == TOKEN


def test_loopback_needs_none_and_a_weak_token_is_refused_anywhere():
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert token_for(host, {}) == ""
        with pytest.raises(UsageError, match="16 to 512") as found:
            token_for(host, {"GYROSTAT_TOKEN": "s3cret word"})
        assert "s3cret" not in str(found.value)


@pytest.mark.parametrize(
    ("said", "is_right"),
    [
        ([b"Bearer abc"], True),
        ([b"bearer  abc "], True),
        ([b"Bearer abd"], False),
        ([b"Bearer "], False),
        ([b"Basic abc"], False),
        ([b"abc"], False),
        ([b"Bearer abc", b"Bearer x"], False),
        ([], False),
    ],
)
def test_one_header_with_the_token_is_what_opens(said, is_right):
    headers = [(b"host", b"x"), *[(b"authorization", value) for value in said]]
    assert is_allowed(headers, b"abc") is is_right


def test_serve_on_all_addresses_refuses_without_a_token_and_answers_with_it(tmp_path):
    make_project(tmp_path)
    code, words = refuse(tmp_path, "--host", "0.0.0.0", "--port", "0", GYROSTAT_TOKEN="")
    assert (code, len(words.strip().splitlines())) == (2, 1)
    assert "set GYROSTAT_TOKEN" in words
    server = Alone(tmp_path, "--host", "0.0.0.0", "--port", free_port(), GYROSTAT_TOKEN=TOKEN)
    try:
        # Health is all that an orchestrator asks without a token.
        until(lambda: server.ask("GET", "/ping")[0] == 200)
        asked = [
            ("POST", "/invocations", {"dataframe_records": [ROW]}),
            ("POST", "/predict", ROW),
            ("POST", "/ping", None),
            ("POST", "/labels", {"labels": []}),
            ("GET", "/status", None),
            ("GET", "/v2/models/wine", None),
            ("GET", "/nothing", None),
        ]
        for headers in ({}, {"Authorization": "Bearer " + TOKEN[:-1]}):
            for method, path, value in asked:
                status, answer = server.ask(method, path, value, headers=headers)
                assert (status, answer["error"]["code"]) == (401, "http.no_token"), path
        for method, path, value in asked[:2]:
            status, answer = server.ask(method, path, value, headers=BEARER)
            assert (status, answer["predictions"]) == (200, [10.0])
        assert server.ask("GET", "/v2/models/wine", headers=BEARER)[0] == 200
        assert server.ask("GET", "/nothing", headers=BEARER)[0] == 404
    finally:
        server.close()
