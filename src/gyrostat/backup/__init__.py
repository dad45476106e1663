"""A whole project in one file, taken while it runs, and back again on an empty machine."""

from gyrostat.backup.archive import Saved, save
from gyrostat.backup.restore import Restored, restore

__all__ = ["Restored", "Saved", "restore", "save"]
