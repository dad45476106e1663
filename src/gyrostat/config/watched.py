"""The declaration in force: read again when a file of it changes."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from gyrostat.config.reader import Loaded, load
from gyrostat.errors import GyrostatError

RELOAD_S = 1.0


class Watched:
    """Looks at the files at most once a second. A mistake in them keeps the last good declaration, and is kept to be told."""

    def __init__(self, project: Path) -> None:
        """Read it.

        Raises:
            ConfigError: there is a mistake in it, and no earlier one to keep.
        """
        self.project = project
        self.loaded: Loaded = load(project)
        self.mistake = ""
        self._stamp, self._looked = self._files(), time.monotonic()

    def has_changed(self) -> bool:
        """True when another declaration is in force than at the last look."""
        if time.monotonic() - self._looked < RELOAD_S:
            return False
        self._looked = time.monotonic()
        stamp = self._files()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            loaded = load(self.project)
        except GyrostatError as error:
            self.mistake = str(error)
            return False
        self.mistake = ""
        changed, self.loaded = loaded.digest != self.loaded.digest, loaded
        return changed

    def _files(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        for path in sorted((self.project / "config").glob("*.yaml")):
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.append((path.name, stat.st_mtime_ns, stat.st_size))
        return tuple(found)
