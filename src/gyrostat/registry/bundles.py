"""Bundles by their digest: `bundles/<digest>/` below the state folder, each whole or not there, never changed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from gyrostat_runtime import bundle
from gyrostat_runtime.errors import BundleFault
from gyrostat_runtime.files import sync_folder

from gyrostat.errors import BundleError

FOLDER = "bundles"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def path(state: Path, digest: str) -> Path:
    """Where the bundle is, or would be.

    Raises:
        BundleError: `digest` is none; it comes from outside and becomes part of a path.
    """
    if not _DIGEST.fullmatch(digest):
        raise BundleError(f"{digest!r:.80} names no bundle: 64 hex digits are needed.")
    return state / FOLDER / digest


def has(state: Path, digest: str) -> bool:
    """Whether it is here. Published bundles are whole, so its folder is enough to know."""
    return path(state, digest).is_dir()


def publish(state: Path, folder: Path, digest: str) -> Path:
    """Move a finished bundle into the store, once: doing it again, also after a crash in the middle, changes nothing.

    Args:
        folder: On the same disk as `state`; gone afterwards.

    Raises:
        BundleError: it is not the bundle `digest`, or neither here nor there.
    """
    target = path(state, digest)
    if target.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        return target
    try:
        found = bundle.digest(folder)
    except BundleFault as fault:
        raise BundleError(
            f"Bundle {digest[:12]} is not there to publish: {fault.message}"
        ) from fault
    if found != digest:
        raise BundleError(
            f"{folder.name} holds bundle {found[:12]}, not {digest[:12]}. Nothing was published."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    _sync(folder)
    try:
        folder.rename(target)
    except OSError:
        # Somebody else published the same bytes in between; any other failure is real.
        if not target.is_dir():
            raise
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(target.parent)
    return target


def verify(state: Path, digest: str, keyring: Mapping[str, str]) -> bundle.Manifest:
    """Signature and every digest, before anything in it is opened.

    Raises:
        BundleError: it is not here, was altered, or nobody who is trusted signed it.
    """
    folder = path(state, digest)
    if not folder.is_dir():
        raise BundleError(
            f"Bundle {digest[:12]} is not in {FOLDER}/. Nothing was loaded.",
            fault="bundle.missing",
        )
    try:
        manifest = bundle.verify(folder, keyring)
        found = bundle.digest(folder)
    except BundleFault as fault:
        raise BundleError(
            f"Bundle {digest[:12]}: {fault.message}. Nothing in it was opened.",
            fault=fault.code,
            file=fault.file,
        ) from fault
    if found != digest:
        # A signed bundle under another's name: valid in itself, and still not what was asked for.
        raise BundleError(
            f"{FOLDER}/{digest[:12]}... holds the bundle {found[:12]}. Nothing in it was opened.",
            fault="bundle.altered",
        )
    return manifest


def manifest(state: Path, digest: str) -> bundle.Manifest:
    """What a bundle says of itself, unverified: for display, never for serving.

    Raises:
        BundleError: it is not here, or cannot be read.
    """
    try:
        return bundle.read_manifest(path(state, digest))
    except BundleFault as fault:
        raise BundleError(f"Bundle {digest[:12]}: {fault.message}", fault=fault.code) from fault


def known(state: Path) -> list[str]:
    """Digests of all bundles that are here, sorted."""
    folder = state / FOLDER
    if not folder.is_dir():
        return []
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and _DIGEST.fullmatch(e.name))


def _sync(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            handle = os.open(Path(root) / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(root))
