"""A native model in a process of its own, so that a pickle never runs in the process that answers requests.

The model's process is `native.py`, started by path with any interpreter that has the model's libraries. What crosses
between the two are lengths, JSON and raw float64: the parent never unpickles.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from gyrostat_runtime.bundle import Manifest, read_manifest
from gyrostat_runtime.errors import ModelFault
from gyrostat_runtime.rows import Rows

_HEAD = struct.Struct("!IQQ")
"""Bytes of JSON, of numbers, of text."""
_LARGEST_ANSWER = 2_000_000_000
_GROWTH_BYTES = 2_000_000_000
"""What a process may take beyond what it took for its first answer, where nothing is declared."""
_FULL = 0.8
"""Share of that growth at which the next process is loaded, so that it is ready when this one has to go."""
_LOOK_S = 0.1
"""How often the memory of a model is looked at that does not answer yet."""
_CHILD = Path(__file__).with_name("native.py")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_log = logging.getLogger(__name__)
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Host:
    """Runs the native model of one bundle; starts it again after a crash or a hang, and anew where it leaks.

    The bundle must have been verified: what is in it is executed. The child checks the digests once more before each
    start. Calls are answered one after the other; a call waits for the one before it, within its own deadline.
    """

    def __init__(
        self,
        folder: Path,
        python: str | None = None,
        timeout_s: float = 5.0,
        *,
        manifest: Manifest | None = None,
        start_timeout_s: float = 60.0,
        memory_bytes: int = 0,
    ) -> None:
        """Start the process and wait until its model is loaded.

        Args:
            python: The interpreter with the model's libraries; None: this one.
            timeout_s: Deadline of one call. What takes longer is killed.
            manifest: What the bundle says of itself, where it was read already.
            start_timeout_s: Deadline for loading the model.
            memory_bytes: Resident memory at which the process is ended, in a call too; another takes its place in
                time where it grows from call to call. 0: 2 GB more than it takes for its first answer.

        Raises:
            ModelFault: it does not start; nothing is left running.
        """
        self._folder = folder.resolve()
        self._python = python or sys.executable
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._memory_bytes = memory_bytes
        self._manifest = manifest or read_manifest(folder)
        output = self._manifest.schema.output
        self._n_classes = len(output.classes)
        self._speaks = not {f.column for f in self._manifest.schema.features} & set(
            self._manifest.schema.personal
        )
        """Whether the model's own error texts may be repeated: they tend to hold values."""
        self._lock = threading.Lock()
        self._link: _Link | None = None
        self._next: _Link | None = None
        """The process that loads, to take the place of one that has nearly grown too large."""
        self._n_failed = 0
        self._not_before = 0.0
        self._closed = False
        try:
            self._start()
            self._await_ready(time.monotonic() + start_timeout_s)
        except ModelFault:
            self._drop()
            raise

    @property
    def pid(self) -> int | None:
        """The process that runs the model now, if one does."""
        link = self._link
        return link.process.pid if link else None

    def scores(self, rows: Rows) -> np.ndarray:
        """The model's `(n,)` values, or `(n, c)` probabilities in the order of the schema's classes.

        Raises:
            ModelFault: it raised, died or took too long. It starts again, at once after a first failure, then
                with a call that comes after a wait; the wait doubles up to ten seconds. A call waits for a model
                that is loading until its own deadline.
        """
        deadline = time.monotonic() + self._timeout_s
        if not self._lock.acquire(timeout=self._timeout_s):
            raise ModelFault(
                f"the model's process was busy for {self._timeout_s:g} s", code="model.timeout"
            )
        try:
            return self._ask(rows, deadline)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process. Calling it twice is allowed."""
        self._closed = True
        # A hung call would hold the lock until its deadline: killing the process lets it go.
        for link in (self._link, self._next):
            if link is not None:
                link.kill()
        with self._lock:
            self._drop()
            self._drop_next()

    # ---- one call --------------------------------------------------------------------------------

    def _ask(self, rows: Rows, deadline: float) -> np.ndarray:
        if self._closed:
            raise ModelFault("the model was closed", code="model.closed")
        if self._link is not None and self._link.process.poll() is not None:
            self._failed()  # it died between two calls: this one need not suffer for it
        self._take_over()
        if self._link is None:
            self._start()
        self._await_ready(deadline)
        num = b"" if rows.num is None else np.ascontiguousarray(rows.num, "<f8").tobytes()
        text = b"" if rows.cat is None else json.dumps(rows.cat.tolist()).encode()
        try:
            self._sure.send({"n": rows.n}, num, text, deadline)
            head, raw = self._sure.receive(deadline)
        except TimeoutError:
            self._failed()
            self._restart()
            raise ModelFault(
                f"the model did not answer {rows.n} rows in {self._timeout_s:g} s; its process "
                "was ended and starts again",
                code="model.timeout",
            ) from None
        except _GrownError as error:
            self._failed()
            self._restart()
            raise error.as_fault() from None
        except (OSError, ValueError) as error:
            fault = self._died(error)
            self._restart()
            raise fault from None
        self._n_failed = 0
        self._look_at_memory()
        if "error" in head:
            said = f": {head['error']}" if self._speaks else ""
            raise ModelFault(f"the model raised {head.get('kind')}{said}", code="model.failed")
        shape = (rows.n, self._n_classes) if self._n_classes else (rows.n,)
        if len(raw) != 8 * int(np.prod(shape)):
            raise ModelFault(
                f"the model answered {len(raw) // 8} numbers, not {shape}", code="model.failed"
            )
        return np.frombuffer(raw, "<f8").reshape(shape).astype(np.float64)

    @property
    def _sure(self) -> _Link:
        if self._link is None:
            raise ModelFault("the model's process is gone", code="model.died")
        return self._link

    # ---- the process -----------------------------------------------------------------------------

    def _start(self) -> None:
        if self._next is not None:
            self._link, self._next = self._next, None
            return
        wait = self._not_before - time.monotonic()
        if wait > 0:
            raise ModelFault(
                f"the model's process failed {self._n_failed} times in a row; "
                f"the next try is in {wait:.1f} s",
                code="model.died",
            )
        try:
            self._link = self._launch()
        except OSError as error:
            raise self._died(error) from None

    def _launch(self) -> _Link:
        """A process that begins to load the model."""
        schema = self._manifest.schema
        kinds = {c.name: c.kind for c in schema.inputs}
        hello = {
            "files": {
                name: said["sha256"]
                for name, said in self._manifest.files.items()
                if name == "model.pkl" or name.startswith("code/")
            },
            "features": [[f.name, kinds[f.column] == "category"] for f in schema.features],
            "classes": list(schema.output.classes),
            "class_kind": schema.output.class_kind,
        }
        link = _Link(self._python, self._folder, self._memory_bytes)
        try:
            link.send(hello, b"", b"", time.monotonic() + self._start_timeout_s)
        except OSError:
            link.end()
            raise
        return link

    def _restart(self) -> None:
        """After a first failure load anew at once, so that the next call finds the model ready or nearly so."""
        if self._n_failed == 1 and not self._closed:
            with contextlib.suppress(ModelFault):
                self._start()

    def _await_ready(self, deadline: float) -> None:
        """Wait for a process that is loading; one that is not ready in time goes on loading for the next call."""
        link = self._sure
        if link.is_ready:
            return
        give_up = link.started_at + self._start_timeout_s
        try:
            head, _ = link.receive(min(deadline, give_up))
        except TimeoutError:
            if time.monotonic() < give_up:
                raise ModelFault(
                    "the model's process is still loading its model", code="model.timeout"
                ) from None
            self._failed()
            raise ModelFault(
                f"the model was not loaded in {self._start_timeout_s:g} s", code="model.timeout"
            ) from None
        except _GrownError as error:
            self._failed()
            raise error.as_fault() from None
        except (OSError, ValueError) as error:
            raise self._died(error) from None
        if "error" in head:
            self._failed()
            raise ModelFault(
                f"the model cannot be loaded: {head.get('kind')}: {head['error']}",
                code="model.died",
            )
        link.is_ready = True

    # ---- its memory ------------------------------------------------------------------------------

    def _look_at_memory(self) -> None:
        """After an answer: one that grows is replaced before it has to be ended in a call, one that is too large now.

        Raises:
            ModelFault: its first answer took more than it is allowed: no other process would do with less.
        """
        link = self._sure
        size = link.resident_bytes()
        if not link.full_bytes:
            if 0 < self._memory_bytes < size:
                self._drop()
                raise _GrownError(size, self._memory_bytes).as_fault()
            link.most_bytes = self._memory_bytes or size + _GROWTH_BYTES
            link.full_bytes = size + int(_FULL * (link.most_bytes - size))
        if size > link.most_bytes:
            _log.warning("%s: its process took %s and is replaced", self._name, _shown(size))
            self._drop()
            with contextlib.suppress(ModelFault):
                self._start()
        elif size > link.full_bytes and self._next is None and not self._closed:
            _log.warning(
                "%s: its process takes %s of %s: the next one is loaded beside it",
                self._name, _shown(size), _shown(link.most_bytes),
            )  # fmt: skip
            with contextlib.suppress(OSError):
                self._next = self._launch()

    def _take_over(self) -> None:
        """Let the next process answer, if it is ready; one that cannot be loaded is tried again after an answer."""
        if self._next is None or self._link is None:
            return
        try:
            head, _ = self._next.receive(time.monotonic())
            is_ready = bool(head.get("ready"))
        except TimeoutError:
            if time.monotonic() < self._next.started_at + self._start_timeout_s:
                return
            is_ready = False
        except (_GrownError, OSError, ValueError):
            is_ready = False
        if not is_ready:
            self._drop_next()
            return
        self._next.is_ready = True
        self._drop()
        self._link, self._next = self._next, None

    @property
    def _name(self) -> str:
        return f"model {self._manifest.model}, bundle {self._folder.name[:12]}"

    def _died(self, error: Exception) -> ModelFault:
        how = self._failed()
        return ModelFault(f"the model's process died ({how or error})", code="model.died")

    def _failed(self) -> str:
        how = self._drop()
        self._n_failed += 1
        delay = 0.0 if self._n_failed == 1 else min(0.1 * 2**self._n_failed, 10.0)
        self._not_before = time.monotonic() + delay
        return how

    def _drop_next(self) -> None:
        link, self._next = self._next, None
        if link is not None:
            link.end()

    def _drop(self) -> str:
        link, self._link = self._link, None
        return link.end() if link is not None else ""


class _GrownError(Exception):
    """A process holds more memory than it may."""

    def __init__(self, size_bytes: int, most_bytes: int) -> None:
        super().__init__(size_bytes, most_bytes)
        self._size, self._most = size_bytes, most_bytes

    def as_fault(self) -> ModelFault:
        return ModelFault(
            f"the model's process took {_shown(self._size)} of memory and may take {_shown(self._most)} "
            "(serving.memory); it was ended",
            code="model.memory",
        )


def _place() -> dict[str, str]:
    """A folder for what the model writes while it lives; where there is no room for one, it has the one of all."""
    with contextlib.suppress(OSError):
        return {"TMPDIR": tempfile.mkdtemp(prefix="gyrostat-model-")}
    return {}


def _clear(place: dict[str, str]) -> None:
    for folder in place.values():
        shutil.rmtree(folder, ignore_errors=True)


def _shown(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


class _Link:
    """One child process and the socket to it. The child ends when the parent's ends close, however the parent ends."""

    def __init__(self, python: str, folder: Path, most_bytes: int) -> None:
        self.started_at = time.monotonic()
        self.is_ready = False
        self.most_bytes = most_bytes
        """Resident memory beyond which waiting for it is given up; 0: not yet known."""
        self.full_bytes = 0
        """Resident memory at which it is nearly there; 0: it has not answered yet."""
        self._place = _place()
        self._socket, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [
                    python,
                    "-B",  # bytecode beside the code would be a file that nobody signed
                    str(_CHILD),
                    str(folder),
                    str(theirs.fileno()),
                    str(lifeline),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline),
                process_group=0,
                env={name: "1" for name in _ONE_THREAD} | dict(os.environ) | self._place,
            )
        except OSError:
            _clear(self._place)
            self._socket.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self._socket.setblocking(False)
        self._waiter = selectors.DefaultSelector()
        self._waiter.register(self._socket, selectors.EVENT_READ)
        self._buffer = bytearray()
        self._end_lock = threading.Lock()
        self._how = ""
        self._is_over = False

    def send(self, head: dict[str, Any], num: bytes, text: bytes, deadline: float) -> None:
        raw = json.dumps(head).encode()
        parts = b"".join((_HEAD.pack(len(raw), len(num), len(text)), raw, num, text))
        view = memoryview(parts)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                self._wait(selectors.EVENT_WRITE, deadline)

    def receive(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        """One frame: its JSON and its numbers. What has come of it when the deadline passes is kept for the next call.

        Raises:
            TimeoutError: the deadline passed.
            OSError, ValueError: the other side is gone, or sends what is no frame.
        """
        self._fill(_HEAD.size, deadline)
        n_json, n_num, n_text = _HEAD.unpack_from(self._buffer)
        size = _HEAD.size + n_json + n_num + n_text
        if size > _LARGEST_ANSWER:
            raise ValueError("an answer beyond all bounds")
        self._fill(size, deadline)
        raw = bytes(self._buffer[:size])
        del self._buffer[:size]
        at = _HEAD.size + n_json
        head = json.loads(raw[_HEAD.size : at])
        if not isinstance(head, dict):
            raise ConnectionError("an answer without a head")
        return head, raw[at : at + n_num]

    def _fill(self, size: int, deadline: float) -> None:
        while len(self._buffer) < size:
            try:
                piece = self._socket.recv(1 << 20)
            except BlockingIOError:
                self._wait(selectors.EVENT_READ, deadline)
                continue
            if not piece:
                raise ConnectionResetError("its socket was closed")
            self._buffer += piece

    def _wait(self, event: int, deadline: float) -> None:
        self._waiter.modify(self._socket, event)
        while not self._waiter.select(max(0.0, min(_LOOK_S, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise TimeoutError
            size = self.resident_bytes()
            if 0 < self.most_bytes < size:
                raise _GrownError(size, self.most_bytes)

    def resident_bytes(self) -> int:
        """What the process holds in memory now; 0 where this system does not say."""
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_bytes().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * _PAGE_BYTES

    def kill(self) -> None:
        """Kill the whole group; whoever waits for an answer sees the socket close."""
        with self._end_lock:
            if not self._is_over:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> str:
        """Kill the whole group and reap the child; says how it had ended if it was dead already."""
        with self._end_lock:
            if self._is_over:
                return self._how
            self._is_over = True
            # A process whose socket closed is often not yet a zombie: give its own exit status a moment to appear.
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(0.0 if self._socket_lives() else 0.5)
                self._how = (
                    f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
                )
            # What it started belongs to its group and goes with it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            _clear(self._place)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            os.close(self._lifeline)
            self._waiter.close()
            self._socket.close()
            return self._how

    def _socket_lives(self) -> bool:
        try:
            return self._socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
