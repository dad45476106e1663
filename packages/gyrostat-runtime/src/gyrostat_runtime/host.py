"""A native model in a process of its own, so that a pickle never runs in the process that answers requests.

The model's process is `native.py`, started by path with any interpreter that has the model's libraries. What crosses
between the two are lengths, JSON and raw float64: the parent never unpickles.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
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
_CHILD = Path(__file__).with_name("native.py")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Host:
    """Runs the native model of one bundle; starts it again after a crash or a hang.

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
    ) -> None:
        """Start the process and wait until its model is loaded.

        Args:
            python: The interpreter with the model's libraries; None: this one.
            timeout_s: Deadline of one call. What takes longer is killed.
            manifest: What the bundle says of itself, where it was read already.
            start_timeout_s: Deadline for loading the model.

        Raises:
            ModelFault: it does not start; nothing is left running.
        """
        self._folder = folder.resolve()
        self._python = python or sys.executable
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._manifest = manifest or read_manifest(folder)
        output = self._manifest.schema.output
        self._n_classes = len(output.classes)
        self._speaks = not {f.column for f in self._manifest.schema.features} & set(
            self._manifest.schema.personal
        )
        """Whether the model's own error texts may be repeated: they tend to hold values."""
        self._lock = threading.Lock()
        self._link: _Link | None = None
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
        link = self._link
        if link is not None:
            link.kill()
        with self._lock:
            self._drop()

    # ---- one call --------------------------------------------------------------------------------

    def _ask(self, rows: Rows, deadline: float) -> np.ndarray:
        if self._closed:
            raise ModelFault("the model was closed", code="model.closed")
        if self._link is not None and self._link.process.poll() is not None:
            self._failed()  # it died between two calls: this one need not suffer for it
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
        except (OSError, ValueError) as error:
            fault = self._died(error)
            self._restart()
            raise fault from None
        self._n_failed = 0
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
        wait = self._not_before - time.monotonic()
        if wait > 0:
            raise ModelFault(
                f"the model's process failed {self._n_failed} times in a row; "
                f"the next try is in {wait:.1f} s",
                code="model.died",
            )
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
        try:
            self._link = _Link(self._python, self._folder)
            self._link.send(hello, b"", b"", time.monotonic() + self._start_timeout_s)
        except OSError as error:
            raise self._died(error) from None

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
        except (OSError, ValueError) as error:
            raise self._died(error) from None
        if "error" in head:
            self._failed()
            raise ModelFault(
                f"the model cannot be loaded: {head.get('kind')}: {head['error']}",
                code="model.died",
            )
        link.is_ready = True

    def _died(self, error: Exception) -> ModelFault:
        how = self._failed()
        return ModelFault(f"the model's process died ({how or error})", code="model.died")

    def _failed(self) -> str:
        how = self._drop()
        self._n_failed += 1
        delay = 0.0 if self._n_failed == 1 else min(0.1 * 2**self._n_failed, 10.0)
        self._not_before = time.monotonic() + delay
        return how

    def _drop(self) -> str:
        link, self._link = self._link, None
        return link.end() if link is not None else ""


class _Link:
    """One child process and the socket to it. The child ends when the parent's ends close, however the parent ends."""

    def __init__(self, python: str, folder: Path) -> None:
        self.started_at = time.monotonic()
        self.is_ready = False
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
                env={name: "1" for name in _ONE_THREAD} | dict(os.environ),
            )
        except OSError:
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
        if not self._waiter.select(max(0.0, deadline - time.monotonic())):
            raise TimeoutError

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
