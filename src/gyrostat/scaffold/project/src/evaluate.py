"""How good the model that serves now is on the held-out rows: python -m src.evaluate (while `gyrostat up` runs)."""

import sys

from src.predict import predict


def score(labels, predictions, task):
    """RMSE of numbers, share of right answers of classes."""
    if task == "regression":
        return (sum((a - b) ** 2 for a, b in zip(labels, predictions)) / len(labels)) ** 0.5
    return sum(a == b for a, b in zip(labels, predictions)) / len(labels)


def brier(labels, probabilities, classes):
    """How far probabilities are from what was true: 0 is sure and right; of two classes, 1 sure and wrong."""
    total = 0.0
    for label, row in zip(labels, probabilities):
        total += sum((p - (label == c)) ** 2 for p, c in zip(row, classes))
    return total / len(labels) / (2 if len(classes) == 2 else 1)


def main():
    import gyrostat

    rows = gyrostat.Project().rows()
    try:
        found = score(rows.labels, predict(rows.records), rows.task)
    except (OSError, RuntimeError) as error:
        sys.exit(f"no answer from the model server: {error}")
    print(
        f"{'rmse' if rows.task == 'regression' else 'accuracy'} {found:.4g} on {len(rows.labels):,} held-out rows"
    )


if __name__ == "__main__":
    main()
