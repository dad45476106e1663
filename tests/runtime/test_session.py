import threading
from pathlib import Path

import numpy as np
import pytest
from gyrostat_runtime import keys
from gyrostat_runtime.errors import BundleFault, ModelFault
from gyrostat_runtime.onnx_check import check_graph
from gyrostat_runtime.rows import Rows, from_columns, read_json
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from gyrostat_runtime.session import Session, Slot, typical_rows


@pytest.fixture
def opened(pack, environment):
    """Pack a graph for a schema and open it."""

    def make(schema: Schema, model: bytes) -> Session:
        return Session.open(pack(schema, {"model.onnx": model}), keys.keyring(environment))

    return make


def classes_of(*names: str, task="multiclass", **said) -> Schema:
    return Schema(
        (Column("a", "number"), Column("b", "number", nullable=True)),
        (Feature("a", "a"), Feature("b", "b")),
        Output(task, "y", names, **said),
    )


def rows_of(*pairs) -> Rows:
    num = np.array(pairs, dtype=np.float64)
    return Rows(len(pairs), [list(p) for p in pairs], num, None, {}, {})


@pytest.mark.parametrize("double", [False, True])
def test_a_regression_answers_numbers_in_the_precision_of_its_graph(opened, pair, graph, double):
    session = opened(pair, graph(double=double))

    answer = session.predict(read_json(b'{"instances": [[1, 2], [0.1, 16777217]]}', pair))

    assert answer.values[0] == 3.0
    assert answer.values[1] == (16777217.1 if double else 16777216.0)
    assert answer.scores.shape == (2,)
    assert answer.scores.dtype == np.float64


def test_the_session_says_which_bundle_it_is(opened, pair, graph):
    session = opened(pair, graph())

    assert len(session.digest) == 64
    assert session.schema == pair
    assert session.manifest.flavour == "onnx"


@pytest.mark.parametrize(
    ("kind", "spelled", "values"),
    [
        ("category", ("good", "bad"), ["bad", "good"]),
        ("integer", ("3", "7"), [7, 3]),
        ("number", ("0.5", "1.5"), [1.5, 0.5]),
        ("boolean", ("False", "True"), [True, False]),
    ],
)
def test_classes_travel_in_the_spelling_of_the_file(opened, graph, kind, spelled, values):
    schema = classes_of(*spelled, class_kind=kind, task="binary", positive=spelled[1])
    session = opened(schema, graph(np.eye(2), (0.0, 0.0), softmax=True))

    answer = session.predict(rows_of((0, 5), (5, 0)))

    assert answer.values == values
    assert [type(v) for v in answer.values] == [type(v) for v in values]
    np.testing.assert_allclose(answer.scores.sum(axis=1), 1, rtol=1e-6)


def test_the_positive_class_is_answered_from_the_threshold_on_wherever_it_stands(opened, graph):
    schema = classes_of("yes", "no", task="binary", positive="yes", threshold=0.25)
    session = opened(schema, graph(np.eye(2), (0.0, 0.0)))

    answer = session.predict(rows_of((0.25, 0.75), (0.2499, 0.7501), (0.9, 0.1)))

    assert answer.values == ["yes", "no", "yes"]


def test_a_tie_in_the_first_five_decimals_goes_to_the_first_class(opened, graph):
    session = opened(classes_of("x", "y"), graph(np.eye(2), (0.0, 0.0)))

    assert session.predict(rows_of((0.499999, 0.500001), (0.4999, 0.5001))).values == ["x", "y"]


def test_text_features_go_into_an_input_of_their_own(opened, homes):
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["cat"],
            ["code"],
            domain="ai.onnx.ml",
            keys_strings=["seoul", "busan", ""],
            values_floats=[100.0, 200.0, 300.0],
            default_float=900.0,
        ),
        helper.make_node("ReduceSum", ["num", "axis"], ["total"], keepdims=1),
        helper.make_node("Add", ["total", "code"], ["output"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [
                helper.make_tensor_value_info("num", TensorProto.DOUBLE, [None, 4]),
                helper.make_tensor_value_info("cat", TensorProto.STRING, [None, 1]),
            ],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 1])],
            [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
        ),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=10,
    )
    model.graph.node.insert(2, helper.make_node("Cast", ["total"], ["single"], to=1))
    model.graph.node[3].input[0] = "single"
    session = opened(homes, model.SerializeToString())
    columns = {
        "temperature": [1.0] * 4,
        "humidity": [2.0] * 4,
        "rooms": [3] * 4,
        "is_new": [True] * 4,
        "city": ["seoul", "busan", None, "서울"],
    }

    answer = session.predict(from_columns(columns, homes))

    assert answer.values == [107.0, 207.0, 307.0, 907.0]


def test_no_rows_are_answered_with_none(opened, pair, graph):
    answer = opened(pair, graph()).predict(from_columns({"a": [], "b": []}, pair))

    assert (answer.values, answer.scores.shape) == ([], (0,))


def test_an_answer_that_is_no_number_is_a_fault_of_the_model(opened, pair, graph):
    session = opened(pair, graph())
    rows = read_json(b'{"instances": [[1, 2], [1, null]]}', pair)

    with pytest.raises(ModelFault) as caught:
        session.predict(rows)

    assert caught.value.code == "model.not_finite"


def test_a_model_that_cannot_answer_a_made_up_row_does_not_open(opened, pair, graph):
    with pytest.raises(BundleFault, match="does not answer"):
        opened(pair, graph(((np.inf,), (1.0,))))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"weight": ((1.0,), (1.0,), (1.0,))}, "2 columns"),
        ({"rename": "y"}, "'output'"),
        ({"weight": np.eye(2), "bias": (0.0, 0.0)}, "1 columns"),
    ],
)
def test_a_graph_that_does_not_fit_its_schema_does_not_open(opened, pair, graph, said, message):
    with pytest.raises(BundleFault, match=message) as caught:
        opened(pair, graph(**said))

    assert caught.value.code == "bundle.not_loadable"


def test_weights_in_another_file_are_refused_before_the_runtime_sees_them(opened, pair, graph):
    def outside(model):
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = 1
        weight.external_data.add(key="location", value="../keys/signing.key")

    with pytest.raises(BundleFault, match="another file"):
        opened(pair, graph(edit=outside))


def test_operators_from_a_library_beside_the_runtime_are_refused(opened, pair, graph):
    def foreign(model):
        model.graph.node[1].domain = "com.example"

    with pytest.raises(BundleFault, match=r"com\.example"):
        opened(pair, graph(edit=foreign))


def test_what_is_forbidden_is_found_in_inner_graphs_too(graph):
    from onnx import helper

    def nested(model):
        inner = helper.make_node("X", [], ["z"], domain="com.example")
        body = helper.make_graph([inner], "then", [], [])
        model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=body))

    with pytest.raises(BundleFault, match=r"com\.example"):
        check_graph(graph(edit=nested))


@pytest.mark.parametrize("model", [b"\xff" * 50, b"no graph", b"\x3a\x7f", b"", b"\x08"])
def test_bytes_that_are_no_graph_do_not_open(opened, pair, model):
    with pytest.raises(BundleFault):
        opened(pair, model)


def test_an_altered_bundle_does_not_open(pack, pair, graph, environment):
    folder: Path = pack(pair, {"model.onnx": graph()})
    (folder / "model.onnx").write_bytes(graph(((2.0,), (1.0,))))

    with pytest.raises(BundleFault, match="not the file that was signed"):
        Session.open(folder, keys.keyring(environment))


def test_made_up_rows_have_the_shape_of_the_schema(homes):
    rows = typical_rows(homes, 3)

    assert rows.num.shape == (3, 4)
    assert rows.cat.tolist() == [["seoul"]] * 3


class Recorder(Session):
    """A session that waits inside a prediction when told to, and says when it is closed."""

    def __init__(self, inner: Session, *, waits: bool = False) -> None:
        super().__init__(inner.digest, inner.manifest, inner._runner)
        self.is_closed = False
        self.entered, self.go = threading.Event(), threading.Event()
        if not waits:
            self.go.set()

    def predict(self, rows):
        self.entered.set()
        assert self.go.wait(20)
        assert not self.is_closed
        return super().predict(rows)

    def close(self):
        self.is_closed = True


def test_a_swap_lets_calls_in_flight_end_before_the_old_session_is_closed(opened, pair, graph):
    inner = opened(pair, graph())
    old, new = Recorder(inner, waits=True), Recorder(inner)
    slot, rows, got = Slot(old), rows_of((1, 2)), []
    caller = threading.Thread(target=lambda: got.append(slot.predict(rows)[0]))
    caller.start()
    assert old.entered.wait(20)

    slot.swap(new)

    assert not old.is_closed
    assert slot.predict(rows)[0] is new
    old.go.set()
    caller.join(20)
    assert got == [old]
    assert old.is_closed
    assert not new.is_closed


def test_a_session_that_comes_back_while_it_leaves_stays_open(opened, pair, graph):
    inner = opened(pair, graph())
    first, second = Recorder(inner, waits=True), Recorder(inner)
    slot, rows = Slot(first), rows_of((1, 2))
    caller = threading.Thread(target=lambda: slot.predict(rows))
    caller.start()
    assert first.entered.wait(20)

    slot.swap(second)
    slot.swap(first)
    first.go.set()
    caller.join(20)

    assert second.is_closed
    assert not first.is_closed


def test_no_call_fails_while_sessions_are_swapped_under_load(opened, pair, graph):
    inner = opened(pair, graph())
    slot, rows, over = Slot(Recorder(inner)), rows_of((1, 2)), threading.Event()
    faults: list[Exception] = []

    def call() -> None:
        try:
            while not over.is_set():
                assert slot.predict(rows)[1].values == [3.0]
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails the test
            faults.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    sessions = [Recorder(inner) for _ in range(50)]
    for session in sessions:
        slot.swap(session)
    over.set()
    for caller in callers:
        caller.join(20)

    assert faults == []
    assert [s.is_closed for s in sessions] == [True] * 49 + [False]
