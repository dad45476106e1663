"""The listening sockets stay open while everything else ends and begins again: connections wait, and none is refused.

An upgrade under a running `up`: no process of another release is started beside the old ones; everything ends in order,
and the same command begins again as the new release, with its sockets.

A death of `up`: its servers live and answer. Each of them hands its socket to the next `up`, which ends them when its own answer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from gyrostat.processes import runfiles

SOCKETS = "GYROSTAT_SOCKETS"
"""`port=file descriptor, ...` for the process that begins again."""
DOOR_S = 15.0
"""How long a server that lives may take until it hands over its socket."""


def installed() -> str:
    """The release that a process started now would be; empty while one is being installed."""
    try:
        return metadata.version("gyrostat")
    except (metadata.PackageNotFoundError, KeyError, OSError):
        return ""


def begin_again(sockets: Iterable[socket.socket]) -> NoReturn:
    """Become the same command as it is installed now."""
    kept = {one.getsockname()[1]: one for one in sockets}
    for one in kept.values():
        one.set_inheritable(True)
    os.environ[SOCKETS] = ",".join(f"{port}={one.fileno()}" for port, one in kept.items())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the very command that runs


def inherited() -> dict[int, socket.socket]:
    """The listening sockets that the process before left open, by port. Whoever asks has to close what it does not use."""
    found = {}
    for pair in os.environ.pop(SOCKETS, "").split(","):
        port, _, number = pair.partition("=")
        with contextlib.suppress(OSError, ValueError):
            one = socket.socket(fileno=int(number))
            if one.getsockname()[1] == int(port):
                found[int(port)] = one
            else:
                one.detach()
    return found


def offer(state: Path, name: str, listener: socket.socket) -> None:
    """Hand our socket, for as long as we live, to whoever runs as `up`; where the disk allows no such door, do without.

    Work of the user's code runs as the same person: it could answer in our place, so only the pid in the run file gets it.
    """
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(state / "run") as folder:
            (folder / f"{name}.sock").unlink(missing_ok=True)
            door.bind(str(folder / f"{name}.sock"))
            (folder / f"{name}.sock").chmod(0o600)
        door.listen(4)
    except OSError:
        door.close()
        return
    threading.Thread(target=_hand_out, args=(door, state, listener), daemon=True).start()


def _hand_out(door: socket.socket, state: Path, listener: socket.socket) -> None:
    while True:
        link, _ = door.accept()
        with link, contextlib.suppress(OSError):
            up = runfiles.read(state, "up")
            if up is not None and up.is_alive and up.pid == _peer(link):
                socket.send_fds(link, [b"1"], [listener.fileno()])


def _peer(link: socket.socket) -> int:
    """The pid at the other end."""
    if sys.platform == "linux":
        pid, _, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return pid
    return link.getsockopt(0, 2)  # SOL_LOCAL, LOCAL_PEERPID


def of_servers(state: Path, servers: Sequence[runfiles.RunFile]) -> dict[int, socket.socket]:
    """The listening socket of servers that outlived their `up`, by port; we must have said that we are `up` now."""
    deadline = time.monotonic() + DOOR_S
    while any(run.is_alive for run in servers):
        with _short(state / "run") as folder:
            for door in sorted(folder.glob("server*.sock")):
                if one := _ask(door):
                    return {one.getsockname()[1]: one}
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)  # it was just born, and has no door yet
    return {}


def _ask(door: Path) -> socket.socket | None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(1.0)
        link.connect(str(door))
        _, numbers, _, _ = socket.recv_fds(link, 1, 1)
        for number in numbers:
            one = socket.socket(fileno=number)
            one.set_inheritable(True)
            one.settimeout(None)
            return one
    return None


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """The folder by a name that is short enough for a socket's address."""
    place = Path(tempfile.mkdtemp())
    try:
        (place / "s").symlink_to(folder)
        yield place / "s"
    finally:
        shutil.rmtree(place, ignore_errors=True)
