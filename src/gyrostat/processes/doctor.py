"""Is this project fit to run? Each part is looked at by itself, so that one that is broken hides no other.

Looks and changes nothing. Every finding that is not `ok` says what to type.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gyrostat_runtime import keys
from gyrostat_runtime.errors import RuntimeFault

from gyrostat import config, observations
from gyrostat.adapters.notify import outbox
from gyrostat.adapters.notify.settings import secrets_of
from gyrostat.errors import BundleError, DamagedError, GyrostatError, UnavailableError
from gyrostat.ledger import times
from gyrostat.ledger.chain import verify
from gyrostat.ledger.sqlite import FIXED, SqliteLedger, probe, why_not_allowed
from gyrostat.loop.stuck import stuck
from gyrostat.processes import anchoring, runfiles
from gyrostat.processes.supervisor import by_whom
from gyrostat.registry import bundles
from gyrostat.training import sandbox

DISK_FAULT, DISK_WARNING = 200_000_000, 2_000_000_000
CLOCK_S = 5.0
SILENT_S = 60.0
RUNS_ONNX = ("gyrostat-runtime", "numpy", "onnxruntime")
RUNS_NATIVE = (
    *RUNS_ONNX, "cloudpickle", "joblib", "lightgbm", "pandas", "polars", "scikit-learn", "scipy", "skops", "torch", "xgboost", "xgboost-cpu",
)  # fmt: skip
"""What a model is run by: a version other than the one it was packed with may answer otherwise."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found."""

    check: str
    answer: Literal["ok", "warning", "fault"]
    what: str
    command: str = ""
    """What to type; empty where nothing is to be done."""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def _ok(check: str, what: str) -> Finding:
    return Finding(check, "ok", what)


def examine(project: Path) -> list[Finding]:
    """Every finding, in the order of what hurts first."""
    try:
        loaded = config.load(project)
    except GyrostatError as error:
        found = [Finding("declaration", "fault", str(error).splitlines()[0], "gyrostat config")]
        # What does not depend on it is looked at all the same, where it is clear which state is meant.
        states = sorted(p for p in (project / ".gyrostat").glob("*") if p.is_dir())
        return found + (_examine(states[0], None) if len(states) == 1 else [])
    found = [_ok("declaration", f"{', '.join(loaded.declaration.models)}; {loaded.digest[:12]}, {loaded.env}")]  # fmt: skip
    if not loaded.state.is_dir():
        return [*found, *_ports(loaded, {}), Finding("state", "warning", "nothing ran here yet", "gyrostat up")]  # fmt: skip
    return found + _examine(loaded.state, loaded)


def _examine(state: Path, loaded: config.Loaded | None) -> list[Finding]:
    running = runfiles.alive(state)
    found = list(_database(state))
    is_open = not any(f.answer == "fault" for f in found)
    looks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("disk", lambda: _disk(state)),
        ("permissions", lambda: _permissions(state)),
        ("keys", lambda: _keys(state)),
        ("bundles", lambda: _bundles(state)),
        ("versions", lambda: _versions(state)),
        ("observations", lambda: _observations(state)),
        ("processes", lambda: _processes(running)),
        ("sandbox", _sandbox),
    ]
    if loaded is not None:
        looks.append(("ports", lambda: iter(_ports(loaded, running))))
        looks.append(("notify", lambda: _notify(loaded)))
        looks.append(("audit", lambda: _audit(loaded)))
    if is_open:
        ledger = SqliteLedger(state / "ledger.db")
        try:
            models = tuple(loaded.declaration.models) if loaded else ()
            for name, look in (
                ("chain", lambda: _chain(ledger)),
                ("clock", lambda: _clock(ledger)),
                ("stuck", lambda: _stuck(ledger, state, models)),
            ):
                found += _looked(name, look)
        finally:
            ledger.close()
    for name, look in looks:
        found += _looked(name, look)
    return found


def _looked(name: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except Exception as error:  # noqa: BLE001 - whatever one look stumbles over is its finding
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return [Finding(name, "fault", f"cannot be looked at: {text}", "gyrostat doctor --debug")]


# ---- facts


def _database(state: Path) -> Iterator[Finding]:
    path = state / "ledger.db"
    if not path.exists():
        yield Finding("database", "fault", f"{path.name} is not there", "gyrostat restore FILE DIR")
        return
    try:
        seen = probe(path)
    except GyrostatError as error:
        yield Finding("database", "fault", str(error), "gyrostat restore FILE DIR")
        return
    if seen["damage"]:
        yield Finding(
            "database", "fault", f"damaged: {seen['damage']}", "gyrostat restore FILE DIR"
        )
    elif not seen["is_writable"]:
        why, _, command = why_not_allowed(path).rpartition(": ")
        why = f"{seen['why']}{'; ' if why else ''}{why}"
        yield Finding("database", "fault", f"cannot be written now: {why}", command or "gyrostat doctor")  # fmt: skip
    else:
        yield _ok(
            "database",
            f"opens, is whole and takes writes; {seen['journal']}, {path.stat().st_size / 1e6:,.1f} MB",
        )
    if seen["version"] < FIXED:
        old = ".".join(map(str, seen["version"]))
        yield Finding(
            "database",
            "warning",
            f"SQLite {old} is older than 3.51.3: the slower rollback journal is used",
            "pip install pysqlite3",
        )


def _chain(ledger: SqliteLedger) -> Iterator[Finding]:
    bad = verify(ledger.entries())
    if bad is None:
        yield _ok("chain", f"{ledger.position():,} entries, whole")
    else:
        yield Finding(
            "chain", "fault", f"entry/{bad} is not what was written", "gyrostat audit verify"
        )


def _clock(ledger: SqliteLedger) -> Iterator[Finding]:
    last, now = ledger.entry(ledger.position()), time.time()
    if last is not None and now < last.at - CLOCK_S:
        ahead = times.span(last.at - now)
        yield Finding("clock", "fault", f"this machine's clock is {ahead} behind the last entry: the ledger's time stands still until then", "timedatectl status")  # fmt: skip
        return
    if now < 1_700_000_000:
        yield Finding("clock", "fault", f"it is not {times.iso(now)}", "timedatectl status")
        return
    yield _ok("clock", "not behind the last entry" if last else "nothing to compare with yet")


def _stuck(ledger: SqliteLedger, state: Path, models: tuple[str, ...]) -> Iterator[Finding]:
    found = stuck(ledger, state, models)
    for one in found:
        yield Finding("stuck", "fault", f"{one.stream}: {one.why}", one.command)
    if not found:
        yield _ok("stuck", "every stream can go on")


# ---- files


def _disk(state: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(state).free
    answer = "fault" if free < DISK_FAULT else "warning" if free < DISK_WARNING else "ok"
    what = f"{free / 1e9:,.1f} GB free"
    if answer == "ok":
        yield _ok("disk", what)
    else:
        command = f"du -sh {state}/* | sort -h"
        yield Finding(
            "disk",
            answer,
            f"{what}; a full disk stops training, the record and logs, not predictions",
            command,
        )


def _sandbox() -> Iterator[Finding]:
    known = sandbox.version()
    if not known:
        what = "this system has no Landlock: a training can write and read whatever its user can"
        yield Finding(
            "sandbox", "warning", what, "run on Linux 5.13 or newer, or as a user of its own"
        )
    elif known < sandbox.HOLDS_SIGNALS:
        what = "trainings are held to their own folder; this kernel's Landlock does not hold their signals"
        yield Finding("sandbox", "warning", what, "run on Linux 6.12 or newer")
    else:
        yield _ok(
            "sandbox",
            "trainings write to their own folder only and read no key; the network is not held",
        )


def _permissions(state: Path) -> Iterator[Finding]:
    wrong = []
    wanted = {
        state / "keys": 0o700, state / "ledger.db": 0o600, state / "keys" / "signing.key": 0o600,
        state / "keys" / "log.key": 0o600,
    }  # fmt: skip
    for path, mode in wanted.items():
        with contextlib.suppress(FileNotFoundError):
            found = stat.S_IMODE(path.stat().st_mode)
            if found & ~mode & 0o777:
                wrong.append((path, mode, found))
    for path, mode, found in wrong:
        yield Finding("permissions", "fault", f"{path.name} is open to others ({found:o})", f"chmod {mode:o} {path}")  # fmt: skip
    others = stat.S_IMODE(state.stat().st_mode) & 0o022
    if others:
        yield Finding(
            "permissions", "fault", f"others may write in {state.name}/", f"chmod go-w {state}"
        )
    if not os.access(state, os.W_OK | os.X_OK):
        yield Finding(
            "permissions", "fault", f"{state.name}/ cannot be written by you", f"ls -ld {state}"
        )
    elif not wrong and not others:
        yield _ok("permissions", "keys and ledger are yours alone")


def _keys(state: Path) -> Iterator[Finding]:
    folder = state / "keys"
    missing = [
        name for name in ("signing.key", "log.key", "keyring.json") if not (folder / name).exists()
    ]
    if missing:
        # They are made by the first `up`; later on, what they signed is already there.
        answer = "fault" if bundles.known(state) else "warning"
        what = f"{', '.join(missing)} missing: bundles cannot be signed or trusted"
        yield Finding("keys", answer, what, "gyrostat up")
        return
    try:
        name = keys.key_id(keys.public_key(keys.private_key(folder)))
        ring = keys.keyring(folder)
        keys.log_key(folder)
    except RuntimeFault as fault:
        yield Finding("keys", "fault", str(fault), "gyrostat restore FILE DIR")
        return
    if name not in ring:
        yield Finding(
            "keys",
            "fault",
            f"the signing key {name} is not trusted here: what it signs is refused",
            "gyrostat keys rotate",
        )
        return
    yield _ok("keys", f"signing key {name}; {len(ring)} trusted")


def _served(state: Path) -> dict[str, list[str]]:
    """Model -> the bundles that its routes name."""
    found = {}
    for path in sorted((state / "routes").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found[path.stem] = [arm["bundle"] for arm in json.loads(path.read_bytes())["arms"]]
    return found


def _bundles(state: Path) -> Iterator[Finding]:
    ring, n, is_right = keys.keyring(state / "keys"), 0, True
    for model, named in _served(state).items():
        for digest in named:
            n += 1
            try:
                bundles.verify(state, digest, ring)
            except BundleError as error:
                is_right = False
                yield Finding(
                    "bundles", "fault", f"{model}: {error}", f"gyrostat roll-back {model}"
                )
    if is_right:
        yield _ok(
            "bundles", f"{n} in traffic, unaltered and signed" if n else "none in traffic yet"
        )


def _versions(state: Path) -> Iterator[Finding]:
    n, is_same = 0, True
    for model, named in _served(state).items():
        for digest in named:
            with contextlib.suppress(OSError, GyrostatError):
                manifest = bundles.manifest(state, digest)
                packed = _lock(
                    bundles.path(state, digest)
                    / manifest.environment.get("file", "environment.txt")
                )
                n += 1
                runs = RUNS_ONNX if manifest.flavour == "onnx" else RUNS_NATIVE
                other = [f"{name} {_installed(name) or 'missing'} (packed with {packed[name]})" for name in runs if name in packed and packed[name] != _installed(name)]  # fmt: skip
                if other:
                    is_same = False
                    answer = "warning" if manifest.flavour == "onnx" else "fault"
                    fix = " ".join(
                        f"{name}=={packed[name]}"
                        for name in runs
                        if name in packed and packed[name] != _installed(name)
                    )
                    yield Finding(
                        "versions",
                        answer,
                        f"{model}, bundle {digest[:12]}: {', '.join(other)}",
                        f"pip install {fix}",
                    )
    if is_same:
        yield _ok(
            "versions",
            f"{n} bundles in traffic run on what they were packed with"
            if n
            else "nothing in traffic yet",
        )


def _lock(path: Path) -> dict[str, str]:
    pairs = (line.partition("==") for line in path.read_text().splitlines())
    return {name: version for name, _, version in pairs}


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _observations(state: Path) -> Iterator[Finding]:
    n, is_whole = 0, True
    for folder in sorted((state / "observations").glob("*/")):
        try:
            n += sum(1 for _ in observations.read(folder))
        except DamagedError as error:
            is_whole, name = False, error.facts["file"]
            yield Finding("observations", "fault", str(error), f"mv {state / name} {state / name}.damaged")  # fmt: skip
    if is_whole:
        yield _ok("observations", f"{n:,} lines, whole")


# ---- what runs


def _processes(running: dict[str, runfiles.RunFile]) -> Iterator[Finding]:
    from gyrostat import __version__

    if "up" not in running:
        left = ", ".join(sorted(running))
        what = (
            f"`gyrostat up` does not run{f', but {left} does' if left else ''}: nothing is decided"
        )
        yield Finding("processes", "warning", what, "gyrostat up")
        return
    kinds = ("loop", "monitor", "control", "server")
    gone = [kind for kind in kinds if not any(name.startswith(kind) for name in running)]
    if gone:
        yield Finding(
            "processes", "warning", f"{', '.join(gone)} does not run just now", "gyrostat doctor"
        )
    for name in runfiles.of_an_earlier_up(running):
        yield Finding(
            "processes", "warning",
            f"{name} of an earlier `gyrostat up` still answers: the new server cannot yet (see run/server*.log)", "gyrostat status",
        )  # fmt: skip
    other = {run.release for run in running.values()} - {__version__}
    if other:
        yield Finding(
            "processes",
            "warning",
            f"`up` is of release {', '.join(sorted(other))}, this is {__version__}",
            "gyrostat up",
        )
    if not gone and not other:
        yield _ok("processes", ", ".join(sorted(running)))


def _ports(loaded: config.Loaded, running: dict[str, runfiles.RunFile]) -> list[Finding]:
    own = {run.port for run in running.values() if run.port}
    wanted = {
        "server.port": loaded.declaration.server.port,
        "control_room.port": loaded.declaration.control_port,
    }
    found = []
    for setting, port in wanted.items():
        if port in own:
            found.append(_ok("ports", f"{port} ({setting}) is held by our own `gyrostat up`"))
        elif not _is_free(port):
            # `up --port` may run elsewhere; then this port is nobody's business.
            answer = "warning" if "up" in running else "fault"
            found.append(
                Finding(
                    "ports",
                    answer,
                    f"{port} ({setting}) is taken{by_whom(port) or ' by somebody else'}",
                    f"lsof -i :{port}",
                )
            )
        else:
            found.append(_ok("ports", f"{port} ({setting}) is free"))
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _notify(loaded: config.Loaded) -> Iterator[Finding]:
    receivers = loaded.declaration.notify
    if not receivers:
        yield Finding(
            "notify",
            "warning",
            "nobody is told when a person is needed",
            "see docs/reliability.md: notify",
        )
        return
    is_well = True
    for receiver in receivers:
        for name in secrets_of(receiver):
            try:
                config.secret(name)
            except UnavailableError as error:
                is_well = False
                yield Finding(
                    "notify",
                    "warning",
                    f"{receiver.label}: {error} (looked for in this shell)",
                    "gyrostat notify test",
                )
        place = outbox.read(outbox.path_of(loaded.state, receiver))
        if place is not None and place.tries:
            is_well = False
            late = times.span(max(0.0, time.time() - place.failed_at))
            yield Finding(
                "notify",
                "fault",
                f"{receiver.label} was not told for {late}: {place.cause}",
                "gyrostat notify test",
            )
        elif place is not None and place.n_left_out:
            is_well = False
            yield Finding(
                "notify",
                "warning",
                f"{receiver.label}: {place.n_left_out} messages were left out",
                "gyrostat notify test",
            )
    if is_well:
        yield _ok("notify", f"{len(receivers)} receivers, nothing owed")


def _audit(loaded: config.Loaded) -> Iterator[Finding]:
    settings, note = loaded.declaration.audit, anchoring.last(loaded.state)
    if not settings.anchors:
        yield _ok("audit", "no head is kept elsewhere: a cut end would not be seen (audit.anchor)")
    elif note.get("failed"):
        for label, why in note["failed"].items():
            yield Finding(
                "audit", "fault", f"no head is kept in {label}: {why}", "gyrostat audit anchor"
            )
    elif not note:
        yield Finding("audit", "warning", "no head was kept yet", "gyrostat audit anchor")
    else:
        yield _ok("audit", f"entry/{note['position']} is kept elsewhere")
