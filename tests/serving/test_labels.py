"""A label is what the model could have answered, in the file's own spelling; anything else is refused with its place."""

import json

import pytest
from gyrostat_runtime.schema import Output

from gyrostat.serving.answers import Refusal
from gyrostat.serving.labels import read_labels, spelling

NUMBER = Output("regression", "quality")
PLAN = Output("multiclass", "plan", classes=("basic", "family", "1"))
GRADE = Output("multiclass", "grade", classes=("3", "4", "5"), class_kind="integer")
HALF = Output("binary", "half", classes=("0.5", "1.0"), class_kind="number", positive="1.0")
RIPE = Output("binary", "ripe", classes=("FALSE", "TRUE"), class_kind="boolean", positive="TRUE")


def body(label):
    return json.dumps({"labels": [{"id": "a", "label": label}]}).encode()


@pytest.mark.parametrize(
    ("output", "label", "spelled"),
    [
        (PLAN, "family", "family"),
        (PLAN, "1", "1"),
        (GRADE, 4, "4"),
        (GRADE, 4.0, "4"),
        (HALF, 1, "1.0"),
        (RIPE, True, "TRUE"),
        (RIPE, False, "FALSE"),
        (RIPE, "TRUE", "TRUE"),
    ],
)
def test_a_class_is_known_as_the_answers_spell_it(output, label, spelled):
    assert spelling(label, output) == spelled
    assert read_labels(body(label), output) == [("a", label)]


@pytest.mark.parametrize(
    ("output", "label"),
    [
        (NUMBER, "5"),
        (NUMBER, True),
        (NUMBER, None),
        (NUMBER, [5]),
        (PLAN, "Family"),
        (PLAN, 1),
        (PLAN, None),
        (GRADE, 6),
        (GRADE, "4"),
        (GRADE, True),
        (GRADE, 10**400),
        (RIPE, 1),
        (RIPE, "yes"),
        (RIPE, {}),
    ],
)
def test_another_kind_or_class_is_refused_with_its_place(output, label):
    with pytest.raises(Refusal) as refusal:
        read_labels(body(label), output)
    assert (refusal.value.status, refusal.value.at) == (400, "$.labels[0].label")


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b"\xff", b'{"labels": {}}', b"[" * 100_000, b'{"labels":[NaN]}']
)
def test_a_body_that_is_no_list_of_labels_is_refused(raw):
    with pytest.raises(Refusal, match="none of the labels in this request were stored"):
        read_labels(raw, NUMBER)
