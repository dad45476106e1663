"""One job in a process of its own: the runner holds the lock, watches, ends what must end, and writes the result.

    python -m gyrostat.loop.worker FOLDER --lock-fd N     the runner, started by `adapters.local`
    python -m gyrostat.loop.worker FOLDER --child         the work itself, in a session of its own below it

The runner outlives whoever started it, is the reaper of all that its child forks, and obeys the floor: jobs below it
stop, and never start. It never opens what the child made; it signs a bundle by its bytes alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.errors import RuntimeFault
from gyrostat_runtime.files import write_atomic

from gyrostat import __version__
from gyrostat.errors import GyrostatError, LedgerError, UnavailableError

TASKS = "gyrostat.loop.tasks"
LOG_BYTES = 1_000_000
"""Of output kept at the beginning, and as many at the end."""
TICK_S, FLOOR_S, BEAT_S = 0.1, 0.5, 1.0
GRACE_S = 2.0
MOST_PROCESSES = 500
"""That a job may have at one time; a machine gives out at some thousands."""
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_S = 1.0
KEPT = frozenset({"spec.json", "lock", "heartbeat", "child.json"})
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(arguments: list[str]) -> int:
    """Entry point of both roles."""
    folder = Path(arguments[0]).resolve()
    if "--child" in arguments:
        return work(folder)
    with _held(folder / "lock", arguments) as is_ours:
        if not is_ours or (folder / "result.json").exists():
            return 0
        if _asked_by(folder) != __version__:
            return 0  # installed over a loop that still runs: nothing has begun, and the next loop asks again
        (folder / "heartbeat").touch()  # from here on the work has begun, and is never begun again
        try:
            result = Runner(folder).run()
        except Exception as error:  # noqa: BLE001 - whatever happens, a cause goes on record
            cause = f"the runner failed: {type(error).__name__}: {str(error)[:500]}"
            result = _failed(cause, retryable=_is_out_of_space(error))
        if result.get("retryable"):
            _clear(folder)
        _leave(folder / "result.json", result)
    return 0


def _asked_by(folder: Path) -> str:
    """The release whose loop wants this job."""
    return json.loads((folder / "spec.json").read_bytes()).get("release", __version__)


@contextlib.contextmanager
def _held(lock: Path, arguments: list[str]) -> Iterator[bool]:
    """The job's lock for as long as the runner lives: handed over by who started it, else taken here."""
    if "--lock-fd" in arguments:
        yield True
        return
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _leave(path: Path, result: dict[str, Any]) -> None:
    """Write a result; on a full disk wait for room, for what was done must not count as lost.

    Once the job is called off nobody asks for its result, and nothing is written.
    """
    data = json.dumps(result, ensure_ascii=False, allow_nan=False, default=str).encode()
    while True:
        try:
            write_atomic(path, data)
        except OSError as error:
            if not _is_out_of_space(error):
                raise
            with contextlib.suppress(OSError):  # no name is made, so this needs no room
                os.utime(path.with_name("heartbeat"))
            if _is_called_off(path.parent):
                return
            time.sleep(FULL_S)
        else:
            return


def _is_called_off(folder: Path) -> bool:
    """Whether the stream has gone past this job."""
    try:
        seq = json.loads((folder / "spec.json").read_bytes())["seq"]
        return seq < int((folder.parent / "floor").read_text())
    except (OSError, ValueError):
        return False


def _is_out_of_space(error: BaseException) -> bool:
    """Some libraries pass on the words alone."""
    return getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error)


def _clear(folder: Path) -> None:
    """What a try left behind that is made again under another key: nobody reads it, and the room may be needed."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != "code":
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in KEPT and path.suffix != ".log":
            path.unlink(missing_ok=True)


class Runner:
    """Keeps one child from start to end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec: dict[str, Any] = json.loads((folder / "spec.json").read_bytes())
        limits = self.spec.get("limits") or {}
        self.time_s: float = limits.get("time_s", 3600.0)
        self.memory_bytes: int = limits.get("memory_bytes", 0)
        self.cause = ""

    def run(self) -> dict[str, Any]:
        """Do the job; its result, whatever happens."""
        if _is_called_off(self.folder):
            return _failed("called off before it started")
        _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans come to us
        signal.signal(signal.SIGTERM, self._told_to_stop)
        child = subprocess.Popen(
            [sys.executable, "-m", "gyrostat.loop.worker", str(self.folder), "--child"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert child.stdout is not None
        reader = threading.Thread(
            target=_keep_output, args=(child.stdout, self.folder / "stdout.log"), daemon=True
        )
        reader.start()
        self._watch(child)
        self._end_all()
        child.wait()
        reader.join(2.0)
        if self.cause:
            return _failed(self.cause)
        return self._result(child.returncode)

    def _told_to_stop(self, _number: int, _frame: Any) -> None:
        self.cause = "ended by a signal"

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        began = beat = asked = 0.0
        began = time.monotonic()
        while child.poll() is None and not self.cause:
            now = time.monotonic()
            if now - beat > BEAT_S:
                with contextlib.suppress(OSError):
                    (self.folder / "heartbeat").touch()
                beat = now
            if now - asked > FLOOR_S:
                asked = now
                if _is_called_off(self.folder):
                    self.cause = "called off"
            if now - began > self.time_s:
                which = " (train.resources.time)" if self.spec["what"] == "training" else ""
                self.cause = f"it took longer than {self.time_s:g} s{which}"
            else:
                used, n = _used()
                if self.memory_bytes and used > self.memory_bytes:
                    self.cause = f"it used {used / 1e6:,.0f} MB, more than {self.memory_bytes / 1e6:,.0f} MB (train.resources.memory)"
                elif n > MOST_PROCESSES:
                    self.cause = f"it started {n:,} processes, more than {MOST_PROCESSES}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(TICK_S)

    def _end_all(self) -> None:
        """Nothing that was started here lives on."""
        deadline = time.monotonic() + GRACE_S
        if self.cause:
            _stand_still()
        while left := psutil.Process().children(recursive=True):
            number = signal.SIGKILL if self.cause or time.monotonic() > deadline else signal.SIGTERM
            for process in left:
                with contextlib.suppress(psutil.Error, OSError):
                    process.send_signal(number)
            psutil.wait_procs(left, 0.3)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass

    def _result(self, status: int) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / "child.json").read_bytes())
        except (OSError, ValueError):
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            return _failed(
                f"the {self.spec['what']} ended {how} and left no result", retryable=status < 0
            )
        if found["status"] == "done" and self.spec["what"] == "pack":
            try:
                return found | self._publish()
            except (RuntimeFault, GyrostatError, OSError) as error:
                cause = f"the bundle could not be signed: {error}"
                return _failed(cause, retryable=_is_out_of_space(error))
        return found

    def _publish(self) -> dict[str, Any]:
        """Sign what the child packed, by its bytes, and put it among the bundles."""
        from gyrostat.registry import bundles

        state, packed = Path(self.spec["state"]), self.folder / "bundle"
        if packed.is_dir():
            bundle.sign(packed, keys.private_key(state / "keys"))
            made = bundle.digest(packed)
            bundles.publish(state, packed, made)
            return {"made": made}
        return {}


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _stand_still() -> None:
    """Stop everything below, also what is just being started, so that nothing outruns its end."""
    stopped: set[int] = set()
    while new := {p.pid for p in psutil.Process().children(recursive=True)} - stopped:
        for pid in new:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= new


def _failed(cause: str, *, retryable: bool = False) -> dict[str, Any]:
    line = " ".join(cause.split())  # a cause is shown in a line of its own
    return {"status": "failed", "cause": line, "retryable": retryable, "log": "stdout.log"}


def _used() -> tuple[int, int]:
    """Bytes of memory of everything below this process, and how many processes that are."""
    total, below = 0, psutil.Process().children(recursive=True)
    for process in below:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total, len(below)


def _keep_output(stream: IO[bytes], path: Path) -> None:
    """The first and the last part of what was printed; never more on disk or in memory."""
    kept, tail, dropped = 0, bytearray(), 0

    def write(data: bytes | bytearray) -> None:
        # Read on whatever happens: nobody else empties the pipe that the child writes into.
        with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
            file.write(data)

    while chunk := stream.read1(65536):  # type: ignore[attr-defined]
        if kept < LOG_BYTES:
            part, chunk = chunk[: LOG_BYTES - kept], chunk[LOG_BYTES - kept :]
            write(part)
            kept += len(part)
        tail += chunk
        if len(tail) > 2 * LOG_BYTES:
            dropped += len(tail) - LOG_BYTES
            del tail[:-LOG_BYTES]
    if len(tail) > LOG_BYTES:
        dropped += len(tail) - LOG_BYTES
        del tail[:-LOG_BYTES]
    if dropped:
        write(f"\n... {dropped:,} bytes left out ...\n".encode())
    write(tail)


def work(folder: Path) -> int:
    """The child: do what the spec says and leave `child.json`."""
    # Without its runner nobody holds it to its limits, and the job counts as lost.
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    spec = json.loads((folder / "spec.json").read_bytes())
    try:
        tasks = importlib.import_module(spec.get("tasks", TASKS)).TASKS
        result = {"status": "done", **tasks[spec["what"]](folder, spec)}
        status = 0
    except GyrostatError as error:
        retryable = isinstance(error, (LedgerError, UnavailableError))
        result, status = (
            {**_failed(str(error), retryable=retryable), "code": error.code, "facts": error.facts},
            1,
        )
    except Exception as error:  # noqa: BLE001 - the outer edge of a job: it goes on record
        import traceback

        traceback.print_exc()
        result = _failed(
            f"{type(error).__name__}: {str(error)[:500]}", retryable=_is_out_of_space(error)
        )
        status = 1
    _leave(folder / "child.json", result)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
