"""What the other files share."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def column_groups(frame, target):
    """The feature columns by what they hold: numbers (dates come as numbers too) and texts ("" where missing)."""
    features = [name for name in frame.columns if name != target]
    texts = [name for name in features if frame[name].dtype == object]
    return [name for name in features if name not in texts], texts
