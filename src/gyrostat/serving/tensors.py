"""The binary extension of the Open Inference Protocol: tensors as raw little-endian bytes behind the JSON."""

from __future__ import annotations

import struct
from typing import Any, NoReturn

from gyrostat_runtime.errors import InputFault

HEADER = "inference-header-content-length"
SIZE, WANTED, ALL_WANTED = "binary_data_size", "binary_data", "binary_data_output"
"""Parameters: of a tensor that is bytes, of an output that shall be, of a request whose outputs all shall be."""
DTYPES = {
    "BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    **{f"INT{8 * n}": f"<i{n}" for n in (1, 2, 4, 8)}, **{f"UINT{8 * n}": f"<u{n}" for n in (1, 2, 4, 8)},
}  # fmt: skip


def fill(inputs: list[Any], raw: bytes) -> None:
    """Give each tensor that is announced as bytes its `data`, in the order of the inputs.

    A NaN stands for a missing value here, for bytes have no null.

    Raises:
        InputFault: the sizes are not those of shapes and bytes.
    """
    start = 0
    for i, tensor in enumerate(inputs):
        parameters = tensor.get("parameters") if type(tensor) is dict else None
        if type(parameters) is not dict or SIZE not in parameters:
            continue
        at, size = f"$.inputs[{i}]", parameters.pop(SIZE)
        if type(size) is not int or size < 0:
            _refuse("wrong_type", f"{SIZE} is a whole number from 0", f"{at}.parameters.{SIZE}")
        if "data" in tensor:
            _refuse("form", "a tensor has its data here or as bytes, not both", f"{at}.data")
        if start + size > len(raw):
            _refuse(
                "ragged",
                f"{size} bytes are announced, {len(raw) - start} are left",
                f"{at}.parameters.{SIZE}",
            )
        tensor["data"] = _values(tensor.get("datatype"), raw[start : start + size], at)
        start += size
    if start != len(raw):
        _refuse("ragged", f"{len(raw) - start} bytes stand behind the last tensor", "$")


def pack(values: list[Any], datatype: str) -> bytes:
    """The bytes of a tensor."""
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    import numpy as np

    return np.array(values, np.dtype(DTYPES[datatype])).tobytes()


def _values(datatype: Any, raw: bytes, at: str) -> list[Any]:
    if datatype == "BYTES":
        return _texts(raw, at)
    if datatype not in DTYPES:
        return []  # whoever reads the tensor says what is wrong with it
    import numpy as np

    dtype = np.dtype(DTYPES[datatype])
    if len(raw) % dtype.itemsize:
        _refuse("ragged", f"{len(raw)} bytes are no whole number of {datatype}", f"{at}.parameters.{SIZE}")  # fmt: skip
    found: list[Any] = np.frombuffer(raw, dtype).tolist()
    return [None if value != value else value for value in found] if dtype.kind == "f" else found


def _texts(raw: bytes, at: str) -> list[str]:
    found, start = [], 0
    while start < len(raw):
        size = int.from_bytes(raw[start : start + 4], "little")
        text = raw[start + 4 : start + 4 + size]
        if start + 4 + size > len(raw):
            _refuse("ragged", "a text is longer than its tensor", f"{at}.data[{len(found)}]")
        try:
            found.append(text.decode())
        except UnicodeDecodeError:
            _refuse("wrong_type", "this text is not UTF-8", f"{at}.data[{len(found)}]")
        start += 4 + size
    return found


def _refuse(code: str, message: str, at: str) -> NoReturn:
    raise InputFault(message, code=f"serving.{code}", at=at)
