"""The server that ours is measured against answers what the model answers; else the ratios would say nothing."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ["wine", "mixed"])
def test_the_bare_minimum_answers_as_the_model(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    from benchmarks.serving import models, servers

    served = models.KINDS[kind](tmp_path / kind)
    with servers.minimum(served, workers=1) as minimum:
        minimum.check(served, 3)
        # A right answer to another row is not right: the check can fail.
        _, value = minimum.ask(minimum.write(served.rows(1, 40)))
        assert not served.is_right(minimum.read(value), start=0)
