"""From closed seconds to what decides: observation lines become `seen["traffic"]` and the champion's limits.

One `Evidence` follows one pair of bundles. It can be resumed from `as_json`, or rebuilt from the segments: the batches
are the seconds themselves, so it does not matter in how many helpings they were read. Shapes: docs/lifecycle.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import inf, log, sqrt
from typing import Any, Protocol

from gyrostat.rollout.settings import RolloutSettings
from gyrostat.stats.histograms import count_above, merge, quantile
from gyrostat.stats.losses import LOSS_OF, loss_of_line, mean_loss_limit, metric_of
from gyrostat.stats.sequential import (
    LimitTest,
    MeansTest,
    Moments,
    RatesTest,
    cs_margin,
    rate_sequence,
    requests_for_proof,
)
from gyrostat.terms import Limit, Margin

SERVICE = ("error_rate", "latency_p99")
SLOW_SHARE = 0.01
"""p99 is within a bound exactly where at most this share is above it."""
MIN_LABELS = 20
MIN_LATENCIES = 100
"""Requests of the champion before its p99 is something to compare with."""
FELT = 0.2
"""What is below this share of the absolute limit on p99 is never harm: nobody feels 0.5 ms become 0.7."""
FELT_S = 0.005
"""The same where no limit is declared."""


class HasLimits(Protocol):
    """The part of `GateSettings` that is needed here."""

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The absolute limits."""
        ...


@dataclass
class _Batch:
    """Counts of the pair since the last batch."""

    second: int = -1
    routes_seq: int = -1
    n: list[int] = field(default_factory=lambda: [0, 0])
    errors: list[int] = field(default_factory=lambda: [0, 0])
    latency: list[dict[str, int]] = field(default_factory=lambda: [{}, {}])


@dataclass
class _Limits:
    """One bundle against the absolute limits."""

    n: int = 0
    errors: int = 0
    latency: dict[str, int] = field(default_factory=dict)
    tests: dict[str, LimitTest] = field(default_factory=dict)
    losses: dict[str, Moments] = field(default_factory=dict)


class Evidence:
    """Evidence for and against a candidate beside a champion, and about the champion alone.

    Args:
        settings: of the rollout: guardrails, bake, wrong decisions.
        gates: whose `limits` are the absolute limits.
        champion: digest of the champion's bundle.
        candidate: digest of the candidate's; empty: there is none.
        since_seq: routes seq with which the rollout began; older lines say nothing about it.
        champion_since_seq: routes seq with which the champion was promoted; None: the champion alone is not judged.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        gates: HasLimits,
        *,
        champion: str,
        candidate: str = "",
        since_seq: int = 0,
        champion_since_seq: int | None = 0,
    ) -> None:
        self.settings, self.gates = settings, gates
        self.champion, self.candidate = champion, candidate
        self.since_seq, self.champion_since_seq = since_seq, champion_since_seq
        self.last_second = -1
        self._batch = _Batch()
        self._tests: dict[str, tuple[RatesTest, RatesTest]] = {}
        self._means: dict[str, MeansTest] = {}
        self._labels: dict[str, list[Moments]] = {}
        self._counts = [[0, 0], [0, 0]]
        self._served: list[dict[str, int]] = [{}, {}]
        self._steps: dict[int, list[int]] = {}
        self._of = {"champion": _Limits(), "candidate": _Limits()}

    @classmethod
    def of_rollout(
        cls,
        settings: RolloutSettings,
        gates: HasLimits,
        arms: Iterable[Mapping[str, Any]],
        since_seq: int,
    ) -> Evidence:
        """About a candidate beside its champion, of the arms that routes name."""
        bundles = {arm["role"]: arm["bundle"] for arm in arms}
        return cls(
            settings, gates, champion=bundles.get("champion", ""), candidate=bundles.get("candidate", ""),
            since_seq=since_seq, champion_since_seq=None,
        )  # fmt: skip

    # ---- keeping

    @property
    def pair(self) -> list[Any]:
        """Which bundles it is about, and from which routes on."""
        return [self.champion, self.candidate, self.since_seq, self.champion_since_seq]

    def as_json(self) -> dict[str, Any]:
        """All that was folded, as JSON values: keep it beside the `Place` up to which lines were folded."""
        return {
            "pair": self.pair,
            "last_second": self.last_second,
            "batch": asdict(self._batch),
            "tests": {k: [h.as_json(), p.as_json()] for k, (h, p) in self._tests.items()},
            "means": {k: m.as_json() for k, m in self._means.items()},
            "labels": {k: [asdict(m) for m in pair] for k, pair in self._labels.items()},
            "counts": self._counts,
            "served": self._served,
            "steps": {str(seq): step for seq, step in self._steps.items()},
            "of": {who: asdict(limits) for who, limits in self._of.items()},
        }

    def resume(self, kept: Mapping[str, Any]) -> bool:
        """Take over what `as_json` gave; False, and nothing is taken, if it was about another pair of bundles."""
        if kept["pair"] != self.pair:
            return False
        self.last_second = kept["last_second"]
        self._batch = _Batch(**kept["batch"])
        self._tests = {
            k: (RatesTest.from_json(h), RatesTest.from_json(p))
            for k, (h, p) in kept["tests"].items()
        }
        self._means = {k: MeansTest.from_json(m) for k, m in kept["means"].items()}
        self._labels = {k: [Moments(**m) for m in pair] for k, pair in kept["labels"].items()}
        self._counts, self._served = kept["counts"], kept["served"]
        self._steps = {int(seq): step for seq, step in kept["steps"].items()}
        self._of = {
            who: _Limits(
                limits["n"],
                limits["errors"],
                limits["latency"],
                {k: LimitTest.from_json(t) for k, t in limits["tests"].items()},
                {k: Moments(**m) for k, m in limits["losses"].items()},
            )
            for who, limits in kept["of"].items()
        }
        return True

    # ---- folding

    def fold(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take observation lines in the order in which they stand; each once.

        Hand over whole appends (`observations.read` gives only those): a second is a batch once all of it is here.
        """
        for line in lines:
            if "n_labels" in line:
                self._fold_labels(line)
            else:
                self._fold_traffic(line)
        self._flush()

    def _side(self, line: Mapping[str, Any]) -> int | None:
        """0 the champion, 1 the candidate, None neither; only lines that belong to the rollout."""
        if not self.candidate or line["routes_seq"] < self.since_seq:
            return None
        if line["bundle"] == self.champion and line["arm"] == "champion":
            return 0
        return 1 if line["bundle"] == self.candidate and line["arm"] != "champion" else None

    def _counts_alone(self, seq: int) -> bool:
        return self.champion_since_seq is not None and seq >= self.champion_since_seq

    def _fold_traffic(self, line: Mapping[str, Any]) -> None:
        second, seq = line["second"], line["routes_seq"]
        self.last_second = max(self.last_second, second)
        is_champion = line["bundle"] == self.champion and line["arm"] == "champion"
        if is_champion and self._counts_alone(seq):
            self._fold_limits("champion", line)
        side = self._side(line)
        if side is None:
            return
        if (second, seq) != (self._batch.second, self._batch.routes_seq):
            self._flush()
            if seq != self._batch.routes_seq:
                self._batch = _Batch()  # a batch never spans two steps: the share moved
            self._batch.second, self._batch.routes_seq = second, seq
        batch = self._batch
        batch.n[side] += line["n"]
        batch.errors[side] += line["errors"]
        if (
            line["arm"] != "shadow"
        ):  # a shadow is asked when there is time; how long it takes says nothing
            merge(batch.latency[side], line["latency"])
        self._counts[side][0] += line["n"]
        self._counts[side][1] += line["errors"]
        step = self._steps.setdefault(seq, [0, second, second])
        step[0] += line["n"] if side else 0
        step[2] = max(step[2], second)
        if side:
            self._fold_limits("candidate", line)

    def _flush(self) -> None:
        batch = self._batch
        if not (batch.n[0] and batch.n[1]):
            return
        guardrails = self.settings.guardrails
        if "error_rate" in guardrails:
            counts = (batch.n[0], batch.errors[0], batch.n[1], batch.errors[1])
            self._add("error_rate", guardrails["error_rate"], counts)
        if "latency_p99" in guardrails:
            self._flush_latency(guardrails["latency_p99"], batch)
        merge(self._served[0], batch.latency[0])
        merge(self._served[1], batch.latency[1])
        self._batch = _Batch(batch.second, batch.routes_seq)

    def _flush_latency(self, margin: Margin, batch: _Batch) -> None:
        # The bound comes from the champion's past alone, so the batch that is judged has no say in it.
        past = self._served[0]
        if sum(past.values()) < MIN_LATENCIES:
            return
        bound = max(margin.above(quantile(past, 0.99) or 0.0), self._felt_s)
        n0, n1 = (sum(side.values()) for side in batch.latency)
        slow = [count_above(side, bound) for side in batch.latency]
        self._add("latency_p99", Margin("points", SLOW_SHARE), (n0, slow[0], n1, slow[1]))

    @property
    def _felt_s(self) -> float:
        limits = [x.bound for x in self.gates.limits if x.metric == "latency_p99"]
        return FELT * limits[0] if limits else FELT_S

    def _add(self, metric: str, margin: Margin, counts: tuple[int, int, int, int]) -> None:
        slope, offset = _line(margin)
        harm, proof = self._tests.get(
            metric, (RatesTest("harm", slope, offset), RatesTest("proof", slope, offset))
        )
        self._tests[metric] = (harm.add(*counts), proof.add(*counts))

    def _fold_limits(self, who: str, line: Mapping[str, Any]) -> None:
        found = self._of[who]
        found.n += line["n"]
        found.errors += line["errors"]
        counts_latency = line["arm"] != "shadow"
        if counts_latency:
            merge(found.latency, line["latency"])
        for limit in self.gates.limits:
            if limit.metric == "error_rate":
                test = found.tests.get("error_rate", LimitTest(limit.bound))
                found.tests["error_rate"] = test.add_counts(line["n"], line["errors"])
            elif limit.metric == "latency_p99" and counts_latency:
                test = found.tests.get("latency_p99", LimitTest(SLOW_SHARE))
                slow = count_above(line["latency"], limit.bound)
                found.tests["latency_p99"] = test.add_counts(sum(line["latency"].values()), slow)

    def _fold_labels(self, line: Mapping[str, Any]) -> None:
        is_champion = line["bundle"] == self.champion and line["arm"] == "champion"
        if is_champion and self._counts_alone(line["routes_seq"]):
            self._fold_losses("champion", line)
        side = self._side(line)
        if side is None:
            return
        if side:
            self._fold_losses("candidate", line)
        for metric, margin in self.settings.guardrails.items():
            found = loss_of_line(line, LOSS_OF.get(metric, ""))
            if found is None:
                continue
            pair = self._labels.setdefault(metric, [Moments(), Moments()])
            pair[side] = pair[side].add(found.n, found.total, found.squares)
            test = self._means.get(metric, MeansTest(slope=_loss_line(metric, margin, 0.0)[0]))
            stratum, pair_sums = str(line["routes_seq"]), line.get("pair")
            if line["arm"] == "shadow" and LOSS_OF[metric] == line["loss"] and pair_sums:
                champion, shadow = (
                    Moments(pair_sums["n"], *pair_sums[who]) for who in ("champion", "shadow")
                )
                test = test.add_pairs(stratum, champion, shadow, pair_sums["cross"])
            else:
                test = test.add(stratum, side, found.n, found.total, found.squares)
            self._means[metric] = test

    def _fold_losses(self, who: str, line: Mapping[str, Any]) -> None:
        of = self._of[who]
        for limit in self.gates.limits:
            known = mean_loss_limit(limit)
            found = loss_of_line(line, known[0]) if known else None
            bets = line.get("bets", {}).get(limit.metric)
            if known is None or found is None or bets is None or bets["limit"] != limit.bound:
                continue
            test = of.tests.get(limit.metric, LimitTest(known[1]))
            of.tests[limit.metric] = test.add_bets(bets["logs"])
            before = of.losses.get(limit.metric, Moments())
            of.losses[limit.metric] = before.add(found.n, found.total, found.squares)

    # ---- what it says

    def traffic(
        self, routes_seq: int, *, share: float = 0.5, evidence: str = ""
    ) -> dict[str, Any] | None:
        """`seen["traffic"]` for the step whose routes have this seq; None before the candidate was asked once.

        Args:
            share: of traffic that the candidate gets now, for the forecast of how much is still needed.
            evidence: `observations.evidence(...)` of the lines that were folded.
        """
        if not self._counts[1][0]:
            return None
        requests, first, last = self._steps.get(routes_seq, [0, 0, -1])
        return {
            "routes_seq": routes_seq,
            "step": {
                "requests": requests,
                "seconds": float(max(last, self.last_second) - first + 1) if requests else 0.0,
            },
            "total": {"requests": self._counts[1][0]},
            "guardrails": self._guardrails(share),
            "limits": self._limits("candidate"),
            "evidence": evidence,
        }

    def champion_limits(self) -> dict[str, Any]:
        """`seen["champion"]`: the absolute limits of the champion since it was promoted."""
        return {"limits": self._limits("champion"), "since_seq": self.champion_since_seq}

    def _guardrails(self, share: float) -> dict[str, Any]:
        found: dict[str, Any] = {}
        alpha = self.settings.wrong_decisions
        for metric, (harm, proof) in self._tests.items():
            is_errors = metric == "error_rate"
            if is_errors:
                counts = [(n, k) for n, k in self._counts]
            else:
                bound = max(
                    self.settings.guardrails[metric].above(quantile(self._served[0], 0.99) or 0.0),
                    self._felt_s,
                )
                counts = [(sum(side.values()), count_above(side, bound)) for side in self._served]
            value, lower, upper = _difference(counts, alpha)
            base = (counts[0][1] + 0.1) / (counts[0][0] + 10)
            needed = requests_for_proof(
                min(max(share, 0.01), 0.99) if share else 0.5,
                base,
                slope=proof.slope,
                offset=proof.offset,
                alpha=alpha,
            )
            found[metric] = {
                "harm": harm.log_e,
                "proof": proof.log_e,
                "needs_proof": is_errors,
                "value": value,
                "lower": lower,
                "upper": upper,
                "n": counts[1][0],
                "cause": "errors" if is_errors else "latency",
            }
            if is_errors and needed != inf:
                found[metric]["n_needed"] = needed * (share or 0.5)
        for metric, pair in self._labels.items():
            if min(pair[0].n, pair[1].n) >= MIN_LABELS:
                found[metric] = self._quality(metric, pair)
        return found

    def _quality(self, metric: str, pair: list[Moments]) -> dict[str, Any]:
        margin = self.settings.guardrails[metric]
        slope, offset = _loss_line(metric, margin, pair[0].mean)
        test = MeansTest(slope, offset, self._means[metric].strata, self._means[metric].pairs)
        size, excess, variance = test.difference()
        half = cs_margin(size, variance, alpha=self.settings.wrong_decisions) if size else inf
        base = metric_of(metric, pair[0].mean)
        sign = -1.0 if metric == "accuracy" else 1.0
        over = slope * pair[0].mean + offset

        def worse(mean_loss: float) -> float:
            return sign * (metric_of(metric, mean_loss) - base)

        return {
            "harm": test.harm,
            "proof": test.proof,
            "needs_proof": True,
            "value": worse(pair[1].mean),
            "lower": worse(over + excess - half) if half < inf else None,
            "upper": worse(over + excess + half) if half < inf else None,
            "n": pair[1].n,
            "cause": "quality",
        }

    def _limits(self, who: str) -> dict[str, Any]:
        of, found = self._of[who], {}
        alpha = self.settings.wrong_decisions
        for limit in self.gates.limits:
            test = of.tests.get(limit.metric)
            if test is None:
                continue
            if limit.metric == "error_rate":
                n, cause = of.n, "errors"
                value: float | None = of.errors / n if n else 0.0
                lower, upper = rate_sequence(of.errors, n, alpha=alpha)
            elif limit.metric == "latency_p99":
                n, cause = sum(of.latency.values()), "latency"
                value = quantile(of.latency, 0.99)
                off = sqrt(SLOW_SHARE * log(2 / alpha) * 2 / n) if n else 1.0
                lower = quantile(of.latency, max(0.0, 0.99 - off))
                upper = quantile(of.latency, min(1.0, 0.99 + off))
            else:
                loss = of.losses[limit.metric]
                n, cause = loss.n, "quality"
                half = cs_margin(n, loss.variance, alpha=alpha)
                value = metric_of(limit.metric, loss.mean)
                ends = sorted(metric_of(limit.metric, loss.mean + s * half) for s in (-1, 1))
                lower, upper = ends
            found[limit.metric] = {
                "broken": test.log_e,
                "value": value,
                "lower": lower,
                "upper": upper,
                "limit": limit.bound,
                "n": n,
                "cause": cause,
            }
        return found


def _line(margin: Margin) -> tuple[float, float]:
    """A margin as a line: slope and offset of the largest rate that is not worse."""
    return (margin.value, 0.0) if margin.kind == "ratio" else (1.0, margin.value)


def _loss_line(metric: str, margin: Margin, base_loss: float) -> tuple[float, float]:
    """The same in the mean loss behind a metric."""
    slope, offset = _line(margin)
    if metric == "rmse":
        # (root + offset)^2, where the champion's own root stands in for the true one.
        return slope**2, 2 * offset * sqrt(max(0.0, base_loss)) + offset**2
    return slope, offset


def _difference(counts: list[tuple[int, int]], alpha: float) -> tuple[float, float, float]:
    """How much larger the candidate's rate is, with bounds that hold at all times."""
    (n0, k0), (n1, k1) = counts
    low0, high0 = rate_sequence(k0, n0, alpha=alpha / 2)
    low1, high1 = rate_sequence(k1, n1, alpha=alpha / 2)
    value = (k1 / n1 if n1 else 0.0) - (k0 / n0 if n0 else 0.0)
    return value, low1 - high0, high1 - low0
