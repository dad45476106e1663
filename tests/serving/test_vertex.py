"""A container of Vertex AI: where it listens and what it answers is said by its variables."""

from __future__ import annotations

import pytest
from serving.alone import Alone, free_port, make_project
from serving.bench import until

from gyrostat.errors import UsageError
from gyrostat.serving.vertex import Vertex

PREDICT = "/v1/endpoints/12/deployedModels/34:predict"
HEALTH = "/v1/endpoints/12/deployedModels/34"


@pytest.mark.parametrize(
    "environ",
    [
        {"AIP_HTTP_PORT": "http"},
        {"AIP_HTTP_PORT": "0"},
        {"AIP_HTTP_PORT": "65536"},
        {"AIP_HTTP_PORT": "9" * 5000},
        {"AIP_HEALTH_ROUTE": "health"},
        {"AIP_PREDICT_ROUTE": "/{model}"},
        {"AIP_HEALTH_ROUTE": "/a", "AIP_PREDICT_ROUTE": "/a"},
    ],
)
def test_a_variable_that_cannot_be_meant_is_named(environ):
    with pytest.raises(UsageError, match=next(iter(environ))):
        Vertex.from_environ(environ)


def test_without_its_variables_there_is_no_vertex():
    assert Vertex.from_environ({"PATH": "/bin"}) == Vertex()


def test_serve_listens_and_answers_where_vertex_says(tmp_path):
    make_project(tmp_path)
    port = free_port()
    server = Alone(tmp_path, AIP_HTTP_PORT=port, AIP_HEALTH_ROUTE=HEALTH, AIP_PREDICT_ROUTE=PREDICT)
    try:
        assert server.port == int(port)
        until(lambda: server.ask("GET", HEALTH)[0] == 200)
        status, answer = server.ask("POST", PREDICT, {"instances": [[2.0, 3.0, "kim"]]})
        assert (status, answer["predictions"]) == (200, [10.0])
        assert server.predict([2.0, 3.0, "kim"])[1]["predictions"] == [10.0]
        status, answer = server.ask("POST", PREDICT, {"instances": [[2.0, "3", "kim"]]})
        assert (status, answer["error"]["at"]) == (400, "$.instances[0][1]")
        status, answer = server.ask("POST", PREDICT, {"instances": [], "parameters": {"k": 1}})
        assert (status, answer["error"]["at"]) == (400, "$.parameters")
    finally:
        server.close()
