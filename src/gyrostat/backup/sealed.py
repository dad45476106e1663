"""Keys under a passphrase: scrypt, then AES-256-GCM."""

from __future__ import annotations

import base64
import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from gyrostat.errors import UsageError

N, R, P = 2**15, 8, 1
LEAST = 8


def seal(files: dict[str, bytes], passphrase: str) -> bytes:
    """Encrypt named files; opens with the same passphrase alone.

    Raises:
        UsageError: the passphrase is too short to protect anything.
    """
    if len(passphrase) < LEAST:
        raise UsageError(f"The passphrase is too short: {LEAST} characters at least. Nothing was written.")  # fmt: skip
    salt, nonce = os.urandom(16), os.urandom(12)
    plain = json.dumps({name: base64.b64encode(data).decode() for name, data in files.items()})
    closed = AESGCM(_key(passphrase, salt)).encrypt(nonce, plain.encode(), b"gyrostat keys 1")
    parts = {"salt": salt, "nonce": nonce, "closed": closed}
    return json.dumps({k: base64.b64encode(v).decode() for k, v in parts.items()}).encode()


def unseal(data: bytes, passphrase: str) -> dict[str, bytes]:
    """The files again.

    Raises:
        UsageError: another passphrase, or the bytes were altered.
    """
    try:
        parts = {k: base64.b64decode(v, validate=True) for k, v in json.loads(data).items()}
        plain = AESGCM(_key(passphrase, parts["salt"])).decrypt(
            parts["nonce"], parts["closed"], b"gyrostat keys 1"
        )
    except (InvalidTag, ValueError, KeyError, AttributeError, TypeError):
        raise UsageError("The keys in this backup do not open with this passphrase. Nothing was restored.") from None  # fmt: skip
    return {name: base64.b64decode(value) for name, value in json.loads(plain).items()}


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=N, r=R, p=P).derive(passphrase.encode())
