"""The loop keeps nothing that the ledger does not say: whoever is killed or frozen at any place changes nothing."""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from gyrostat.errors import ConflictError, LedgerError, MalformedEntryError, UnavailableError
from gyrostat.gates.settings import GateSettings
from gyrostat.ledger.chain import seal, verify
from gyrostat.loop import reconcile, run
from gyrostat.loop.reconcile import Runner, facts_at, facts_of, finite, keep, served_at
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.rollout import production
from gyrostat.rollout.settings import BakeSettings, RolloutSettings
from gyrostat.terms import GENESIS, Draft, Limit, Margin
from gyrostat.testing.contract import Clock
from gyrostat.testing.memory import MemoryLedger

ROLLOUT = RolloutSettings(
    approval="never",
    bake=BakeSettings(10, 10.0),
    steps=(0.0, 0.5),
    guardrails={"error_rate": Margin.parse("+1pp")},
)
TERMS = {
    "retraining": RetrainingSettings(cooldown_s=0.0),
    "run": run.RunTerms(GateSettings(limits=(Limit("rmse", max=0.7),))),
    "production": ROLLOUT,
}


def terms(stream: str, pinned: str) -> tuple[Any, str]:
    return TERMS[stream.split("/")[0]], "declared"


class KindWorld:
    """Work is done as soon as it is asked for, routes are served as soon as they are shown."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.done: Counter[tuple[str, str]] = Counter()
        self.made: dict[tuple[str, str], dict[str, Any]] = {}
        self.routes: dict[str, tuple[int, dict[str, Any]]] = {}
        self.floor: dict[str, int] = {}

    def look(self, stream: str, what: str, key: str) -> dict[str, Any]:
        if (what, key) in self.made:
            return {"status": "done", **self.made[what, key]}
        seen: dict[str, Any] = {"floor": self.floor.get(stream, 0)} if what == "receivers" else {}
        if stream.startswith("production/"):
            seq, _ = self.routes.get(stream, (0, {}))
            seen["served"] = seq
            if what == "traffic":
                rail = {
                    "harm": -1.0,
                    "proof": float("inf"),
                    "needs_proof": True,
                    "n": 99,
                    "cause": "errors",
                }
                seen["traffic"] = {
                    "routes_seq": seq, "step": {"requests": 99, "seconds": 1e6}, "total": {"requests": 99},
                    "guardrails": {"error_rate": rail}, "limits": {},
                }  # fmt: skip
        return seen

    def start(
        self, stream: str, what: str, key: str, inputs: tuple[str, ...], spec: dict[str, Any]
    ) -> None:
        if (what, key) in self.made:
            return
        self.done[what, key] += 1
        metric = {"name": "rmse", "value": 0.5, "lower": 0.45, "upper": 0.55, "n": 300}
        evidence = {
            "metrics": {"rmse": metric},
            "trivial": {"name": "rmse", "value": 2.0},
            "champion": None,
            "size_bytes": 1,
            "n_heldout": 300,
        }
        self.made[what, key] = {
            "made": f"{what} of {key}",
            "evidence": evidence,
            "is_answering": True,
        }

    def show(self, stream: str, receiver: str, seq: int, value: dict[str, Any]) -> None:
        if receiver == "workers":
            self.floor[stream] = max(seq, self.floor.get(stream, 0))
        elif seq > self.routes.get(stream, (0, {}))[0]:
            self.routes[stream] = (seq, value)


class Story:
    """Two releases of one model, driven yield by yield."""

    def __init__(self) -> None:
        self.clock = Clock(1000.0)
        self.ledger = MemoryLedger(self.clock)
        self.world = KindWorld(self.clock)
        self.tasks: dict[str, Iterator[float]] = {}
        self.asleep: dict[str, tuple[int, float]] = {}
        """Stream -> until when, unless the ledger grows."""
        self.n_names = self.n_steps = 0

    def ask(self, key: str) -> None:
        draft = Draft("triggered", 0.0, "kim", body={"by": "person"}, key=key)
        self.ledger.append("retraining/wine", draft, expect_seq=None, fence=None)

    def kept(self, stream: str) -> Iterator[float]:
        return keep(
            stream, name=f"loop-{self.n_names}", ledger=self.ledger, world=self.world, terms=terms
        )

    def run(self, *, kill_at: int = -1, freeze_at: int = -1) -> None:
        """`kill_at`, `freeze_at`: the yield at which it happens; what froze thaws a little later, beside its successor."""
        frozen: dict[str, Iterator[float]] = {}
        for n in range(2):
            self.ask(f"ask-{n}")
            n_entries = 0
            while len(self.ledger.log) > n_entries or not self.is_at_rest():
                n_entries = len(self.ledger.log)
                for stream in ["retraining/wine", "production/wine", *self.ledger.streams()]:
                    if stream in self.tasks and self.asleep.get(stream, (0, 0.0)) > (
                        len(self.ledger.log),
                        self.clock.now,
                    ):
                        continue
                    task = self.tasks.setdefault(stream, self.kept(stream))
                    self.n_steps += 1
                    pause_s = next(task, None)
                    if pause_s is None:
                        del self.tasks[stream]
                    self.asleep[stream] = (
                        len(self.ledger.log),
                        self.clock.now + min(pause_s or 0.0, 60.0),
                    )
                    if self.n_steps == freeze_at:
                        frozen = self.tasks
                        self.clock.now += 2 * reconcile.TTL_S
                    if self.n_steps in (freeze_at, kill_at):
                        self.tasks, self.n_names = {}, self.n_names + 1
                if frozen and self.n_steps > freeze_at + 12:
                    frozen = {
                        stream: task
                        for stream, task in frozen.items()
                        if next(task, None) is not None
                    }
                self.clock.now += 20.0
                assert self.n_steps < 5000, "it never came to rest"
        for task in frozen.values():
            for _ in range(8):
                next(task, None)

    def is_at_rest(self) -> bool:
        wanting, f = (
            facts_of(self.ledger, "retraining/wine"),
            facts_of(self.ledger, "production/wine"),
        )
        is_over = (
            self.ledger.streams() == ["retraining/wine", "production/wine"]
            and wanting.state == "idle"
            and not wanting.wanted
        )
        return (
            is_over
            and f.state == "keeping"
            and not f.offers
            and not f.owes
            and f.applied == f.routed_at > 0
        )

    def told(self) -> dict[str, list[str]]:
        return {
            stream: [e.kind for e in entries] for stream, entries in self.ledger.by_stream.items()
        }


@pytest.fixture(scope="module")
def quiet() -> Story:
    """What happens when nothing goes wrong."""
    story = Story()
    story.run()
    return story


def test_two_releases_end_as_they_should(quiet):
    f = facts_of(quiet.ledger, "production/wine")
    assert (f.champion.version, f.previous.version, f.state) == (2, 1, "keeping")
    assert quiet.ledger.streams() == ["retraining/wine", "production/wine"]
    assert quiet.world.routes["production/wine"][1]["arms"] == production.routes(f)
    assert quiet.told()["run/wine/2"] == quiet.told()["run/wine/1"]
    assert quiet.n_steps > 200


@pytest.mark.parametrize("fault", ["kill_at", "freeze_at"])
@pytest.mark.parametrize(
    "places",
    [
        pytest.param(slice(1, None, 4), id="one in four"),
        pytest.param(slice(1, None), id="all", marks=pytest.mark.slow),
    ],
)
def test_a_fault_at_any_place_changes_nothing_that_is_said_and_nothing_is_done_twice(
    quiet, fault, places
):
    for n in range(quiet.n_steps + 1)[places]:
        story = Story()
        story.run(**{fault: n})
        assert story.told() == quiet.told(), f"{fault} {n}"
        assert set(story.world.done.values()) == {1}
        assert story.world.routes["production/wine"] == quiet.world.routes["production/wine"]
        assert verify(story.ledger.entries()) is None


def test_each_decision_can_be_made_again_from_its_entry(quiet):
    n = 0
    for stream, entries in quiet.ledger.by_stream.items():
        life = reconcile.life_of(stream)
        facts = life.Facts(stream)
        for e in entries:
            if "release" in e.body:
                again = life.decide(
                    facts, e.body["seen"], TERMS[stream.split("/")[0]], e.body["now"]
                )
                assert (again.kind, again.inputs, again.outputs, again.cause) == (
                    e.kind,
                    e.inputs,
                    e.outputs,
                    e.body["cause"],
                )
                n += 1
            facts = life.fold(facts, e)
    assert n == sum("release" in e.body for e in quiet.ledger.log) > 30


def test_facts_of_a_time_are_those_of_the_entries_until_then(quiet):
    stream = "production/wine"
    for e in quiet.ledger.tail(stream):
        f = facts_at(quiet.ledger, stream, e.at)
        last = max(x.seq for x in quiet.ledger.tail(stream) if x.at <= e.at)
        assert (f.seq, f.stream) == (last, stream)
    assert facts_at(quiet.ledger, stream, 0.0) == production.Facts(stream)


def test_who_served_is_the_highest_routes_applied_until_then():
    clock = Clock(1000.0)
    ledger = MemoryLedger(clock)
    for at, seq in ((1001.0, 5), (1002.0, 9), (1003.0, 7)):  # a loop that was frozen says 7 after 9
        clock.now = at
        ledger.append(
            "production/wine",
            Draft("applied", 0.0, "loop", body={"seq": seq, "arms": []}, key=f"{seq}"),
            expect_seq=None,
            fence=None,
        )
    assert served_at(ledger, "wine", 1000.5) is None
    assert [served_at(ledger, "wine", at).body["seq"] for at in (1001.5, 1002.5, 1003.5)] == [
        5,
        9,
        9,
    ]


def test_evidence_beyond_doubt_is_recorded_as_a_number_and_what_is_none_is_looked_at_again():
    assert finite({"a": [float("inf"), -float("inf"), 1, True, "x", None]}) == {
        "a": [reconcile.LARGEST, -reconcile.LARGEST, 1, True, "x", None]
    }
    with pytest.raises(UnavailableError, match=r"\$\.a\[1\]"):
        finite({"a": [0.0, float("nan")]})


def test_a_ledger_that_cannot_be_written_is_not_asked_without_pause():
    story = Story()
    story.ask("one")
    stream = "retraining/wine"

    def fails(*_: Any, **__: Any) -> Any:
        raise LedgerError("disk full")

    story.ledger.append = fails
    task = story.kept(stream)
    pauses = [next(task) for _ in range(40)]
    assert pauses.count(reconcile.RETRY_S) >= 9

    def conflicts(*_: Any, **__: Any) -> Any:
        raise ConflictError("moved on")

    story.ledger.append = conflicts
    pauses = [next(task) for _ in range(40)]
    assert reconcile.RETRY_S not in pauses[4:]  # decided again at once


def forced(ledger: MemoryLedger, stream: str, kind: str, body: dict[str, Any], **more: Any) -> None:
    """An entry that got in although the ledger refuses it: a newer release wrote it, or a mistake of ours."""
    mine = ledger.by_stream.setdefault(stream, [])
    place = {"position": len(ledger.log) + 1, "stream": stream, "seq": len(mine) + 1}
    prev = ledger.log[-1].hash if ledger.log else GENESIS
    entry = seal(
        Draft(kind, 0.0, "x", body=body, **more), **place, fence=None, at=ledger.now(), prev=prev
    )
    ledger.log.append(entry)
    mine.append(entry)


class TwoModels(KindWorld):
    def look(self, stream: str, what: str, key: str) -> dict[str, Any]:
        if "/bad" in stream:
            raise RuntimeError("a bug")
        return super().look(stream, what, key)


def drive(
    ledger: MemoryLedger, world: KindWorld, *, is_done: Any, models=("bad", "good")
) -> Runner:
    runner = Runner(ledger, world, terms, lambda: models, "loop", poll_s=0.001)
    stop = threading.Event()
    timer = threading.Timer(20.0, stop.set)
    timer.start()
    runner.run(is_done, stop)
    timer.cancel()
    assert not stop.is_set(), "it did not come so far"
    return runner


def asked(*models: str) -> MemoryLedger:
    ledger = MemoryLedger()
    for model in models:
        ledger.append(
            f"retraining/{model}",
            Draft("triggered", 0.0, "kim", body={"by": "person"}, key="k"),
            expect_seq=None,
            fence=None,
        )
    return ledger


def has(ledger: MemoryLedger, stream: str, kind: str) -> Any:
    return lambda: any(e.kind == kind for e in ledger.tail(stream))


def test_a_fault_of_one_model_does_not_stop_the_others(caplog):
    ledger = asked("bad", "good")
    drive(ledger, TwoModels(Clock()), is_done=has(ledger, "production/good", "promoted"))
    assert [e.kind for e in ledger.tail("retraining/bad")] == ["triggered"]
    assert "retraining/bad failed 1 times" in caplog.text


@pytest.mark.parametrize(
    ("kind", "body"),
    [("run_opened", {}), ("run_closed", {"run": 7})],
    ids=["illegal step", "malformed event"],
)
def test_a_stream_that_needs_a_person_stands_still_and_the_others_go_on(caplog, kind, body):
    ledger = asked("good")
    step = {"seen": {}, "now": 0.0, "release": 1, "cause": "", "declaration": ""}
    for _ in range(2):
        forced(ledger, "retraining/bad", kind, step | body, outputs=("run/bad/1",))
    runner = drive(ledger, KindWorld(Clock()), is_done=has(ledger, "production/good", "promoted"))
    assert list(runner.stuck) == ["retraining/bad"]
    assert len(ledger.tail("retraining/bad")) == 2
    assert "stands still" in caplog.text


def test_what_a_newer_release_wrote_is_left_alone_until_somebody_can_read_it():
    ledger = asked("bad", "good")
    forced(ledger, "retraining/bad", "polished", {})
    runner = drive(ledger, KindWorld(Clock()), is_done=has(ledger, "production/good", "promoted"))
    assert [e.kind for e in ledger.tail("retraining/bad")] == ["triggered", "polished"]
    assert runner.stuck == {}


def test_a_run_that_the_ledger_lists_is_kept_to_its_end_also_when_nobody_else_calls_it_open():
    ledger = MemoryLedger()
    ledger.append(
        "run/good/1",
        Draft("run_asked", 0.0, "x", body={"barred": []}, key="k"),
        expect_seq=None,
        fence=None,
    )
    drive(
        ledger,
        KindWorld(Clock()),
        is_done=lambda: ledger.streams() and "run/good/1" not in ledger.streams(),
    )
    assert ledger.tail("run/good/1")[-1].kind == "closed"


def test_reading_names_the_entry_that_cannot_be_read():
    ledger = MemoryLedger()
    forced(ledger, "production/wine", "answered", {"bundle": "b", "answer": "perhaps"})
    with pytest.raises(MalformedEntryError, match="entry/1 in production/wine"):
        facts_of(ledger, "production/wine")
