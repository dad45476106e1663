"""Entries as the loop writes them, in a real ledger without a loop."""

from __future__ import annotations

from typing import Any

from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.terms import Draft, Entry

STEP = {"seen": {}, "release": 1, "declaration": "d" * 64}


class Records:
    """Says what happens to one model, step by step."""

    def __init__(self, ledger: SqliteLedger, model: str = "wine") -> None:
        self.ledger, self.model, self.n = ledger, model, 0

    def event(self, stream: str, kind: str, **body: Any) -> Entry:
        key = f"k{self.ledger.position()}"
        return self.ledger.append(stream, Draft(kind, 0.0, "kim", body=body, key=key), expect_seq=None, fence=None)  # fmt: skip

    def step(self, stream: str, kind: str, *inputs: str, outputs: tuple[str, ...] = (), **body: Any) -> Entry:  # fmt: skip
        body = {**STEP, "now": self.ledger.now(), "cause": "", **body}
        return self.ledger.append(stream, Draft(kind, self.ledger.now(), "loop", inputs, outputs, body), expect_seq=None, fence=None)  # fmt: skip

    @property
    def production(self) -> str:
        return f"production/{self.model}"

    def stage(self, bundle: str = "") -> Entry:
        """A new version, up to the question."""
        self.n += 1
        bundle, run = bundle or f"{self.n:064x}", f"run/{self.model}/{self.n}"
        offer = self.event(self.production, "offered", bundle=bundle, run=run, snapshot="s" * 12)
        self.offer = (bundle, f"{self.production}#{offer.seq}")
        version = f"version/{self.model}/{self.n}"
        self.step(self.production, "staging_started", *self.offer, outputs=(version,))
        return self.step(self.production, "staging_passed", *self.offer)

    def ask(self) -> Entry:
        self.stage()
        return self.step(self.production, "approval_asked", *self.offer, cause="a first release asks")  # fmt: skip

    def crown(self, bundle: str = "") -> Entry:
        """A first champion."""
        self.stage(bundle)
        self.step(self.production, "approved", *self.offer, cause="not asked for")
        return self.step(self.production, "promoted", *self.offer, cause="the first")

    def canary(self, share: float = 0.25) -> Entry:
        """A candidate that takes traffic beside the champion."""
        self.stage()
        self.step(self.production, "approved", *self.offer)
        return self.step(self.production, "canary_started", *self.offer, detail={"steps": [share]})  # fmt: skip

    def regress(self) -> Entry:
        verdict = {"answer": "reject", "rule": "r/1", "reason": "error rate +12.0pp (limit +1pp)"}
        return self.step(self.production, "regressed", *self.offer, cause="errors", detail={"verdict": verdict})  # fmt: skip

    def fail(self, n: int = 9) -> Entry:
        """A run that failed for good."""
        run = f"run/{self.model}/{n}"
        self.event(run, "run_asked", barred=[])
        self.step(run, "opened", cause="asked")
        return self.step(run, "gave_up", cause="snapshot: the disk is full")

    def batch(self, kind: str = "batch_scored", due: float = 3600.0, *, cause: str = "", **seen: Any) -> Entry:  # fmt: skip
        """A batch that was started, and how it ended."""
        stream, name = f"batching/{self.model}", {"batch": "nightly", "due": due}
        if not self.ledger.tail(stream):
            self.step(stream, "batches_set", detail={"schedules": {"nightly": "0 * * * * UTC"}})
        self.step(stream, "batch_due", detail=name)
        files = {"input": "in.csv", "output": "out.csv", "version": 1}
        self.step(stream, "batch_started", f"version/{self.model}/1", "b1", detail=name | files)
        made = {"id": "i", "n_rows": 9, "n_failed": 2, "input_digest": "in", "made": "out", "began_at": 1.0}  # fmt: skip
        seen = seen or {"status": "done", **made}
        return self.step(stream, kind, cause=cause or "nightly", seen=seen)

    def plant(self, stream: str = "production/wine") -> Entry:
        """A step that no table has: the stream stands still."""
        return self.step(stream, "advanced", "x", cause="planted")
