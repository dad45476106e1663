"""From a path to the bytes of one table: unpacked, whole, and never more than memory bears."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from gyrostat.errors import DataError, UsageError

MAX_BYTES = 4 * 2**30
MAX_RATIO = 200
"""Text shrinks to a fiftieth at best; what shrinks more than this is made to fill a disk."""
_BOMB_FROM = 64 * 2**20
_BLOCK = 2**22
_KNOWN = {
    b"\xd0\xcf\x11\xe0": "an old Excel or Office file",
    b"SQLite format 3\0": "an SQLite database",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"ARROW1": "an Arrow file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
}


@dataclass(frozen=True)
class Content:
    """A table's bytes, and how they were packed."""

    data: bytes
    packing: str = ""
    """`gzip` or `zip`, with the name inside; empty: not packed."""


def content(path: Path) -> Content:
    """All bytes of the table at `path`, unpacked if it is a gzip or a zip with one table.

    Raises:
        UsageError: there is no such file, it is a folder, or it may not be read.
        DataError: empty, too large, packed to burst, broken, or nothing that holds one table.
    """
    if not path.exists():
        raise UsageError(f"There is no file {path}. Nothing was done.", path=str(path))
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise UsageError(
            f"{path} is {what}; a table is needed: CSV, JSON lines or Parquet. Nothing was done.",
            path=str(path),
        )
    before = path.stat()
    size = before.st_size
    if size > MAX_BYTES:
        raise _too_large(path.name, size)
    try:
        with path.open("rb") as file:
            data = file.read(size)
            # What grows has a last line that is only half there; what is replaced may be half of one and half of the other.
            has_changed = file.read(1) != b"" or _stamp(path.stat()) != _stamp(before)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Nothing was done.") from error
    if has_changed or len(data) != size:
        raise DataError(
            f"{path.name} changed while it was read. Wait until it is written, then try again. Nothing was done."
        )
    if data.startswith(b"\x1f\x8b"):
        return Content(_unzipped(path.name, gzip.open(io.BytesIO(data)), size), "gzip")
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _from_zip(path.name, data)
    for mark, what in _KNOWN.items():
        if data.startswith(mark):
            raise DataError(
                f"{path.name} is {what}; CSV, TSV, JSON lines and Parquet are read, also packed as gzip or zip. "
                "Write it as one of these. Nothing was done."
            )
    if not data.removeprefix(b"\xef\xbb\xbf").strip():
        raise DataError(f"{path.name} is empty: no header and no rows. Nothing was done.")
    return Content(data)


def _stamp(info: os.stat_result) -> tuple[int, ...]:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def packed(data: bytes, path: str) -> bytes:
    """The bytes of a table as a file of this name holds them: packed where its name says so."""
    name = PurePosixPath(path)
    if name.suffix == ".gz":
        return gzip.compress(data, mtime=0)
    if name.suffix != ".zip":
        return data
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{name.stem}.csv"), data)
    return buffer.getvalue()


def _too_large(name: str, size: int) -> DataError:
    return DataError(
        f"{name} holds {size / 2**30:.1f} GB; at most {MAX_BYTES / 2**30:.0f} GB are read. Bring fewer rows. Nothing was done."
    )


def _from_zip(name: str, data: bytes) -> Content:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = [m for m in archive.infolist() if not m.is_dir() and not _is_aside(m.filename)]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise _broken(name, error) from error
    inside = {m.filename for m in archive.infolist()}
    if "[Content_Types].xml" in inside or "mimetype" in inside or "content.xml" in inside:
        raise DataError(
            f"{name} is an Excel or Office file, for which no reader is installed. Save the sheet as CSV (UTF-8). Nothing was done."
        )
    if len(members) != 1:
        listed = ", ".join(m.filename for m in members[:5]) + (", ..." if len(members) > 5 else "")
        what = f"{len(members)} files ({listed})" if members else "no file"
        raise DataError(
            f"{name} holds {what}; exactly one table is needed. Unpack it and name one. Nothing was done.",
            files=[m.filename for m in members[:20]],
        )
    (member,) = members
    if member.flag_bits & 1:
        raise DataError(f"{name} is locked with a password. Unpack it first. Nothing was done.")
    try:
        file = archive.open(member)
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise _broken(name, error) from error
    unpacked = _unzipped(name, file, member.compress_size)
    if unpacked.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        raise DataError(f"{name} is packed twice. Unpack it first. Nothing was done.")
    return Content(unpacked, f"zip, {member.filename} inside")


def _is_aside(name: str) -> bool:
    """What packers put beside the files they were given."""
    path = PurePosixPath(name)
    return path.parts[:1] == ("__MACOSX",) or path.name.startswith(".")


def _unzipped(name: str, file: IO[bytes] | gzip.GzipFile, packed_size: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        for part in _blocks(file):
            size += len(part)
            if size > _BOMB_FROM and size > MAX_RATIO * max(1, packed_size):
                raise DataError(
                    f"{name} unpacks to more than {MAX_RATIO} times its size: no table does. It was not read to its end. Nothing was done."
                )
            if size > MAX_BYTES:
                raise _too_large(name, size)
            parts.append(part)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise _broken(name, error) from error
    data = b"".join(parts)
    if not data.strip():
        raise DataError(f"{name} is empty: no header and no rows. Nothing was done.")
    return data


def _blocks(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while part := file.read(_BLOCK):
        yield part


def _broken(name: str, error: Exception) -> DataError:
    first = str(error).partition("\n")[0] or type(error).__name__
    return DataError(f"{name} cannot be unpacked: {first}. Is it whole? Nothing was done.")
