"""The story of the loop in six chapters, told only through the doors that a user has: commands, HTTP traffic, files.

Each line appears when it really happened; what is injected is said to be injected; at the end the ledger is asked
whether every chapter really happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gyrostat
from gyrostat.demo import worlds
from gyrostat.demo.traffic import Traffic
from gyrostat.errors import GyrostatError, JobError, UsageError
from gyrostat.ledger.times import span
from gyrostat.terms import Entry, Told

PER_SECOND = 120.0
PATIENCE_S = 480.0
LATER_LABELS = 0.15
"""Share of answers with labels once the new model stands: later trainings need no more rows than the first."""
OVERLAY = """\
# What differs in this demo: a ramp that starts at 25 % and bakes seconds, so that minutes suffice.
models:
  {model}:
    limits: {{latency_p99: {{max: 500ms}}}}    # chapter 4's model runs as plain Python, also on a busy laptop
    gates: {{champion: {{margin: {margin:g}}}}}    # generous: later chapters train on few rows that come again and again
    rollout:
      steps: [25%, 50%]
      bake: {{requests: 60, time: 3s}}
      expires: 1h
      guardrails: {{{metric}: {rail}}}
    retraining: {{triggers: [decay], cooldown: 0s, budget: 40 per day}}
server: {{port: {port}}}
control_room: {{port: {control_port}}}
"""


if TYPE_CHECKING:
    from gyrostat.project import Project


class StoryError(JobError):
    """A chapter did not happen."""

    code = "demo.chapter"


@dataclass
class Stage:
    """Where the story plays: a project, its `up`, and the traffic."""

    folder: Path
    say: Callable[[str], None]
    model: str = ""
    port: int = 0
    control_port: int = 0
    up: subprocess.Popen[bytes] | None = None
    traffic: Traffic | None = None
    began: float = field(default_factory=time.monotonic)

    def command(
        self, *arguments: str, may_refuse: bool = False, where: Path | None = None
    ) -> dict[str, Any]:
        """A command as a user would type it, in JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "gyrostat.cli.main", *arguments, "--json"],
            cwd=where or self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        try:
            answer = json.loads(done.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            answer = {"error": {"message": (done.stderr or done.stdout).strip()[-500:]}}
        if done.returncode not in ((0, 1) if may_refuse else (0,)):
            message = answer.get("error", {}).get("message", "no word")
            raise StoryError(
                f"`gyrostat {' '.join(arguments)}` ended with {done.returncode}: {message}"
            )
        return answer

    def status(self) -> dict[str, Any]:
        """What `gyrostat status --json` says of the one model (read through the same door, without a new process)."""
        return self.project.status().facts["models"][self.model]

    @cached_property
    def project(self) -> Project:
        """The door, as a notebook opens it."""
        return gyrostat.Project(self.folder)

    def entries(self, kind: str, *, after: int = 0) -> list[Any]:
        """Entries of one kind, newest last, from the ledger."""
        return [e for e in self.project.ledger.entries(after=after) if e.kind == kind]

    def wait(
        self, what: str, is_there: Callable[[], Any], *, patience_s: float = PATIENCE_S
    ) -> Any:
        """Until something is there; says now and then what is waited for."""
        began, told = time.monotonic(), time.monotonic()
        while not (found := is_there()):
            if self.up is not None and self.up.poll() is not None:
                raise StoryError(
                    f"`gyrostat up` ended with {self.up.returncode} while waiting for {what}."
                )
            waited_s = time.monotonic() - began
            if waited_s > patience_s:
                raise StoryError(
                    f"Waited {span(waited_s)} for {what}; it did not happen. Look: gyrostat status"
                )
            if time.monotonic() - told > 12:
                told = time.monotonic()
                self.say(f"   ...   waiting for {what}, {span(waited_s)} so far{self._progress()}")
            time.sleep(0.2)
        return found

    def _progress(self) -> str:
        with contextlib.suppress(GyrostatError, KeyError, OSError):
            if waits := self.status().get("waits"):
                return f": {waits}"
        return ""


def tell(
    *,
    data: str | None,
    target: str | None,
    folder: str | None,
    ends: bool,
    say: Callable[[str], None],
) -> Told:
    """Tell the whole story; exit code 0 only if every chapter really happened.

    Raises:
        UsageError: the folder is not empty, or the table is missing.
        StoryError: a chapter did not happen.
    """
    place = (
        Path(folder).resolve() if folder else Path(tempfile.mkdtemp(prefix="gyrostat-")) / "demo"
    )
    if place.exists() and any(place.iterdir()):
        raise UsageError(f"{place} is not empty. Give --folder a new one. Nothing was done.")
    stage = Stage(place, say)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        with table(data) as path:
            chapters = _chapters(stage, path, target or ("quality" if data is None else None))
        took = span(time.monotonic() - stage.began)
        n_entries = stage.project.ledger.position()
        line = f"All six chapters happened (checked from the ledger, {n_entries} entries, chain whole).  {took}"
        say(line)
        if not ends:
            say(
                f"The control room stays open: http://127.0.0.1:{stage.control_port}   Ctrl-C ends it"
            )
            with contextlib.suppress(KeyboardInterrupt):
                assert stage.up is not None
                stage.up.wait()
        facts = {
            "chapters": chapters,
            "entries": n_entries,
            "folder": str(place),
            "seconds": time.monotonic() - stage.began,
        }
        return Told((), facts)
    finally:
        end(stage)


def _interrupted(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def table(data: str | None) -> Iterator[Path]:
    """The table of the story: the user's, or the red wines that ship with the package."""
    if data is not None:
        yield Path(data).resolve()
        return
    with resources.as_file(resources.files("gyrostat.demo") / "winequality-red.csv") as path:
        yield path


def start_up(stage: Stage) -> None:
    """`gyrostat up` in the project's folder, as a user would start it."""
    with (stage.folder / "up.log").open("ab") as log:
        stage.up = subprocess.Popen(
            [sys.executable, "-m", "gyrostat.cli.main", "up"],
            cwd=stage.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def end(stage: Stage) -> None:
    """Stop the traffic and `up`."""
    if stage.traffic is not None:
        stage.traffic.stop()
    if stage.up is not None and stage.up.poll() is None:
        stage.up.send_signal(signal.SIGINT)
        try:
            stage.up.wait(20)
        except subprocess.TimeoutExpired:
            stage.up.kill()


def _chapters(stage: Stage, table: Path, target: str | None) -> list[dict[str, Any]]:
    one = _made_and_released(stage, table, target)
    two, moved = _the_world_moves(stage)
    three = _the_loop_answers(stage, moved)
    four = _a_bad_candidate(stage)
    five = _somebody_asks(stage)
    six = _somebody_pulls_the_plug(stage)
    checked = stage.command("audit", "verify")
    if not checked.get("is_whole"):
        raise StoryError(f"The ledger's chain is broken: {checked}")
    return [one, two, three, four, five, six]


def _made_and_released(stage: Stage, table: Path, target: str | None) -> dict[str, Any]:
    began = time.monotonic()
    stage.folder.parent.mkdir(parents=True, exist_ok=True)
    stage.say("1  A model is made and released")
    arguments = [
        "init",
        str(stage.folder),
        "--data",
        str(table),
        *(["--target", target] if target else []),
    ]
    made = stage.command(*arguments, where=stage.folder.parent)
    stage.model = made["model"]
    stage.port, stage.control_port = free(8080), free(7007)
    metric, sides = next(iter(made["limits"].items()))
    limit = next(iter(sides.values()))
    margin, rail = (0.2 * limit, "x1.3") if "max" in sides else (0.1, "+10pp")
    overlay = OVERLAY.format(
        model=stage.model,
        port=stage.port,
        control_port=stage.control_port,
        margin=margin,
        metric=metric,
        rail=rail,
    )
    (stage.folder / "config" / "dev.yaml").write_text(overlay, encoding="utf-8")
    stage.say(
        f"   project    {stage.folder}   {made['n_rows']:,} rows, target {made['target']}, {made['task']}"
    )
    start_up(stage)

    def released() -> list[Entry]:
        _stop_where_it_ended(stage)
        _approve(stage, "as you would")
        return stage.entries("promoted")

    promoted = stage.wait("version 1 to be champion", released)[-1]
    stage.wait(
        "the model server to answer with it", lambda: stage.status()["champion"].get("applied")
    )
    took = span(time.monotonic() - began)
    quality = stage.status()["champion"]
    stage.say(f"   released   version 1 is champion after {took}: {quality['words']}")
    return {"title": "A model is made and released", "entry": promoted.position}


def _stop_where_it_ended(stage: Stage) -> None:
    for kind in ("gave_up", "gate_failed", "checks_failed", "staging_failed"):
        for entry in stage.entries(kind):
            raise StoryError(
                f"The first candidate was not released: {kind} {entry.body.get('cause', '')} ({entry.ref})"
            )


def _approve(stage: Stage, how: str) -> None:
    """Say yes to whatever waits for a person."""
    for ask in stage.status()["needs_you"]:
        if ask["what"] in ("undecided", "approval", "expired"):
            stage.say(f"   approved   by this demo, {how}: {ask['why']}")
            stage.command("approve", ask["ref"], "--reason", f"the demo, {how}", may_refuse=True)


def _the_world_moves(stage: Stage) -> tuple[dict[str, Any], worlds.Shift]:
    stage.say("2  The world moves")
    table = stage.project.rows(stage.model, side="heldout")
    shift = worlds.invent(table)
    rows = list(zip(table.records, table.labels, strict=True))
    stage.traffic = Traffic(stage.port, stage.model, rows, per_second=PER_SECOND)
    traffic = stage.traffic
    noise = worlds.Noise.of(table)
    traffic.world = noise.apply
    traffic.start()
    stage.wait("normal traffic", lambda: traffic.counts().labelled >= 150)
    before = traffic.counts()
    stage.say(
        f"   normal     {before.answered:,} predictions, {before.failed} failed, {before.labelled:,} labelled"
    )
    began = time.monotonic()
    after = stage.project.ledger.position()
    traffic.world = lambda row, dice: shift.apply(noise.apply(row, dice), dice)
    stage.say(f"   injected   {shift.words}")

    def drifted() -> str:
        found = [d for d in stage.status()["inputs"]["drift"] if d["is_shown"]]
        return ", ".join(d["column"] for d in found[:3])

    columns = stage.wait("drift to be seen", drifted)
    seen = stage.traffic.counts().answered - before.answered
    stage.say(
        f"   drift      in {columns} seen after {seen:,} predictions ({span(time.monotonic() - began)})"
    )
    decay = stage.wait(
        "decay to be shown by labels",
        lambda: [e for e in stage.entries("triggered", after=after) if e.body["by"] == "decay"],
    )[0]
    labelled = stage.traffic.counts().labelled - before.labelled
    stage.say(
        f"   decay      shown after {labelled:,} labels ({span(time.monotonic() - began)}): {decay.body.get('why', '')}"
    )
    return {"title": "The world moves", "entry": decay.position}, shift


def _the_loop_answers(stage: Stage, shift: worlds.Shift) -> dict[str, Any]:
    began = time.monotonic()
    stage.say("3  The loop answers")
    version = stage.status()["champion"]["version"]
    promoted = _follow(stage, began_after=stage.entries("triggered")[-1].position, version=version)
    stage.say(
        f"   champion   version {stage.status()['champion']['version']} answers everything, {span(time.monotonic() - began)}"
    )
    assert stage.traffic is not None
    stage.traffic.label_share = LATER_LABELS
    return {"title": "The loop answers", "entry": promoted.position, "shift": shift.words}


def _follow(stage: Stage, *, began_after: int, version: int) -> Any:
    """From a trigger to the promotion of a newer version, telling each step once; undecided ones are approved aloud."""
    told: set[int] = set()
    tells = {
        "snapshotted",
        "trained",
        "packed",
        "gate_passed",
        "staging_started",
        "advanced",
        "canary_started",
    }

    def look() -> Any:
        for entry in stage.project.ledger.entries(after=began_after):
            if entry.position in told:
                continue
            told.add(entry.position)
            if entry.kind in tells:
                stage.say(f"   {stage.project.words(entry)}")
            if entry.kind in (
                "gate_failed",
                "gave_up",
                "checks_failed",
                "staging_failed",
                "regressed",
                "expired",
            ):
                raise StoryError(f"{entry.kind} in {entry.stream}: {stage.project.words(entry)}")
            if entry.kind == "promoted" and stage.status()["champion"]["version"] > version:
                return entry
        _approve(stage, "as you would")
        return None

    return stage.wait("the candidate to take over", look)


def _a_bad_candidate(stage: Stage) -> dict[str, Any]:
    assert stage.traffic is not None
    stage.say("4  A bad candidate")
    after, good = stage.project.ledger.position(), stage.status()["champion"]["version"]
    source = stage.folder / "src" / "train.py"
    honest = source.read_text(encoding="utf-8")
    strange = worlds.strange_rows(stage.project.rows(stage.model, side="heldout"))
    stage.say(f"   injected   {strange.words}")
    source.write_text(honest + strange.code, encoding="utf-8")
    try:
        stage.command(
            "run", "--no-wait", "--key", "demo-bad", "--reason", "the demo's bad candidate"
        )
        moved = stage.traffic.world
        stage.wait("the bad candidate to take traffic", lambda: _answers(stage, after))
        before, began = stage.traffic.counts(), time.monotonic()
        stage.traffic.world = lambda row, dice: strange.apply(moved(row, dice), dice)
        regressed = stage.wait("its rollback", lambda: stage.entries("regressed", after=after))[0]
        stage.wait("the champion to answer alone", lambda: len(stage.status()["arms"]) == 1)
        felt = stage.traffic.counts()
        stage.traffic.world = moved
    finally:
        source.write_text(honest, encoding="utf-8")
    if stage.status()["champion"]["version"] != good:
        raise StoryError("The bad candidate became champion.")
    stage.say(
        f"   back       by itself after {span(time.monotonic() - began)} of such traffic: {regressed.body['cause']}; "
        f"{felt.failed - before.failed} of {felt.sent - before.sent:,} requests felt it"
    )
    return {"title": "A bad candidate", "entry": regressed.position}


def _answers(stage: Stage, after: int) -> bool:
    for entry in stage.project.ledger.entries(after=after):
        if entry.kind in ("gate_failed", "gave_up", "checks_failed", "staging_failed", "expired"):
            raise StoryError(f"The candidate was not released: {stage.project.words(entry)}")
    _approve(stage, "as a hasty person would")
    return any(arm["role"] == "candidate" and arm["share"] > 0 for arm in stage.status()["arms"])


def _somebody_asks(stage: Stage) -> dict[str, Any]:
    assert stage.traffic is not None
    stage.say("5  Somebody asks")
    prediction = stage.traffic.counts().last_id
    ref = f"prediction/{stage.model}/{prediction}"
    told = stage.wait(
        "the prediction to be found in the log", lambda: _why(stage, ref), patience_s=15
    )
    chain = told["chain"]
    for link in chain:
        stage.say(f"   {link['what']:10} {link['words']}")
    wanted = {"prediction", "model", "trained", "data", "gates", "release"}
    if missing := wanted - {link["what"] for link in chain}:
        raise StoryError(f"`gyrostat why {ref}` leaves out: {', '.join(sorted(missing))}")
    return {"title": "Somebody asks", "ref": ref}


def _why(stage: Stage, ref: str) -> dict[str, Any] | None:
    try:
        return stage.command("why", ref)
    except StoryError:
        return None


def _somebody_pulls_the_plug(stage: Stage) -> dict[str, Any]:
    stage.say("6  Somebody pulls the plug")
    after, version = stage.project.ledger.position(), stage.status()["champion"]["version"]
    stage.command("run", "--no-wait", "--key", "demo-plug", "--reason", "the demo's last candidate")
    stage.wait("a canary to stand in traffic", lambda: _answers(stage, after))
    pid = stage.project.processes()["loop"].pid
    os.kill(pid, signal.SIGKILL)
    stage.say(f"   kill -9    of the loop (pid {pid}) in the middle of a canary")
    stage.wait(
        "the loop to be started again",
        lambda: (new := stage.project.processes().get("loop")) is not None and new.pid != pid,
    )
    promoted = _follow(stage, began_after=after, version=version)
    twice = _twice(stage, after)
    if twice:
        raise StoryError(f"Done twice after the kill: {twice}")
    stage.say("   went on    started again, finished the same release; nothing was done twice")
    return {"title": "Somebody pulls the plug", "entry": promoted.position}


def _twice(stage: Stage, after: int) -> str:
    once = (
        "run_opened",
        "snapshotted",
        "trained",
        "packed",
        "offered",
        "staging_started",
        "canary_started",
        "promoted",
    )
    seen: set[tuple[str, str]] = set()
    for entry in stage.project.ledger.entries(after=after):
        if entry.kind in once:
            if (entry.stream, entry.kind) in seen:
                return f"{entry.kind} in {entry.stream}"
            seen.add((entry.stream, entry.kind))
    return ""


def free(port: int) -> int:
    """The usual port if it is free, else one that is."""
    for wanted in (port, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            return probe.getsockname()[1]
    raise UsageError("No port is free on 127.0.0.1.")
