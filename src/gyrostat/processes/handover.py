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


def inherited(port: int) -> socket.socket | None:
    """The listening socket of this port that the process before left open."""
    handed = os.environ.get(SOCKETS, "")
    pairs = dict(pair.split("=", 1) for pair in handed.split(",") if "=" in pair)
    with contextlib.suppress(OSError, ValueError, KeyError):
        found = socket.socket(fileno=int(pairs[str(port)]))
        if found.getsockname()[1] == port:
            return found
        found.detach()
    return None
