"""Every row gets its answer or its reason, the file appears whole, and a kill costs no more than a piece."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import polars as pl
import pytest
from batch.builders import a_batch, a_bundle, a_table
from gyrostat_runtime.rows import read_records
from gyrostat_runtime.schema import Column, Feature, Output, Schema
from gyrostat_runtime.session import Session
from serving.bench import KINDS, graph

from gyrostat import batch
from gyrostat.batch import parts, scoring
from gyrostat.data import streams
from gyrostat.errors import BundleError, DataError, JobError, TakenError, UsageError

TESTS = Path(__file__).parent.parent


def scored(wanted, **said):
    told = []
    made = batch.score(wanted, record=told.append, say=said.get("say", lambda line: None))
    assert told == [made]
    return made


def read(path):
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_each_row_stands_with_its_number_answer_and_version_in_the_order_of_the_input(tmp_path, monkeypatch, suffix):  # fmt: skip
    monkeypatch.setattr(streams, "BLOCK_BYTES", 3000)
    output = tmp_path / f"out{suffix}"
    made = scored(a_batch(tmp_path, a_table(tmp_path / "t.csv"), output, a_bundle(tmp_path), version=4))  # fmt: skip
    found = read(output)
    assert found.columns == ["row", "prediction", "version", "error"]
    assert found["row"].to_list() == list(range(1, 5001))
    assert found["prediction"].to_list() == [1 + n / 2 + n % 7 for n in range(5000)]
    assert set(found["version"]) == {4}
    assert found["error"].null_count() == 5000
    assert (made.n_rows, made.n_failed) == (5000, 0)
    assert not (tmp_path / f".out{suffix}.parts").exists()


def test_a_row_that_cannot_be_answered_says_why_and_the_rest_is_answered(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("who,alcohol,pH\nkim,1,2\nlee,high,2\npark,,1\nchoi,3,\n1,2\nhan,1e39,0\n")
    output = tmp_path / "out.parquet"
    made = scored(a_batch(tmp_path, table, output, a_bundle(tmp_path), entity="who", keep=("pH",)))
    found = read(output)
    assert (made.n_rows, made.n_failed) == (6, 4)
    assert found["who"].to_list() == ["kim", "lee", "park", "choi", None, "han"]
    assert found["pH"].to_list() == ["2", "2", "1", None, None, "0"]
    assert found["prediction"].to_list() == [4, None, None, 4, None, None]
    errors = found["error"].to_list()
    assert errors[1] == "'alcohol': a number is needed, got the text \"high\""
    assert "a missing value cannot be answered" in errors[2]
    assert errors[4] == "the row has 2 fields, the header has 3"
    assert [errors[0], errors[3]] == [None, None]


def test_classes_have_their_probabilities_and_are_those_that_the_server_would_answer(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("x,prediction\none,q\n" + "".join(f"{x},p{x}\n" for x in range(-9, 9)))
    digest = a_bundle(tmp_path, KINDS)
    output = tmp_path / "out.parquet"
    scored(a_batch(tmp_path, table, output, digest, keep=("prediction",)))
    found = read(output)
    assert found.columns == ["row", "prediction (input)", "prediction", "probability_0", "probability_1", "version", "error"]  # fmt: skip
    from gyrostat_runtime import keys

    session = Session.open(tmp_path / "bundles" / digest, keys.keyring(tmp_path / "keys"))
    body = str([{"x": x} for x in range(-9, 9)]).replace("'", '"').encode()
    answered = session.predict(read_records(body, KINDS))
    assert found["prediction"].to_list() == [None, *answered.values]
    assert np.array_equal(found.select("probability_0", "probability_1").to_numpy()[1:], answered.scores)  # fmt: skip
    assert found["probability_1"][0] is None


def test_a_row_at_which_the_model_fails_is_found_among_thousands(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "CALL_ROWS", 512)
    digest = a_bundle(tmp_path, model=graph(1.0, 2, fails_above=100.0))
    table = tmp_path / "t.csv"
    table.write_text("alcohol,pH\n" + "".join(f"{101 if n in (700, 1999) else 1},x\n".replace("x", "2") for n in range(2000)))  # fmt: skip
    made = scored(a_batch(tmp_path, table, tmp_path / "out.parquet", digest))
    found = read(tmp_path / "out.parquet").filter(pl.col("error").is_not_null())
    assert made.n_failed == 2
    assert found["row"].to_list() == [701, 2000]
    assert found["prediction"].to_list() == [None, None]


def test_a_model_that_fails_at_everything_ends_the_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "MOST_MODEL_FAULTS", 5)
    digest = a_bundle(tmp_path, model=graph(1.0, 2, fails_above=1.5))
    with pytest.raises(JobError, match="could not go on"):
        scored(a_batch(tmp_path, a_table(tmp_path / "t.csv"), tmp_path / "o.csv", digest))
    assert not (tmp_path / "o.csv").exists()


def test_a_native_model_answers_in_processes_of_its_own(tmp_path):
    class Sums:
        def predict(self, X):
            return np.asarray(X, dtype=float).sum(axis=1)

    schema = Schema((Column("alcohol", "number"), Column("pH", "number")), (Feature("alcohol", "alcohol"), Feature("pH", "pH")), Output("regression", "q"))  # fmt: skip
    digest = a_bundle(tmp_path, schema, cloudpickle.dumps(Sums()), flavour="native")
    scored(a_batch(tmp_path, a_table(tmp_path / "t.csv", 20_000), tmp_path / "out.parquet", digest))
    found = read(tmp_path / "out.parquet")["prediction"].to_list()
    assert found == [n / 2 + n % 7 for n in range(20_000)]


def test_the_rows_of_a_snapshot_are_a_table_too(tmp_path):
    frame = pl.DataFrame({"alcohol": [1.0, 2.0], "pH": [None, 3.0], "_side": ["train", "heldout"]})
    wanted = a_batch(tmp_path, None, tmp_path / "o.parquet", a_bundle(tmp_path), frame=frame, fingerprint="f" * 64)  # fmt: skip
    assert scored(wanted).input_digest == "f" * 64
    assert read(tmp_path / "o.parquet")["prediction"].to_list() == [2, 6]


# ---- taking up -----------------------------------------------------------------------------------


def dying(tmp_path, output, digest, nth):
    argv = [sys.executable, str(TESTS / "batch" / "dying.py"), str(tmp_path), str(tmp_path / "t.csv"), str(output), digest, str(nth)]  # fmt: skip
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(argv, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)  # fmt: skip


def test_killed_at_any_step_the_file_is_in_the_end_what_it_would_have_been(tmp_path):
    """One output is killed again and again, each time a step later than it came; another is left alone."""
    digest = a_bundle(tmp_path)
    a_table(tmp_path / "t.csv", 1200)
    whole, killed = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    assert dying(tmp_path, whole, digest, 0).returncode == 0
    (tmp_path / "told").unlink()
    n_killed, taken_up = 0, set()
    for nth in (1, 2, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0):
        done = dying(tmp_path, killed, digest, nth)
        if done.returncode == 0:
            taken_up.add(int(done.stdout.split()[0]))
            if nth:
                killed.unlink()
                continue
        assert done.returncode in (0, -9), done.stderr
        n_killed += done.returncode == -9
        assert not killed.exists() or killed.read_bytes() == whole.read_bytes()
    assert killed.read_bytes() == whole.read_bytes()
    assert n_killed >= 8
    assert max(taken_up) > 0
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    told = [line.split() for line in (tmp_path / "told").read_text().splitlines()]
    assert {rows for _, rows, _ in told} == {"1200"}
    assert len({digest for _, _, digest in told}) == 1


def interrupted(tmp_path, wanted, monkeypatch, *, after):
    """Ctrl-C after some parts."""
    write, n = parts.Parts.write, iter(range(1000))

    def once(self, *args):
        if next(n) >= after:
            raise KeyboardInterrupt
        return write(self, *args)

    said = []
    with monkeypatch.context() as patched:
        patched.setattr(parts.Parts, "write", once)
        with pytest.raises(KeyboardInterrupt):
            batch.score(wanted, record=lambda s: pytest.fail("nothing is told"), say=said.append)
    return said


def test_stopped_by_hand_it_says_how_to_go_on_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 3000)
    wanted = a_batch(tmp_path, a_table(tmp_path / "t.csv"), tmp_path / "o.csv", a_bundle(tmp_path))
    said = interrupted(tmp_path, wanted, monkeypatch, after=3)
    assert "the same command goes on from there" in said[-1]
    assert not (tmp_path / "o.csv").exists()
    made = scored(wanted)
    assert 0 < made.n_taken_up < made.n_rows == 5000


@pytest.mark.parametrize("change", ["input", "version", "choice of columns", "way of reading"])
def test_another_input_version_or_reading_begins_anew_and_says_so(tmp_path, monkeypatch, change):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 3000)
    table, digest = a_table(tmp_path / "t.csv"), a_bundle(tmp_path)
    interrupted(tmp_path, a_batch(tmp_path, table, tmp_path / "o.csv", digest), monkeypatch, after=3)  # fmt: skip
    said, asked = [], {}
    match change:
        case "input":
            table.write_text(table.read_text().replace("2.5,5", "9.5,5"))
        case "version":
            asked = {"version": 2}
        case "choice of columns":
            asked = {"keep": ("who",)}
        case _:
            asked = {"missing": "refuse"}
    made = scored(a_batch(tmp_path, table, tmp_path / "o.csv", digest, **asked), say=said.append)
    assert made.n_taken_up == 0
    assert said[0] == f"Begins anew: what was answered in part before was of another {change}."


def test_a_full_disk_is_said_and_what_was_answered_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 3000)
    wanted = a_batch(tmp_path, a_table(tmp_path / "t.csv"), tmp_path / "o.csv", a_bundle(tmp_path))
    written, n = parts.write_atomic, iter(range(1000))

    def full(path, data):
        if next(n) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(parts, "write_atomic", full)
        with pytest.raises(JobError, match=r"No space left.*run the same command"):
            scored(wanted)
    assert scored(wanted).n_taken_up > 0


def test_one_output_is_written_by_one_process(tmp_path):
    wanted = a_batch(tmp_path, a_table(tmp_path / "t.csv"), tmp_path / "o.csv", a_bundle(tmp_path))
    with (
        parts.Parts(tmp_path / "o.csv").held({}, 0.0),
        pytest.raises(TakenError, match=r"writes o\.csv now"),
    ):
        scored(wanted)


# ---- being told no -------------------------------------------------------------------------------


def test_an_input_that_changes_meanwhile_gives_no_output(tmp_path, monkeypatch):
    table = a_table(tmp_path / "t.csv")
    write = parts.Parts.write

    def slow(self, *args):
        with table.open("a") as file:
            file.write("1,2,late\n")
        return write(self, *args)

    monkeypatch.setattr(parts.Parts, "write", slow)
    with pytest.raises(DataError, match="changed while it was read"):
        scored(a_batch(tmp_path, table, tmp_path / "o.csv", a_bundle(tmp_path)))
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("text", "output", "error", "says"),
    [
        ("alcohol;pH\n1;2\n", "o.csv", DataError, "lacks 2 of its columns, which the model needs: 'alcohol', 'pH'"),
        ("alcohol,pH\n", "o.csv", DataError, "no rows"),
        ("alcohol,pH\n1,2\n", "o.xlsx", UsageError, "ends in .parquet or .csv"),
        ("alcohol,pH\n1,2\n", "t.csv", UsageError, "--input itself"),
        ("alcohol,pH\n1,2\n", "none/o.csv", UsageError, "there is no folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_is_written(tmp_path, text, output, error, says):
    table = tmp_path / "t.csv"
    table.write_text(text)
    with pytest.raises(error, match=says):
        scored(a_batch(tmp_path, table, tmp_path / output, a_bundle(tmp_path)))
    assert table.read_text() == text
    assert not (tmp_path / "o.csv").exists()


def test_a_bundle_that_was_altered_is_not_asked(tmp_path):
    digest = a_bundle(tmp_path)
    (tmp_path / "bundles" / digest / "model.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match="Nothing in it was opened"):
        scored(a_batch(tmp_path, a_table(tmp_path / "t.csv"), tmp_path / "o.csv", digest))
