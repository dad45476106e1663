import time


def test_a_single_row_is_answered_in_time(table, model):
    """Of the model as it is in Python; served as ONNX it is much faster, and the gate measures that one."""
    row = table["heldout"].drop(columns=[table["schema"].output.target]).head(1)
    model.predict(row)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        model.predict(row)
        times.append(time.perf_counter() - began)
    assert sorted(times)[5] < 0.5
