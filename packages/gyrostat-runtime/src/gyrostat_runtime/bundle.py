"""A bundle: one folder with a model and all that is needed to serve it, named by the digest of its manifest.

`manifest.json` lists every other file with its SHA-256, `signature.json` says who vouches for the manifest. Trust is
checked before a byte of the rest is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gyrostat_runtime.errors import BundleFault
from gyrostat_runtime.files import sha256_file, write_atomic
from gyrostat_runtime.keys import key_id
from gyrostat_runtime.schema import Schema

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
FORMAT = 1
_MANIFEST_BYTES = 16_000_000


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself. `files` is filled in by `write`."""

    model: str
    flavour: Literal["onnx", "native"]
    schema: Schema
    snapshot: str = ""
    """Id of the snapshot that the model was trained on."""
    code: str = ""
    """Digest of the project's code."""
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    reference: str = ""
    """Name of the file with the reference histograms; empty: none."""
    made_at: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Path in the bundle (with `/`) to `{"sha256": hex, "size": bytes}`."""
    format: int = FORMAT

    def as_json(self) -> dict[str, Any]:
        """JSON values only, as in `manifest.json`."""
        return vars(self) | {"schema": self.schema.as_json()}

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Read what `as_json` wrote.

        Raises:
            BundleFault: it was written by something else, or by a newer release.
        """
        if not isinstance(value, dict):
            raise _malformed("it is no JSON object")
        if value.get("format") != FORMAT:
            raise _malformed(f"its format is {value.get('format')!r}, this release reads {FORMAT}")
        fields: dict[str, Any] = dict(value)
        try:
            fields["schema"] = Schema.from_json(fields["schema"])
            known = cls(**fields)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise _malformed(f"{type(error).__name__}: {error}") from None
        if known.flavour not in ("onnx", "native"):
            raise _malformed(f"flavour {known.flavour!r} is neither onnx nor native")
        if not (isinstance(known.model, str) and isinstance(known.reference, str)):
            raise _malformed("model and reference must be text")
        _check_listing(known.files)
        if known.reference and known.reference not in known.files:
            raise _malformed(f"its reference {known.reference!r} is not among its files")
        return known


def write(folder: Path, manifest: Manifest) -> str:
    """Hash every file in `folder` and write `manifest.json` over them; returns the bundle's digest.

    What `manifest.files` says is replaced. An older signature is removed: it vouched for something else.

    Raises:
        BundleFault: `folder` holds something that is neither file nor folder, such as a link.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    files = {
        name: {"sha256": sha256_file(folder / name), "size": size}
        for name, size in sorted(_listing(folder).items())
        if name != MANIFEST
    }
    _check_listing(files)
    value = manifest.as_json() | {"files": files}
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / MANIFEST, text.encode())
    return digest(folder)


def sign(folder: Path, private_key_hex: str) -> None:
    """Vouch for the manifest as it stands, with an ed25519 key; replaces an older signature."""
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private_key_hex))
    name = key_id(key.public_key().public_bytes_raw().hex())
    signature = key.sign((folder / MANIFEST).read_bytes()).hex()
    write_atomic(folder / SIGNATURE, json.dumps({"key": name, "signature": signature}).encode())


def verify(folder: Path, keyring: Mapping[str, str]) -> Manifest:
    """Check signature, digests and listing before anything in the bundle is opened.

    Args:
        keyring: Key id to public key in hex: whose word counts here.

    Raises:
        BundleFault: truncated, altered, unsigned, signed by a key that is not in `keyring`, with a link, or with a
            file that the manifest does not know. Nothing in the bundle was opened.
    """
    names = _listing(folder)
    if MANIFEST not in names:
        raise _fault("missing", f"it has no {MANIFEST}", MANIFEST)
    if SIGNATURE not in names:
        raise _fault("unsigned", f"it has no {SIGNATURE}, so nobody vouches for it", SIGNATURE)
    raw = _small(folder / MANIFEST)
    _check_signature(raw, _small(folder / SIGNATURE), keyring)
    manifest = _parsed(raw)
    extra = sorted(names.keys() - manifest.files.keys() - {MANIFEST, SIGNATURE})
    if extra:
        raise _fault("altered", f"{extra[0]!r} is in the folder but not in its manifest", extra[0])
    for name, said in manifest.files.items():
        if name not in names:
            raise _fault("missing", f"{name!r} is in its manifest but not in the folder", name)
        if names[name] != said["size"]:
            code = "truncated" if names[name] < said["size"] else "altered"
            raise _fault(
                code, f"{name!r} has {names[name]} bytes, its manifest says {said['size']}", name
            )
        try:
            found = sha256_file(folder / name)
        except OSError as error:
            raise _fault("missing", f"{name!r} cannot be read ({error.strerror})", name) from None
        if found != said["sha256"]:
            raise _fault("altered", f"{name!r} is not the file that was signed", name)
    return manifest


def digest(folder: Path) -> str:
    """The bundle's identity: the SHA-256 of `manifest.json` in hex. Says nothing about the other files.

    Raises:
        BundleFault: there is no manifest.
    """
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise _fault("missing", f"no {MANIFEST} in {folder} ({error.strerror})", MANIFEST) from None


def read_manifest(folder: Path) -> Manifest:
    """What a bundle says of itself, without asking who says it: for display, never for serving.

    Raises:
        BundleFault: there is no manifest, or it cannot be read.
    """
    return _parsed(_small(folder / MANIFEST))


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of one file of a bundle, checked against the manifest as they are read.

    A file that was swapped after `verify` is found here, since what is hashed is what is returned.

    Raises:
        BundleFault: it is not in the manifest, or not the file that was signed.
    """
    if name not in manifest.files:
        raise _fault("missing", f"{name!r} is not in its manifest", name)
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise _fault("missing", f"{name!r} cannot be read ({error.strerror})", name) from None
    if hashlib.sha256(data).hexdigest() != manifest.files[name]["sha256"]:
        raise _fault("altered", f"{name!r} is not the file that was signed", name)
    return data


def _listing(folder: Path) -> dict[str, int]:
    """Every file below `folder` with its size; links, pipes and the like are refused, not followed."""
    found: dict[str, int] = {}

    def walk(path: Path, prefix: str) -> None:
        for entry in os.scandir(path):
            name, info = prefix + entry.name, entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                walk(Path(entry.path), name + "/")
            elif stat.S_ISREG(info.st_mode):
                found[name] = info.st_size
            else:
                raise _fault("altered", f"{name!r} is a link or a special file", name)

    try:
        if folder.is_symlink():
            raise _fault("altered", f"{folder.name!r} itself is a link", "")
        walk(folder, "")
    except OSError as error:
        raise _fault("missing", f"{folder} cannot be listed ({error.strerror})", "") from None
    return found


def _check_listing(files: Any) -> None:
    if not isinstance(files, dict):
        raise _malformed("files is no JSON object")
    for name, said in files.items():
        parts = name.split("/")
        if name in (MANIFEST, SIGNATURE) or "\\" in name or {"", ".", ".."} & set(parts):
            raise _malformed(f"{name!r} cannot be the name of a file in a bundle")
        if not (
            isinstance(said, dict)
            and isinstance(said.get("sha256"), str)
            and type(said.get("size")) is int
        ):
            raise _malformed(f"of {name!r} it must give sha256 and size")


def _check_signature(manifest: bytes, raw: bytes, keyring: Mapping[str, str]) -> None:
    try:
        value = json.loads(raw)
        name, signature = cast("str", value["key"]), bytes.fromhex(value["signature"])
        public = keyring.get(name)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _fault("altered", f"{SIGNATURE} holds no signature", SIGNATURE) from None
    if public is None:
        raise _fault(
            "untrusted",
            f"it is signed by key {name!r}, which this environment does not trust; "
            "whoever answers for this environment can add that key to keys/keyring.json",
            SIGNATURE,
        )
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, manifest)
    except InvalidSignature:
        raise _fault("altered", f"{MANIFEST} is not what key {name!r} signed", MANIFEST) from None
    except (ValueError, TypeError):
        raise _fault(
            "untrusted", f"key {name!r} in the ring is no ed25519 key", SIGNATURE
        ) from None


def _parsed(raw: bytes) -> Manifest:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"it is not JSON: {error}") from None
    return Manifest.from_json(value)


def _small(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_MANIFEST_BYTES + 1)
    except OSError as error:
        raise _fault(
            "missing", f"{path.name} cannot be read ({error.strerror})", path.name
        ) from None
    if len(raw) > _MANIFEST_BYTES:
        raise _fault("malformed", f"{path.name} is larger than {_MANIFEST_BYTES} bytes", path.name)
    return raw


def _malformed(why: str) -> BundleFault:
    return _fault("malformed", f"its {MANIFEST} cannot be read: {why}", MANIFEST)


def _fault(code: str, why: str, file: str) -> BundleFault:
    return BundleFault(f"the bundle cannot be used: {why}", code=f"bundle.{code}", file=file)
