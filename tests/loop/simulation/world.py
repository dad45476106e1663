"""A world that can be unkind: workers, a store of bundles, a router and traffic, under one virtual clock.

It obeys two rules, which the real one must obey too: work is done once for each key, and a receiver refuses a seq that
is not higher than the one it has. It records what was really done, for the checks. `bugs` breaks one rule at a time.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gyrostat.errors import UnavailableError

DURATION_S = {
    "snapshot": (1, 60),
    "training": (600, 6 * 3600),
    "pack": (5, 60),
    "evaluation": (10, 300),
    "staging": (5, 300),
}
MORTAL = {"training": [0.8, 0.1, 0.1], "staging": [0.9, 0.05, 0.05]}  # done, dies, hangs


@dataclass
class Job:
    stream: str
    seq: int
    what: str
    ready_at: float
    fate: str  # done | dies | hangs | killed
    seen: dict[str, Any]
    is_late: bool = False  # started although newer work had been asked for

    def alive(self, now: float) -> bool:
        return self.fate == "hangs" or (self.fate != "killed" and now < self.ready_at)


@dataclass
class SimulatedWorld:
    rng: random.Random
    bugs: frozenset[str] = frozenset()
    now: float = 0.0
    is_calm: bool = False
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    ids: Any = field(default_factory=itertools.count)
    jobs: dict[tuple[str, str], Job] = field(default_factory=dict)
    floor: dict[str, int] = field(default_factory=dict)
    router: dict[str, tuple[int, dict[str, Any], float]] = field(default_factory=dict)
    shown: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    sources: dict[str, list[float]] = field(default_factory=dict)
    applied: Counter[tuple[str, str]] = field(default_factory=Counter)
    truth: dict[str, dict[str, Any]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)  # models that nobody asks any more

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay_s, next(self.ids), what))

    # the three calls of the loop

    def look(self, stream: str, what: str, key: str) -> dict[str, Any]:
        if not self.is_calm and self.rng.random() < 0.01:
            raise UnavailableError("look")
        seen: dict[str, Any] = {}
        if stream.startswith("production/"):
            served, routes, since = self.router.get(stream, (0, {"arms": []}, 0.0))
            seen["shown"] = served
            if self.is_calm or self.rng.random() > 0.03:  # else no server lives at the moment
                seen["served"] = served
            model = stream.split("/")[1]
            arms = {arm["role"]: arm["bundle"] for arm in routes["arms"]}
            if "champion" in arms and model not in self.silent:
                seen["champion"] = {
                    "limits": self._limits(arms["champion"], since),
                    "since_seq": routes["promoted_seq"],
                }
            if what == "traffic" and model not in self.silent:
                seen["traffic"] = self._traffic(served, arms, since)
        if what == "receivers":
            seen["floor"] = self.floor.get(stream, 0)
        if what in ("receivers", "traffic", "nothing"):
            return seen
        job = self.jobs.get((what, key))
        if job is None or (not self.is_calm and self.rng.random() < 0.02):
            return seen  # not there, or a stale read
        if job.alive(self.now):
            return seen | {"status": "running", "silent_s": max(0.0, self.now - job.ready_at)}
        return seen | (
            {"status": "lost"} if job.fate in ("dies", "killed") else {"status": "done", **job.seen}
        )

    def _limits(self, bundle: str, since: float) -> dict[str, Any]:
        n = int((self.now - since) / 60)
        bad = self.truth[bundle]["harm"]
        return {
            "error_rate": {"broken": 0.05 * n if bad else -1.0, "cause": bad or "errors", "n": n}
        }

    def _traffic(self, seq: int, arms: dict[str, str], since: float) -> dict[str, Any] | None:
        if "candidate" not in arms:
            return None
        n = int((self.now - since) / 60)
        bad = self.truth[arms["candidate"]]["harm"]
        rail = {
            "harm": 0.05 * n if bad else -1.0,
            "proof": -1.0 if bad else 0.02 * n,
            "needs_proof": True,
            "n": n,
            "cause": bad or "errors",
        }
        return {
            "routes_seq": seq,
            "step": {"requests": n, "seconds": 60.0 * n},
            "total": {"requests": n},
            "guardrails": {"error_rate": rail},
            "limits": {},
        }

    def start(
        self, stream: str, what: str, key: str, inputs: tuple[str, ...], spec: dict[str, Any]
    ) -> None:
        self._send(lambda: self._work(stream, what, key, spec))

    def show(self, stream: str, receiver: str, seq: int, value: dict[str, Any]) -> None:
        self._send(
            (lambda: self._route(stream, seq, value))
            if receiver == "router"
            else (lambda: self._raise_floor(stream, seq))
        )

    def _send(self, message: Callable[[], None]) -> None:
        """A call arrives, or not, or late, or twice; the caller may not learn which."""
        fate = 1.0 if self.is_calm else self.rng.random()
        late_s = self.rng.expovariate(1 / self.rng.choice([600, 6 * 3600]))
        if fate < 0.05:
            raise UnavailableError("lost")
        if fate < 0.10:
            self.later(late_s, message)
            raise UnavailableError("under way")
        message()
        if fate < 0.15:
            raise UnavailableError("the answer was lost")
        if fate < 0.20:
            self.later(late_s, message)

    # the receivers

    def _work(self, stream: str, what: str, key: str, spec: dict[str, Any]) -> None:
        seq = int(key.partition("#")[2])
        if seq < self.floor.get(stream, 0) and "late_start_accepted" not in self.bugs:
            return
        self._raise_floor(stream, seq)
        if (what, key) in self.jobs and "work_repeated" not in self.bugs:
            return
        self.applied[what, key] += 1
        fate = "done"
        if what in MORTAL and not self.is_calm:
            fate = self.rng.choices(["done", "dies", "hangs"], MORTAL[what])[0]
        ready_at = self.now + self.rng.uniform(*DURATION_S[what])
        made = self._make(stream, what, key, spec)
        self.jobs[what, key] = Job(
            stream, seq, what, ready_at, fate, made, seq < self.floor[stream]
        )

    def _make(self, stream: str, what: str, key: str, spec: dict[str, Any]) -> dict[str, Any]:
        made = f"{what}-{key}-{self.rng.getrandbits(32):08x}"  # never the same bytes twice
        model = stream.split("/")[1]
        if what == "snapshot":
            n = sum(at <= self.now for at in self.sources[model])
            made = next(
                (s for v in range(n, -1, -1) if (s := f"{model}-data-{v}") not in spec["barred"]),
                "",
            )
            if made:
                self.truth.setdefault(made, {"is_bad": self.rng.random() < 0.15})
            return {"made": made, "passed": self.rng.random() > 0.03}
        if what == "training":
            harm = (
                "quality"
                if self.truth[spec["snapshot"]]["is_bad"]
                else self.rng.choice(["", "", "", "", "errors"])
            )
            gates = self.rng.choice(["accept"] * 6 + ["reject", "undecided"])
            self.truth[made] = {
                "harm": harm,
                "gates": gates,
                "is_answering": self.rng.random() < 0.9,
            }
        if what == "pack":
            trained = next(
                j.seen["made"]
                for (w, k), j in self.jobs.items()
                if w == "training" and k == f"{stream}#{spec['training_seq']}"
            )
            made = f"bundle-of-{trained}"
            self.truth[made] = self.truth[trained]
            return {"made": made, "flavour": "onnx"}
        if what == "evaluation":
            shift = {"accept": -0.1, "undecided": 0.0, "reject": 0.1}[
                self.truth[spec["bundle"]]["gates"]
            ]
            metric = {
                "name": "rmse",
                "value": 0.7 + shift,
                "lower": 0.65 + shift,
                "upper": 0.75 + shift,
                "n": 300,
            }
            evidence = {
                "metrics": {"rmse": metric}, "trivial": {"name": "rmse", "value": 2.0}, "champion": None, "size_bytes": 1000, "n_heldout": 300,
            }  # fmt: skip
            return {"made": made, "evidence": evidence}
        if what == "staging":
            return {
                "made": made,
                "is_answering": self.truth[spec["bundle"]]["is_answering"],
                "cause": "",
            }
        return {"made": made}

    def _raise_floor(self, stream: str, seq: int) -> None:
        """Work for anything before `seq` is over: stop it, and start none of it any more."""
        if seq <= self.floor.get(stream, 0):
            return
        self.floor[stream] = seq
        for job in self.jobs.values():
            if (
                job.stream == stream
                and job.seq < seq
                and job.alive(self.now)
                and "nobody_reaps" not in self.bugs
            ):
                job.fate = "killed"

    def _route(self, stream: str, seq: int, value: dict[str, Any]) -> None:
        current = self.router.get(stream, (0, {}, 0.0))[0]
        if "router_forgets" in self.bugs and self.rng.random() < 0.3:
            current = 0
        if seq <= current and "router_takes_any" not in self.bugs:
            return
        self.router[stream] = (seq, value, self.now)
        self.shown.append((stream, seq, value))
