from src.common import column_groups


def test_texts_and_numbers_are_told_apart():
    import pandas as pd

    frame = pd.DataFrame({"a": [1.0], "b": pd.Series(["x"], dtype=object), "y": [0.0]})
    assert column_groups(frame, "y") == (["a"], ["b"])


def test_a_missing_number_and_a_new_text_are_answered(table, model):
    target = table["schema"].output.target
    row = table["heldout"].drop(columns=[target]).head(1).copy()
    for name in row.columns:
        row[name] = "never seen" if row[name].dtype == object else float("nan")
    assert len(model.predict(row)) == 1
