"""Every recorded decision judged again: the same from what was recorded, and whatever was altered beside the chain is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from config.builders import DECLARATION

from gyrostat import config
from gyrostat.ledger.audit import digest
from gyrostat.ledger.sqlite import SqliteLedger, sqlite3
from gyrostat.loop.assemble import Declarations
from gyrostat.loop.reconcile import facts_of, finite, keep
from gyrostat.loop.replay import replay
from gyrostat.observations import Place, Segments, evidence, read
from gyrostat.rollout import production
from gyrostat.rollout.evidence import Evidence
from gyrostat.terms import Draft
from gyrostat.testing.contract import Clock

MODEL = """\
    limits: {rmse: {max: 0.7}}
    rollout: {approval: never, steps: [50%], bake: {requests: 10, time: 1s}, guardrails: {error_rate: +1pp}}
"""
EVIDENCE = {
    "metrics": {"rmse": {"name": "rmse", "value": 0.5, "lower": 0.45, "upper": 0.55, "n": 300}},
    "trivial": {"name": "rmse", "value": 2.0}, "champion": None, "size_bytes": 1, "n_heldout": 300,
}  # fmt: skip


def declared(root):
    head = DECLARATION[: DECLARATION.index("    limits:")]
    (root / "config").mkdir()
    (root / "config" / "config.yaml").write_text(head + MODEL)
    loaded = config.load(root, {})
    config.store(loaded)
    return loaded


class World:
    """Work is done at once and leaves its result; a candidate that takes traffic fails 30 % of it."""

    def __init__(self, loaded, ledger):
        self.loaded, self.ledger, self.state = loaded, ledger, loaded.state
        self.segments = Segments(self.state / "observations" / "wine")
        self.second, self.floors, self.shown = 100, {}, (0, {})

    def _job(self, stream, key, what):
        return self.state / "jobs" / stream.replace("/", ".") / f"{key.rpartition('#')[2]}-{what}" / "result.json"  # fmt: skip

    def look(self, stream: str, what: str, key: str) -> dict[str, Any]:
        path = self._job(stream, key, what)
        if path.exists():
            return json.loads(path.read_text())
        seen: dict[str, Any] = {}
        if what == "receivers":
            seen["floor"] = self.floors.get(stream, 0)
        if stream.startswith("production/"):
            seen |= {"served": self.shown[0], "shown": self.shown[0]}
            if what == "traffic":
                seen["traffic"] = self._traffic()
        return seen

    def _traffic(self):
        seq, routes = self.shown
        self.second += 1
        lines = [
            {"second": self.second, "routes_seq": seq, "bundle": arm["bundle"], "arm": arm["role"], "n": 40,
             "errors": 12 if arm["role"] == "candidate" else 0, "slow": 0, "latency": {"30": 40}}
            for arm in routes["arms"]
        ]  # fmt: skip
        self.segments.append(lines, {"second": self.second})
        f = facts_of(self.ledger, "production/wine")
        settings = self.loaded.declaration.models["wine"]
        counted = Evidence.of_rollout(
            settings.rollout, settings.gates, routes["arms"], f.rollout_seq
        )
        place = Place()
        for line, after in read(self.state / "observations" / "wine"):
            counted.fold([line])
            place = after
        again = counted.traffic(seq, share=production.share(f) or 0.5, evidence=evidence(place))
        return finite(again) if again else None

    def start(self, stream, what, key, inputs, spec):
        path = self._job(stream, key, what)
        path.parent.mkdir(parents=True)
        result = {"status": "done", "made": f"{what} of {key}", "is_answering": True}
        path.write_text(json.dumps(result | ({"evidence": EVIDENCE} if what == "evaluation" else {})))  # fmt: skip

    def show(self, stream, receiver, seq, value):
        if receiver == "workers":
            self.floors[stream] = seq
        elif seq > self.shown[0]:
            self.shown = (seq, value)


class Recorded:
    """A first release and a second candidate that is rolled back, decided by the real lives."""

    def __init__(self, root):
        self.loaded = declared(root)
        self.state = self.loaded.state
        self.clock = Clock(1_790_000_000.0)
        self.path = self.state / "ledger.db"
        self.ledger = SqliteLedger(self.path, clock=self.clock)
        world = World(self.loaded, self.ledger)
        terms = Declarations(lambda: self.loaded).terms()
        for n in range(2):
            draft = Draft("triggered", 0.0, "kim", body={"by": "person"}, key=f"ask{n}")
            self.ledger.append("retraining/wine", draft, expect_seq=None, fence=None)
            quiet, position = 0, self.ledger.position()
            tasks: dict[str, Any] = {}
            while quiet < 30:
                for stream in dict.fromkeys(
                    ["retraining/wine", "production/wine", *self.ledger.streams()]
                ):
                    task = tasks.setdefault(stream, keep(stream, name="loop", ledger=self.ledger, world=world, terms=terms))  # fmt: skip
                    if next(task, None) is None:
                        tasks.pop(stream)
                self.clock.now += 0.1
                quiet = quiet + 1 if self.ledger.position() == position else 0
                position = self.ledger.position()

    def replay(self):
        return replay(self.ledger, self.state)

    def find(self, kind):
        return next(e for e in reversed(list(self.ledger.entries())) if e.kind == kind)

    def rewrite(self, entry, **changes):
        """An entry says something else, and everything after it is sealed anew: the chain holds."""
        self.ledger.close()
        with sqlite3.connect(self.path) as db:
            db.executescript("DROP TRIGGER no_update; DROP TRIGGER no_delete;")
            rows = db.execute("SELECT * FROM entries WHERE position >= ? ORDER BY position", (entry.position,)).fetchall()  # fmt: skip
            prev = rows[0][11]
            for n, row in enumerate(rows):
                body = json.loads(row[9])
                if n == 0:
                    body = merged(body, changes)
                text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
                row = (*row[:9], text, row[10], prev)
                prev = digest(row)
                db.execute("UPDATE entries SET body=?, prev=?, hash=? WHERE position=?", (text, row[11], prev, row[0]))  # fmt: skip
        db.close()
        self.ledger = SqliteLedger(self.path)


def merged(old, new):
    return {**old, **{k: merged(old[k], v) if isinstance(v, dict) and isinstance(old.get(k), dict) else v for k, v in new.items()}}  # fmt: skip


@pytest.fixture
def recorded(tmp_path):
    found = Recorded(tmp_path)
    yield found
    found.ledger.close()


def test_every_decision_is_the_same_again_and_its_evidence_too(recorded):
    kinds = {e.kind for e in recorded.ledger.entries()}
    assert {"gate_passed", "promoted", "canary_started", "regressed", "told", "run_opened"} <= kinds
    steps = [e for e in recorded.ledger.entries() if "seen" in e.body]
    report = recorded.replay()
    assert report.differ == []
    assert report.unknown == {}
    assert report.n_decisions == len(steps) > 20
    assert report.n_evidence == 3  # gates twice, and what the candidate did to its traffic


@pytest.mark.parametrize(("kind", "changes", "what"), [
    ("gate_passed", {"seen": {"evidence": {"metrics": {"rmse": {"upper": 0.9}}}}}, "kind: recorded 'gate_passed'"),
    ("gate_passed", {"detail": {"verdicts": {"rmse": {"answer": "reject"}}}}, "detail"),
    ("gate_passed", {"cause": "because"}, "cause: recorded 'because'"),
    ("gate_passed", {"seen": {"evidence": {"n_heldout": 301}}}, "gate evidence"),
    ("regressed", {"seen": {"traffic": {"guardrails": {"error_rate": {"harm": 0.0}}}}}, "no step"),
    ("regressed", {"seen": {"traffic": {"total": {"requests": 7}}}}, "traffic"),
    ("promoted", {"now": 0.0, "cause": "x"}, "cause"),
])  # fmt: skip
def test_what_was_rewritten_in_a_chain_that_holds_is_named(recorded, kind, changes, what):
    entry = recorded.find(kind)
    recorded.rewrite(entry, **changes)
    report = recorded.replay()
    assert report.differ[0][0] == entry.ref
    assert what in report.differ[0][1]


def test_an_altered_observation_is_found_by_the_decision_that_names_it(recorded):
    path = next((recorded.state / "observations" / "wine").glob("*.seg"))
    path.write_bytes(path.read_bytes().replace(b'"errors":12', b'"errors":13', 1))
    (where, line), (ref, what) = recorded.replay().differ
    assert where == "observations/wine"
    assert "of segment 1 is not what was written" in line
    assert (ref, what) == (recorded.find("regressed").ref, "traffic: counted again it is not what was seen")  # fmt: skip


def test_an_altered_declaration_makes_what_it_decided_unknown(recorded):
    path = next((recorded.state / "declarations").glob("*.json"))
    path.write_text(path.read_text().replace("0.7", "0.8"))
    report = recorded.replay()
    assert report.n_decisions == 0
    assert list(report.unknown) == ["the declaration it names was altered"]


def test_what_is_no_longer_kept_is_said_not_guessed(recorded):
    for path in (recorded.state / "observations" / "wine").glob("*.seg"):
        path.unlink()
    for path in (recorded.state / "jobs").rglob("result.json"):
        path.unlink()
    report = recorded.replay()
    assert report.differ == []
    assert report.unknown == {"the job that measured it is no longer kept": 2, "its observations are no longer kept": 1}  # fmt: skip


def test_a_planted_step_is_named_and_hides_no_other(recorded):
    body = {
        "seen": {},
        "now": 0.0,
        "release": 1,
        "cause": "",
        "declaration": recorded.loaded.digest,
    }
    planted = recorded.ledger.append("retraining/wine", Draft("run_ended", 0.0, "eve", body=body, key="x"), expect_seq=None, fence=None)  # fmt: skip
    report = recorded.replay()
    assert {ref for ref, _ in report.differ} == {planted.ref}
    assert report.n_evidence == 3
