"""An upgrade under a running `up`: no process of another release is started beside the old ones.

Everything ends in order, and the same command begins again as the new release, with the listening sockets that stayed
open all the while: connections wait some seconds, and none is refused.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import NoReturn

SOCKETS = "GYROSTAT_SOCKETS"
"""`port=file descriptor, ...` for the process that begins again."""


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
