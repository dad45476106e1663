"""Tasks that behave in every way a job can; imported by the child of a runner, never by a test."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gyrostat.errors import JobError, UnavailableError


def answers(folder, spec):
    with (folder / "begun").open("a") as file:
        file.write("once\n")
    return {"made": spec["wanted"], "n": 3}


def refuses(folder, spec):
    raise JobError("the table is gone", rows=3)


def asks_again(folder, spec):
    raise UnavailableError("the disk of the table does not answer")


def fills(folder, spec):
    (folder / "half").mkdir()
    (folder / "half" / "table").write_bytes(b"x" * 1000)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def raises(folder, spec):
    raise ValueError("no such thing\nat all")


def exits(folder, spec):
    sys.exit(3)


def dies(folder, spec):
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(folder, spec):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(3600)


def eats(folder, spec):
    kept = []
    while len(kept) < 200:
        kept.append(b"x" * 20_000_000)
        time.sleep(0.01)


def prints(folder, spec):
    sys.stdout.write("the first line\n")
    for _ in range(100):
        sys.stdout.write("x" * 999_999 + "\n")
    sys.stdout.write("the last line\n")
    return {"made": "talk"}


def swarms(folder, spec):
    for _ in range(1000):
        if os.fork() == 0:
            time.sleep(3600)
            os._exit(0)
    time.sleep(3600)


STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
if os.fork() == 0:
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()}\\n")
time.sleep(3600)
"""


def forks(folder, spec):
    pids = folder / "pids"
    for _ in range(2):
        subprocess.Popen([sys.executable, "-c", STUBBORN, str(pids)])
    while not pids.exists() or len(pids.read_text().splitlines()) < 4:
        time.sleep(0.02)
    return {"made": "children"}


def packs(folder, spec):
    target = folder / "bundle"
    target.mkdir()
    (target / "manifest.json").write_text("{}")
    if spec.get("is_altered"):
        Path(target / "manifest.json").unlink()
    return {"made": "what the child says it is"}


TASKS = {
    name: task
    for name, task in globals().items()
    if callable(task) and getattr(task, "__module__", "") == __name__
} | {"pack": packs}
