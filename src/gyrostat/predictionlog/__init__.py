"""The prediction log as everybody reads it: segments as servers write them, and the table that old ones become."""

from gyrostat.predictionlog.reading import find, read
from gyrostat.predictionlog.table import TABLE, compact, is_due, prune

__all__ = ["TABLE", "compact", "find", "is_due", "prune", "read"]
