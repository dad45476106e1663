"""What "good" is guessed to mean: by accuracy where it can tell, else by how likely each class is said to be."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from gyrostat import config, scaffold
from gyrostat.gates.metrics import METRICS, Answers
from gyrostat.scaffold import guess as guessing


def made(tmp_path: Path, classes: Any) -> dict[str, Any]:
    """A project around 900 rows whose class is decided by `classes(x, dice)`."""
    dice = random.Random(5)
    rows = []
    for _ in range(900):
        x = dice.uniform(0, 1)
        rows.append(f"{x:.4f},{dice.gauss(0, 1):.3f},{classes(x, dice)}\n")
    (tmp_path / "t.csv").write_text("x,noise,y\n" + "".join(rows))
    return scaffold.init(tmp_path / "p", tmp_path / "t.csv", "y").facts


def test_classes_that_can_be_told_apart_are_judged_by_accuracy(tmp_path: Path) -> None:
    found = made(tmp_path, lambda x, _: "b" if x > 0.5 else "a")
    assert next(iter(found["limits"])) == "accuracy"


@pytest.mark.parametrize("names", [("no", "yes"), ("no", "yes", "very")])
def test_where_nearly_all_are_of_one_class_it_counts_how_likely_each_is(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Nobody is ever more likely to leave than to stay, and yet some are four times as likely as others."""

    def classes(x: float, dice: random.Random) -> str:
        return dice.choice(names[1:]) if dice.random() < 0.35 * x**3 else names[0]

    found = made(tmp_path, classes)
    limits = config.load(tmp_path / "p", {}).declaration.models["p"].gates
    assert (next(iter(found["limits"])), limits.champion.metric) == ("brier", "brier")
    assert found["measured"]["value"] < found["measured"]["trivial"]
    (limit,) = [x for x in limits.limits if x.metric == "brier"]
    assert found["measured"]["value"] < limit.bound


def test_noise_is_judged_by_accuracy_and_said_to_be_noise(tmp_path: Path) -> None:
    found = made(tmp_path, lambda _, dice: dice.choice("ab"))
    assert next(iter(found["limits"])) == "accuracy"
    assert not found["measured"]["beats_trivial"]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_brier_score_is_the_gates_own(n_classes: int) -> None:
    import numpy as np

    dice = np.random.default_rng(1)
    y = dice.integers(0, n_classes, 50)
    likely = dice.dirichlet(np.ones(n_classes), 50)
    classes = np.array([f"c{n}" for n in range(n_classes)])
    mine = guessing._brier(classes[y], likely, classes)
    answers = Answers(y, likely.argmax(axis=1), likely, n_classes)
    assert np.allclose(mine, METRICS["brier"].rows(answers)[:, 0])
