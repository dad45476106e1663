"""A backup becomes a project again, in an empty folder: verified whole beside it first, then moved into place in one step."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from gyrostat_runtime import keys
from gyrostat_runtime.files import sync_folder, write_atomic

from gyrostat.backup import sealed
from gyrostat.backup.archive import CHUNK, FILES, FORMAT, MANIFEST, SEALED, SIGNATURE
from gyrostat.backup.cut import LEDGER, MLFLOW, STATE
from gyrostat.errors import GyrostatError, UsageError
from gyrostat.ledger.chain import verify
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.terms import Draft

MANIFEST_BYTES = 256_000_000
STREAM = "project"
MOVED = {
    "experiments": ("artifact_location",), "runs": ("artifact_uri",), "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}  # fmt: skip
"""Where MLflow's database holds paths of this machine."""


class AlteredError(GyrostatError):
    """A backup is not what was written; nothing was restored."""

    code = "backup.altered"


@dataclass(frozen=True, slots=True)
class Restored:
    """What is there now."""

    folder: Path
    n_files: int
    n_entries: int
    key: str
    """Id of the key that signed the backup."""
    has_keys: bool
    """Whether the secret keys came with it; else new ones were made."""
    made_at: float
    epochs: dict[str, int]


def restore(file: Path, folder: Path, *, passphrase: str = "", signed_by: str = "", actor: str = "") -> Restored:  # fmt: skip
    """Make a project of a backup in a folder that is empty, or not there.

    Args:
        passphrase: Opens the keys that travelled along; empty: new ones are made.
        signed_by: Id of the key that must have signed it.

    Raises:
        AlteredError: anything in it is not what was written. Nothing was replaced.
        UsageError: the folder is not empty, or the passphrase is another one.
    """
    file, folder = file.absolute(), folder.absolute()
    if not file.is_file():
        raise UsageError(f"There is no file {file}. Nothing was restored.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty. A backup is restored into an empty folder. Nothing was changed.")  # fmt: skip
    if not folder.parent.is_dir():
        raise UsageError(f"There is no folder {folder.parent}. Nothing was restored.")
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.restoring-", dir=folder.parent))
    try:
        try:
            with zipfile.ZipFile(file) as archive:
                manifest = _manifest(archive, signed_by)
                secret = _opened(archive, manifest, passphrase)
                _extract(archive, manifest, beside)
        except (
            zipfile.BadZipFile,
            zipfile.LargeZipFile,
            EOFError,
            NotImplementedError,
            zlib.error,
        ) as error:
            raise _altered(f"it is no whole zip file ({error})") from error
        for env, head in manifest["ledgers"].items():
            _check_ledger(beside / STATE / env / LEDGER, env, head)
        epochs = {env: _make_live(beside, folder, env, manifest, secret, actor, file) for env in manifest["ledgers"]}  # fmt: skip
        _sync(beside)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    n = sum(head["position"] for head in manifest["ledgers"].values())
    return Restored(
        folder, len(manifest["files"]), n, keys.key_id(manifest["key"]), secret is not None, manifest["made_at"], epochs
    )  # fmt: skip


# ---- verifying


def _manifest(archive: zipfile.ZipFile, signed_by: str) -> dict[str, Any]:
    infos = {info.filename: info for info in archive.infolist()}
    if len(infos) != len(archive.infolist()):
        raise _altered("a name stands in it twice")
    if MANIFEST not in infos or SIGNATURE not in infos:
        raise _altered("it has no manifest, or no signature")
    if infos[MANIFEST].file_size > MANIFEST_BYTES or infos[SIGNATURE].file_size > 10_000:
        raise _altered("its manifest is too large")
    text = archive.read(MANIFEST)
    try:
        found, signature = json.loads(text), json.loads(archive.read(SIGNATURE))
        if found["format"] != FORMAT:
            raise UsageError(f"This backup has the format {found['format']!r}; this release reads {FORMAT}. Nothing was restored.")  # fmt: skip
        public = found["key"]
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(
            bytes.fromhex(signature["signature"]), text
        )
        listed = dict(found["files"])
        for name, entry in listed.items():
            _check_name(name)
            assert isinstance(entry["size"], int)
            assert len(entry["sha256"]) == 64
        ledgers = {env: (int(h["position"]), str(h["hash"])) for env, h in found["ledgers"].items()}
        for env in ledgers:
            _check_name(env)
            assert f"{STATE}/{env}/{LEDGER}" in listed
            assert "/" not in env
    except (InvalidSignature, ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise _altered("its manifest is not what was signed") from None
    folded = {name.casefold() for name in listed}
    if len(folded) != len(listed):
        raise _altered("two of its names differ by case alone")
    wanted = {FILES + name for name in listed} | {MANIFEST, SIGNATURE}
    wanted |= {SEALED} if found["sealed"] else set()
    if wanted != set(infos):
        odd = sorted(wanted ^ set(infos))[0]
        raise _altered(f"{odd!r:.100} is {'missing' if odd in wanted else 'in it and not in its manifest'}")  # fmt: skip
    name = keys.key_id(public)
    if signed_by and signed_by != name:
        raise _altered(f"the key {name} signed it, not {signed_by}")
    return found


def _check_name(name: str) -> None:
    """A name is a path below the project and nothing else.

    Raises:
        AlteredError: it leads elsewhere.
    """
    parts = PurePosixPath(name).parts
    is_odd = not name or name.startswith("/") or "\\" in name or "\0" in name or ":" in parts[0]
    if is_odd or any(part in ("..", ".", "") for part in name.split("/")):
        raise _altered(f"the name {name!r:.100} leads out of the project")


def _opened(archive: zipfile.ZipFile, manifest: dict[str, Any], passphrase: str) -> dict[str, bytes] | None:  # fmt: skip
    if not manifest["sealed"]:
        if passphrase:
            raise UsageError("This backup holds no keys to open. Leave the passphrase out. Nothing was restored.")  # fmt: skip
        return None
    data = archive.read(SEALED)
    if hashlib.sha256(data).hexdigest() != manifest["sealed"]:
        raise _altered("its keys are not what was signed")
    if not passphrase:
        return None
    secret = sealed.unseal(data, passphrase)
    # Whoever made the backup knew the passphrase: so a key beside it that signs for another content is found out here.
    signers = {keys.public_key(value.decode().strip()) for name, value in secret.items() if name.endswith("/signing.key")}  # fmt: skip
    if manifest["key"] not in signers:
        raise _altered("it was signed by a key other than those in it")
    return secret


def _extract(archive: zipfile.ZipFile, manifest: dict[str, Any], beside: Path) -> None:
    total = sum(entry["size"] for entry in manifest["files"].values())
    free = shutil.disk_usage(beside).free
    if total > free:
        raise UsageError(f"{total / 1e9:.1f} GB are needed here, {free / 1e9:.1f} GB are free. Nothing was restored.")  # fmt: skip
    for name, entry in manifest["files"].items():
        target = beside / name
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with archive.open(FILES + name) as source, target.open("xb") as copy:
            # No more is read than was promised, whatever the file grows to.
            while chunk := source.read(min(CHUNK, entry["size"] + 1 - size)):
                size += len(chunk)
                digest.update(chunk)
                copy.write(chunk)
                if size > entry["size"]:
                    break
        if size != entry["size"] or digest.hexdigest() != entry["sha256"]:
            raise _altered(f"{name} is not what was written")
        target.chmod(int(entry.get("mode", 0o644)) & 0o777 | 0o400)


def _check_ledger(path: Path, env: str, head: dict[str, Any]) -> None:
    ledger = SqliteLedger(path)
    try:
        bad = verify(ledger.entries())
        last = ledger.entry(ledger.position())
        found = (last.position, last.hash) if last else (0, "")
    finally:
        ledger.close()
    if bad is not None:
        raise _altered(f"entry/{bad} of {env} is not what was written")
    if found != (head["position"], head["hash"]):
        raise _altered(f"the ledger of {env} does not end where it ended")


def _altered(what: str) -> AlteredError:
    return AlteredError(f"The backup was altered, or is damaged: {what}. Nothing was restored, nothing was replaced.")  # fmt: skip


# ---- making live


def _make_live(beside: Path, folder: Path, env: str, manifest: dict[str, Any], secret: dict[str, bytes] | None, actor: str, file: Path) -> int:  # fmt: skip
    """What differs on another machine: the epoch of routes, keys, and MLflow's paths. Returns the epoch."""
    state = beside / STATE / env
    epoch = _new_epoch(state)
    ring = state / "keys"
    ring.mkdir(mode=0o700, exist_ok=True)
    ring.chmod(0o700)
    for name, data in (secret or {}).items():
        if name.startswith(f"{env}/"):
            write_atomic(ring / name.partition("/")[2], data, mode=0o600)
    is_trusted = (ring / "keyring.json").exists()
    keys.create_keys(ring)
    if secret is None and is_trusted:
        keys.trust(ring, keys.public_key(keys.private_key(ring)))
    if (state / MLFLOW).exists():
        _move_mlflow(state / MLFLOW, f"{manifest['root']}/{STATE}/{env}/", f"{folder}/{STATE}/{env}/")  # fmt: skip
    ledger = SqliteLedger(state / LEDGER)
    try:
        body = {
            "actor": actor, "epoch": epoch, "made_at": manifest["made_at"], "file": file.name,
            "after": manifest["ledgers"][env]["position"], "signed_by": keys.key_id(manifest["key"]),
        }  # fmt: skip
        ledger.append(
            STREAM, Draft("restored", ledger.now(), actor, body=body, key=f"restored/{epoch}/{time.time_ns()}"),
            expect_seq=None, fence=None,
        )  # fmt: skip
    finally:
        ledger.close()
    return epoch


def _new_epoch(state: Path) -> int:
    """Seqs go on from where the backup was taken, so they mean something else than they did before it was restored."""
    path = state / "epoch"
    try:
        epoch = int(path.read_text()) + 1
    except (OSError, ValueError):
        epoch = 2
    write_atomic(path, str(epoch).encode())
    for routes in sorted((state / "routes").glob("*.json")):
        value = json.loads(routes.read_bytes())
        write_atomic(routes, json.dumps(value | {"epoch": epoch}, ensure_ascii=False).encode())
    return epoch


def _move_mlflow(path: Path, old: str, new: str) -> None:
    db = sqlite3.connect(path)
    try:
        known = {
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
        for table in MOVED.keys() & known:
            for column in MOVED[table]:
                update = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?)'  # noqa: S608
                db.execute(update, (old, new))
        db.commit()
    finally:
        db.close()


def _sync(root: Path) -> None:
    for path in _below(root):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _below(root: Path) -> Iterator[Path]:
    for folder, _, files in os.walk(root):
        for name in files:
            yield Path(folder) / name
        yield Path(folder)
