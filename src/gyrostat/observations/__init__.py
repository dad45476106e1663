"""What was seen each second, in hash-chained segments that decisions point at."""

from gyrostat.observations.segments import Broken, Place, Segments, evidence, prune, read, verify

__all__ = ["Broken", "Place", "Segments", "evidence", "prune", "read", "verify"]
