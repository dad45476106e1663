"""Native models: what they answer, and what their end means for the process beside them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from gyrostat_runtime import bundle, keys, native
from gyrostat_runtime import host as host_module
from gyrostat_runtime.errors import BundleFault, ModelFault
from gyrostat_runtime.host import Host
from gyrostat_runtime.rows import Rows, read_json
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from gyrostat_runtime.session import Session

HANG, CRASH, RAISE, EXIT, NOT_FINITE, HANG_IN_C, GROW = -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0
LEAK = 20_000_000


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until(claim, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def moody():
    """A model that answers twice the first number, unless that number tells it to misbehave."""

    class Moody:
        def predict(self, X):
            first = np.asarray(X, dtype=float)[:, 0]
            mood = float(first[0])
            if mood == HANG:
                time.sleep(3600)
            if mood == CRASH:
                os.abort()
            if mood == RAISE:
                raise ValueError("secret 4711")
            if mood == EXIT:
                sys.exit(3)
            if mood == NOT_FINITE:
                return first * np.nan
            if mood == HANG_IN_C:
                re.match("(a+)+$", "a" * 60 + "b")
            if mood == GROW:
                kept = [np.ones(300_000_000, np.uint8)]
                time.sleep(20)
                kept.clear()
            return 2 * first

    return Moody()


def rows_of(*values: float) -> Rows:
    num = np.array([[v, 0.0] for v in values])
    return Rows(len(values), num.tolist(), num, None, {}, {})


@pytest.fixture
def moody_bundle(pack, pair) -> Path:
    return pack(pair, {"model.pkl": cloudpickle.dumps(moody())}, "native")


def test_a_pipeline_answers_as_it_does_at_home(pack, environment):
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    schema = Schema(
        (
            Column("age", "number"),
            Column("city", "category", True, ("서울", "busan")),
            Column("is_new", "boolean"),
        ),
        (Feature("city", "city"), Feature("age", "age"), Feature("is_new", "is_new")),
        Output("multiclass", "grade", ("7", "3", "5"), "integer"),
    )
    frame = pd.DataFrame(
        {
            "city": pd.Series(["서울", "busan", ""] * 8, dtype=object),
            "age": np.arange(24.0),
            "is_new": [0.0, 1.0] * 12,
        }
    )
    model = make_pipeline(
        ColumnTransformer(
            [("city", OneHotEncoder(handle_unknown="ignore"), ["city"])], remainder="passthrough"
        ),
        LogisticRegression(max_iter=500),
    ).fit(frame, [3, 5, 7] * 8)
    code = {"code/my_features.py": b"def twice(x):\n    return 2 * x\n"}
    folder = pack(schema, {"model.pkl": cloudpickle.dumps(model)} | code, "native")
    session = Session.open(folder, keys.keyring(environment), timeout_s=60)
    try:
        asked = read_json(
            '{"dataframe_records": [{"age": 3, "city": "서울", "is_new": true},'
            '{"is_new": false, "city": "ulsan", "age": 20}, {"age": 1, "city": null, "is_new": true}]}'.encode(),
            schema,
        )
        answer = session.predict(asked)
        many = session.predict(
            read_json(
                json.dumps({"instances": [[i / 3, "busan", True] for i in range(5000)]}).encode(),
                schema,
            )
        )
    finally:
        session.close()

    same = pd.DataFrame(
        {
            "city": pd.Series(["서울", "ulsan", ""], dtype=object),
            "age": [3.0, 20.0, 1.0],
            "is_new": [1.0, 0.0, 1.0],
        }
    )
    np.testing.assert_allclose(answer.scores, model.predict_proba(same)[:, [2, 0, 1]], rtol=1e-12)
    assert answer.values == model.predict(same).tolist()
    assert many.scores.shape == (5000, 3)
    # No bytecode was left beside the code: the bundle is still the one that was signed.
    assert bundle.verify(folder, keys.keyring(environment)).flavour == "native"


def test_a_model_finds_the_projects_code_and_one_fitted_on_an_array_answers(
    pack, pair, environment, tmp_path, monkeypatch
):
    source = b"""
class OnArrays:
    def predict(self, X):
        return X.shape[1] * X[:, 0].copy()  # a frame refuses this index
"""
    (tmp_path / "my_models_of_array.py").write_bytes(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_models_of_array

    pickled = cloudpickle.dumps(my_models_of_array.OnArrays())
    assert len(pickled) < 200  # by reference: it cannot be loaded without the code
    folder = pack(pair, {"model.pkl": pickled, "code/my_models_of_array.py": source}, "native")
    session = Session.open(folder, keys.keyring(environment), timeout_s=60)
    try:
        assert session.predict(rows_of(1.5, 2.5)).values == [3.0, 5.0]
    finally:
        session.close()


@pytest.mark.parametrize(
    ("spelled", "kind", "labels", "order"),
    [
        (("good", "bad"), "category", ["bad", "good"], [1, 0]),
        (("2", "1"), "integer", [1, 2], [1, 0]),
        (("1.0", "0.5"), "number", [0.5, 1.0], [1, 0]),
        (("True", "False"), "boolean", [False, True], [1, 0]),
        (("yes", "no"), "category", [0, 1], [0, 1]),  # codes: in the order they were packed in
        (("1", "2"), "integer", [0, 1], [0, 1]),
    ],
)
def test_the_models_classes_are_found_in_the_files_spelling(spelled, kind, labels, order):
    model = native._Model.__new__(native._Model)
    model._classes, model._class_kind = spelled, kind

    assert model._places(labels) == order


def test_a_class_that_the_schema_does_not_have_is_no_answer():
    model = native._Model.__new__(native._Model)
    model._classes, model._class_kind = ("a", "b"), "category"

    with pytest.raises(ValueError, match="'c'"):
        model._places(["a", "c"])


def test_the_parent_outlives_whatever_the_model_does(moody_bundle, environment):
    session = Session.open(moody_bundle, keys.keyring(environment), timeout_s=60)
    host = session._runner
    try:
        assert session.predict(rows_of(21, 1)).values == [42.0, 2.0]
        first = host.pid

        for mood, code in [(RAISE, "failed"), (EXIT, "failed"), (NOT_FINITE, "not_finite")]:
            with pytest.raises(ModelFault) as caught:
                session.predict(rows_of(mood))
            assert caught.value.code == f"model.{code}"
        assert session.predict(rows_of(4)).values == [8.0]
        assert host.pid == first

        with pytest.raises(ModelFault, match="SIGABRT") as caught:
            session.predict(rows_of(CRASH))
        assert caught.value.code == "model.died"
        assert session.predict(rows_of(5)).values == [10.0]
        second = host.pid
        assert second != first

        host._timeout_s = 0.2
        with pytest.raises(ModelFault) as caught:
            session.predict(rows_of(HANG))
        assert caught.value.code == "model.timeout"
        assert not is_alive(second)
        host._timeout_s = 60
        assert session.predict(rows_of(6)).values == [12.0]

        os.kill(host.pid, signal.SIGKILL)
        # The group's leader is a zombie before its threads are gone: ask the one who reaps.
        assert until(lambda: host._link.process.poll() is not None)
        assert session.predict(rows_of(7)).values == [14.0]
    finally:
        last = host.pid
        session.close()
        session.close()
    assert not is_alive(last)
    with pytest.raises(ModelFault) as caught:
        session.predict(rows_of(1))
    assert caught.value.code == "model.closed"


def test_a_model_that_keeps_dying_is_started_ever_less_often(moody_bundle):
    host = Host(moody_bundle, timeout_s=60)
    try:
        waits = 0
        for _ in range(6):
            try:
                host.scores(rows_of(CRASH))
            except ModelFault as fault:
                waits += "next try" in fault.message
        assert waits >= 3
        assert 0 < host._not_before - time.monotonic() <= 10
    finally:
        host.close()


def leaky(spoiled: Path, size: int):
    """Keeps so many bytes of every call. Once the file `spoiled` is there it cannot be loaded again."""

    class Leaky:
        def __init__(self):
            self.kept = []

        def __setstate__(self, state):
            if spoiled.exists():
                raise RuntimeError("spoiled")
            self.__dict__ = state

        def predict(self, X):
            self.kept.append(np.ones(size, np.uint8))
            return 2 * np.asarray(X, dtype=float)[:, 0]

    return Leaky()


@pytest.fixture
def leaking(pack, pair, tmp_path):
    """`leaking(size)`: a bundle of `leaky`."""
    return lambda size: pack(
        pair, {"model.pkl": cloudpickle.dumps(leaky(tmp_path / "spoiled", size))}, "native"
    )


def test_a_model_that_leaks_is_replaced_in_time_and_no_call_fails(leaking, monkeypatch):
    monkeypatch.setattr(host_module, "_GROWTH_BYTES", 10 * LEAK)
    host = Host(leaking(LEAK), timeout_s=60)
    try:
        processes, largest = [host.pid], 0
        while len(processes) < 3:
            assert host.scores(rows_of(4.0)).tolist() == [8.0]
            if host.pid != processes[-1]:
                processes.append(host.pid)
            if host._link is not None:
                largest = max(largest, host._link.resident_bytes())
        assert not any(is_alive(pid) for pid in processes[:-1])
        # Its own size, what it may grow by, and the one call that went over it.
        assert largest < 300_000_000 + 11 * LEAK
    finally:
        host.close()
        assert host._next is None


def test_the_next_process_is_loaded_beside_the_one_that_answers(leaking):
    host = Host(leaking(0), timeout_s=60)
    try:
        host.scores(rows_of(1.0))
        first = host.pid
        host._link.full_bytes = 1
        host.scores(rows_of(1.0))
        following = host._next.process.pid
        assert (host.pid, is_alive(first), is_alive(following)) == (first, True, True)
        assert until(lambda: host.scores(rows_of(1.0)).tolist() == [2.0] and host.pid == following)
        assert not is_alive(first)
    finally:
        host.close()


def test_a_next_process_that_cannot_be_loaded_leaves_the_one_that_answers(leaking, tmp_path):
    host = Host(leaking(0), timeout_s=60)
    try:
        host.scores(rows_of(1.0))
        first = host.pid
        (tmp_path / "spoiled").touch()
        host._link.full_bytes = 1
        host.scores(rows_of(1.0))
        failed = host._next.process.pid
        host._link.full_bytes = 2**60
        assert until(lambda: host.scores(rows_of(1.0)).tolist() == [2.0] and host._next is None)
        assert (host.pid, is_alive(failed)) == (first, False)
    finally:
        host.close()


def test_a_call_that_takes_too_much_memory_is_ended_and_the_next_one_answered(
    moody_bundle, monkeypatch
):
    monkeypatch.setattr(host_module, "_GROWTH_BYTES", 200_000_000)
    host = Host(moody_bundle, timeout_s=600)
    try:
        assert host.scores(rows_of(4.0)).tolist() == [8.0]
        first = host.pid
        with pytest.raises(ModelFault, match=r"took .* MB of memory and may take") as caught:
            host.scores(rows_of(GROW))
        assert caught.value.code == "model.memory"
        assert not is_alive(first)
        assert host.scores(rows_of(5.0)).tolist() == [10.0]
    finally:
        host.close()


def test_a_model_that_needs_more_than_is_declared_is_not_opened(moody_bundle, environment):
    with pytest.raises(BundleFault, match=r"may take 5 MB \(serving.memory\)"):
        Session.open(moody_bundle, keys.keyring(environment), timeout_s=60, memory_bytes=5_000_000)


def test_a_first_answer_that_needs_more_than_is_declared_is_none(moody_bundle):
    host = Host(moody_bundle, timeout_s=60)
    try:
        host._memory_bytes = 5_000_000
        with pytest.raises(ModelFault, match="may take 5 MB"):
            host.scores(rows_of(1.0))
    finally:
        host.close()


def test_what_a_model_keeps_in_its_temporary_folder_ends_with_it(pack, pair, tmp_path):
    told = tmp_path / "told"

    class Writes:
        def predict(self, X):
            import tempfile

            told.write_text(tempfile.mkstemp()[1])
            return np.zeros(len(X))

    host = Host(pack(pair, {"model.pkl": cloudpickle.dumps(Writes())}, "native"), timeout_s=60)
    try:
        host.scores(rows_of(1.0))
        written = Path(told.read_text())
        assert written.exists()
    finally:
        host.close()
    assert not written.parent.exists()


def test_a_personal_feature_silences_the_models_own_words(pack):
    schema = Schema(
        (Column("a", "number"), Column("b", "number")),
        (Feature("a", "a"), Feature("b", "b")),
        Output("regression", "y"),
        personal=("a",),
    )
    host = Host(pack(schema, {"model.pkl": cloudpickle.dumps(moody())}, "native"), timeout_s=60)
    try:
        with pytest.raises(ModelFault, match="ValueError") as caught:
            host.scores(rows_of(RAISE))
        assert "4711" not in caught.value.message
    finally:
        host.close()


@pytest.mark.parametrize("mood", [None, HANG_IN_C])
def test_the_model_dies_with_its_parent_however_that_ends(moody_bundle, mood, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, pathlib, numpy as np\n"
        "from gyrostat_runtime.host import Host\n"
        "from gyrostat_runtime.rows import Rows\n"
        "host = Host(pathlib.Path(sys.argv[1]), timeout_s=600)\n"
        "print(host.pid, flush=True)\n"
        "num = np.array([[float(sys.argv[2]), 0.0]])\n"
        "host.scores(Rows(1, [[0, 0]], num, None, {}, {}))\n"
        "print('answered', flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script), str(moody_bundle), str(mood or 1.0)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        child = int(parent.stdout.readline())
        if mood is None:
            assert parent.stdout.readline() == "answered\n"
        else:
            # It computes, holding the interpreter.
            assert until(lambda: _cpu_seconds(child) > 2.5)
        assert is_alive(child)
    finally:
        parent.kill()
        parent.communicate()

    assert until(lambda: not is_alive(child), 10)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Telltale:
    """Writes down which process opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w').write(str(__import__('os').getpid()))",)


def test_a_pickle_is_opened_by_the_child_alone(pack, pair, environment, tmp_path):
    told = tmp_path / "told"
    folder = pack(pair, {"model.pkl": cloudpickle.dumps(Telltale(told))}, "native")

    with pytest.raises(BundleFault, match="does not answer"):
        Session.open(folder, keys.keyring(environment), timeout_s=60)

    assert int(told.read_text()) != os.getpid()


def test_an_altered_pickle_is_opened_by_nobody(pack, pair, environment, tmp_path):
    told = tmp_path / "told"
    folder = pack(pair, {"model.pkl": cloudpickle.dumps(Telltale(told))}, "native")
    (folder / "model.pkl").write_bytes((folder / "model.pkl").read_bytes() + b" ")

    with pytest.raises(BundleFault, match=r"model\.pkl"):
        Session.open(folder, keys.keyring(environment))

    assert not told.exists()


def test_the_child_checks_the_pickle_once_more_before_it_opens_it(moody_bundle):
    manifest = bundle.read_manifest(moody_bundle)
    (moody_bundle / "model.pkl").write_bytes(cloudpickle.dumps("another"))

    with pytest.raises(ModelFault, match=r"model\.pkl is not the file that was signed"):
        Host(moody_bundle, manifest=manifest)


def test_a_model_that_cannot_be_loaded_says_why(pack, pair, environment):
    folder = pack(pair, {"model.pkl": b"cno_such_module\nThing\n."}, "native")

    with pytest.raises(BundleFault, match="no_such_module") as caught:
        Session.open(folder, keys.keyring(environment))

    assert caught.value.code == "bundle.not_loadable"
