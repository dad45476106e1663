"""The prediction log and the label log: framed binary segments, many writers, one folder for each model.

A segment `<writer>.<n>.seg` is eight bytes of magic, then frames: length and CRC-32 of the payload (little-endian
`<II`), then the payload. One writer's segments are read in the order of `n`. A frame that is cut or damaged ends its
segment: a reader waits there while the segment is the writer's last, and steps over the rest once there is a next one.
A new process never goes on in an old segment, it opens the next.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import heapq
import json
import os
import re
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from gyrostat_runtime import flight
from gyrostat_runtime.files import sync_folder, write_new
from gyrostat_runtime.flight import Debt, InFlight

try:
    import msgspec
except (
    ImportError
):  # on a device: frames are laid out by the standard library, which everybody reads
    msgspec = None

Arm = Literal["champion", "candidate", "shadow"]
Segments = dict[str, list[tuple[int, Path]]]

_MAGIC = b"GYRSEG1\n"
_HEAD = struct.Struct("<II")
_NAME = re.compile(r"^(?P<writer>[A-Za-z0-9_-]+)\.(?P<n>\d{8})\.seg$")
_PREDICTION, _HEARTBEAT, _SEALED, _LABEL, _OWED, _PACKED = 1, 2, 3, 4, 5, 6
_PACKED_BYTE = bytes([_PACKED])
_ARMS: tuple[Arm, ...] = ("champion", "candidate", "shadow")
_ASKED = 0x80
"""Added to the place in `_ARMS`; what does not know it steps over the frame."""
_PENDING_BYTES = 32_000_000
_POLL_BYTES = 8_000_000


@dataclass(slots=True)
class Frame:
    """One request that one arm answered, or failed to answer."""

    id: str
    at: float
    """When the answer was ready, seconds since 1970; one writer's frames never go back in it."""
    routes_seq: int
    bundle: str
    arm: Arm
    status: int
    latency_s: float
    key: str = ""
    """The client's key, hashed; empty: it gave none."""
    n: int = 1
    """Rows in the request; row i has the id `<id>.<i>`."""
    inputs: list[list[Any]] = field(default_factory=list)
    """For each row the JSON values in the order of the schema's inputs; personal columns are hashed."""
    outputs: list[Any] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    """For each row the value, or the probability of the positive or winning class."""
    new: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    error: str = ""
    is_asked: bool = False
    """The client chose the arm, not the routes: it is evidence of nothing."""

    @property
    def is_error(self) -> bool:
        """An input that the champion's schema accepts and this arm did not answer with 2xx."""
        # What the champion's schema refuses is no prediction and never becomes a frame.
        return not 200 <= self.status < 300


@dataclass(slots=True)
class Heartbeat:
    """The writer lives, and everything it has to say from before `at` stands before this frame."""

    writer: str
    at: float
    dropped: int = 0
    """Frames that this writer's process could not write since it started."""


@dataclass(slots=True)
class Sealed:
    """Nothing more comes from this writer, unless a new process takes its name."""

    writer: str
    at: float


@dataclass(slots=True)
class Owed:
    """Requests that the writer's process had begun and never answered: an error each, of their arms."""

    writer: str
    at: float
    """When it was found out, which is hardly later than the process's end where a supervisor kept it."""
    since: int
    """Larger for each process of the writer's name that owed something; what is not larger is a repeat."""
    debts: tuple[Debt, ...]


@dataclass(slots=True)
class Label:
    """What turned out to be true for one prediction row."""

    id: str
    label: Any
    """A JSON value."""
    at: float
    source: str = ""


# ---- prediction ids ------------------------------------------------------------------------------

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)


def _base32(value: int, pairs: int) -> str:
    return "".join([_PAIRS[value >> 10 * i & 1023] for i in range(pairs - 1, -1, -1)])


def time_of(id: str) -> float:
    """When a prediction id was given, in seconds since 1970 (exact to the millisecond).

    Raises:
        ValueError: `id` is no prediction id. A row's id (`<id>.<i>`) is one.

    Example:
        >>> time_of("01KAXM6B00" + "0" * 16)
        1764078332.928
    """
    bare = id.partition(".")[0]
    value = 0
    if len(bare) != 26:
        raise ValueError(
            f"{id!r} is no prediction id: it has 26 letters and digits, then perhaps .row"
        )
    for letter in bare[:10]:
        digit = _ALPHABET.find(letter)
        if digit < 0:
            raise ValueError(
                f"{id!r} is no prediction id: {letter!r} is not in Crockford's alphabet"
            )
        value = value << 5 | digit
    return value / 1000


_TICK_MS = 20
"""Files are stamped by the kernel's tick, which lies up to 10 ms behind the clock that ids are made by."""


class _Ids:
    """Ids of one writer: 10 characters of time, 6 of the writer's name, 10 of a counter; they strictly increase."""

    def __init__(self, writer: str, *, after_ms: int) -> None:
        digest = hashlib.sha256(writer.encode()).digest()
        self._writer = _base32(int.from_bytes(digest[:4]) >> 2, 3)
        self._counter = secrets.randbits(40)
        self._ms = after_ms
        self._time = _base32(after_ms, 5)
        self._block, self._prefix = -1, ""
        self._lock = threading.Lock()

    def next(self, at: float) -> str:
        ms = int(at * 1000)
        with self._lock:
            # A clock that goes back must not take ids back with it.
            if ms > self._ms:
                self._ms, self._time = ms, _base32(ms, 5)
            self._counter += 1
            if self._counter >> 10 != self._block:
                self._block = self._counter >> 10
                self._prefix = self._writer + _base32(self._block, 4)
            return self._time + self._prefix + _PAIRS[self._counter & 1023]


# ---- values: a tag for each, fixed parts by one struct, then texts ---------------------------------

_TAG: dict[type, str] = {type(None): "n", float: "d", int: "q", bool: "?", str: "s"}
_COUNT = struct.Struct("<I")
_FIXED = struct.Struct("<BddqHBI")
_ONE_FLOAT = struct.Struct("<Icd")


@lru_cache(maxsize=4096)
def _plan(tags: str) -> tuple[bytes, struct.Struct, tuple[int, ...], tuple[int, ...]]:
    fixed = tuple(i for i, t in enumerate(tags) if t in "dq?")
    texts = tuple(i for i, t in enumerate(tags) if t in "sj")
    packed = tags.encode("ascii")
    return (
        _COUNT.pack(len(packed)) + packed,
        struct.Struct("<" + "".join(tags[i] for i in fixed)),
        fixed,
        texts,
    )


def _pack_values(values: list[Any]) -> bytes:
    if len(values) == 1 and type(values[0]) is float:  # a prediction and its score, mostly
        return _ONE_FLOAT.pack(1, b"d", values[0])
    tags = "".join([_TAG.get(type(v), "j") for v in values])
    head, form, fixed, texts = _plan(tags)
    try:
        if len(fixed) == len(values):
            return head + form.pack(*values)
        body = form.pack(*[values[i] for i in fixed])
    except struct.error:
        # A whole number beyond 64 bits.
        values = [
            v if t != "q" or -(2**63) <= v < 2**63 else _Json(v)
            for v, t in zip(values, tags, strict=True)
        ]
        return _pack_values(values)
    parts = [head, body]
    for i in texts:
        value = values[i]
        text = (
            value
            if tags[i] == "s"
            else json.dumps(value.value if isinstance(value, _Json) else value, allow_nan=False)
        )
        parts.append(_pack_text(text))
    return b"".join(parts)


@dataclass(slots=True)
class _Json:
    value: Any


def _pack_text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return _COUNT.pack(len(raw)) + raw


_NO_TEXT = _pack_text("")
_pack_often = lru_cache(maxsize=256)(_pack_text)
"""Of texts that are the same in frame after frame."""


def _pack_counts(counts: dict[str, int]) -> bytes:
    return _pack_text(json.dumps(counts, ensure_ascii=False)) if counts else _NO_TEXT


class _Reader:
    """Takes values off a payload, from front to back."""

    __slots__ = ("_at", "_raw")

    def __init__(self, raw: bytes, at: int) -> None:
        self._raw, self._at = raw, at

    def text(self) -> str:
        (size,) = _COUNT.unpack_from(self._raw, self._at)
        start = self._at + 4
        self._at = start + size
        if self._at > len(self._raw):
            raise ValueError("a text is longer than its frame")
        return self._raw[start : self._at].decode("utf-8", "surrogatepass")

    def values(self) -> list[Any]:
        tags = self.text()
        _, form, fixed, texts = _plan(tags)
        found = form.unpack_from(self._raw, self._at)
        self._at += form.size
        if len(fixed) == len(tags):
            return list(found)
        values: list[Any] = [None] * len(tags)
        for i, value in zip(fixed, found, strict=True):
            values[i] = value
        for i in texts:
            text = self.text()
            values[i] = text if tags[i] == "s" else json.loads(text)
        return values

    def counts(self) -> dict[str, int]:
        text = self.text()
        return json.loads(text) if text else {}


def _arm_code(frame: Frame) -> int:
    return _ARMS.index(frame.arm) | (_ASKED if frame.is_asked else 0)


def _pack_frame(frame: Frame) -> bytes:
    return b"".join(
        [
            _FIXED.pack(
                _PREDICTION,
                frame.at,
                frame.latency_s,
                frame.routes_seq,
                frame.status,
                _arm_code(frame),
                frame.n,
            ),
            _pack_text(frame.id),
            _pack_often(frame.bundle),
            _pack_text(frame.key) if frame.key else _NO_TEXT,
            _pack_often(frame.error) if frame.error else _NO_TEXT,
            _COUNT.pack(len(frame.inputs)),
            *[_pack_values(row) for row in frame.inputs],
            _pack_values(frame.outputs),
            _pack_values(frame.scores),
            _pack_counts(frame.new),
            _pack_counts(frame.missing),
        ]
    )


if msgspec is not None:
    _encode = msgspec.msgpack.Encoder().encode
    _decode = msgspec.msgpack.Decoder(
        tuple[
            float, float, int, int, int, int, str, str, str, str,
            list[list[Any]], list[Any], list[float], dict[str, int], dict[str, int],
        ]
    ).decode  # fmt: skip


def _lay_out(frame: Frame) -> bytes:
    """A frame by MessagePack, which costs next to nothing; by `_pack_frame` where that is not there or cannot hold it."""
    if msgspec is None:
        return _pack_frame(frame)
    try:
        return _PACKED_BYTE + _encode(
            (
                frame.at, frame.latency_s, frame.routes_seq, frame.status, _arm_code(frame), frame.n, frame.id,
                frame.bundle, frame.key, frame.error, frame.inputs, frame.outputs, frame.scores, frame.new, frame.missing,
            )
        )  # fmt: skip
    except (OverflowError, UnicodeError, TypeError):
        # A whole number beyond 64 bits, half a character.
        return _pack_frame(frame)


def _unpack_packed(raw: bytes) -> Frame | None:
    if msgspec is None:  # written on another machine, or by another environment
        return None
    (
        at, latency_s, routes_seq, status, arm, n, id, bundle, key, error,
        inputs, outputs, scores, new, missing,
    ) = _decode(memoryview(raw)[1:])  # fmt: skip
    return Frame(
        id, at, routes_seq, bundle, _ARMS[arm & ~_ASKED], status, latency_s, key, n, inputs, outputs, scores,
        new, missing, error, bool(arm & _ASKED),
    )  # fmt: skip


def _unpack_frame(raw: bytes) -> Frame:
    _, at, latency_s, routes_seq, status, arm, n = _FIXED.unpack_from(raw)
    r = _Reader(raw, _FIXED.size)
    id, bundle, key, error = r.text(), r.text(), r.text(), r.text()
    (rows,) = _COUNT.unpack_from(raw, r._at)
    r._at += 4
    inputs = [r.values() for _ in range(rows)]
    outputs, scores = r.values(), r.values()
    return Frame(
        id, at, routes_seq, bundle, _ARMS[arm & ~_ASKED], status, latency_s, key, n, inputs, outputs, scores,
        r.counts(), r.counts(), error, bool(arm & _ASKED),
    )  # fmt: skip


_BEAT = struct.Struct("<BdQ")
_STAMP = struct.Struct("<Bd")


def _pack_label(label: Label) -> bytes:
    return b"".join(
        [
            _STAMP.pack(_LABEL, label.at),
            _pack_text(label.id),
            _pack_text(label.source),
            _pack_values([label.label]),
        ]
    )


_OWED_HEAD = struct.Struct("<BdqI")
_DEBT = struct.Struct("<qq")


def _pack_owed(owed: Owed) -> bytes:
    parts = [_OWED_HEAD.pack(_OWED, owed.at, owed.since, len(owed.debts))]
    for debt in owed.debts:
        parts += [
            _DEBT.pack(debt.routes_seq, debt.n),
            _pack_text(debt.bundle),
            _pack_text(debt.arm),
        ]
    return b"".join(parts)


def _unpack_owed(raw: bytes, writer: str) -> Owed:
    _, at, since, n_debts = _OWED_HEAD.unpack_from(raw)
    r, debts = _Reader(raw, _OWED_HEAD.size), []
    for _ in range(n_debts):
        routes_seq, n = _DEBT.unpack_from(raw, r._at)
        r._at += _DEBT.size
        debts.append(Debt(routes_seq, r.text(), r.text(), n))
    return Owed(writer, at, since, tuple(debts))


_Value = Frame | Heartbeat | Sealed | Owed | Label


def _unpack(raw: bytes, writer: str) -> _Value | None:
    """One payload as a value; None for a kind that a newer release has written."""
    kind = raw[0]
    if kind == _PACKED:
        return _unpack_packed(raw)
    if kind == _PREDICTION:
        return _unpack_frame(raw)
    if kind == _HEARTBEAT:
        _, at, dropped = _BEAT.unpack_from(raw)
        return Heartbeat(writer, at, dropped)
    if kind == _SEALED:
        return Sealed(writer, _STAMP.unpack_from(raw)[1])
    if kind == _OWED:
        return _unpack_owed(raw, writer)
    if kind == _LABEL:
        r = _Reader(raw, _STAMP.size)
        id, source = r.text(), r.text()
        return Label(id, r.values()[0], _STAMP.unpack_from(raw)[1], source)
    return None


# ---- writing -------------------------------------------------------------------------------------


def _framed(payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


class _SegmentWriter:
    """Gathers payloads and puts them on the disk in groups, from a thread of its own.

    Nothing here blocks or fails the caller of `_add`: what a full disk does not take is kept up to 32 MB and tried
    again, beyond that dropped and counted.
    """

    def __init__(self, folder: Path, writer: str, *, sync_s: float, segment_bytes: int) -> None:
        if not _NAME.match(f"{writer}.00000000.seg"):
            raise ValueError(f"{writer!r} cannot name a writer: letters, digits, _ and - only")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.writer = folder, writer
        self.dropped = 0
        """Frames that were not written and never will be."""
        self.last_error = ""
        """Why the last write failed; empty once one succeeded again."""
        self.n_failed = 0
        """Writes and syncs that failed."""
        self._sync_s, self._segment_bytes = sync_s, segment_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._needs_sync = False
        self._gate = threading.Lock()
        self._disk = threading.Lock()
        self._handle = -1
        self._size = 0
        self._n, self._last_ms = _last_segment(folder, writer)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"log {writer}", daemon=True)
        self._thread.start()

    def _add(self, payload: bytes, *, is_worth_a_sync: bool = True) -> bool:
        frame = _framed(payload)
        with self._gate:
            if self._pending_bytes + len(frame) > _PENDING_BYTES and self._pending:
                self.dropped += 1
                return False
            self._pending.append(frame)
            self._pending_bytes += len(frame)
            self._needs_sync |= is_worth_a_sync
        return True

    def sync(self) -> bool:
        """Put everything that was added on the disk; False where the disk did not take it (it is tried again)."""
        with self._disk:
            with self._gate:
                frames, self._pending = self._pending, []
                self._pending_bytes, needs_sync, self._needs_sync = 0, self._needs_sync, False
            if not frames:
                return True
            written, n_bytes = 0, sum(map(len, frames))
            try:
                if self._handle < 0 or self._size >= self._segment_bytes:
                    self._open_next()
                data = b"".join(frames)
                while written < n_bytes:
                    written += os.write(self._handle, memoryview(data)[written:])
                if needs_sync:
                    os.fdatasync(self._handle)
                self._size += written
            except OSError as error:
                self.last_error = f"{error.strerror or error}"
                self.n_failed += 1
                self._put_back(frames, written)
                if written == n_bytes:
                    # What a failed sync has left on the disk is not known: nothing that will be promised stands behind it.
                    self._leave()
                return False
            self.last_error = ""
            return True

    @property
    def losses(self) -> tuple[int, int]:
        """What was added since this last moved, and then synced with True, is on the disk: not dropped, nor half written."""
        return self.dropped, self.n_failed

    def close(self) -> None:
        """Write what is left and end; what the disk does not take now is dropped and counted."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        if not self.sync():
            with self._gate:
                self.dropped += len(self._pending)
                self._pending = []
        self._leave()

    def _keep(self) -> None:
        while not self._stop.wait(self._sync_s):
            self.sync()

    def _open_next(self) -> None:
        self._leave()
        while True:
            self._n += 1
            path = self.folder / f"{self.writer}.{self._n:08}.seg"
            with contextlib.suppress(FileExistsError):
                self._handle = os.open(
                    path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644
                )
                break
        try:
            self._size = os.write(self._handle, _MAGIC)
            if self._size < len(_MAGIC):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301
        except OSError:
            # A full disk is tried again many times: it must not fill up with names.
            path.unlink(missing_ok=True)
            self._leave()
            raise
        sync_folder(self.folder)

    def _leave(self) -> None:
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                os.fdatasync(self._handle)
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = -1

    def _put_back(self, frames: list[bytes], written: int) -> None:
        # Frames that are whole in the file stay there; a part of the next one is cut off, so that the segment goes on.
        whole = kept = 0
        while whole < len(frames) and written >= kept + len(frames[whole]):
            kept += len(frames[whole])
            whole += 1
        self._size += kept
        try:
            os.ftruncate(self._handle, self._size)
        except OSError:
            self._leave()
        with self._gate:
            self._pending[:0] = frames[whole:]
            self._pending_bytes = sum(map(len, self._pending))
            self._needs_sync = True
            while self._pending_bytes > _PENDING_BYTES and len(self._pending) > 1:
                self._pending_bytes -= len(self._pending.pop())
                self.dropped += 1


class Writer(_SegmentWriter):
    """Appends predictions of one process to one model's log. Safe to call from several threads.

    Args:
        writer: Its name among the log's writers; two living processes never share one.
        sync_s: A kill or a power cut loses at most the predictions of this many seconds.
        segment_bytes: A segment that has reached this size is followed by a new one.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(
        self, folder: Path, writer: str, *, sync_s: float = 0.2, segment_bytes: int = 16_000_000
    ) -> None:
        super().__init__(folder, writer, sync_s=sync_s, segment_bytes=segment_bytes)
        self._ids = _Ids(writer, after_ms=self._last_ms + _TICK_MS)
        self._at = 0.0
        self._order = threading.Lock()
        with contextlib.suppress(OSError):  # its file stays, and is settled another time
            _settle(_flight_file(folder, writer), time.time())
        self.in_flight = InFlight(
            _flight_file(folder, writer), since=_last_segment(folder, writer)[0]
        )
        """What this process has in its hands. Of each slot one thread may begin and end."""

    def next_id(self, at: float) -> str:
        """A prediction id of 26 characters; ids of one writer strictly increase, whatever its clock does."""
        return self._ids.next(at)

    def append(self, frame: Frame) -> None:
        """Add a prediction; `frame.at` is moved forward if it lies before what was said already.

        It never blocks and never raises: what cannot be written is counted in `dropped`.
        """
        # Stamp and place are given together: a heartbeat from another thread must not come in between.
        with self._order:
            self._at = frame.at = max(frame.at, self._at)
            self._append(frame)

    def _append(self, frame: Frame) -> None:
        try:
            payload = _lay_out(frame)
        except (struct.error, ValueError, TypeError, UnicodeError, RecursionError) as error:
            self.dropped += 1
            self.last_error = f"a prediction cannot be laid out: {type(error).__name__}"
            return
        self._add(payload)

    def heartbeat(self, at: float) -> None:
        """Say that all predictions from before `at` were added."""
        with self._order:
            self._at = at = max(at, self._at)
            self._add(_BEAT.pack(_HEARTBEAT, at, self.dropped), is_worth_a_sync=False)
        self.in_flight.beat()

    def close(self) -> None:
        """Write what is left, and what is owed, and seal: readers need not wait for this writer any more."""
        if self._stop.is_set():
            return
        at = max(self._at, time.time())
        if debts := self.in_flight.debts():
            self._add(_pack_owed(Owed(self.writer, at, self.in_flight.since, debts)))
        self._add(_STAMP.pack(_SEALED, at))
        super().close()
        if not self.last_error:  # else whoever takes the name next says what is owed
            self.in_flight.close()


class LabelWriter(_SegmentWriter):
    """Appends labels; `sync` says whether they are safe, so that a receipt can be given. Arguments as of `Writer`."""

    def __init__(
        self, folder: Path, writer: str, *, sync_s: float = 0.2, segment_bytes: int = 16_000_000
    ) -> None:
        super().__init__(folder, writer, sync_s=sync_s, segment_bytes=segment_bytes)

    def append(self, label: Label) -> bool:
        """Add a label; False where it was dropped, because the disk has not taken anything for too long."""
        return self._add(_pack_label(label))


def seal(folder: Path, writer: str, at: float) -> int:
    """Say in place of a writer that died what it owed, and that nothing more comes from it.

    Call it only once the process is gone. Ended in the middle, it is called again: a repeat is known by its `since`.

    Returns:
        How many requests it owed.

    Raises:
        OSError: the disk does not take it; nothing is there then.
    """
    with flight.left(_flight_file(folder, writer)) as left:
        return _seal(folder, writer, at, left)


def settle(folder: Path, at: float) -> int:
    """Seal all writers of a folder that died while nobody looked; how many requests they owed.

    Raises:
        OSError: the disk does not take it.
    """
    return sum(_settle(path, at) for path in sorted(folder.glob("*.flight")))


def _settle(path: Path, at: float) -> int:
    with flight.left(path) as left:
        return _seal(path.parent, path.stem, at, left) if left else 0


def _flight_file(folder: Path, writer: str) -> Path:
    return folder / f"{writer}.flight"


def _seal(folder: Path, writer: str, at: float, left: flight.Left | None) -> int:
    payloads = [_STAMP.pack(_SEALED, at)]
    if left and left.debts:
        payloads.insert(0, _pack_owed(Owed(writer, at, left.since, left.debts)))
    data = _MAGIC + b"".join(map(_framed, payloads))
    n, _ = _last_segment(folder, writer)
    while not write_new(folder / f"{writer}.{n + 1:08}.seg", data):
        n += 1
    return sum(debt.n for debt in left.debts) if left else 0


def prune(folder: Path, before: float) -> int:
    """Delete segments last written before the time `before`, each writer's newest excepted; how many went."""
    gone = 0
    for mine in segments(folder).values():
        for _, path in mine[:-1]:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
    return gone


def segments(folder: Path) -> Segments:
    """Each writer's segments in order: number and file."""
    found: dict[str, list[tuple[int, Path]]] = {}
    try:
        names = os.listdir(folder)  # noqa: PTH208 - the names alone, many times a second
    except FileNotFoundError:
        return {}
    for name in sorted(names):
        if match := _NAME.match(name):
            found.setdefault(match["writer"], []).append((int(match["n"]), folder / name))
    return found


def _last_segment(folder: Path, writer: str) -> tuple[int, int]:
    """Number of a writer's last segment (0: none) and when it was last written, in ms."""
    mine = segments(folder).get(writer)
    if not mine:
        return 0, 0
    n, path = mine[-1]
    try:
        return n, path.stat().st_mtime_ns // 1_000_000
    except FileNotFoundError:
        return n, 0


# ---- reading -------------------------------------------------------------------------------------


def _frames(data: bytes, at: int) -> Iterator[tuple[bytes, int]]:
    """Whole, undamaged payloads from `at` on, each with the place after it."""
    size = len(data)
    while at + 8 <= size:
        length, crc = _HEAD.unpack_from(data, at)
        end = at + 8 + length
        if end > size or not length:
            return
        payload = data[at + 8 : end]
        if zlib.crc32(payload) != crc:
            return
        yield payload, end
        at = end


T = TypeVar("T")


class _Tail(Generic[T]):
    """Follows all writers of a folder from a position on; torn tails are cut, never fatal."""

    kinds: tuple[type, ...] = ()

    def __init__(self, folder: Path, position: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self._position: dict[str, list[int]] = {w: list(p) for w, p in (position or {}).items()}
        self.cut_bytes = 0
        """Bytes of torn or damaged tails that were stepped over since this tail was made."""

    @property
    def position(self) -> dict[str, Any]:
        """Where the next `poll` goes on, as JSON: writer to [segment, offset]. Save it after what was read is safe."""
        return {writer: list(place) for writer, place in self._position.items()}

    def poll(self) -> list[tuple[str, T]]:
        """What is new, each writer's in its order: at most about 8 MB of each writer; [] when nothing is."""
        found: list[tuple[str, T]] = []
        # Listed first: a segment that has a next one now was finished before that one was made.
        for writer, mine in segments(self.folder).items():
            n, offset = self._position.get(writer, (0, 0))
            ahead = [(number, path) for number, path in mine if number >= n]
            left = _POLL_BYTES
            for i, (number, path) in enumerate(ahead):
                start = offset if number == n else 0
                end, rest, has_more = self._read(path, writer, start, left, found)
                left -= end - start
                self._position[writer] = [number, end]
                if has_more or left <= 0 or i + 1 == len(ahead):
                    break
                self.cut_bytes += rest
                self._position[writer] = [ahead[i + 1][0], 0]
        return found

    def _read(
        self, path: Path, writer: str, start: int, limit: int, found: list[tuple[str, T]]
    ) -> tuple[int, int, bool]:
        """Read whole frames from `start`: where the next one begins, bytes after that, and whether they are frames still."""
        try:
            with path.open("rb") as file:
                if not start:
                    if file.read(len(_MAGIC)) != _MAGIC:
                        return 0, os.fstat(file.fileno()).st_size, False
                    start = len(_MAGIC)
                file.seek(start)
                data = file.read(limit)
                if len(data) >= 8 and _HEAD.unpack_from(data)[0] + 8 > len(data):
                    # A frame larger than a helping is read whole, as far as the file goes.
                    data += file.read(_HEAD.unpack_from(data)[0] + 8 - len(data))
                size = max(os.fstat(file.fileno()).st_size, start + len(data))
        except FileNotFoundError:
            return start, 0, False
        end = 0
        for payload, after in _frames(data, 0):
            end = after
            value = _value(payload, writer)
            if isinstance(value, self.kinds):
                found.append((writer, value))  # type: ignore[arg-type]
        over = len(data) - end
        is_cut_by_limit = over < 8 or _HEAD.unpack_from(data, end)[0] + 8 > over
        return start + end, size - start - end, is_cut_by_limit and start + len(data) < size


class Tail(_Tail[Frame | Heartbeat | Sealed | Owed]):
    """Follows a prediction log."""

    kinds = (Frame, Heartbeat, Sealed, Owed)


class LabelTail(_Tail[Label]):
    """Follows a label log."""

    kinds = (Label,)


def read(
    folder: Path,
    *,
    since: float | None = None,
    until: float | None = None,
    after: Mapping[str, int] | None = None,
) -> Iterator[Frame]:
    """Predictions of all writers in the order of time, `since <= at < until`; reads as it goes.

    Args:
        after: By writer the number of a segment; that one, and those before it, are left out.
    """
    return _merged(_behind(folder, after), Frame, since, until)


def read_segments(found: Segments) -> Iterator[Frame]:
    """The predictions of these segments in the order of time; reads as it goes."""
    return _merged(found, Frame, None, None)


def _behind(folder: Path, after: Mapping[str, int] | None) -> Segments:
    past = after or {}
    return {w: [s for s in mine if s[0] > past.get(w, 0)] for w, mine in segments(folder).items()}


def read_labels(
    folder: Path, *, since: float | None = None, until: float | None = None
) -> Iterator[Label]:
    """Labels of all writers in the order of their arrival, `since <= at < until`; reads as it goes."""
    return _merged(segments(folder), Label, since, until)


def find(folder: Path, id: str, *, after: Mapping[str, int] | None = None) -> list[Frame]:
    """All frames of one prediction (the answer, and shadow copies of it); `id` may name a row, `after` is as in `read`.

    Raises:
        ValueError: `id` is no prediction id.
    """
    bare, given_at = id.partition(".")[0], time_of(id)
    wanted = bare.encode()
    found: list[Frame] = []
    for writer, mine in _behind(folder, after).items():
        for _, path in mine:
            try:
                if path.stat().st_mtime < given_at - 1:
                    continue
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            if wanted not in data:
                continue
            for payload, _ in _frames(data, len(_MAGIC)):
                if wanted in payload:
                    value = _value(payload, writer)
                    if isinstance(value, Frame) and value.id == bare:
                        found.append(value)
    return sorted(found, key=lambda f: f.at)


F = TypeVar("F", Frame, Label)


def _merged(
    found: Segments, kind: type[F], since: float | None, until: float | None
) -> Iterator[F]:
    def one(writer: str, mine: list[tuple[int, Path]]) -> Iterator[F]:
        for _, path in mine:
            try:
                # A segment's last write is not before its last frame.
                if since is not None and path.stat().st_mtime < since - 1:
                    continue
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            if data[: len(_MAGIC)] != _MAGIC:
                continue
            for payload, _ in _frames(data, len(_MAGIC)):
                value = _value(payload, writer)
                if not isinstance(value, kind) or (since is not None and value.at < since):
                    continue
                if until is not None and value.at >= until:
                    return
                yield value

    return heapq.merge(*[one(w, s) for w, s in found.items()], key=lambda f: f.at)


def _value(payload: bytes, writer: str) -> _Value | None:
    try:
        return _unpack(payload, writer)
    except (struct.error, ValueError, IndexError, RecursionError):
        # The CRC holds, so it was written like this: by a newer release, or by something that is not ours.
        return None
