"""A model from a notebook: kept by its digest, and never fitted on rows that judge it."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from gyrostat.errors import JobError, UsageError
from gyrostat.training import offer


class Half:
    def predict(self, X):
        return np.full(len(X), 0.5)


def rows(*numbers):
    return pd.DataFrame({"rooms": list(map(float, numbers)), "city": ["seoul"] * len(numbers)})


def kept(tmp_path, X):
    return offer.keep(tmp_path, "homes", Half(), X, [0.0] * len(X))


def test_the_same_model_and_rows_are_one_offer_and_read_back(tmp_path):
    first = kept(tmp_path, rows(1, 2))
    assert kept(tmp_path, rows(1, 2)) == first
    assert kept(tmp_path, rows(1, 3)).digest != first.digest
    assert offer.read(tmp_path, "homes", first.digest) == first
    assert (first.what, first.n_rows, len(first.rows())) == ("Half", 2, 2)


@pytest.mark.parametrize("file", ["model.pkl", "rows"])
def test_what_was_changed_since_is_not_taken(tmp_path, file):
    made = kept(tmp_path, rows(1))
    place = made.folder / file
    place.write_bytes(place.read_bytes() + b"x")
    with pytest.raises(JobError, match="was changed since"):
        offer.read(tmp_path, "homes", made.digest)


def test_rows_that_judge_are_refused_and_twins_of_training_rows_are_not(tmp_path):
    train, heldout = rows(1, 2, 3), rows(3, 4)
    assert offer.compare(kept(tmp_path, rows(1, 3, 9)), train, heldout) == {"n_train": 2, "n_other": 1}  # fmt: skip
    with pytest.raises(JobError, match="2 of 3 offered rows are held out"):
        offer.compare(kept(tmp_path, rows(1, 4, 4)), train, heldout)


def test_a_column_that_requests_do_not_have_is_named(tmp_path):
    X = rows(1).assign(price=1.0, _side="train")
    with pytest.raises(JobError, match="do not have: price, _side; there are rooms, city"):
        offer.compare(kept(tmp_path, X), rows(1), rows(2))


def test_a_row_is_the_same_however_it_is_typed():
    typed = pd.DataFrame({"a": [1.0, np.nan, 0.0], "b": ["x", "", "y"]})
    columns = ("a", "b")
    loose = pl.DataFrame({"a": [True, None, False], "b": ["x", None, "y"]}).to_pandas()
    whole = pd.DataFrame({"a": pd.Series([1, None, 0], dtype="Int64"), "b": pd.Categorical(["x", None, "y"])})  # fmt: skip
    assert offer.digests(typed, columns) == offer.digests(loose, columns)
    assert offer.digests(typed, columns) == offer.digests(whole, columns)
    # A value does not reach into its neighbour.
    assert len(set(offer.digests(pd.DataFrame({"a": ["xy", "x"], "b": ["z", "yz"]}), columns))) == 2


@pytest.mark.parametrize(
    ("model", "X", "y", "said"),
    [
        (Half(), np.ones((2, 2)), [1, 2], "frame with named columns and rows, got ndarray"),
        (Half(), rows(1, 2), [1], "X has 2 rows, y has 1"),
        (object(), rows(1), [1], "object has no predict"),
        (Half(), rows(), [], "with named columns and rows"),
        (Half(), pd.DataFrame([[1, 2]], columns=["a", "a"]), [1], "two columns of one name"),
    ],
)
def test_what_is_no_offer_is_refused(tmp_path, model, X, y, said):
    with pytest.raises(UsageError, match=said):
        offer.keep(tmp_path, "homes", model, X, y)
    assert not (tmp_path / "offers").exists()


def test_a_model_that_cannot_be_pickled_says_why(tmp_path):
    stuck = Half()
    stuck.rows = (n for n in range(3))
    with pytest.raises(UsageError, match="cannot be pickled: TypeError"):
        offer.keep(tmp_path, "homes", stuck, rows(1), [1])
