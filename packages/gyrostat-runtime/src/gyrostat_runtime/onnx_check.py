"""What a graph may not hold, read from its bytes before a runtime sees them.

A signature says who made a bundle, not that its graph keeps to itself: weights that lie in other files of this machine
and operators that come from a library beside the runtime are refused. Reads protobuf's wire format itself, since the
onnx package is not needed on a device.
"""

from __future__ import annotations

from collections.abc import Iterator

from gyrostat_runtime.errors import BundleFault

DOMAINS = frozenset({b"", b"ai.onnx", b"ai.onnx.ml"})
"""Operator sets that every runtime has: ONNX itself and its classical models."""

_DEPTH = 32
_GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION = range(6)
# Field numbers of onnx.proto3 that lead to a node or a tensor: kind -> field -> kind.
_INTO: dict[int, dict[int, int]] = {
    -1: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TENSOR: {},
}
_NODE_DOMAIN, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 7, 13, 14


def check_graph(model: bytes) -> None:
    """Refuse a graph with weights outside its own bytes, or with operators of an unknown domain.

    Raises:
        BundleFault: so it is, or the bytes are no ONNX graph.
    """
    try:
        _walk(memoryview(model), -1, 0)
    except (IndexError, ValueError) as error:
        raise _fault(f"it is no ONNX graph ({error})") from None


def _walk(data: memoryview, kind: int, depth: int) -> None:
    if depth > _DEPTH:
        raise _fault("its graphs are nested too deeply")
    into = _INTO[kind]
    for number, value in _fields(data):
        if number in into and isinstance(value, memoryview):
            _walk(value, into[number], depth + 1)
        elif kind == _NODE and number == _NODE_DOMAIN and isinstance(value, memoryview):
            if bytes(value) not in DOMAINS:
                name = bytes(value[:80]).decode("utf-8", "replace")
                raise _fault(f"it needs operators of the domain {name!r}, which are not served")
        elif kind == _TENSOR and (
            number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value)
        ):
            raise _fault("its weights lie in another file")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if size > end - at:
            raise ValueError("it ends early")
        if wire == 2:
            yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number without an end")


def _fault(why: str) -> BundleFault:
    return BundleFault(
        f"the bundle cannot be used: model.onnx: {why}",
        code="bundle.not_loadable",
        file="model.onnx",
    )
