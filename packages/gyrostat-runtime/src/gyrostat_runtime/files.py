"""Files that survive a power cut: whole or not there, never half."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` with `data`: after a crash it holds the old bytes or the new ones, never a mixture.

    Args:
        mode: Permissions of the new file, whatever the old ones were and whatever the umask is.

    Raises:
        OSError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    with _temporary(path, data, mode) as temp:
        temp.replace(path)
        sync_folder(path.parent)


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """Make `path` with `data` unless it is there already; of several writers at once exactly one is told True."""
    with _temporary(path, data, mode) as temp:
        try:
            # A link fails where the name is taken, which a rename does not.
            os.link(temp, path)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make new names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _temporary(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temp = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temp
    finally:
        temp.unlink(missing_ok=True)
