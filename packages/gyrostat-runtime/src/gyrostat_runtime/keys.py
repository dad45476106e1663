"""The keys of one environment: one signs bundles, a ring says whose signatures count, one hashes personal columns.

A folder holds `signing.key` and `log.key` (both 0600, 32 bytes as hex) and `keyring.json` (key id to public key).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gyrostat_runtime.errors import RuntimeFault
from gyrostat_runtime.files import write_atomic, write_new

_SECRET = 0o600


def create_keys(folder: Path) -> None:
    """Make the keys that are missing in `folder`; keys that are there stay, so calling it again changes nothing.

    A ring that exists is left alone even where it does not name the signing key: somebody took that trust away.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The loop, the server and a command may each be the first: a link decides whose key it is.
    write_new(folder / "signing.key", secrets.token_hex(32).encode(), mode=_SECRET)
    write_new(folder / "log.key", secrets.token_hex(32).encode(), mode=_SECRET)
    if not (folder / "keyring.json").exists():
        public = public_key(private_key(folder))
        ring = json.dumps({key_id(public): public}, indent=2)
        write_new(folder / "keyring.json", ring.encode())


def private_key(folder: Path) -> str:
    """The signing key, as hex.

    Raises:
        RuntimeFault: there is none, or it is not a key.
    """
    return _secret(folder / "signing.key").hex()


def log_key(folder: Path) -> bytes:
    """The key that personal columns are hashed with in logs.

    Raises:
        RuntimeFault: there is none, or it is not a key.
    """
    return _secret(folder / "log.key")


def keyring(folder: Path) -> dict[str, str]:
    """Which keys this environment trusts: key id to public key in hex. Empty where there is no ring: nobody.

    Raises:
        RuntimeFault: the file is not a ring.
    """
    path = folder / "keyring.json"
    try:
        ring = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RuntimeFault(
            f"{path.name} is not JSON, so no bundle can be trusted: {error}"
        ) from None
    if not isinstance(ring, dict) or not all(isinstance(v, str) for v in ring.values()):
        raise RuntimeFault(
            f"{path.name} must map key ids to public keys in hex, so no bundle can be trusted"
        )
    return ring


def trust(folder: Path, public_hex: str) -> str:
    """Add a public key of another environment to the ring; returns its id. Doing it twice changes nothing.

    Raises:
        ValueError: it is not 32 bytes in hex.
    """
    if len(bytes.fromhex(public_hex)) != 32:
        raise ValueError("a public key is 32 bytes, written as 64 hex digits")
    name = key_id(public_hex)
    ring = keyring(folder) | {name: public_hex}
    write_atomic(folder / "keyring.json", json.dumps(ring, indent=2).encode())
    return name


def rotate(folder: Path) -> tuple[str, str]:
    """Sign with a new key from now on; `(id of the old one, id of the new one)`.

    The old public key stays in the ring, so what it signed stays trusted; the old private key is gone. A kill in between
    leaves the old key in use: the new one is trusted before it signs.

    Raises:
        RuntimeFault: there is no key to rotate, or no ring.
    """
    with (folder / ".rotating.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        old, new = public_key(private_key(folder)), secrets.token_hex(32)
        name = trust(folder, public_key(new))
        write_atomic(folder / "signing.key", new.encode(), mode=_SECRET)
    return key_id(old), name


def public_key(private_key_hex: str) -> str:
    """The public half, as hex."""
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private_key_hex))
    return key.public_key().public_bytes_raw().hex()


def key_id(public_hex: str) -> str:
    """A key's name: the first 16 hex digits of the SHA-256 of its public bytes."""
    return hashlib.sha256(bytes.fromhex(public_hex)).hexdigest()[:16]


def _secret(path: Path) -> bytes:
    try:
        raw = bytes.fromhex(path.read_text("ascii").strip())
    except FileNotFoundError:
        raise RuntimeFault(
            f"there is no {path.name} in {path.parent}; `create_keys` makes it"
        ) from None
    except ValueError:
        raise RuntimeFault(f"{path.name} in {path.parent} is not a key in hex") from None
    if len(raw) != 32:
        raise RuntimeFault(f"{path.name} in {path.parent} holds {len(raw)} bytes, a key has 32")
    return raw
