"""`init`: a project around a table."""

from gyrostat.scaffold.init import explain, init

__all__ = ["explain", "init"]
