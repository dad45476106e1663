"""What `up` starts for a declaration, and how a terminal follows the loop: lines that appear when they really happened."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gyrostat import config
from gyrostat.errors import GyrostatError, TakenError
from gyrostat.ledger import times, words
from gyrostat.loop import overview, reconcile
from gyrostat.processes import runfiles
from gyrostat.processes.supervisor import MODULES, Child
from gyrostat.retraining import life as retraining
from gyrostat.rollout.states import COMPARED
from gyrostat.terms import Draft, Entry, Told

if TYPE_CHECKING:
    from gyrostat.ledger.sqlite import SqliteLedger

Say = Callable[[str], None]
POLL_S = 0.2
GONE_S, WAIT_S = 5.0, 5.0
"""Between two lines about the same wait."""
MARKS = {
    "passed": "ok",
    "failed": "no",
    "waiting": "wait",
    "running": "",
    "warn": "wait",
    "plain": "",
}


class Opened(Protocol):
    """The part of the door that is needed here."""

    root: Path

    @property
    def state(self) -> Path:
        """Where everything is kept."""
        ...

    @property
    def loaded(self) -> config.Loaded:
        """The declaration in force."""
        ...

    @property
    def ledger(self) -> SqliteLedger:
        """The one truth."""
        ...

    def processes(self) -> dict[str, Any]:
        """What runs, by name."""
        ...


def children(
    project: Opened,
    server: socket.socket,
    control: socket.socket,
    actor: str,
    generation: str = "",
) -> list[Child]:
    """The processes of `up`: servers first, so that what is on disk answers at once.

    Args:
        generation: What tells our servers from those of an earlier `up` that still answer.
    """
    declaration, state = project.loaded.declaration, str(project.state)
    port = server.getsockname()[1]
    serving = {
        "server": asdict(declaration.server) | {"port": port},
        "models": {name: asdict(m.serving) for name, m in declaration.models.items()},
    }
    watched = {
        "models": {
            name: {
                "limits": [{k: v for k, v in asdict(limit).items() if v is not None} for limit in m.gates.limits],
                "monitoring": asdict(m.monitoring), "retraining": asdict(m.retraining),
            }
            for name, m in declaration.models.items()
        }
    }  # fmt: skip
    root = str(project.root)
    servers = [
        Child(
            name, MODULES["server"],
            ["--state", state, "--worker", name, "--fd", str(server.fileno()), "--settings", json.dumps(serving)], (server,),
        )
        for name in (f"server-{n}{generation}" for n in range(declaration.server.workers))
    ]  # fmt: skip
    return [
        *servers,
        Child(
            "monitor",
            MODULES["monitor"],
            ["--state", state, "--settings", json.dumps(watched)],
        ),
        Child("loop", MODULES["loop"], ["--project", root, "--actor", actor]),
        Child(
            "control",
            MODULES["control"],
            ["--project", root, "--fd", str(control.fileno()), "--actor", actor],
            (control,),
        ),
    ]


def narrate(project: Opened, after: int | None, say: Say, stop: threading.Event) -> None:
    """Tell what happens after a position (None: where the ledger ends once it can be read), a line each, until `stop`."""
    while not stop.wait(POLL_S):
        with contextlib.suppress(GyrostatError):
            if after is None:
                after = project.ledger.position()
            for entry in project.ledger.entries(after=after):
                after = entry.position
                if words.is_news(entry):
                    say(_line(entry))
                    if entry.kind == "approval_asked":
                        say(f"          gyrostat approve {entry.stream.split('/')[1]}")


def _line(entry: Entry) -> str:
    parts = entry.stream.split("/")
    who = parts[1] if len(parts) > 1 else ""
    run = f" {entry.stream}" if parts[0] == "run" else ""
    return f"{times.local(entry.at)}  {who:6}{run} {words.words(entry).text}"


def run(
    project: Opened,
    model: str,
    *,
    wait: bool,
    key: str | None,
    refused_ok: bool,
    reason: str,
    actor: str,
    say: Say,
    offered: str = "",
) -> Told:
    """Ask for a candidate and follow it: with `up`, to the end of its release; without, the loop runs here to its offer."""
    from gyrostat.loop.declare import declare

    ledger, is_up = project.ledger, "loop" in project.processes()
    declare(ledger, project.loaded, actor)
    name = key or f"{actor}/{uuid.uuid4().hex}"
    stream = f"retraining/{model}"
    body = {"by": "person", "why": reason, "actor": actor}
    body |= {"offered": offered} if offered else {}
    asked = ledger.append(
        stream,
        Draft("triggered", ledger.now(), actor, body=body, key=f"run/{name}"),
        expect_seq=None,
        fence=None,
    )
    if not is_up and not wait:
        say("The loop does not run; the run starts when it does: gyrostat up")
    if not wait:
        if is_up:
            _wait_for_run(project, model, asked, patience_s=10)
        opened = _run_of(project, model, asked)
        return Told(
            (f"{opened or 'a run'}, asked by {actor} ({asked.ref})",),
            {"run": opened, "entry": asked.ref, "is_followed": False},
        )
    with contextlib.nullcontext() if is_up else _own_loop(project, model, actor):
        return _follow(project, model, asked, actor, say, is_up=is_up, refused_ok=refused_ok)


def _run_of(project: Opened, model: str, asked: Entry) -> str | None:
    """The run that serves this trigger: the first that was opened after it."""
    opened = [
        e for e in project.ledger.tail(asked.stream, after_seq=asked.seq) if e.kind == "run_opened"
    ]
    return opened[0].outputs[0] if opened else None


def _why_it_waits(project: Opened, model: str) -> str:
    """What keeps a run that was asked for from being opened; empty: nothing does."""
    ledger = project.ledger
    facts = reconcile.facts_of(ledger, f"retraining/{model}")
    terms = project.loaded.declaration.models[model].retraining
    free_at = retraining.frees_at(facts, terms, ledger.now())
    if facts.state is retraining.State.RUNNING:
        return f"{retraining.run_stream(facts, facts.run)} is open; this one starts after it."
    if free_at:
        return (
            f"the budget of {terms.budget} runs is used up (retraining.budget in config/config.yaml); this one starts at "
            f"{times.local(free_at)}, or as soon as the budget is raised."
        )
    return ""


def _wait_for_run(project: Opened, model: str, asked: Entry, *, patience_s: float) -> str | None:
    deadline = time.monotonic() + patience_s
    while (found := _run_of(project, model, asked)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def _own_loop(project: Opened, model: str, actor: str) -> Iterator[None]:
    """The loop in this process, for retraining and runs only: a release needs servers, so it waits for `up`."""
    from gyrostat_runtime import keys

    from gyrostat.loop.assemble import Declarations, LocalWorld
    from gyrostat.loop.declare import declare

    lock = runfiles.Lock(project.state, "loop")
    if not lock.take():
        raise TakenError(
            "Another loop runs in this project (a second `gyrostat run`?). Nothing was started; ask again when it is over."
        )
    project.ledger.expire_leases()
    keys.create_keys(project.state / "keys")
    watched = config.Watched(project.root)
    declarations = Declarations(lambda: watched.loaded)
    world = LocalWorld(project.root, project.state, declarations)
    runner = reconcile.Runner(
        project.ledger, world, declarations.terms(), lambda: [model], f"run-{os.getpid()}-{int(time.time())}", poll_s=0.1,
        only=lambda stream: stream.partition("/")[0] in ("retraining", "run"),
    )  # fmt: skip
    stop = threading.Event()

    is_owed = False

    def tick() -> bool:
        nonlocal is_owed
        is_owed |= watched.has_changed()
        if is_owed:
            with contextlib.suppress(
                GyrostatError, OSError
            ):  # the ledger is busy: at the next look
                declare(project.ledger, watched.loaded, actor)
                is_owed = False
        return False

    thread = threading.Thread(target=runner.run, args=(tick, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        lock.release()


class _Alive:
    """Says once that the loop has ended while somebody follows it; else they would wait without a word."""

    def __init__(self, project: Opened, say: Say | None) -> None:
        self.project, self.say = project, say
        self.due = time.monotonic() + GONE_S

    def look(self) -> None:
        """Look now and then; a loop that was killed is back within a second."""
        if self.say is None or time.monotonic() < self.due:
            return
        self.due = time.monotonic() + GONE_S
        if not self.project.processes().keys() & {"loop", "up"}:
            self.say(
                "  wait  `gyrostat up` has ended; this goes on when it is started again   Ctrl-C leaves it"
            )
            self.say = None


def _follow(
    project: Opened,
    model: str,
    asked: Entry,
    actor: str,
    say: Say,
    *,
    is_up: bool,
    refused_ok: bool,
) -> Told:
    ledger, stream, after, began = project.ledger, None, 0, time.monotonic()
    told_wait, alive = "", _Alive(project, say if is_up else None)
    while stream is None:
        stream = _run_of(project, model, asked)
        if stream is None:
            skipped = [
                e for e in ledger.tail(asked.stream, after_seq=asked.seq) if e.kind == "skipped"
            ]
            if skipped:
                return Told(
                    (f"no    skipped: {skipped[0].body.get('cause', '')}",),
                    {"run": None, "outcome": "skipped"},
                    0 if refused_ok else 1,
                )
            waits = _why_it_waits(project, model) if time.monotonic() - began > WAIT_S else ""
            if waits and waits != told_wait:
                told_wait = waits
                say(f"  wait  {waits}   Ctrl-C leaves it asked for")
            alive.look()
            time.sleep(POLL_S)
    say(f"{stream}, asked by {actor}")
    last = began
    while True:
        for entry in ledger.tail(stream, after_seq=after):
            after = entry.seq
            if words.is_news(entry):
                area, text, mark = words.words(entry)
                say(
                    f"  {MARKS[mark]:4}  {area:9} {text}   {times.span(max(0.0, time.monotonic() - last))}"
                )
                last = time.monotonic()
            match entry.kind:
                case "checks_failed" | "gate_failed" | "rejected" | "cancelled":
                    lines = [f"{stream}: not released. gyrostat why {stream}"]
                    if entry.kind == "checks_failed":
                        lines.append(f"See them all: gyrostat data report {entry.outputs[0][:7]}")
                    return Told(
                        tuple(lines),
                        {
                            "run": stream,
                            "outcome": entry.kind,
                            "cause": entry.body.get("cause", ""),
                        },
                        0 if refused_ok else 1,
                    )
                case "gave_up":
                    return Told(
                        (f"{stream}: failed. {entry.body.get('cause', '')}",),
                        {"run": stream, "outcome": "failed", "cause": entry.body.get("cause", "")},
                        4,
                    )
                case "gate_undecided":
                    line = f"{stream}: undecided. {entry.body.get('detail', {}).get('needs', '')}   gyrostat approve {stream}, or wait"
                    return Told(
                        (line,), {"run": stream, "outcome": "undecided"}, 0 if refused_ok else 1
                    )
                case "offered":
                    if not is_up:
                        line = (
                            f"{stream}: the candidate is made; its release waits for: gyrostat up"
                        )
                        return Told(
                            (line,),
                            {"run": stream, "outcome": "offered", "bundle": entry.inputs[0]},
                        )
                    return _follow_release(
                        project, model, stream, say, alive, refused_ok=refused_ok
                    )
        alive.look()
        time.sleep(POLL_S)


def _follow_release(
    project: Opened, model: str, run_stream: str, say: Say, alive: _Alive, *, refused_ok: bool
) -> Told:
    ledger, stream, after, offer = project.ledger, f"production/{model}", 0, ""
    said, said_at = "", -WAIT_S
    while True:
        for entry in ledger.tail(stream, after_seq=after):
            after = entry.seq
            if entry.kind == "offered" and entry.body["run"] == run_stream:
                offer = f"{entry.stream}#{entry.seq}"
            if not offer or offer not in entry.inputs:
                continue
            area, text, mark = words.words(entry)
            say(f"  {MARKS[mark]:4}  {area:9} {text}")
            if entry.kind == "promoted":
                f = reconcile.facts_of(ledger, stream)
                version = f.champion.version if f.champion else "?"
                return Told(
                    (f"{run_stream}: version {version} is champion.",),
                    {"run": run_stream, "outcome": "promoted", "version": version},
                )
            if entry.kind in (
                "regressed",
                "refused",
                "expired",
                "superseded",
                "staging_failed",
                "rolled_back",
            ):
                line = f"{run_stream}: not released ({entry.kind.replace('_', ' ')}). gyrostat why {run_stream}"
                return Told(
                    (line,),
                    {
                        "run": run_stream,
                        "outcome": entry.kind,
                        "cause": entry.body.get("cause", ""),
                    },
                    0 if refused_ok else 1,
                )
        f = reconcile.facts_of(ledger, stream)
        wait = ""
        if f.state == "waiting_approval":
            wait = f"  wait  approval  gyrostat approve {model}   Ctrl-C leaves it waiting"
        elif f.state in COMPARED:
            settings = project.loaded.declaration.models[model]
            stands = overview.stands(f, settings, project.state, ledger.now())
            wait = f"  wait  release   {stands}   Ctrl-C leaves it running"
        if wait and wait != said and time.monotonic() - said_at >= WAIT_S:
            say(wait)
            said, said_at = wait, time.monotonic()
        alive.look()
        time.sleep(POLL_S)
