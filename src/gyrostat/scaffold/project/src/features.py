"""Preprocessing. It travels inside the model, so training and serving cannot differ."""

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder


def preprocessing(numbers, texts):
    """Missing numbers become the median; each known text a column of its own, a new one none."""
    steps = []
    if numbers:
        steps.append(
            ("numbers", SimpleImputer(strategy="median", keep_empty_features=True), numbers)
        )
    if texts:
        steps.append(("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts))
    return ColumnTransformer(steps)
