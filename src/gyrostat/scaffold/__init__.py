"""`init`: a project around a table."""

from gyrostat.scaffold.init import init

__all__ = ["init"]
