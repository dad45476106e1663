"""Everything on the server's port that is not hot: an ordinary ASGI app, with the hot routes once more."""

from __future__ import annotations

import logging
import os
import secrets
from collections import Counter
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gyrostat.serving import metrics, open_inference, openapi, tensors
from gyrostat.serving.access_log import ID
from gyrostat.serving.answers import Answer, Refusal, encode, error, extra_headers
from gyrostat.serving.arms import Served
from gyrostat.serving.forms import CSV, INVOCATIONS, RECORDS, VERTEX, Form
from gyrostat.serving.http import ARM_HEADER, KEY_HEADER, check_content, check_encoding
from gyrostat.serving.labels import LabelLog, read_labels
from gyrostat.serving.predicting import Model, Models
from gyrostat.serving.vertex import Vertex

_log = logging.getLogger(__name__)
PATHS = "POST /invocations, /predict, /v2/models/<model>/infer, /labels, GET /health, /ping, /ready, /version, /status, /metrics, /v2, /docs"


def make_app(
    models: Models,
    label_logs: dict[str, LabelLog],
    *,
    max_body_bytes: int,
    needs_token: bool = False,
    vertex: Vertex = Vertex(),  # noqa: B008 - frozen
) -> Starlette:
    """The app of one server process."""
    http_errors: Counter[tuple[str, int]] = Counter()

    async def answer(request: Request, model: Model, form: Form) -> Response:
        body = await _body(request, max_body_bytes)
        headers = dict(request.scope["headers"])
        key, asked = headers.get(KEY_HEADER, b""), headers.get(ARM_HEADER, b"")
        found = await model.take(body, key, form, asked)
        request.scope[ID] = found.id
        return _response(found)

    async def invocations(request: Request) -> Response:
        model = models.get(request.path_params.get("model", ""), path="/invocations")
        is_csv = check_content(request.scope["headers"], or_csv=True)
        return await answer(request, model, CSV if is_csv else INVOCATIONS)

    async def predict(request: Request) -> Response:
        model = models.get(request.path_params.get("model", ""), path="/predict")
        check_content(request.scope["headers"])
        return await answer(request, model, RECORDS)

    async def vertex_predict(request: Request) -> Response:
        model = models.get("", path="/invocations")
        check_content(request.scope["headers"])
        return await answer(request, model, VERTEX)

    async def v2_server(request: Request) -> Response:
        found = {
            "name": "gyrostat",
            "version": version("gyrostat"),
            "extensions": ["binary_tensor_data"],
        }
        return _response(Answer(200, encode(found)))

    async def v2_live(request: Request) -> Response:
        return _response(Answer(200, encode({"live": True})))

    async def v2_ready(request: Request) -> Response:
        await ready(request)
        return _response(Answer(200, encode({"ready": True})))

    async def v2_model(request: Request) -> Response:
        model = models.get(request.path_params["model"], path="/v2/models")
        served = _served(model)
        versions = [str(arm.spec.version) for arm in served.live]
        found = open_inference.metadata(model.name, served.champion.loaded.schema, versions)
        return _response(Answer(200, encode(found)))

    async def v2_model_ready(request: Request) -> Response:
        model = models.get(request.path_params["model"], path="/v2/models")
        _served(model)
        return _response(Answer(200, encode({"name": model.name, "ready": True})))

    async def v2_infer(request: Request) -> Response:
        model = models.get(request.path_params["model"], path="/v2/models")
        headers, json_bytes = request.scope["headers"], _json_bytes(request)
        if json_bytes is None:
            check_content(headers)
        else:
            check_encoding(headers)
        exchange = open_inference.Exchange(model.name, json_bytes)
        response = await answer(request, model, exchange.form)
        if exchange.answered_json_bytes is not None:
            response.headers["content-type"] = "application/octet-stream"
            response.headers[tensors.HEADER] = str(exchange.answered_json_bytes)
        return response

    async def labels(request: Request) -> Response:
        model = models.get(request.path_params.get("model", ""), path="/labels")
        check_content(request.scope["headers"])
        body = await _body(request, max_body_bytes)
        served = model.served
        if served is None:
            raise Refusal(
                503,
                "serving.no_champion",
                f"model {model.name!r} has no champion yet, so nothing says what its labels look like; "
                "none of the labels were stored",
                retry_after_s=2,
            )
        found = read_labels(body, served.champion.loaded.schema.output)
        return _response(await label_logs[model.name].take(found, _request_id()))

    async def health(request: Request) -> Response:
        return _response(Answer(200, encode({"status": "ok"})))

    async def ready(request: Request) -> Response:
        waiting = sorted(name for name, model in models.by_name.items() if model.served is None)
        if waiting:
            raise Refusal(
                503,
                "serving.no_champion",
                f"no champion is loaded for {', '.join(waiting)}",
                retry_after_s=2,
            )
        return _response(Answer(200, encode({"status": "ready"})))

    async def release(request: Request) -> Response:
        return _response(Answer(200, encode({"gyrostat": version("gyrostat")})))

    def described() -> dict[str, Any]:
        found = {
            name: (m.served.champion.loaded.schema if m.served else None, m.settings)
            for name, m in models.by_name.items()
        }
        return openapi.document(found, needs_token=needs_token)

    async def openapi_json(request: Request) -> Response:
        return _response(Answer(200, encode(described())))

    async def openapi_page(request: Request) -> Response:
        return Response(
            openapi.page(described()), headers=openapi.PAGE_HEADERS, media_type="text/html"
        )

    async def counts(request: Request) -> Response:
        page = metrics.write(
            models.by_name, http_errors, worker=models.worker, version=version("gyrostat")
        )
        return Response(page, headers={"content-type": metrics.TYPE})

    async def status(request: Request) -> Response:
        found: dict[str, Any] = {
            "worker": models.worker,
            "pid": os.getpid(),
            "models": {name: model.status() for name, model in models.by_name.items()},
        }
        return _response(Answer(200, encode(found)))

    async def refusal(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, Refusal)
        http_errors[fault.code, fault.status] += 1
        return _response(fault.answer(_request_id()))

    async def http_error(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, HTTPException)
        allow = (fault.headers or {}).get("Allow", "")
        if fault.status_code == 404:
            message = f"there is nothing at {request.url.path[:200]}; there is {PATHS}"
        elif fault.status_code == 405:
            message = f"{request.method[:20]} does not work here, {allow} does"
        else:
            message = "this request is refused"
        code = {404: "http.no_such_path", 405: "http.method"}.get(fault.status_code, "http.refused")
        http_errors[code, fault.status_code] += 1
        return _response(
            error(fault.status_code, code, message, at="", request_id=_request_id(), allow=allow)
        )

    async def gone(request: Request, fault: Exception) -> Response:
        return _response(
            error(
                400,
                "http.cut",
                "the connection ended before the body did",
                at="",
                request_id=_request_id(),
            )
        )

    async def internal(request: Request, fault: Exception) -> Response:
        _log.error("%s %s: %r", request.method, request.url.path, fault)
        return _response(
            error(
                500,
                "serving.internal",
                "the server failed on this request",
                at="",
                request_id=_request_id(),
            )
        )

    named: list[Route] = []
    if vertex.health_route:
        named.append(Route(vertex.health_route, ready))
    if vertex.predict_route:
        named.append(Route(vertex.predict_route, vertex_predict, methods=["POST"]))
    return Starlette(
        routes=[
            *named,
            Route("/invocations", invocations, methods=["POST"]),
            Route("/invocations/{model}", invocations, methods=["POST"]),
            Route("/predict", predict, methods=["POST"]),
            Route("/predict/{model}", predict, methods=["POST"]),
            Route("/v2", v2_server),
            Route("/v2/health/live", v2_live),
            Route("/v2/health/ready", v2_ready),
            Route("/v2/models/{model}", v2_model),
            Route("/v2/models/{model}/ready", v2_model_ready),
            Route("/v2/models/{model}/infer", v2_infer, methods=["POST"]),
            Route("/labels", labels, methods=["POST"]),
            Route("/labels/{model}", labels, methods=["POST"]),
            Route("/health", health),
            Route("/ping", ready),
            Route("/ready", ready),
            Route("/version", release),
            Route("/status", status),
            Route("/metrics", counts),
            Route("/openapi.json", openapi_json),
            Route("/docs", openapi_page),
        ],
        exception_handlers={
            Refusal: refusal,
            HTTPException: http_error,
            ClientDisconnect: gone,
            Exception: internal,
        },
    )


def _served(model: Model) -> Served:
    if model.served is None:
        raise Refusal(
            503,
            "serving.no_champion",
            f"model {model.name!r} has no champion yet",
            retry_after_s=2,
        )
    return model.served


def _json_bytes(request: Request) -> int | None:
    """Where the JSON ends and the bytes of tensors begin; None: the body is JSON.

    Raises:
        Refusal: 400.
    """
    said = request.headers.get(tensors.HEADER)
    if said is None:
        return None
    length = request.headers.get("content-length", "")
    if not (said.isdecimal() and said.isascii() and len(said) < 18) or (
        length.isdecimal() and int(said) > int(length)
    ):
        raise Refusal(
            400, "serving.form", f"{tensors.HEADER.title()} is the length of the JSON before the tensors, in bytes"
        )  # fmt: skip
    return int(said)


async def _body(request: Request, max_bytes: int) -> bytes:
    """The body, refused as soon as it is known to be too large.

    Raises:
        Refusal: 413.
    """
    said = request.headers.get("content-length", "0")
    if not said.isdigit() or len(said) > 18 or int(said) > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(
        413,
        "serving.too_large",
        f"a body may have {max_bytes:,} bytes here (server.max_body_bytes); nothing was computed. Send fewer rows a request",
    )


def _request_id() -> str:
    return secrets.token_hex(8)


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status, media_type="application/json")
    for name, value in extra_headers(answer):
        response.headers[name.decode()] = value.decode("latin-1")
    return response
