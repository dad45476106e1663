"""What happens to files outside of tests."""

import contextlib
from pathlib import Path

PARTS = ("", "-wal", "-shm", "-journal")


def move(path: Path, to: Path) -> None:
    """A whole database, as somebody who tidies up would."""
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + part).rename(to.with_name(to.name + part))
