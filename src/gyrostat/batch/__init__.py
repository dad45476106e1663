"""Answers for a whole table at once, however large: in parts that a kill does not cost, then as one file."""

from gyrostat.batch.scoring import Batch, Scored, score

__all__ = ["Batch", "Scored", "score"]
