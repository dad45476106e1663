"""What was seen each second, in hash-chained segments that decisions point at."""

from gyrostat.observations.segments import (
    Broken,
    Place,
    Segments,
    evidence,
    holds,
    prune,
    read,
    start_of,
    verify,
)

ROLLOUT = "rollout.json"
"""Beside the segments of a model: what its rollout was last judged from, for those who only look."""

DAMAGED = "damaged.json"
"""Beside them too: what of them cannot be judged by, and why; not there while all can."""

__all__ = [
    "DAMAGED",
    "ROLLOUT",
    "Broken",
    "Place",
    "Segments",
    "evidence",
    "holds",
    "prune",
    "read",
    "start_of",
    "verify",
]
