"""Puts a head where it was declared to be kept, and reads it from there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from gyrostat.adapters.anchors.settings import FileAnchor, GitAnchor, Place, WebAnchor
from gyrostat.adapters.notify.address import UndeliveredError
from gyrostat.adapters.notify.deliver import Secret, post

GIT_S = 60.0


def keep(place: Place, line: dict[str, Any], *, project: Path, secret: Secret) -> None:
    """Keep one head.

    Raises:
        UndeliveredError: it is not kept there, or nobody knows; keeping it twice does no harm.
    """
    raw = json.dumps(line, sort_keys=True, allow_nan=False).encode()
    match place:
        case FileAnchor():
            _append(project / place.path, raw)
        case GitAnchor():
            folder = project / place.path
            name = file_name(line["project"], line["env"])
            if _git(folder, "rev-parse", "--is-inside-work-tree") != "true":
                raise UndeliveredError(f"{place.path} is no work tree of git")
            _append(folder / name, raw)
            _git(folder, "add", "--", name)
            message = f"{line['project']} {line['env']}: entry/{line['position']} {line['hash'][:16]}"  # fmt: skip
            if _git(folder, "status", "--porcelain", "--", name):
                _git(folder, "-c", "user.name=gyrostat", "-c", "user.email=gyrostat@localhost", "-c", "commit.gpgsign=false",
                     "commit", "--quiet", "--no-verify", "-m", message, "--", name)  # fmt: skip
            if place.push:
                _git(folder, "push", "--quiet")
        case WebAnchor():
            post(place.hook, raw, key=line["signature"][:32], secret=secret)


def kept(place: Place, *, project: Path, name: str, env: str) -> str | None:
    """What is kept there, as text; None where it cannot be asked (a webhook).

    Raises:
        UndeliveredError: it cannot be read.
    """
    match place:
        case FileAnchor():
            try:
                return (project / place.path).read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                raise UndeliveredError(f"{place.path} cannot be read ({error.strerror})") from error
        case GitAnchor():
            # What is committed: the work tree is only a way there.
            return _git(project / place.path, "show", f"HEAD:./{file_name(name, env)}") + "\n"
        case WebAnchor():
            return None


def file_name(project: str, env: str) -> str:
    """Of a project's heads in a repository."""
    return f"{project}-{env}.jsonl"


def _append(path: Path, raw: bytes) -> None:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(handle).st_size
            # An append that was torn by a kill or a full disk is closed off, and says nothing.
            is_torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            data = (b"\n" if is_torn else b"") + raw + b"\n"
            if os.write(handle, data) != len(data):
                raise UndeliveredError(f"{path.name} took a part of it only")
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise UndeliveredError(f"{path.name} cannot be written ({error.strerror})") from error


def _git(folder: Path, *arguments: str) -> str:
    # Variables of a git that called us would lead it elsewhere; hooks and prompts are nobody's wish here.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "-c", f"core.hooksPath={os.devnull}", *arguments],
            capture_output=True, text=True, timeout=GIT_S, check=False, stdin=subprocess.DEVNULL,
            env=environ | {"GIT_TERMINAL_PROMPT": "0"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UndeliveredError(f"git {arguments[0]} failed ({type(error).__name__})") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1][:200]
        raise UndeliveredError(f"git {arguments[0]}: {last}")
    return done.stdout.strip()
