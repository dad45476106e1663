"""One seed's story: loops that die, freeze and thaw over the real lives, until the faults stop and it must come to rest."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from heapq import heappop, heappush
from typing import Any

from gyrostat.batching.settings import BatchSettings
from gyrostat.errors import AmbiguousError, LedgerError
from gyrostat.gates.settings import GateSettings, UndecidedSettings
from gyrostat.loop import reconcile, run
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.retraining.triggers import triggers
from gyrostat.rollout import production
from gyrostat.rollout.settings import BakeSettings, RolloutSettings
from gyrostat.rollout.states import IN_TRAFFIC
from gyrostat.schedule import Schedule
from gyrostat.terms import Draft, Entry, Limit, Margin
from gyrostat.testing.memory import MemoryLedger

from . import releases
from .checks import NOWHERE, Watch
from .faults import Dice
from .mistakes import planted
from .world import DAY, HOUR, SimulatedWorld

FAULTY_S, PATIENCE_S = 4 * DAY, 60 * DAY
P_KILL, P_FREEZE, P_JUMP, P_OUTDATED = 0.012, 0.012, 0.004, 0.05
P_STEP = P_KILL + P_FREEZE + P_JUMP
P_AMBIGUOUS, P_FULL, P_BUSY, P_HINT = 0.06, 0.01, 0.002, 0.7
TTL_S = reconcile.TTL_S
ANSWERED = {"approval_asked", "overdue", "rolled_back", "held", "resumed"}
"""By people."""
GATES = {
    digest: GateSettings(limits=(Limit("rmse", max=0.7),), undecided=UndecidedSettings(DAY, end))
    for digest, end in (("declared-0", "ask"), ("declared-1", "reject"))
}
CLOCK_CHANGES = [
    (datetime.fromisoformat(at).timestamp(), zone)
    for at, zone in (
        ("2026-03-29T01:00Z", "Europe/Berlin"), ("2026-10-25T01:00Z", "Europe/Berlin"), ("2026-11-01T06:00Z", "America/New_York"),
        ("2026-10-03T15:30Z", "Australia/Lord_Howe"), ("2026-06-01T00:00Z", "Asia/Seoul"),
    )
]  # fmt: skip
BATCHES = {"nightly": "30 2 * * *", "often": "15 */12 * * *"}
P_BATCHES = 0.12
"""Of histories in which tables are answered on schedules; the others are told as if there were none."""
CRONS = [("30 2 * * *",), ("15 */12 * * *", "0 2 * * sun")]
RUN_TERMS = {digest: run.RunTerms(gates) for digest, gates in GATES.items()}


@dataclass(slots=True, eq=False)
class Process:
    name: str
    release: int
    offset_s: float = 0.0
    tasks: dict[str, Task] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Task:
    process: Process
    stream: str
    loop: Iterator[float]
    ticket: int = 0
    is_napping: bool = False


class History(MemoryLedger):
    """Is itself the ledger, so that a commit may fail, linger, and wake the sleepers."""

    def __init__(
        self, seed: int, bugs: frozenset[str] = frozenset(), *, only: Set[str] | None = None
    ) -> None:
        """`only`: told again with no other misfortune than these names of `dice.struck`."""
        rng = random.Random(seed)
        self.jitter = random.Random(f"jitter of {seed}").random
        self.seed, self.bugs, self.rest_at = seed, bugs, None
        self.ledger_jump_s = self.unscheduled_at = 0.0
        self.dice = Dice(seed, only)
        self.newest_release = releases.THIS
        self.watch = Watch(self)
        self.clock_change, zone = rng.choice(CLOCK_CHANGES)
        self.began_at = self.clock_change - rng.uniform(DAY, 5 * DAY)
        self.world = SimulatedWorld(self.dice, self.watch, bugs, now=self.began_at)
        self.world.lease_of = lambda stream: self.leases.get(stream, ("", 0, 0.0))[1]
        super().__init__(clock=lambda: self.world.now + self.ledger_jump_s)
        self.models = [f"model-{n}" for n in range(rng.choice([1, 1, 1, 1, 2, 2, 3]))]
        self.release = rng.choice([releases.THIS, releases.NEXT])
        self.upgrades = sorted(rng.uniform(0, FAULTY_S) for _ in range(rng.choice([0, 0, 1, 2, 3])))
        if self.upgrades:
            self.newest_release = releases.NEXT
        else:
            self.release = releases.THIS
        self.retrainings = {
            digest: RetrainingSettings(
                cooldown_s=3 * HOUR, budget=3, budget_window_s=2 * DAY,
                schedules=tuple(Schedule(cron, zone) for cron in rng.choice([(), (), (), (), (), *CRONS])),
            )
            for digest in ("declared-0", "declared-1")
        }  # fmt: skip
        for digest, settings in list(self.retrainings.items()):
            self.retrainings[f"{digest}, unscheduled"] = replace(settings, schedules=())
        steps = rng.choice([(0.0, 0.25), (0.25, 0.5), (0.1,)])
        self.rollouts = {
            digest: RolloutSettings(
                approval=rng.choice(["first", "always", "never"]), bake=BakeSettings(150, 1800.0), steps=plan,
                guardrails={"error_rate": Margin("points", 0.01)}, expires_s=DAY, then=rng.choice(["ask", "reject", "hold"]),
            )
            for digest, plan in (("declared-0", steps), ("declared-1", (0.3,)))
        }  # fmt: skip
        self.batches = self._batches(zone)
        self.digest = "declared-0"
        self.processes: list[Process] = []
        self.n_born = self.n_outside = 0
        for model in self.models:
            changes = (rng.uniform(0, FAULTY_S) for _ in range(rng.choice([0, 1, 2, 4])))
            self.world.sources[model] = sorted(self.began_at + at for at in changes)
            self.world.label_delay_s[model] = rng.choice([0.0, 0.0, 3 * HOUR, 16 * HOUR])

    def _batches(self, zone: str) -> dict[str, tuple[BatchSettings, ...]]:
        """By declaration; a change of it may take one away, add one, or move it to another zone."""
        rng = random.Random(f"batches of {self.seed}")
        if rng.random() >= P_BATCHES:
            return {}
        is_replayed = rng.random() < 0.5
        if is_replayed:
            self.rollouts = {d: replace(r, steps=()) for d, r in self.rollouts.items()}
        batches = {}
        for digest in ("declared-0", "declared-1"):
            names = rng.choice([["nightly"], ["often"], ["nightly", "often"], ["nightly", "often"]])
            there = rng.choice([zone, zone, "UTC"])
            batches[digest] = tuple(
                BatchSettings(
                    name, f"in-{{date}}/{name}.csv", f"out-{{date}}/{name}.csv", Schedule(BATCHES[name], there), is_replayed=is_replayed
                )
                for name in names
            )  # fmt: skip
            batches[f"{digest}, unscheduled"] = ()
        return batches

    @property
    def endless(self) -> list[str]:
        """Streams that are kept from the first day on."""
        kinds = [k for k in reconcile.ENDLESS if k != "batching" or self.batches]
        return [f"{kind}/{model}" for model in self.models for kind in kinds]

    def lives(self) -> list[str]:
        """All that are not over."""
        return [s for s in self.streams() if s.partition("/")[0] in reconcile.LIVES]

    def settings(self, kind: str, digest: str) -> Any:
        if kind == "batching":
            return self.batches[digest]
        if kind == "retraining":
            return self.retrainings[digest]
        digest = digest.partition(",")[0]
        return self.rollouts[digest] if kind == "production" else RUN_TERMS[digest]

    def terms(self, stream: str, pinned: str) -> tuple[Any, str]:
        digest = self.digest if "not_pinned" in self.bugs else pinned or self.digest
        return self.settings(stream.partition("/")[0], digest), digest

    def facts(self, stream: str) -> Any:
        return self.watch.facts(stream)

    # what happens, whatever the loop does

    def plan(self) -> None:
        """Triggers, sometimes in storms; people; decay; upgrades; a disk that fills; a machine that sleeps."""
        rng = self.dice.luck("plan")
        if rng.random() < 0.5:
            self.someday("the declaration changes", self.declare)
        if rng.random() < 0.25:
            self.someday("the disk is full for a while", self.fill_the_disk)
        if rng.random() < 0.2:
            self.act("the machine sleeps", rng.uniform(0, FAULTY_S - DAY), self.sleep)
        for at in self.upgrades:
            self.act("another release", at, self.upgrade)
        for _ in range(rng.choice([1, 1, 2, 2, 3])):
            self.spawn()
        for model in self.models:
            self.plan_for(model)

    def plan_for(self, model: str) -> None:
        rng, stream = self.dice.luck("plan", model), f"retraining/{model}"
        for n in range(rng.randint(1, 3)):
            by, at = rng.choice(["drift", "new_data", "person"]), rng.uniform(0, 3.5 * DAY)
            self.tell(at, stream, "triggered", f"trigger-{n}", {"by": by})
        if rng.random() < 0.15:
            at = rng.uniform(0, 3 * DAY)
            for n in range(rng.randint(5, 9)):
                delay_s = at + rng.expovariate(1 / (8 * HOUR))
                by = rng.choice(["decay", "person"])
                self.tell(delay_s, stream, "triggered", f"storm-{n}", {"by": by})
        for act, p in (
            (self.stop_run, 0.3),
            (self.roll_back, 0.4),
            (self.roll_back, 0.4),
            (self.offer_again, 0.4),
            (self.decay, 0.4),
            (self.hold, 0.2),
            (self.unbar, 0.2),
            (self.fall_silent, 0.1),
            (self.recall, 0.5 if self.upgrades else 0.0),
        ):
            if rng.random() < p:
                self.someday(act.__name__.replace("_", " "), lambda act=act: act(model), model)
        self.world.later(rng.expovariate(1 / (4 * HOUR)), lambda: self.ask(model))
        self.world.later(rng.uniform(0, 6 * HOUR), lambda: self.observe(model))

    def someday(self, what: str, act: Callable[[], None], whom: str = "") -> None:
        self.act(what, self.dice.luck(what).uniform(0, FAULTY_S), act, whom)

    def act(self, what: str, at: float, act: Callable[[], None], whom: str = "") -> None:
        if self.dice.admits(what, whom):
            self.world.later(at, act)

    def declare(self) -> None:
        """The declaration changes in the middle of whatever is under way; sometimes it loosens a limit."""
        self.digest = "declared-1"
        for model in self.models:
            if self.dice.luck("loosened").random() < 0.5:
                body = {"digest": self.digest, "loosened": ["rmse"], "actor": "kim"}
                self.tell(0, f"production/{model}", "declared", self.digest, body)

    def fill_the_disk(self) -> None:
        self.world.full_until = self.world.now + self.dice.luck("full").expovariate(1 / (3 * HOUR))

    def sleep(self) -> None:
        """The lid is closed for a day: nothing of ours runs, the world goes on."""
        for process in self.processes:
            for task in process.tasks.values():
                self.schedule(task, DAY + 60 * self.jitter())

    def upgrade(self) -> None:
        """From now on whoever starts is of the other release; those that run are replaced one by one."""
        self.release = releases.THIS if self.release == releases.NEXT else releases.NEXT

    def fall_silent(self, model: str) -> None:
        """Nobody asks this model any more."""
        self.world.silent.add(model)

    def recall(self, model: str) -> None:
        """A person of the next release says that the newest bundle must never answer (again)."""
        f = self.facts(f"production/{model}")
        if offer := f.candidate or (f.offers[-1] if f.offers else None):
            body = {"bundle": offer.bundle}
            self.tell(0, f.stream, "recalled", f"recall-{self.world.now}", body)
        elif not self.dice.is_calm:
            self.world.later(DAY / 4, lambda: self.recall(model))

    def unbar(self, model: str) -> None:
        f = self.facts(f"production/{model}")
        if f.barred:
            body = {"snapshot": self.dice.luck("unbar").choice(f.barred), "actor": "kim"}
            self.tell(0, f.stream, "unbar_asked", f"unbar-{self.world.now}", body)
        elif not self.dice.is_calm:
            self.world.later(DAY / 2, lambda: self.unbar(model))

    def stop_run(self, model: str) -> None:
        f = self.facts(f"retraining/{model}")
        if f.run:
            stream, key = f"run/{model}/{f.run}", f"stop-{self.world.now}"
            self.tell(0, stream, "stop_asked", key, {"actor": "kim"})

    def roll_back(self, model: str) -> None:
        f = self.facts(f"production/{model}")
        known = [o.bundle for o in (f.candidate, f.champion) if o]
        if known:
            luck = self.dice.luck("roll back", model)
            bundle = luck.choice([b for b in known if production.can_go(f, b)] or known)
            to = luck.choice(["", "", *[o.bundle for o in f.released[-2:]]])
            with_data = luck.random() < 0.3
            body = {"bundle": bundle, "to": to, "with_data": with_data, "actor": "kim"}
            self.tell(0, f.stream, "rollback_asked", f"rollback-{self.world.now}", body)
        elif not self.dice.is_calm:
            self.world.later(DAY / 4, lambda: self.roll_back(model))

    def hold(self, model: str) -> None:
        body = {"actor": "kim", "reason": "audit"}
        self.tell(0, f"production/{model}", "hold_asked", f"hold-{self.world.now}", body)

    def offer_again(self, model: str) -> None:
        """Somebody imports a bundle that was here before; those that regressed are the most tempting."""
        stream = f"production/{model}"
        mine = self.by_stream.get(stream, [])
        offered = [e for e in mine if e.kind == "offered"]
        gone = {e.inputs[0] for e in mine if e.kind.endswith("regressed")}
        if offered:
            offered = [e for e in offered if e.body["bundle"] in gone] or offered
            body = self.dice.luck("offer again", model).choice(offered).body
            self.tell(0, stream, "offered", f"import-{self.world.now}", body)

    def decay(self, model: str) -> None:
        """The champion turns bad where it stands."""
        f, truth = self.facts(f"production/{model}"), self.world.truth
        if f.champion:
            harm = self.dice.luck("decay", model).choice(["errors", "quality"])
            truth[f.champion.bundle] = {**truth[f.champion.bundle], "harm": harm}
        elif not self.dice.is_calm:
            self.world.later(DAY / 2, lambda: self.decay(model))

    def ask(self, model: str) -> None:
        """One request, answered by the routes of the moment."""
        stream = f"production/{model}"
        seq, value, _ = self.world.router.get(stream, (0, NOWHERE, 0.0))
        arms = [a for a in value["arms"] if not a["shadow"]]
        if arms and model not in self.world.silent:
            mark, total = self.jitter(), 0.0
            arm = next(a for a in arms if (total := total + a["share"]) > mark or a is arms[-1])
            self.watch.answered(stream, seq, arm["bundle"])
        self.world.later(8 * HOUR * self.jitter(), lambda: self.ask(model))

    def observe(self, model: str) -> None:
        """The monitor looks at what it has counted, with the real rules; its keys make repeats nothing."""
        stream = f"retraining/{model}"
        if not self.dice.is_calm:
            for trigger in triggers(self.world.live(model), self.retrainings[self.digest]):
                if not self.knows(stream, trigger.key):
                    self.tell(0, stream, "triggered", trigger.key, trigger.as_body())
        self.world.later(6 * HOUR, lambda: self.observe(model))

    # outside senders: at least once, late, out of order

    def tell(self, delay_s: float, stream: str, kind: str, key: str, body: dict[str, Any]) -> None:
        luck = self.dice.luck("tell", kind)
        for _ in range(luck.randint(1, 3)):
            self.n_outside += 1
            delay = delay_s + luck.expovariate(1 / HOUR)
            self.world.later(delay, lambda: self.deliver(stream, kind, key, body))

    def deliver(self, stream: str, kind: str, key: str, body: dict[str, Any]) -> None:
        draft = Draft(kind, self.world.now, "outside", body=body, key=key)
        try:
            with releases.using(self.newest_release):
                self.append(stream, draft, expect_seq=None, fence=None)
            self.n_outside -= 1
        except LedgerError:
            self.world.later(60.0, lambda: self.deliver(stream, kind, key, body))

    # the ledger: commits of unknown outcome, a full disk, another process that holds the lock

    def append(
        self, stream: str, draft: Draft, *, expect_seq: int | None, fence: int | None,
        head: Any = None, is_last: bool = False,
    ) -> Entry:  # fmt: skip
        dice, is_step = self.dice, expect_seq is not None
        if self.world.is_full() or dice.strikes("no room for an entry", P_FULL, draft.kind):
            if is_last and "torn_append" in self.bugs:
                self.over.add(stream)
            raise LedgerError(f"{draft.kind} could not be written to {stream}: the disk is full")
        if is_step and "no_compare_and_set" in self.bugs:
            expect_seq = None

        def commit() -> Entry:
            n = len(self.log)
            entry = super(History, self).append(
                stream, draft, expect_seq=expect_seq, fence=fence, head=head, is_last=is_last
            )
            if len(self.log) > n:
                self.watch.entry(entry)
                self.react(entry)
            return entry

        if not dice.strikes("a commit of unknown outcome", P_AMBIGUOUS, draft.kind):
            return commit()
        luck = dice.luck("outcome")
        match luck.choice(["not", "done", "later"]):
            case "done":
                commit()
            case "later":  # still on its way to the server when the line broke
                release = releases.in_use()
                delay_s = luck.expovariate(1 / 30)
                self.world.later(delay_s, lambda: self.try_late(commit, release))
        if "append_repeated" in self.bugs and is_step:
            entry = super().append(stream, draft, expect_seq=None, fence=fence, head=head)
            self.watch.entry(entry)
            return entry
        raise AmbiguousError(f"{stream} {expect_seq}")

    def try_late(self, commit: Callable[[], Entry], release: int) -> None:
        with suppress(LedgerError), releases.using(release):
            commit()

    def tail(self, stream: str, *, after_seq: int = 0) -> list[Entry]:
        if self.dice.strikes("the ledger cannot be read", P_BUSY):
            raise LedgerError("the ledger cannot be read now: database is locked")
        return self.by_stream.get(stream, [])[after_seq:]

    def acquire(self, name: str, owner: str, *, ttl_s: float) -> int | None:
        if self.world.is_full():
            raise LedgerError("the ledger is busy: the disk is full")
        return super().acquire(name, owner, ttl_s=ttl_s)

    def react(self, entry: Entry) -> None:
        """Wake who sleeps on this stream (a hint, often lost); people answer what they are asked, after days."""
        stream = entry.stream
        for process in self.processes:
            for task in (
                process.tasks.get(stream),
                process.tasks.get("*") if entry.seq == 1 else None,
            ):
                if task and task.is_napping and (self.dice.is_calm or self.jitter() < P_HINT):
                    self.schedule(task, 5 * self.jitter())
        if entry.kind not in ANSWERED:
            return
        rng = self.dice.luck(stream)
        if entry.kind in ("approval_asked", "overdue") and rng.random() < 0.9:
            answer = rng.choice(["approved", "approved", "approved", "rejected"])
            body = {"bundle": entry.inputs[0], "answer": answer, "actor": "kim", "run": stream}
            delay_s = rng.expovariate(1 / rng.choice([DAY / 12, DAY]))
            self.tell(delay_s, stream, "answered", f"answer-{entry.seq}", body)
        if entry.kind in ("rolled_back", "held") and rng.random() < 0.8:
            gone = [
                e.inputs[0]
                for e in self.by_stream[stream]
                if e.kind in ("rolled_back", "regressed", "champion_regressed")
            ]
            for n in range(rng.choice([1, 1, 2])):  # two people may both do it
                champion = rng.choice(["", "", *gone[-1:]])
                body = {"held": entry.seq, "champion": champion, "actor": "lee"}
                delay_s = rng.expovariate(1 / rng.choice([5.0, DAY]))
                self.tell(delay_s, stream, "resume_asked", f"resume-{entry.seq}-{n}", body)
        if entry.kind == "resumed" and rng.random() < 0.3:  # and then somebody changes their mind
            delay_s, model = rng.expovariate(1 / rng.choice([60.0, DAY / 4])), stream.split("/")[1]
            self.world.later(delay_s, lambda: self.roll_back(model))

    # processes

    def spawn(self) -> None:
        self.n_born += 1
        process = Process(f"loop-{self.n_born}", self.release, 600 * self.jitter() - 300)
        self.processes.append(process)
        self.add(process, "*", self.tend(process))

    def add(self, process: Process, stream: str, loop: Iterator[float]) -> None:
        process.tasks[stream] = task = Task(process, stream, loop)
        self.schedule(task, 5 * self.jitter())

    def tend(self, process: Process) -> Iterator[float]:
        """Keep every life that is not over: those of the declared models, and whatever the ledger lists."""
        always = self.endless
        clock = None
        if "wall_clock" in self.bugs:
            clock = lambda: self.world.now + process.offset_s  # noqa: E731
        while True:
            listed = self.lives()
            if "run_kept_by_its_parent" in self.bugs:
                kept = [self.facts(f"retraining/{model}") for model in self.models]
                listed = [f"run/{f.model}/{f.run}" for f in kept if f.state == "running"]
            for stream in dict.fromkeys([*always, *listed]):
                if stream not in process.tasks:
                    loop = reconcile.keep(
                        stream, name=process.name, ledger=self, world=self.world, terms=self.terms, clock=clock,
                    )  # fmt: skip
                    self.add(process, stream, loop)
            yield reconcile.POLL_S

    def schedule(self, task: Task, delay_s: float) -> None:
        world = self.world
        task.ticket = ticket = next(world.ids)
        heappush(world.events, (world.now + delay_s, ticket, task, ticket))

    def kill(self, process: Process) -> None:
        self.processes.remove(process)
        for task in process.tasks.values():
            task.ticket = -1
        self.world.later(240 * self.jitter(), self.spawn)

    def misfortune(self, task: Task, roll: float) -> bool:
        """Whether something happens to the process before its step."""
        dice, process, where = self.dice, task.process, task.stream.partition("/")[0]
        if roll < P_KILL:
            if dice.admits("a loop is killed", where):
                self.kill(process)
                return True
        elif roll < P_KILL + P_FREEZE:
            if dice.admits("a loop freezes", where):
                self.schedule(task, TTL_S * (1 + 39 * self.jitter()))
                return True
        elif dice.admits("a clock jumps"):
            luck = dice.luck("jump")
            jump_s = luck.choice([-DAY, -HOUR, HOUR, DAY])
            if luck.random() < 0.3:
                self.ledger_jump_s = luck.choice([0.0, jump_s])
            else:
                process.offset_s += jump_s
        return False

    def resume(self, task: Task) -> None:
        """One step of one loop, unless something happens to its process first."""
        dice, process = self.dice, task.process
        if not dice.is_calm:
            is_old = process.release != self.release
            if is_old and dice.strikes("replaced by another release", P_OUTDATED):
                return self.kill(process)
            if (roll := dice.roll("step")) < P_STEP and self.misfortune(task, roll):
                return None
        releases.use(process.release)
        pause_s = next(task.loop, None)
        while pause_s == 0.0 and dice.is_calm:  # nobody comes between any more
            pause_s = next(task.loop, None)
        if pause_s is None:  # this life is over
            process.tasks.pop(task.stream, None)
            return None
        task.is_napping = pause_s >= 1
        return self.schedule(task, pause_s + 2 * self.jitter())

    # the story

    def run(self) -> list[str]:
        """Tell it; what was wrong, in the order of its happening, and nothing after."""
        gc.disable()
        try:
            with planted(self.bugs, with_next_release=self.newest_release == releases.NEXT):
                return self.tell_it()
        finally:
            releases.use(releases.THIS)
            self.processes.clear()
            self.world.events.clear()
            gc.enable()

    def tell_it(self) -> list[str]:
        world, events, found = self.world, self.world.events, self.watch.found
        self.plan()
        world.later(FAULTY_S, self.calm_down)
        while world.now < self.began_at + FAULTY_S + PATIENCE_S:
            if self.rest_at is not None and world.now > self.rest_at + DAY:
                break
            world.now, _, what, ticket = heappop(events)
            try:
                if not ticket:
                    releases.use(self.newest_release)
                    what()
                elif what.ticket == ticket:
                    self.resume(what)
            except Exception as error:  # noqa: BLE001 - whatever the loop dies of is a finding
                return [*found, f"loop died: {type(error).__name__} {error}"]
            if found:
                return found
        return self.watch.rest()

    def calm_down(self) -> None:
        """Faults stop; whoever is of an old release is replaced, as at the end of any upgrade."""
        self.dice.is_calm, self.ledger_jump_s, self.world.full_until = True, 0.0, 0.0
        self.release = self.newest_release
        for process in [p for p in self.processes if p.release != self.release]:
            self.kill(process)
        self.world.later(DAY / 2, self.unschedule)

    def unschedule(self) -> None:
        """What the faults held up has been caught up; without a schedule it can come to rest."""
        self.digest, self.unscheduled_at = f"{self.digest}, unscheduled", self.world.now
        self.world.later(HOUR, self.check_rest)

    def check_rest(self) -> None:
        if (
            self.rest_at is None
            and not self.n_outside
            and all(self.is_resting(self.facts(s)) for s in self.lives())
        ):
            self.rest_at = self.world.now
        self.world.later(6 * HOUR, self.check_rest)

    def is_resting(self, f: Any) -> bool:
        """Nothing is owed, wanted or under way, except what waits for a person who does not answer."""
        match f.stream.partition("/")[0]:
            case "retraining":
                return f.state == "idle" and not f.wanted and not f.owes
            case "batching":
                return f.state == "idle" and not f.waiting and not f.owes
            case "run":
                return f.state == "undecided" and f.asked_at and not f.answer and not f.owes
        waits = (f.state == "held" and not f.is_resumed) or (
            f.state == "waiting_approval" and not f.answer
        )
        is_silent = f.model in self.world.silent and f.state in IN_TRAFFIC
        is_starved = (is_silent or f.state == "replaying") and not f.answer
        then = self.settings("production", f.declaration).then if is_starved else ""
        waits = waits or (then in ("ask", "hold") and f.is_overdue)
        shown = self.world.router.get(f.stream, (0, NOWHERE))[1]["arms"]
        is_idle = waits or (f.state == "keeping" and not f.offers)
        return shown == production.routes(f) and not f.owes and not f.unwanted and is_idle
