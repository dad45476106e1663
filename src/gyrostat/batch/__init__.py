"""Answers for a whole table at once, however large: in parts that a kill does not cost, then as one file."""

from gyrostat.batch.scoring import Batch, Scored, beside, score

__all__ = ["Batch", "Scored", "beside", "score"]
