"""Which process a pid means: pids are used again and clocks are set, so neither a pid nor a time alone tells."""

from __future__ import annotations

import sys
from pathlib import Path


def birth(pid: int) -> str:
    """What no other process of this pid has; empty where none runs. Later births are greater, as texts.

    On Linux it is the kernel's tick, which no clock moves: the start time that psutil computes from it follows the wall clock.
    """
    if sys.platform != "linux":
        return _by_time(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The name stands in brackets and may hold anything, so what follows is counted from its end.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else f"{boot}:{int(fields[18]):020}"


def is_living(pid: int, born: str) -> bool:
    """Whether the process of this birth runs still; of an older release, which did not say: whether any of this pid does."""
    now = birth(pid)
    return bool(now) and born in ("", now)


def _by_time(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return f"{process.create_time():020.2f}"
    except psutil.Error:
        return ""
