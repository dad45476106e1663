"""Entries as the loop writes them, without a loop."""

from gyrostat.terms import Entry

OPENED_AT = 1_764_000_000.0


class Story:
    """A ledger in memory: only what a mirror reads."""

    def __init__(self):
        self.all = []

    def say(self, stream, kind, *inputs, outputs=(), **body):
        seq = 1 + sum(e.stream == stream for e in self.all)
        position = len(self.all) + 1
        at = OPENED_AT + position
        self.all.append(
            Entry(
                position, stream, seq, None, kind, at, "loop", inputs, tuple(outputs), body, None, "", ""
            )
        )  # fmt: skip
        return self

    def entries(self, *, after=0, before_at=None):
        return iter(self.all[after:])

    def tail(self, stream, *, after_seq=0):
        return [e for e in self.all if e.stream == stream and e.seq > after_seq]

    # ---- what happens to a candidate

    def train(self, n, *, mlflow_run="", params=None):
        run = f"run/wine/{n}"
        code = {"digest": "c" * 64, "commit": "3f2c1d9", "dirty": False}
        result = {
            "made": f"trained:{n}", "metrics": {"mse": 0.4}, "params": params or {"depth": 6}, "code": code,
            "env_digest": "e" * 64, "mlflow_run": mlflow_run, "run": "src.train:train",
        }  # fmt: skip
        snapshot = {"made": "d3f9a1c0b1c2", "fingerprint": "d3f9" * 16, "n_rows": 1599}
        self.say(run, "run_asked").say(run, "opened")
        self.say(run, "snapshotted", outputs=["d3f9a1c0b1c2"], seen=snapshot)
        return self.say(run, "trained", outputs=[f"trained:{n}"], seen=result)

    def offer(self, n, bundle, **training):
        run = f"run/wine/{n}"
        rmse = {"name": "rmse", "value": 0.6, "lower": 0.5, "upper": 0.7, "n": 284}
        evidence = {
            "metrics": {"rmse": rmse, "r2": {"name": "r2", "value": None, "lower": None, "upper": None}},
            "champion": {"difference": -0.02, "lower": -0.04, "upper": -0.01}, "latency_p99": 0.002,
            "size_bytes": 4096, "n_heldout": 284,
        }  # fmt: skip
        self.train(n, **training)
        self.say(run, "packed", outputs=[bundle], seen={"flavour": "onnx", "reason": "exact"})
        self.say(
            run,
            "gate_passed",
            bundle,
            outputs=["evidence:1"],
            seen={"evidence": evidence},
            cause="6 of 6",
        )
        self.say(run, "offered", bundle)
        self.say("production/wine", "offered", bundle=bundle, run=run, snapshot="d3f9a1c0b1c2")
        offer = f"production/wine#{self.all[-1].seq}"
        version = 1 + sum(e.kind == "staging_started" for e in self.all)
        return self.say(
            "production/wine", "staging_started", bundle, offer, outputs=[f"version/wine/{version}"]
        )

    def go(self, kind):
        """The newest version one step further."""
        started = next(e for e in reversed(self.all) if e.kind == "staging_started")
        return self.say("production/wine", kind, *started.inputs)
