"""One seed's story: loops that die, freeze and thaw over the real lives, until the faults stop and it must come to rest."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from gyrostat.errors import AmbiguousError, LedgerError
from gyrostat.gates.settings import GateSettings, UndecidedSettings
from gyrostat.loop import reconcile, run
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.rollout import production
from gyrostat.rollout.settings import BakeSettings, RolloutSettings
from gyrostat.rollout.states import IN_TRAFFIC
from gyrostat.terms import Draft, Entry, Limit, Margin
from gyrostat.testing.memory import MemoryLedger

from .checks import violations
from .mistakes import planted
from .world import SimulatedWorld

HOUR, DAY = 3600.0, 86400.0
FAULTY_S, PATIENCE_S = 6 * DAY, 60 * DAY
P_KILL, P_FREEZE, P_JUMP, P_AMBIGUOUS, P_HINT = 0.012, 0.012, 0.004, 0.06, 0.7
TTL_S = reconcile.TTL_S
RETRAINING = RetrainingSettings(cooldown_s=3 * HOUR, budget=3, budget_window_s=2 * DAY)
GATES = {
    digest: GateSettings(limits=(Limit("rmse", max=0.7),), undecided=UndecidedSettings(DAY, end))
    for digest, end in (("declared-0", "ask"), ("declared-1", "reject"))
}
RUN_TERMS = {digest: run.RunTerms(gates) for digest, gates in GATES.items()}


@dataclass
class Process:
    name: str
    offset_s: float = 0.0
    tasks: dict[str, Task] = field(default_factory=dict)


@dataclass
class Task:
    process: Process
    stream: str
    loop: Iterator[float]
    ticket: int = 0
    is_napping: bool = False


class History(MemoryLedger):
    """Is itself the ledger, so that a commit may fail, linger, and wake the sleepers."""

    def __init__(self, seed: int, bugs: frozenset[str] = frozenset()) -> None:
        self.rng = rng = random.Random(seed)
        self.bugs, self.kills, self.ledger_jump_s, self.rest_at = bugs, 0, 0.0, None
        self.world = SimulatedWorld(rng, bugs)
        super().__init__(clock=lambda: self.world.now + self.ledger_jump_s)
        self.models = [f"model-{n}" for n in range(rng.choice([1, 1, 2]))]
        steps = rng.choice([(0.0, 0.25), (0.25, 0.5), (0.1,)])
        self.rollouts = {
            digest: RolloutSettings(
                approval=rng.choice(["first", "always", "never"]), bake=BakeSettings(60, 1800.0), steps=plan,
                guardrails={"error_rate": Margin("points", 0.01)}, expires_s=4 * DAY, then=rng.choice(["ask", "reject", "hold"]),
            )
            for digest, plan in (("declared-0", steps), ("declared-1", (0.3,)))
        }  # fmt: skip
        self.digest = "declared-0"
        self.truth_at: dict[
            tuple[str, int], dict[str, Any]
        ] = {}  # how good a bundle was when promoted
        self.processes: list[Process] = []
        self.n_born = self.n_outside = 0
        self.requests: list[
            tuple[int, str, int, str]
        ] = []  # (entries in the ledger, stream, routes seq, bundle)
        for model in self.models:
            self.world.sources[model] = sorted(
                rng.uniform(0, FAULTY_S) for _ in range(rng.choice([0, 1, 2, 4]))
            )
        if rng.random() < 0.5:
            self.world.later(rng.uniform(0, FAULTY_S), self.declare)
        for _ in range(rng.randint(1, 3)):
            self.spawn()
        for model in self.models:
            self.plan(model)

    def settings(self, kind: str, digest: str) -> Any:
        if kind == "production":
            return self.rollouts[digest]
        return RETRAINING if kind == "retraining" else RUN_TERMS[digest]

    def terms(self, stream: str, pinned: str) -> tuple[Any, str]:
        digest = self.digest if "not_pinned" in self.bugs else pinned or self.digest
        return self.settings(stream.split("/")[0], digest), digest

    def declare(self) -> None:
        """The declaration changes in the middle of whatever is under way; sometimes it loosens a limit."""
        self.digest = "declared-1"
        for model in self.models:
            if self.rng.random() < 0.5:
                body = {"digest": self.digest, "loosened": ["rmse"], "actor": "kim"}
                self.tell(0, f"production/{model}", "declared", self.digest, body)

    def plan(self, model: str) -> None:
        """What happens to one model, whatever the loop does: triggers, sometimes in storms; people; decay."""
        rng, later = self.rng, self.world.later
        for n in range(rng.randint(1, 5)):
            by, at = rng.choice(["decay", "drift", "person"]), rng.uniform(0, 5 * DAY)
            self.tell(at, f"retraining/{model}", "triggered", f"trigger-{n}", {"by": by})
        if rng.random() < 0.3:
            at = rng.uniform(0, 4 * DAY)
            for n in range(rng.randint(5, 9)):
                self.tell(
                    at + rng.expovariate(1 / (8 * HOUR)),
                    f"retraining/{model}",
                    "triggered",
                    f"storm-{n}",
                    {"by": rng.choice(["decay", "person"])},
                )
        for act, p in (
            (self.stop_run, 0.3),
            (self.roll_back, 0.4),
            (self.roll_back, 0.4),
            (self.offer_again, 0.4),
            (self.decay, 0.4),
            (self.hold, 0.2),
            (self.unbar, 0.2),
            (self.fall_silent, 0.1),
        ):
            if rng.random() < p:
                later(rng.uniform(0, FAULTY_S), lambda act=act: act(model))
        later(rng.expovariate(1 / 14400), lambda: self.ask(model))

    def fall_silent(self, model: str) -> None:
        """Nobody asks this model any more."""
        self.world.silent.add(model)

    def unbar(self, model: str) -> None:
        f = self.facts(f"production/{model}")
        if f.barred:
            body = {"snapshot": self.rng.choice(f.barred), "actor": "kim"}
            self.tell(0, f.stream, "unbar_asked", f"unbar-{self.world.now}", body)
        elif not self.world.is_calm:
            self.world.later(DAY / 2, lambda: self.unbar(model))

    def facts(self, stream: str) -> Any:
        return reconcile.facts_of(self, stream)

    def stop_run(self, model: str) -> None:
        f = self.facts(f"retraining/{model}")
        if f.run:
            self.tell(
                0, f"run/{model}/{f.run}", "stop_asked", f"stop-{self.world.now}", {"actor": "kim"}
            )

    def roll_back(self, model: str) -> None:
        f = self.facts(f"production/{model}")
        known = [o.bundle for o in (f.candidate, f.champion) if o]
        if known:
            bundle = self.rng.choice([b for b in known if production.can_go(f, b)] or known)
            to = self.rng.choice(["", "", *[o.bundle for o in f.released[-2:]]])
            body = {
                "bundle": bundle,
                "to": to,
                "with_data": self.rng.random() < 0.3,
                "actor": "kim",
            }
            self.tell(0, f.stream, "rollback_asked", f"rollback-{self.world.now}", body)
        elif not self.world.is_calm:
            self.world.later(self.rng.expovariate(4 / DAY), lambda: self.roll_back(model))

    def hold(self, model: str) -> None:
        self.tell(
            0,
            f"production/{model}",
            "hold_asked",
            f"hold-{self.world.now}",
            {"actor": "kim", "reason": "audit"},
        )

    def offer_again(self, model: str) -> None:
        """Somebody imports a bundle that was here before; those that regressed are the most tempting."""
        offered = [e for e in self.tail(f"production/{model}") if e.kind == "offered"]
        gone = {
            e.inputs[0] for e in self.tail(f"production/{model}") if e.kind.endswith("regressed")
        }
        if offered:
            offered = [e for e in offered if e.body["bundle"] in gone] or offered
            self.tell(
                0,
                f"production/{model}",
                "offered",
                f"import-{self.world.now}",
                self.rng.choice(offered).body,
            )

    def decay(self, model: str) -> None:
        """The champion turns bad where it stands."""
        f = self.facts(f"production/{model}")
        if f.champion:
            self.world.truth[f.champion.bundle] = {
                **self.world.truth[f.champion.bundle],
                "harm": self.rng.choice(["errors", "quality"]),
            }
        elif not self.world.is_calm:
            self.world.later(DAY / 2, lambda: self.decay(model))

    def ask(self, model: str) -> None:
        """One request, answered by the routes of the moment."""
        seq, value, _ = self.world.router.get(f"production/{model}", (0, {"arms": []}, 0.0))
        arms = [a for a in value["arms"] if not a["shadow"]]
        if arms:
            (arm,) = self.rng.choices(arms, [a["share"] for a in arms])
            self.requests.append((len(self.log), f"production/{model}", seq, arm["bundle"]))
        self.world.later(self.rng.expovariate(1 / 14400), lambda: self.ask(model))

    # outside senders: at least once, late, out of order

    def tell(
        self,
        delay_s: float,
        stream: str,
        kind: str,
        key: str,
        body: dict[str, Any],
        *,
        lag_s: float = HOUR,
    ) -> None:
        for _ in range(self.rng.randint(1, 3)):
            self.n_outside += 1
            self.world.later(
                delay_s + self.rng.expovariate(1 / lag_s),
                lambda: self.deliver(stream, kind, key, body),
            )

    def deliver(self, stream: str, kind: str, key: str, body: dict[str, Any]) -> None:
        try:
            self.append(
                stream,
                Draft(kind, self.world.now, "outside", body=body, key=key),
                expect_seq=None,
                fence=None,
            )
            self.n_outside -= 1
        except AmbiguousError:
            self.world.later(60.0, lambda: self.deliver(stream, kind, key, body))

    # the ledger, with commits that may go wrong

    def append(
        self,
        stream: str,
        draft: Draft,
        *,
        expect_seq: int | None,
        fence: int | None,
        head: Any = None,
        is_last: bool = False,
    ) -> Entry:
        is_step = expect_seq is not None
        if is_step and "no_compare_and_set" in self.bugs:
            expect_seq = None

        def commit() -> Entry:
            n = len(self.log)
            entry = super(History, self).append(
                stream, draft, expect_seq=expect_seq, fence=fence, head=head, is_last=is_last
            )
            if len(self.log) > n:
                self.react(entry)
            return entry

        if self.world.is_calm or self.rng.random() > P_AMBIGUOUS:
            return commit()
        match self.rng.choice(["not", "done", "later"]):
            case "done":
                commit()
            case "later":  # still on its way to the server when the line broke
                self.world.later(self.rng.expovariate(1 / 30), lambda: self.try_late(commit))
        if "append_repeated" in self.bugs and is_step:
            return super().append(stream, draft, expect_seq=None, fence=fence, head=head)
        raise AmbiguousError(f"{stream} {expect_seq}")

    def try_late(self, commit: Any) -> None:
        with suppress(LedgerError):
            commit()

    def react(self, entry: Entry) -> None:
        """Wake who sleeps on this stream (a hint, often lost); people answer what they are asked, after days."""
        rng = self.rng
        if entry.kind == "promoted":
            self.truth_at[entry.stream, entry.seq] = dict(self.world.truth[entry.inputs[0]])
        for process in self.processes:
            for task in (
                process.tasks.get(entry.stream),
                process.tasks.get("*") if entry.seq == 1 else None,
            ):
                if task and task.is_napping and (self.world.is_calm or rng.random() < P_HINT):
                    self.schedule(task, rng.uniform(0, 5))
        if entry.kind in ("approval_asked", "overdue") and rng.random() < 0.9:
            answer = rng.choice(["approved", "approved", "approved", "rejected"])
            body = {
                "bundle": entry.inputs[0],
                "answer": answer,
                "actor": "kim",
                "run": entry.stream,
            }
            self.tell(
                rng.expovariate(1 / rng.choice([DAY / 12, DAY])),
                entry.stream,
                "answered",
                f"answer-{entry.seq}",
                body,
            )
        if entry.kind in ("rolled_back", "held") and rng.random() < 0.8:
            gone = [
                e.inputs[0]
                for e in self.tail(entry.stream)
                if e.kind in ("rolled_back", "regressed", "champion_regressed")
            ]
            for n in range(rng.choice([1, 1, 2])):
                body = {
                    "held": entry.seq,
                    "champion": rng.choice(["", "", *gone[-1:]]),
                    "actor": "lee",
                }
                self.tell(
                    rng.expovariate(1 / rng.choice([5.0, DAY])),
                    entry.stream,
                    "resume_asked",
                    f"resume-{entry.seq}-{n}",
                    body,
                )
        if entry.kind == "resumed" and rng.random() < 0.3:
            self.world.later(
                rng.expovariate(1 / rng.choice([60.0, DAY / 4])),
                lambda: self.roll_back(entry.stream.split("/")[1]),
            )

    # processes

    def spawn(self) -> None:
        self.n_born += 1
        process = Process(f"loop-{self.n_born}", self.rng.uniform(-300, 300))
        self.processes.append(process)
        self.add(process, "*", self.tend(process))

    def add(self, process: Process, stream: str, loop: Iterator[float]) -> None:
        process.tasks[stream] = Task(process, stream, loop)
        self.schedule(process.tasks[stream], self.rng.uniform(0, 5))

    def tend(self, process: Process) -> Iterator[float]:
        declared = [
            f"{kind}/{model}" for model in self.models for kind in ("retraining", "production")
        ]
        while True:
            for stream in dict.fromkeys([*declared, *self.streams()]):
                if stream not in process.tasks:
                    clock = (
                        (lambda: self.world.now + process.offset_s)
                        if "wall_clock" in self.bugs
                        else None
                    )
                    loop = reconcile.keep(
                        stream,
                        name=process.name,
                        ledger=self,
                        world=self.world,
                        terms=self.terms,
                        clock=clock,
                    )
                    self.add(process, stream, loop)
            yield reconcile.POLL_S

    def schedule(self, task: Task, delay_s: float) -> None:
        task.ticket = ticket = next(self.world.ids)
        self.world.later(delay_s, lambda: self.resume(task) if task.ticket == ticket else None)

    def kill(self, process: Process) -> None:
        self.processes.remove(process)
        for task in process.tasks.values():
            task.ticket = -1
        self.world.later(self.rng.expovariate(1 / 120), self.spawn)

    def resume(self, task: Task) -> None:
        """One step of one loop, unless something happens to its process first."""
        if not self.world.is_calm:
            dice = self.rng.random()
            if dice < P_KILL:
                self.kills += 1
                self.kill(task.process)
                return
            if dice < P_KILL + P_FREEZE:
                self.schedule(task, self.rng.uniform(TTL_S, 40 * TTL_S))
                return
            if dice < P_KILL + P_FREEZE + P_JUMP:
                jump_s = self.rng.choice([-DAY, -HOUR, HOUR, DAY])
                if self.rng.random() < 0.3:
                    self.ledger_jump_s += jump_s / 6
                else:
                    task.process.offset_s += jump_s
        pause_s = next(task.loop, None)
        if pause_s is None:  # this life is over
            task.process.tasks.pop(task.stream, None)
            return
        task.is_napping = pause_s >= 1
        self.schedule(task, pause_s + self.rng.uniform(0, 2))

    # the story

    def run(self) -> list[str]:
        with ExitStack() as stack:
            for bug in self.bugs:
                stack.enter_context(planted(bug))
            self.world.later(FAULTY_S, self.calm_down)
            while self.world.now < FAULTY_S + PATIENCE_S and (
                self.rest_at is None or self.world.now < self.rest_at + DAY
            ):
                self.world.now, _, happen = heapq.heappop(self.world.events)
                try:
                    happen()
                except Exception as error:  # noqa: BLE001 - whatever the loop dies of is a finding
                    return [f"loop died: {type(error).__name__} {error}"]
            return violations(self)

    def calm_down(self) -> None:
        self.world.is_calm, self.ledger_jump_s = True, 0.0
        self.watch()

    def watch(self) -> None:
        if (
            self.rest_at is None
            and not self.n_outside
            and all(self.is_resting(self.facts(s)) for s in self.streams())
        ):
            self.rest_at = self.world.now
        self.world.later(6 * HOUR, self.watch)

    def is_resting(self, f: Any) -> bool:
        """Nothing is owed, wanted or under way, except what waits for a person who does not answer."""
        match f.stream.partition("/")[0]:
            case "retraining":
                return f.state == "idle" and not f.wanted and not f.owes
            case "run":
                return f.state == "undecided" and not f.answer and not f.owes
        waits = (f.state == "held" and not f.is_resumed) or (
            f.state == "waiting_approval" and not f.answer
        )
        is_starved = f.state in IN_TRAFFIC and not f.answer and f.model in self.world.silent
        waits = waits or (is_starved and self.rollouts[f.declaration].then != "reject")
        is_shown = self.world.router.get(f.stream, (0, {"arms": []}))[1][
            "arms"
        ] == production.routes(f)
        return (
            is_shown
            and not f.owes
            and not f.unwanted
            and (waits or (f.state == "keeping" and not f.offers))
        )
