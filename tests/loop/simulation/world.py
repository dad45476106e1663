"""A world that can be unkind: workers, a store of bundles, a router, traffic, labels and a disk, under one virtual clock.

It obeys three rules, which the real one must obey too: work is done once for each key, a receiver refuses a seq that is not
higher than the one it has, and "everything before seq n is over" stops what is older, nothing else. It says to `watch` what
was really done. `bugs` breaks one rule at a time.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappush
from typing import TYPE_CHECKING, Any

from gyrostat.errors import UnavailableError

if TYPE_CHECKING:
    from .checks import Watch
    from .faults import Dice

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
DURATION_S = {
    "snapshot": (1, 60),
    "training": (600, 4 * HOUR),
    "pack": (5, 60),
    "evaluation": (10, 300),
    "staging": (5, 300),
    "scoring": (60, 3 * HOUR),
    "replay": (60, 2 * HOUR),
}
ENDS_BADLY = {
    "snapshot": (0.01, 0.0, 0.02, 0.003),
    "training": (0.1, 0.1, 0.03, 0.02),
    "pack": (0.03, 0.01, 0.02, 0.003),
    "evaluation": (0.01, 0.01, 0.02, 0.003),
    "staging": (0.05, 0.05, 0.01, 0.01),
    "scoring": (0.1, 0.1, 0.05, 0.05),
    "replay": (0.1, 0.1, 0.05, 0.05),
}
"""How often work dies, hangs, fails in a way that may pass, fails for good."""
WAYS = ("dies", "hangs", "fails once", "fails")


@dataclass(slots=True)
class Job:
    stream: str
    seq: int
    what: str
    ready_at: float
    fate: str  # done | dies | hangs | fails once | fails | killed
    seen: dict[str, Any]

    def alive(self, now: float) -> bool:
        return self.fate == "hangs" or (self.fate != "killed" and now < self.ready_at)


@dataclass
class SimulatedWorld:
    dice: Dice
    watch: Watch
    bugs: frozenset[str] = frozenset()
    now: float = 0.0
    events: list[tuple[float, int, Any, int]] = field(default_factory=list)
    ids: Any = field(default_factory=lambda: itertools.count(1))
    jobs: dict[tuple[str, str], Job] = field(default_factory=dict)
    floor: dict[str, int] = field(default_factory=dict)
    router: dict[str, tuple[int, dict[str, Any], float]] = field(default_factory=dict)
    champions: dict[str, set[str]] = field(default_factory=dict)
    """Of each model, all that ever answered."""
    sources: dict[str, list[float]] = field(default_factory=dict)
    label_delay_s: dict[str, float] = field(default_factory=dict)
    truth: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How good a snapshot, a trained model, a bundle really is."""
    silent: set[str] = field(default_factory=set)
    """Models that nobody asks any more."""
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was counted by the routes before: a monitor that lags still says so."""
    full_until: float = 0.0
    """Nothing can be written."""
    lease_of: Callable[[str], int] = lambda stream: 0
    fences: dict[str, int] = field(default_factory=dict)

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        heappush(self.events, (self.now + delay_s, next(self.ids), what, 0))

    def is_full(self) -> bool:
        return self.now < self.full_until

    # the three calls of the loop

    def look(self, stream: str, what: str, key: str) -> dict[str, Any]:
        dice = self.dice
        if dice.strikes("a look that fails", 0.01):
            raise UnavailableError("look")
        seen: dict[str, Any] = {}
        if stream.startswith("production/"):
            served, routes, since = self.router.get(stream, (0, {"arms": []}, 0.0))
            seen["shown"] = served
            if not dice.strikes("no server lives", 0.03):
                seen["served"] = served
            if stream[11:] not in self.silent:
                seen |= self._counted(stream, served, routes, since, with_traffic=what == "traffic")
            if stream in self.before and dice.strikes("the monitor lags", 0.03):
                seen |= self.before[stream]
        if what == "receivers" and stream.startswith("batching/"):
            seen |= self._champion(stream[9:])
        if what in ("receivers", "scoring"):
            seen["floor"] = self.floor.get(stream, 0)
        if what in ("receivers", "traffic", "nothing"):
            return seen
        job = self.jobs.get((what, key))
        if job is None or dice.strikes("a stale read", 0.02):
            return seen
        if job.alive(self.now):
            return seen | {"status": "running", "silent_s": max(0.0, self.now - job.ready_at)}
        match job.fate:
            case "dies" | "killed":
                return seen | {"status": "lost"}
            case "fails once" | "fails":
                is_passing = job.fate == "fails once"
                return seen | {"status": "failed", "cause": job.fate, "retryable": is_passing}
        return seen | {"status": "done", **job.seen}

    def _champion(self, model: str) -> dict[str, Any]:
        _, routes, _ = self.router.get(f"production/{model}", (0, {"arms": []}, 0.0))
        arm = next((a for a in routes["arms"] if a["role"] == "champion"), None)
        return {"champion": {k: arm[k] for k in ("bundle", "version")}} if arm else {}

    def _counted(
        self, stream: str, seq: int, routes: dict[str, Any], since: float, *, with_traffic: bool
    ) -> dict[str, Any]:
        """Requests come one a minute; of quality is known only what was labelled, and labels come late."""
        bundles = {arm["role"]: arm["bundle"] for arm in routes["arms"]}
        n = {"errors": int((self.now - since) / MINUTE)}
        n["quality"] = max(0, n["errors"] - int(self.label_delay_s[stream[11:]] / MINUTE))
        seen: dict[str, Any] = {}
        if champion := bundles.get("champion"):
            harm = self.truth[champion]["harm"]
            limits = {
                metric: {"broken": 0.05 * n[cause] if harm == cause else -1.0, "cause": cause, "n": n[cause]}
                for metric, cause in (("error_rate", "errors"), ("rmse", "quality"))
            }  # fmt: skip
            seen["champion"] = {"limits": limits, "since_seq": routes["promoted_seq"]}
        if with_traffic and (candidate := bundles.get("candidate")):
            harm = self.truth[candidate]["harm"]
            rails = {
                metric: {
                    "harm": 0.05 * n[cause] if harm == cause else -1.0, "proof": -1.0 if harm == cause else 0.02 * n[cause],
                    "needs_proof": True, "n": n[cause], "cause": cause,
                }
                for metric, cause in (("error_rate", "errors"), ("rmse", "quality"))
            }  # fmt: skip
            seen["traffic"] = {
                "routes_seq": seq, "step": {"requests": n["errors"], "seconds": MINUTE * n["errors"]},
                "total": {"requests": n["errors"]}, "guardrails": rails, "limits": {},
            }  # fmt: skip
        return seen

    def live(self, model: str) -> dict[str, Any]:
        """What the monitor writes down: whether the champion's quality is shown to have fallen, from the labels so far."""
        stream = f"production/{model}"
        _, routes, since = self.router.get(stream, (0, {"arms": []}, 0.0))
        champion = next((a["bundle"] for a in routes["arms"] if a["role"] == "champion"), "")
        shown_at = since + self.label_delay_s[model] + 2 * HOUR
        is_bad = bool(champion) and self.truth[champion]["harm"] == "quality"
        quality = {
            "is_decayed": is_bad and self.now > shown_at and model not in self.silent, "decayed_at": shown_at,
            "value": 0.9, "limit": 0.7, "n": 100, "lower": 0.8, "upper": 1.0,
        }  # fmt: skip
        return {
            "champion": champion,
            "at": self.now,
            "quality": {"rmse": quality},
            "labels": {"n": 0},
        }

    def start(
        self, stream: str, what: str, key: str, inputs: tuple[str, ...], spec: dict[str, Any]
    ) -> None:
        self._send(what, lambda: self._work(stream, what, key, spec))

    def show(self, stream: str, receiver: str, seq: int, value: dict[str, Any]) -> None:
        if receiver == "router":
            fence = self.lease_of(stream)
            self._send("routes", lambda: self._route(stream, seq, value, fence))
        else:
            self._send("floor", lambda: self._raise_floor(stream, seq))

    def _send(self, what: str, message: Callable[[], None]) -> None:
        """A call arrives, or not, or late, or twice; the caller may not learn which."""
        if self.is_full():
            raise UnavailableError("the disk is full")
        dice = self.dice
        if dice.strikes("a call is lost", 0.05, what):
            raise UnavailableError("lost")
        if dice.strikes("a call comes late", 0.05, what):
            self.later(self._late_s(what), message)
            raise UnavailableError("under way")
        message()
        if dice.strikes("an answer is lost", 0.05, what):
            raise UnavailableError("the answer was lost")
        if dice.strikes("a call comes twice", 0.05, what):
            self.later(self._late_s(what), message)

    def _late_s(self, what: str) -> float:
        luck = self.dice.luck("late")
        return luck.expovariate(1 / luck.choice([600, 6 * HOUR]))

    # the receivers

    def _work(self, stream: str, what: str, key: str, spec: dict[str, Any]) -> None:
        seq = int(key.partition("#")[2])
        floor = self.floor.get(stream, 0)
        if seq < floor and "late_start_accepted" not in self.bugs:
            return
        if (
            what == "scoring"
        ):  # whose life shows the floor first: this world is no kinder than the real one
            self._one_writer(stream, seq)
        else:
            self._raise_floor(stream, seq)
        if (what, key) in self.jobs and not (
            "work_repeated" in self.bugs or ("bundle_not_keyed" in self.bugs and what == "pack")
        ):
            return
        self.watch.began(stream, what, key, is_late=seq < floor)
        ways = zip(WAYS, ENDS_BADLY[what], strict=True)
        fate = next((way for way, p in ways if self.dice.strikes(f"work {way}", p, what)), "done")
        luck = self.dice.luck(stream)
        ready_at = self.now + luck.uniform(*DURATION_S[what])
        made = self._make(stream, what, key, spec, luck)
        self.jobs[what, key] = Job(stream, seq, what, ready_at, fate, made)

    def _one_writer(self, stream: str, seq: int) -> None:
        for job in self.jobs.values():
            if job.stream == stream and job.seq != seq and job.alive(self.now):
                self.watch.found.append(f"{stream}: {job.seq} and {seq} both write answers")

    def _make(
        self, stream: str, what: str, key: str, spec: dict[str, Any], rng: random.Random
    ) -> dict[str, Any]:
        made = f"{what}-{key}-{rng.getrandbits(32):08x}"  # never the same bytes twice
        model = stream.split("/")[1]
        match what:
            case "snapshot":  # the same rows give the same snapshot
                n = sum(at <= self.now for at in self.sources[model])
                known = (f"{model}-data-{v}" for v in range(n, -1, -1))
                made = next((s for s in known if s not in spec["barred"]), "")
                if made:
                    self.truth.setdefault(made, {"is_bad": rng.random() < 0.15})
                passed = rng.random() > 0.03
                checks = {
                    "n_rules": 12,
                    "n_broken": 0 if passed else 1,
                    "n_rows_broken": 0 if passed else 7,
                }
                return {"made": made, "passed": passed, "checks": checks}
            case "training":
                is_bad = self.truth[spec["snapshot"]]["is_bad"]
                self.truth[made] = {
                    "harm": "quality" if is_bad else rng.choice(["", "", "", "", "errors"]),
                    "gates": rng.choice(["accept"] * 6 + ["reject", "undecided"]),
                    "is_answering": rng.random() < 0.9,
                }
            case (
                "pack"
            ):  # and the same model the same bundle: its name is the digest of what is in it
                key = f"{stream}#{spec['training_seq']}"
                trained = self.jobs["training", key].seen["made"]
                made = f"bundle-of-{trained}"
                if "bundle_keyed_by_seq" in self.bugs:
                    made += f"-{rng.getrandbits(16):04x}"
                self.truth[made] = self.truth[trained]
                self.watch.packed(trained, made)
                return {"made": made, "flavour": "onnx"}
            case "evaluation":
                gates = self.truth[spec["bundle"]]["gates"]
                shift = {"accept": -0.1, "undecided": 0.0, "reject": 0.1}[gates]
                metric = {
                    "name": "rmse", "value": 0.7 + shift, "lower": 0.65 + shift, "upper": 0.75 + shift, "n": 300,
                }  # fmt: skip
                evidence = {
                    "metrics": {"rmse": metric}, "trivial": {"name": "rmse", "value": 2.0}, "champion": None, "size_bytes": 1000, "n_heldout": 300,
                }  # fmt: skip
                return {"made": made, "evidence": evidence}
            case "scoring":
                by = spec["bundle"]
                if "batch_not_pinned" in self.bugs:
                    by = self._champion(model)["champion"]["bundle"]
                self.watch.scoring(stream, {**spec, "bundle": by})
                n_rows = rng.choice([1, 300, 300])
                found = {"n_rows": n_rows, "n_failed": rng.choice([0, 0, 1])}
                return {
                    "made": made,
                    **found,
                    "id": key,
                    "input_digest": "table",
                    "began_at": self.now,
                }
            case "replay":
                evidence = self._replayed(self.truth[spec["bundle"]]["harm"], rng)
                about = {name: spec[name] for name in ("champion_bundle", "of")}
                return {"made": made, "evidence": evidence, **about}
            case "staging":
                is_answering = self.truth[spec["bundle"]]["is_answering"]
                return {"made": made, "is_answering": is_answering, "cause": ""}
        return {"made": made}

    @staticmethod
    def _replayed(harm: str, rng: random.Random) -> dict[str, Any]:
        """What a table shows of a candidate: harm it may hide, and may leave open what is well."""
        is_clear = rng.random() < 0.6
        width = 0.004 if is_clear else 0.1
        errors = 0.05 if harm == "errors" else 0.0
        rail = {"value": errors, "lower": errors - width, "upper": errors + width, "base": 0.0, "n": 300, "cause": "errors"}  # fmt: skip
        value = 0.9 if harm == "quality" else 0.5
        test = {"value": value, "lower": value - 0.1, "upper": value + 0.1, "limit": 0.7, "side": "max", "n": 300, "cause": "quality"}  # fmt: skip
        return {
            "input": "in.csv", "n": 300, "n_labels": 300, "guardrails": {"error_rate": rail}, "limits": {"rmse": test},
            "changed": {"value": 0.1},
        }  # fmt: skip

    def _raise_floor(self, stream: str, seq: int) -> None:
        """Work for anything before `seq` is over: stop it, and start none of it any more."""
        if seq <= self.floor.get(stream, 0) and "reaper_kills_others" not in self.bugs:
            return
        self.floor[stream] = max(seq, self.floor.get(stream, 0))
        for job in self.jobs.values():
            if job.stream == stream and job.alive(self.now) and "nobody_reaps" not in self.bugs:
                is_over = job.seq != seq if "reaper_kills_others" in self.bugs else job.seq < seq
                job.fate = "killed" if is_over else job.fate

    def _route(self, stream: str, seq: int, value: dict[str, Any], fence: int) -> None:
        current, routes, since = self.router.get(stream, (0, {"arms": []}, 0.0))
        if "router_forgets" in self.bugs and self.dice.roll("the router forgets") < 0.3:
            current = 0
        is_stale = seq <= current and "router_takes_any" not in self.bugs
        if "router_checks_lease_only" in self.bugs:
            is_stale = fence < self.fences.get(stream, 0)
            self.fences[stream] = max(fence, self.fences.get(stream, 0))
        if is_stale:
            return
        self.watch.shown(stream, seq, value)
        if routes["arms"] and stream[11:] not in self.silent:
            self.before[stream] = self._counted(stream, current, routes, since, with_traffic=True)
        self.router[stream] = (seq, value, self.now)
        answers = {arm["bundle"] for arm in value["arms"] if arm["role"] == "champion"}
        self.champions.setdefault(stream[11:], set()).update(answers)
