"""What happens to files outside of tests."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PARTS = ("", "-wal", "-shm", "-journal")


def move(path: Path, to: Path) -> None:
    """A whole database, as somebody who tidies up would."""
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + part).rename(to.with_name(to.name + part))


def mount(*arguments: str) -> bool:
    """Whether this machine lets us."""
    command = shutil.which("mount")
    if os.geteuid() != 0 or command is None:
        return False
    return subprocess.run([command, *arguments], check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A file, or a folder with all in it, mounted so that it can only be read; permissions do not bind root."""
    if not mount("--bind", str(path), str(path)):
        pytest.skip("nothing may be mounted here: no file was made read-only")
    try:
        assert mount("-o", "remount,ro,bind", str(path))
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)
