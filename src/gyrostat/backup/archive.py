"""The file: a zip of plain files, with a manifest of their digests that the project's key signs."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import sqlite3
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gyrostat_runtime import keys
from gyrostat_runtime.files import sync_folder

from gyrostat import __version__
from gyrostat.backup import cut, sealed
from gyrostat.backup.cut import LEDGER, MLFLOW, STATE, Source
from gyrostat.errors import LedgerError, UsageError
from gyrostat.ledger.sqlite import SqliteLedger, copy_at_one_instant

MANIFEST, SIGNATURE, SEALED = "manifest.json", "signature.json", "keys.sealed"
FORMAT = 1
FILES = "project/"
"""Below it stands everything of the project."""
CHUNK = 1 << 20
KEYS = ("signing.key", "log.key")


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backup holds."""

    file: Path
    size_bytes: int
    n_files: int
    n_entries: int
    head: str
    key: str
    """Id of the key that signed it."""
    has_keys: bool
    links: tuple[str, ...]
    """Left out."""
    held_s: float
    """How long nobody could append."""


def save(project: Path, state: Path, file: Path, *, passphrase: str = "") -> Saved:
    """Write a backup of a project, which may run meanwhile, to a new file.

    Args:
        state: The state folder whose key signs it. Those of other environments travel too.
        passphrase: Takes the secret keys along, encrypted; empty: they stay here.

    Raises:
        UsageError: the file exists, or there is nothing to save.
        LedgerError: the ledger cannot be read.
    """
    file = file.absolute()
    if file.exists():
        raise UsageError(f"{file.name} exists already. Nothing was written. Name another file.")
    if not file.parent.is_dir():
        raise UsageError(f"There is no folder {file.parent}. Nothing was written.")
    if not (state / LEDGER).exists() or not (state / "keys" / "signing.key").exists():
        raise UsageError("Nothing ran here yet, so there is nothing to save but files. Start it: gyrostat up")  # fmt: skip
    closed = _sealed(project, passphrase) if passphrase else None
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".tmp", dir=file.parent)
    temp = Path(name)
    try:
        with os.fdopen(handle, "w+b") as raw, tempfile.TemporaryDirectory(dir=file.parent) as place:
            saved = _write(raw, project, state, file, temp, Path(place), closed)
            raw.flush()
            os.fsync(raw.fileno())
        try:
            # A link fails where the name was taken meanwhile, which a rename does not.
            os.link(temp, file)
        except FileExistsError:
            raise UsageError(f"{file.name} exists already. Nothing was written.") from None
        sync_folder(file.parent)
    finally:
        temp.unlink(missing_ok=True)
    return saved


def states(project: Path) -> list[Path]:
    """The state folders of all environments that have a ledger."""
    return sorted(p.parent for p in (project / STATE).glob(f"*/{LEDGER}"))


def _sealed(project: Path, passphrase: str) -> bytes:
    files = {}
    for state in states(project):
        for name in KEYS:
            with contextlib.suppress(FileNotFoundError):
                files[f"{state.name}/{name}"] = (state / "keys" / name).read_bytes()
    return sealed.seal(files, passphrase)


def _write(
    raw: IO[bytes], project: Path, state: Path, file: Path, temp: Path, place: Path, closed: bytes | None
) -> Saved:  # fmt: skip
    listed: dict[str, dict[str, Any]] = {}
    ledgers: dict[str, dict[str, Any]] = {}
    held_s = 0.0
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for one in states(project):
            copy = place / f"{one.name}.db"

            def at_the_instant(one: Path = one) -> tuple[list[Source], float]:
                began = time.monotonic()
                return list(cut.state_files(project, one)), time.monotonic() - began

            sources, took_s = copy_at_one_instant(one / LEDGER, copy, meanwhile=at_the_instant)
            held_s = max(held_s, took_s)
            ledgers[one.name] = _head(copy)
            base = one.relative_to(project).as_posix()
            _add(archive, listed, _database(copy, f"{base}/{LEDGER}"))
            if (one / MLFLOW).exists():
                _add(archive, listed, _database(_copied(one / MLFLOW, place), f"{base}/{MLFLOW}"))
            ring = one / "keys" / "keyring.json"
            if ring.exists():  # public: whose bundles were trusted
                held = ring.read_bytes()
                sources.append(Source(f"{base}/keys/keyring.json", ring, len(held), 0o644, held))
            for source in sources:
                _add(archive, listed, source)
        for source in cut.project_files(project, but=frozenset({place, temp})):
            _add(archive, listed, source)
        if closed is not None:
            archive.writestr(SEALED, closed)
        private = keys.private_key(state / "keys")
        public = keys.public_key(private)
        manifest = {
            "format": FORMAT, "release": __version__, "project": project.name, "root": str(project), "made_at": time.time(),
            "ledgers": ledgers, "files": listed, "key": public, "sealed": hashlib.sha256(closed).hexdigest() if closed else "",
        }  # fmt: skip
        text = json.dumps(manifest, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
        signature = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private)).sign(text).hex()
        archive.writestr(MANIFEST, text)
        archive.writestr(SIGNATURE, json.dumps({"key": public, "signature": signature}))
    head = ledgers[state.name]
    return Saved(
        file, raw.tell(), len(listed), head["position"], head["hash"], keys.key_id(public), closed is not None,
        tuple(cut.links(project)), held_s,
    )  # fmt: skip


def _head(path: Path) -> dict[str, Any]:
    ledger = SqliteLedger(path)
    try:
        last = ledger.entry(ledger.position())
        return {"position": last.position if last else 0, "hash": last.hash if last else ""}
    finally:
        ledger.close()


def _database(path: Path, name: str) -> Source:
    return Source(name, path, path.stat().st_size, 0o600)


def _copied(path: Path, place: Path) -> Path:
    """MLflow's own, by the library that MLflow writes it with: two SQLites in one process do not see each other's locks."""
    target = place / f"{path.parent.name}.{path.name}"
    try:
        with (
            contextlib.closing(sqlite3.connect(path, timeout=30)) as source,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
    except sqlite3.Error as error:
        raise LedgerError(
            f"{path.name} cannot be copied now: {error}. Nothing was written."
        ) from error
    return target


def _add(archive: zipfile.ZipFile, listed: dict[str, dict[str, Any]], source: Source) -> None:
    info = zipfile.ZipInfo(FILES + source.name)
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, (0o100000 | source.mode) << 16
    digest, size = hashlib.sha256(), 0
    try:
        chunks = iter([source.held]) if source.held is not None else _chunks(source)
        first = next(chunks, b"")
    except FileNotFoundError:
        return  # what is kept for a time only came to its end meanwhile
    with archive.open(info, "w", force_zip64=True) as target:
        for chunk in itertools.chain([first], chunks):
            digest.update(chunk)
            size += len(chunk)
            target.write(chunk)
    listed[source.name] = {"sha256": digest.hexdigest(), "size": size, "mode": source.mode}


def _chunks(source: Source) -> Iterator[bytes]:
    left = source.size
    with source.path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
