"""What a training may touch, held by the kernel: Linux's Landlock, which needs no rights and no container.

Standard library only, for it is entered by the harness, which may run in another Python. Source: landlock(7).

A process that has entered, and all it starts, for as long as they live:
- writes, makes and removes files only below the folders that were named,
- reads everything but what was named as hidden (the keys),
- sends signals to nobody outside (from Landlock's version 6 on), and cannot look into other processes.

It does not limit the network. Where there is no Landlock (macOS, kernels before 5.13), `version()` is 0 and nothing is held;
`gyrostat doctor` says so.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

CREATE, ADD, RESTRICT = 444, 445, 446
"""Numbers of the system calls, the same on all of Linux's machines."""
PR_SET_NO_NEW_PRIVS = 38
HOLDS_SIGNALS = 6
"""The version from which on signals are held too."""
RULE_PATH_BENEATH, CREATE_VERSION, SCOPE_SIGNAL = 1, 1, 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_AND_REMOVE = sum(1 << bit for bit in range(4, 13))
REFER, TRUNCATE = 1 << 13, 1 << 14
READ = EXECUTE | READ_FILE | READ_DIR
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
DEVICES = ("/dev/null", "/dev/zero", "/dev/shm", "/dev/tty", "/dev/full")  # noqa: S108


def version() -> int:
    """Landlock's version on this machine; 0: there is none."""
    try:
        return max(0, _libc().syscall(CREATE, None, 0, CREATE_VERSION))
    except (OSError, AttributeError):
        return 0


def enter(*, writable: Iterable[Path], hidden: Iterable[Path] = ()) -> bool:
    """Enter for good; whether it is held here.

    Args:
        writable: folders (or files) below which everything may be done; those that are not there are left out.
        hidden: folders whose files cannot be read. Files that are made beside them, or beside a folder above them, after
            this call cannot be read either.

    Raises:
        OSError: the kernel refused; nothing is held.
    """
    known = version()
    if not known:
        return False
    writes = WRITE_FILE | MAKE_AND_REMOVE
    writes |= REFER if known >= 2 else 0
    writes |= TRUNCATE if known >= 3 else 0
    words = [READ | writes, 0, SCOPE_SIGNAL if known >= HOLDS_SIGNALS else 0]
    attribute = struct.pack("=QQQ", *words)[: 8 if known < 4 else 16 if known < 6 else 24]
    libc = _libc()
    ruleset = libc.syscall(CREATE, attribute, len(attribute), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "the sandbox cannot be made")
    try:
        _allow(libc, ruleset, Path("/"), READ_DIR)  # names, also of what is hidden; not contents
        for path in _all_but([p.resolve() for p in hidden]):
            _allow(libc, ruleset, path, READ)
        for place in (*writable, *map(Path, DEVICES)):
            _allow(libc, ruleset, place, READ | writes)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(RESTRICT, ruleset, 0):
            raise OSError(ctypes.get_errno(), "the sandbox cannot be entered")
    finally:
        os.close(ruleset)
    return True


def _all_but(hidden: list[Path]) -> list[Path]:
    """The largest trees that together hold everything but these: Landlock can allow, and not forbid."""
    if not hidden:
        return [Path("/")]
    above = {parent for path in hidden for parent in path.parents}
    found = []
    for folder in sorted(above):
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        # A link is none of them: what it leads to counts where it really is, and it may lead to what is hidden.
        paths = [Path(e.path) for e in entries if not e.is_symlink()]
        found += [path for path in paths if path not in above and path not in hidden]
    return found


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # it is not there, or gone meanwhile
    try:
        if not path.is_dir():
            rights &= OF_A_FILE
        rule = struct.pack("=Qi", rights, place)
        # What is no file or folder (a socket, an anonymous thing) can be in no rule, and needs none.
        libc.syscall(ADD, ruleset, RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(place)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
