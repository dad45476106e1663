"""Labels: what turned out to be true, checked against the model's output and kept before it is acknowledged."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Any

import msgspec
from gyrostat_runtime.log import Label, LabelWriter
from gyrostat_runtime.schema import Output

from gyrostat.serving.answers import Answer, Refusal, encode

_TRUE = ("true", "1", "1.0")
_NONE_STORED = "none of the labels in this request were stored"


def read_labels(body: bytes, output: Output) -> list[tuple[str, Any]]:
    """Ids and labels of a request: all of them, or a refusal and none.

    Unknown ids are fine, the prediction may be on its way here still.

    Raises:
        Refusal: 400, with the JSON path of the first fault.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _wrong("malformed", f"the body is not JSON: {reason}", "$") from None
    if not isinstance(value, dict) or not isinstance(value.get("labels"), list):
        raise _wrong("form", 'the body must be {"labels": [{"id": ..., "label": ...}]}', "$")
    if extra := value.keys() - {"labels"}:
        raise _wrong("form", f"there is no key {min(extra)!r} here, only labels", "$")
    found: list[tuple[str, Any]] = []
    for i, item in enumerate(value["labels"]):
        at = f"$.labels[{i}]"
        if not isinstance(item, dict):
            raise _wrong("wrong_type", 'each label is an object {"id": ..., "label": ...}', at)
        if "id" not in item:
            raise _wrong("missing", "id is missing: a label needs the prediction it is for", at)
        if "label" not in item:
            raise _wrong("missing", "label is missing", at)
        if extra := item.keys() - {"id", "label"}:
            raise _wrong("form", f"there is no key {min(extra)!r} here, only id and label", at)
        id = item["id"]
        if not isinstance(id, str) or not 0 < len(id) <= 100:
            raise _wrong(
                "wrong_type", "id must be the text that came with the prediction", at + ".id"
            )
        found.append((id, _checked(item["label"], output, at + ".label")))
    return found


def _checked(label: Any, output: Output, at: str) -> Any:
    if output.task == "regression":
        if (
            isinstance(label, bool)
            or not isinstance(label, int | float)
            or not math.isfinite(label)
        ):
            raise _wrong("wrong_type", f"{output.target} is a number, got {_kind(label)}", at)
        return label
    if label is None or isinstance(label, list | dict) or spelling(label, output) is None:
        allowed = ", ".join(output.classes[:20]) + (", …" if len(output.classes) > 20 else "")
        raise _wrong("wrong_class", f"{output.target} is one of {allowed}; got {_kind(label)}", at)
    return label


def spelling(label: Any, output: Output) -> str | None:
    """A label's class in the file's spelling; None where it is none of the model's classes."""
    match output.class_kind:
        case "category":
            return label if isinstance(label, str) and label in output.classes else None
        case "boolean":
            if isinstance(label, bool):
                # The same reading as that of the answers: true, 1 and 1.0 are true, in whatever letters.
                return next(
                    (c for c in output.classes if (c.strip().lower() in _TRUE) is label), None
                )
            return label if isinstance(label, str) and label in output.classes else None
        case "integer" | "number":
            if isinstance(label, bool) or not isinstance(label, int | float):
                return None
            return next((c for c in output.classes if _is_number(c, label)), None)


def _is_number(text: str, value: float) -> bool:
    try:
        return float(text) == value
    except (ValueError, OverflowError):
        return False


def _kind(label: Any) -> str:
    match label:
        case None:
            return "null"
        case bool():
            return "true" if label else "false"
        case int() | float():
            return f"the number {label!r:.40}"
        case str():
            return "text" if len(label) > 40 else f"the text {label!r}"
    return "a list" if isinstance(label, list) else "an object"


def _wrong(code: str, message: str, at: str) -> Refusal:
    return Refusal(400, f"labels.{code}", f"{message}; {_NONE_STORED}", at=at)


class LabelLog:
    """One model's label log: what it acknowledges is on the disk."""

    def __init__(self, state: Path, model: str, worker: str, *, sync_s: float) -> None:
        self._writer = LabelWriter(state / "labels" / model, worker, sync_s=sync_s)

    async def take(self, labels: list[tuple[str, Any]], request_id: str) -> Answer:
        """Keep labels, then say so.

        Raises:
            Refusal: 503, the disk does not take them; sending all of them again is right, doubled ones do no harm.
        """
        at, before = time.time(), self._writer.losses
        is_taken = all([self._writer.append(Label(id, label, at, "http")) for id, label in labels])
        if labels:
            is_taken &= await asyncio.get_running_loop().run_in_executor(None, self._writer.sync)
            # The log's own thread may have met a fault with them just before.
            is_taken &= self._writer.losses == before
        if not is_taken:
            raise Refusal(
                503,
                "labels.not_stored",
                "the disk did not take the labels; send all of them again, doubled ones do no harm",
                retry_after_s=5,
            )
        return Answer(202, encode({"accepted": len(labels), "request_id": request_id}))

    def close(self) -> None:
        """Flush and end."""
        self._writer.close()
