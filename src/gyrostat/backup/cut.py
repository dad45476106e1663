"""What a backup holds: the project as of one instant, although everything in it goes on meanwhile.

The instant is one at which nobody can append to the ledger: then sizes are taken, names are listed, and what is replaced in
place is read. Everything else only grows or never changes, so it is copied afterwards, up to the size it had. Because
things are made before they are said, and shown after, all that the ledger speaks of is there, and nothing is shown that it
does not know.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gyrostat.predictionlog import TABLE

LEDGER, MLFLOW = "ledger.db", "mlflow/mlflow.db"
STATE = ".gyrostat"
SKIPPED = frozenset({".git", "__pycache__", ".venv", "venv", "node_modules", ".pytest_cache", ".ruff_cache", ".mypy_cache"})  # fmt: skip
MACHINE = frozenset({"run", "keys", "access"})
"""Of a state folder: who runs here, what only this machine may know, and who asked it."""
IMMUTABLE = frozenset({"bundles", "tables", "snapshots", "declarations", "offers"})
APPENDED = frozenset({"log", "labels", "observations"})
TEMPORARY = (".tmp", "-wal", "-shm", "-journal", ".lock", ".flight")


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the backup."""

    name: str
    """Below the project, with `/`."""
    path: Path
    size: int
    """Bytes that count; what was added since does not."""
    mode: int
    held: bytes | None = None
    """Its content, where it was read at the instant."""


def project_files(project: Path, *, but: frozenset[Path]) -> Iterator[Source]:
    """What belongs to the user: code, declaration, data; without version control and caches.

    Args:
        but: Files and folders that are the backup's own.
    """
    for path in _files(project, skip=SKIPPED | {STATE}):
        if path not in but and path.parent not in but:
            yield from _source(project, path)


def state_files(project: Path, state: Path) -> Iterator[Source]:
    """A state folder as it is now. To be asked at the instant; the databases are copied in their own way."""
    for path in _files(state, skip=frozenset()):
        parts = path.relative_to(state).parts
        top = parts[0]
        if top in MACHINE or path.name.endswith(TEMPORARY) or "keys" in parts or parts[-1].endswith(".key"):  # fmt: skip
            continue
        if top == "routes" and len(parts) > 2:
            continue  # receipts of processes of this machine
        if "/".join(parts) in (LEDGER, MLFLOW):
            continue
        is_kept = top in IMMUTABLE or parts[:2] == ("mlflow", "artifacts") or (top in APPENDED and (path.suffix == ".seg" or TABLE in parts)) or (top == "jobs" and path.name != "floor")  # fmt: skip
        yield from _source(project, path, is_held=not is_kept)


def links(project: Path) -> list[str]:
    """Symbolic links: they are left out, and that is said."""
    found = []
    for folder, folders, files in os.walk(project):
        folders[:] = sorted(f for f in folders if f not in SKIPPED and f != STATE)
        found += [str((Path(folder) / n).relative_to(project)) for n in (*folders, *files) if (Path(folder) / n).is_symlink()]  # fmt: skip
    return found


def _files(root: Path, *, skip: frozenset[str]) -> Iterator[Path]:
    # Sorted, so that a table's versions are listed before the data they name: what is named then is there.
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in skip)
        for name in sorted(files):
            yield Path(folder) / name


def _source(project: Path, path: Path, *, is_held: bool = False) -> Iterator[Source]:
    with contextlib.suppress(FileNotFoundError):  # it went away between the listing and here
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode):
            return
        held = path.read_bytes() if is_held else None
        size = info.st_size if held is None else len(held)
        yield Source(path.relative_to(project).as_posix(), path, size, stat.S_IMODE(info.st_mode) & 0o777, held)  # fmt: skip
