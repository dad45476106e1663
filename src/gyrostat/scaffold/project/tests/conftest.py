import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))


@pytest.fixture(scope="session")
def table():
    """The declared source: typed rows, their schema, and what the rules say."""
    from gyrostat import config
    from gyrostat.data import checks, frames, snapshots, split

    settings = next(iter(config.load(PROJECT).declaration.models.values()))
    texts, inference = snapshots.source_of(PROJECT, settings.data)
    schema = inference.schema(settings.data.personal)
    rows = frames.typed(texts, inference)
    rows = rows.filter(rows[schema.output.target].is_not_null())
    sides = split.sides(rows, settings.data, schema)
    is_train = [side == "train" for side in sides]
    train, heldout = rows.filter(is_train), rows.filter([not x for x in is_train])
    report = checks.run(
        texts,
        checks.read(PROJECT / "config" / settings.data.checks),
        frozenset(settings.data.personal),
        settings.data.columns,
    )

    def frame(part):
        return frames.features(part, schema).assign(
            **{schema.output.target: frames.target(part, schema)}
        )

    return {
        "settings": settings,
        "schema": schema,
        "report": report,
        "train": frame(train),
        "heldout": frame(heldout),
    }


@pytest.fixture(scope="session")
def model(table):
    """The model of src/train.py, fitted as Gyrostat does."""
    from src.train import train

    output = table["schema"].output
    return train(
        table["train"],
        {**table["settings"].train.params, "target": output.target, "task": output.task},
    )
