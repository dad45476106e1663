"""Forms: how one protocol writes rows and predictions. What lies between them is the same for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gyrostat_runtime import rows
from gyrostat_runtime.rows import Rows
from gyrostat_runtime.schema import Schema
from gyrostat_runtime.session import Predictions

from gyrostat.serving import csv_rows
from gyrostat.serving.answers import encode


@dataclass(frozen=True, slots=True)
class Form:
    """How a request of one protocol is read and answered."""

    route: str
    """Its name in metrics."""
    read: Callable[..., Rows]
    """As `rows.read_json`: body, schema, and the settings `missing` and `new_category`; raises InputFault."""
    write: Callable[[Predictions, str, int, Schema], bytes]
    """The body of an answer from predictions, prediction id, version, and the schema of the arm that answered."""


def write_plain(predictions: Predictions, id: str, version: int, schema: Schema) -> bytes:
    """The answer of all routes of our own: predictions, the id that labels name, and the version."""
    values: dict[str, Any] = {"predictions": predictions.values, "id": id, "version": version}
    return encode(values)


INVOCATIONS = Form("invocations", rows.read_json, write_plain)
CSV = Form("invocations", csv_rows.read, write_plain)
RECORDS = Form("predict", rows.read_records, write_plain)
VERTEX = Form("vertex", rows.read_json, write_plain)
