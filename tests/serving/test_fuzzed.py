"""Requests that schemathesis makes up from the server's own document: right or wrong, each is answered as the document says."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

load_all_checks()
NO_FAULT, ACCEPTED = CHECKS.get_by_names(["not_a_server_error", "positive_data_acceptance"])
OVERFLOWS = "model.not_finite"
"""The bench's model adds up, and two of the largest numbers allowed are more than it can hold."""


def is_described(case) -> bool:
    """Whether the document says all that a right request must have: not how a CSV looks, nor that lengths and shapes agree."""
    body = case.body if isinstance(case.body, dict) else {}
    is_json = case.media_type == "application/json"
    return not case.operation.body or (is_json and not {"inputs", "dataframe_split"} & set(body))


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_each_request_of_the_document_is_answered_as_it_says(served, mode):
    _, server = served  # its own: labels are kept
    url = "http://{}:{}".format(*server.address)
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 17
    for operation in operations:
        if mode.is_negative and not operation.body:
            continue  # nothing can be wrong with it

        @settings(
            max_examples=8,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode))
        def ask(case):
            answer = case.call(base_url=url)
            overflows = answer.status_code == 503 and answer.json()["error"]["code"] == OVERFLOWS
            left_out = [NO_FAULT] if overflows else []
            left_out += [] if is_described(case) else [ACCEPTED]
            case.validate_response(answer, excluded_checks=left_out)

        ask()
    assert server.process.poll() is None
