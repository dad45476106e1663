"""The monitor of one model: from frames and labels to closed seconds. Pure on what it is given; it opens nothing.

A second is closed when every living writer has said everything before its end. Then it becomes one line for each
(routes seq, bundle, arm), and is never changed; labels make lines of their own, each label once:

```
{"second", "routes_seq", "bundle", "arm", "n", "rows", "errors", "slow", "latency": {bin: n}, "new": {col: n},
 "missing": {col: n}, "hist": {feature: [n, ...]}, "outputs": [n, ...]}
{"second", "labelled_second", "routes_seq", "bundle", "arm", "n_labels", "loss": "squared"|"miss", "loss_sum", "loss_sq",
 "hits", "more": {loss: [sum, sum of squares]}, "bets": {metric: {"limit", "logs": [...]}}, "delay_s",
 and of a shadow "pair": {"n", "champion": [sum, squares], "shadow": [sum, squares], "cross": sum of products}}
```
`n` and `errors` hold requests too that a server had in its hands when it died; of these nothing else is known.
`hist` and `outputs` are the champion's alone. `latency` bins are those of `stats.histograms`; `bets` are the bets of `stats.sequential.LimitTest`.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from gyrostat_runtime.log import Frame, Heartbeat, Label, Owed, Sealed, time_of

from gyrostat.monitoring.reference import PREDICTION, Reference, spelling
from gyrostat.stats.histograms import bucket
from gyrostat.stats.losses import mean_loss_limit
from gyrostat.stats.sequential import bet_logs
from gyrostat.terms import Limit

SILENT_S = 30.0
"""A writer that says nothing for so long no longer holds seconds open; what it says later counts in a later second."""
GRACE_S = 0.5
"""A second stays open for so long after its end, for a writer that has only just begun."""
RECENT = 40_000
"""Predictions that labels find in memory; older ones are looked up in the log."""
RETRY_S = 120.0
"""A label without a prediction is tried again for so long: the log may be behind."""
AHEAD_S = 86_400.0
"""A label for a prediction of a later time than this from now is for none; clocks are set back by less."""
MOST_WAITING = 50_000
MOST_FED = 200_000

Key = tuple[int, int, str, str]
_Answer = tuple[Any, float]
_Pair = tuple[Any, Any, float, float, "_Answer | None"]
"""Label, answer, score, delay, and of a shadow the champion's answer to the same row."""


@dataclass(slots=True)
class _Group:
    """One open second of one arm."""

    n: int = 0
    rows: int = 0
    errors: int = 0
    slow: int = 0
    latencies: list[float] = field(default_factory=list)
    new: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    hist: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a label needs to know of a prediction."""

    at: float
    routes_seq: int
    bundle: str
    arm: str
    outputs: tuple[Any, ...]
    scores: tuple[float, ...]


@dataclass
class Monitor:
    """Counts what one model's log and label log say.

    Args:
        reference: a bundle's digest -> its reference, or None where there is none.
        limits: absolute limits, for the bets in label lines.
        slow_s: routes seq -> the latency above which an answer is slow, or None.
        mature_after_s: rows younger than this count nowhere.
    """

    reference: Callable[[str], Reference | None]
    limits: tuple[Limit, ...] = ()
    slow_s: Callable[[int], float | None] = lambda _: None
    mature_after_s: float = 0.0
    closed: int = -1
    """The last second that is closed."""
    counts: dict[str, int] = field(
        default_factory=lambda: {
            "late": 0,
            "doubled": 0,
            "unknown": 0,
            "changed": 0,
            "unusable": 0,
            "overflow": 0,
        }
    )
    """Frames that came after their second was closed, frames and labels that came twice, labels that found no
    prediction, that changed one already counted, that cannot be compared, that had no room to wait."""
    dropped: dict[str, int] = field(default_factory=dict)
    """By writer: frames its process could not write."""

    def __post_init__(self) -> None:
        self.writers: dict[str, float] = {}
        self._heard: dict[str, float] = {}
        self._owed: dict[str, list[tuple[int, int]]] = {}
        """By writer: `since` of what it owed and the second in which that counts; of closed ones the last."""
        self._open: dict[Key, _Group] = {}
        self._recent: OrderedDict[str, list[_Seen]] = OrderedDict()
        self._pending: dict[str, tuple[Label, float]] = {}
        self._due: list[tuple[float, str]] = []
        self._fed: OrderedDict[str, str] = OrderedDict()
        self._missing: dict[str, None] = {}
        self.delays: deque[float] = deque(maxlen=500)

    # ---- predictions

    def take(
        self,
        events: Iterable[tuple[str, Frame | Heartbeat | Sealed | Owed]],
        now: float,
        *,
        is_replay: bool = False,
    ) -> int | None:
        """Take what the tail has read.

        Args:
            now: this process's time, seconds since 1970.
            is_replay: frames of closed seconds were counted before the monitor was started again.

        Returns:
            The last second in which something of it counts; None where nothing does.
        """
        gathered: dict[Key, list[Frame]] = {}
        seconds: list[int] = []
        for writer, event in events:
            self._heard[writer] = now
            if isinstance(event, Sealed):
                self.writers.pop(writer, None)
                continue
            self.writers[writer] = max(event.at, self.writers.get(writer, 0.0))
            if isinstance(event, Heartbeat):
                self.dropped[writer] = event.dropped
                continue
            if isinstance(event, Owed):
                if (second := self._take_owed(event)) is not None:
                    seconds.append(second)
                continue
            if not self._remember(event):
                self.counts["doubled"] += 1
                continue
            if event.is_asked:
                continue
            second = int(event.at)
            if second <= self.closed:
                if is_replay:
                    continue
                self.counts["late"] += 1
                second = self.closed + 1
            key = (second, event.routes_seq, event.bundle, event.arm)
            gathered.setdefault(key, []).append(event)
        for key, frames in gathered.items():
            self._count(key, frames)
        return max([*seconds, *(key[0] for key in gathered)], default=None)

    def _take_owed(self, event: Owed) -> int | None:
        """An error for each. Whoever seals may be killed and seal again, so a repeat is known by its number."""
        known = self._owed.setdefault(event.writer, [])
        if known and event.since <= known[-1][0]:
            return None
        # Never before what this writer owed earlier, so that one number says up to where it stands in closed seconds.
        second = max([int(event.at), self.closed + 1, *(second for _, second in known[-1:])])
        known.append((event.since, second))
        for debt in event.debts:
            key = (second, debt.routes_seq, debt.bundle, debt.arm)
            group = self._open.setdefault(key, _Group())
            group.n += debt.n
            group.errors += debt.n
        return second

    @property
    def owed(self) -> dict[str, int]:
        """By writer: up to which `since` what it owed stands in closed seconds."""
        return {
            writer: known[0][0]
            for writer, known in self._owed.items()
            if known[0][1] <= self.closed
        }

    def recall_owed(self, owed: Mapping[str, int]) -> None:
        """What `owed` said before a restart is not counted again."""
        self._owed = {writer: [(since, -1)] for writer, since in owed.items()}

    def _remember(self, frame: Frame) -> bool:
        known = self._recent.get(frame.id)
        if known is None:
            known = self._recent[frame.id] = []
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        elif any(s.arm == frame.arm and s.bundle == frame.bundle for s in known):
            return False
        known.append(_seen(frame))
        return True

    def _count(self, key: Key, frames: list[Frame]) -> None:
        group = self._open.setdefault(key, _Group())
        group.n += len(frames)
        group.errors += sum(frame.is_error for frame in frames)
        group.latencies.extend(frame.latency_s for frame in frames)
        slow_s = self.slow_s(key[1])
        if slow_s is not None:
            group.slow += sum(frame.latency_s > slow_s for frame in frames)
        for frame in frames:
            group.rows += frame.n
            for name, n in frame.new.items():
                group.new[name] = group.new.get(name, 0) + n
            for name, n in frame.missing.items():
                group.missing[name] = group.missing.get(name, 0) + n
        # Drift is about what comes in; the champion's share of it tells that, and histograms are most of a line.
        reference = self.reference(key[2]) if key[3] == "champion" else None
        if reference is None:
            return
        rows = [row for frame in frames for row in frame.inputs]
        for column in reference.columns:
            if column.name != PREDICTION:
                place = column.index
                values = [row[place] for row in rows if place < len(row)]
            elif column.is_ordered:
                values = [score for frame in frames if not frame.is_error for score in frame.scores]
            else:
                values = [out for frame in frames if not frame.is_error for out in frame.outputs]
            if not values:
                continue
            found = column.histogram(values)
            before = group.hist.get(column.name)
            group.hist[column.name] = (
                found if before is None else [a + b for a, b in zip(before, found, strict=True)]
            )

    def recall_writers(self, writers: Mapping[str, float], now: float) -> None:
        """Writers that lived before a restart hold seconds open until they are heard of, or silent for long."""
        self.writers.update(writers)
        self._heard.update(dict.fromkeys(writers, now))

    def close(self, now: float) -> list[dict[str, Any]]:
        """The lines of all seconds that are over for every living writer, in order."""
        for writer, heard in list(self._heard.items()):
            if now - heard > SILENT_S:
                self.writers.pop(writer, None)
                del self._heard[writer]
        until = min([now - GRACE_S, *self.writers.values()])
        last = math.floor(until) - 1
        if last <= self.closed:
            return []
        due = sorted(key for key in self._open if key[0] <= last)
        lines = [_line(key, self._open.pop(key)) for key in due]
        self.closed = last
        for known in self._owed.values():
            while len(known) > 1 and known[1][1] <= last:
                del known[0]
        return lines

    @property
    def first_open(self) -> int | None:
        """The oldest second that is not closed and has frames."""
        return min((key[0] for key in self._open), default=None)

    # ---- labels

    def take_labels(self, labels: Iterable[Label], now: float) -> None:
        """Take labels in any order, any number of times: of those for one row that came until one is counted, the latest counts.

        The latest by the time at which the label log took them; of one request's, the last.
        """
        for label in labels:
            row = row_id(label.id)
            known = self._pending.get(row)
            if row in self._fed:
                self._again(label, self._fed[row])
            elif known is not None:
                self._again(label, spelling(known[0].label))
                if label.at >= known[0].at:
                    self._pending[row] = (label, known[1])
            else:
                self._wait(row, label, now)

    def _again(self, label: Label, known: str) -> None:
        self.counts["doubled" if known == spelling(label.label) else "changed"] += 1

    def _wait(self, row: str, label: Label, since: float) -> None:
        id = row.partition(".")[0]
        try:
            given_at = time_of(id)
        except ValueError:
            given_at = math.inf
        if given_at > since + AHEAD_S and id not in self._recent:
            self.counts["unknown"] += 1  # of no prediction, or of one that nobody has made yet
        elif len(self._pending) >= MOST_WAITING:
            self.counts["overflow"] += 1
        else:
            self._pending[row] = (label, since)
            heapq.heappush(self._due, (given_at + self.mature_after_s, row))

    def was_fed(self, label: Label) -> None:
        """Remember from before a restart that this label was counted."""
        self._feed(row_id(label.id), label)

    def _feed(self, row: str, label: Label) -> None:
        self._fed[row] = spelling(label.label)
        while len(self._fed) > MOST_FED:
            self._fed.popitem(last=False)

    @property
    def n_parked(self) -> int:
        """Labels that wait: for their prediction, or to be mature."""
        return len(self._pending)

    def wanted(self) -> list[str]:
        """Ids of predictions that labels ask for and memory has not; hand what the log has to `found`."""
        return list(dict.fromkeys(row.partition(".")[0] for row in self._missing))

    def wanted_rows(self) -> list[str]:
        """Ids of the rows whose labels are mature and wait for their prediction."""
        return list(self._missing)

    def found(self, frames: Iterable[Frame]) -> dict[str, list[_Seen]]:
        """Frames from the log, by id, for `join`."""
        known: dict[str, list[_Seen]] = {}
        for frame in frames:
            seen = known.setdefault(frame.id, [])
            if not any(s.arm == frame.arm and s.bundle == frame.bundle for s in seen):
                seen.append(_seen(frame))
        return known

    def join(
        self, now: float, older: Mapping[str, list[_Seen]] | None = None
    ) -> list[dict[str, Any]]:
        """Lines about labels that are mature and have found their prediction; each label is in one line only."""
        older = older or {}
        ready, self._missing = set(self._missing), {}
        while self._due and self._due[0][0] <= now:
            ready.add(heapq.heappop(self._due)[1])
        pairs: dict[Key, list[_Pair]] = {}
        for row in sorted(
            ready
        ):  # sums and bets are the same to the last bit, in whatever order labels came
            label, since = self._pending[row]
            id, _, number = row.partition(".")
            seen = self._recent.get(id) or older.get(id)
            if seen is None and now - since <= RETRY_S:
                self._missing[row] = None
                continue
            del self._pending[row]
            if seen is None:
                self.counts["unknown"] += 1
                continue
            self._feed(row, label)
            self._pair(seen, int(number), label, pairs)
        return [
            line
            for key, found in sorted(pairs.items(), key=lambda item: item[0])
            if (line := self._labels_line(key, found, int(now))) is not None
        ]

    def _pair(
        self,
        seen: list[_Seen],
        number: int,
        label: Label,
        pairs: dict[Key, list[_Pair]],
    ) -> None:
        is_matched = False
        for s in seen:
            if number >= len(s.outputs):
                continue
            is_matched = True
            score = s.scores[number] if number < len(s.scores) else float("nan")
            delay = max(0.0, label.at - s.at)
            key = (int(s.at), s.routes_seq, s.bundle, s.arm)
            beside = _beside(s, seen, number) if s.arm == "shadow" else None
            pairs.setdefault(key, []).append((label.label, s.outputs[number], score, delay, beside))
        if not is_matched:  # the model had failed: there is nothing to compare
            self.counts["unusable"] += 1

    def _labels_line(self, key: Key, found: list[_Pair], second: int) -> dict[str, Any] | None:
        labelled_second, routes_seq, bundle, arm = key
        reference = self.reference(bundle)
        if reference is None:
            self.counts["unusable"] += len(found)
            return None
        losses, n_bad = _losses(reference, found)
        self.counts["unusable"] += n_bad
        main = "squared" if "squared" in losses else "miss"
        values = losses[main]
        if not len(values):
            return None
        delays = [delay for _, _, _, delay, _ in found]
        self.delays.extend(delays)
        bets = {}
        for limit in self.limits:
            known = mean_loss_limit(limit)
            if known and known[0] in losses:
                logs = bet_logs(known[1], losses[known[0]]).tolist()
                bets[limit.metric] = {"limit": limit.bound, "logs": logs}
        pair = _pair_sums(reference, found, main) if arm == "shadow" else None
        return {
            "second": second,
            "labelled_second": labelled_second,
            "routes_seq": routes_seq,
            "bundle": bundle,
            "arm": arm,
            "n_labels": len(values),
            "loss": main,
            "loss_sum": float(values.sum()),
            "loss_sq": float((values**2).sum()),
            "hits": int((values == 0).sum()),
            "more": {
                k: [float(v.sum()), float((v**2).sum())] for k, v in losses.items() if k != main
            },
            "bets": bets,
            **({"pair": pair} if pair else {}),
            "delay_s": float(median(delays)),
        }


def _seen(frame: Frame) -> _Seen:
    # What a tester asked for is compared with nothing, like what was not answered.
    outputs = () if frame.is_error or frame.is_asked else tuple(frame.outputs)
    return _Seen(frame.at, frame.routes_seq, frame.bundle, frame.arm, outputs, tuple(frame.scores))


def _beside(shadow: _Seen, seen: list[_Seen], number: int) -> _Answer | None:
    """The champion's answer to the row that a shadow answered too."""
    for s in seen:
        if s.arm == "champion" and s.routes_seq == shadow.routes_seq and number < len(s.outputs):
            return s.outputs[number], s.scores[number] if number < len(s.scores) else float("nan")
    return None


def _pair_sums(reference: Reference, found: list[_Pair], main: str) -> dict[str, Any] | None:
    """Sums of the main loss of champion and shadow on the rows that both answered."""
    both = [pair for pair in found if pair[4] is not None]
    mine = [_losses(reference, [pair])[0].get(main) for pair in both]
    theirs = [
        _losses(reference, [(label, beside[0], beside[1], delay, None)])[0].get(main)
        for label, _, _, delay, beside in both
        if beside is not None
    ]
    values = [
        (float(a[0]), float(b[0]))
        for a, b in zip(theirs, mine, strict=True)
        if a is not None and b is not None and len(a) and len(b)
    ]
    if not values:
        return None
    champion, shadow = np.array(values).T
    return {
        "n": len(values),
        "champion": [float(champion.sum()), float((champion**2).sum())],
        "shadow": [float(shadow.sum()), float((shadow**2).sum())],
        "cross": float((champion * shadow).sum()),
    }


def row_id(id: str) -> str:
    """The one name of the row that a label is for: `id` alone is the first row of a request."""
    bare, _, number = id.partition(".")
    return f"{bare}.{int(number) if number.isascii() and number.isdecimal() else 0}"


def _line(key: Key, group: _Group) -> dict[str, Any]:
    second, routes_seq, bundle, arm = key
    latency: dict[str, int] = {}
    for seconds in group.latencies:
        name = str(bucket(seconds))
        latency[name] = latency.get(name, 0) + 1
    hist = dict(group.hist)
    outputs = hist.pop(PREDICTION, [])
    return {
        "second": second,
        "routes_seq": routes_seq,
        "bundle": bundle,
        "arm": arm,
        "n": group.n,
        "rows": group.rows,
        "errors": group.errors,
        "slow": group.slow,
        "latency": latency,
        "new": group.new,
        "missing": group.missing,
        "hist": hist,
        "outputs": outputs,
    }


def _losses(reference: Reference, found: list[_Pair]) -> tuple[dict[str, np.ndarray], int]:
    """Per-row losses by name, and how many labels cannot be compared."""
    output = reference.schema.output
    if output.task == "regression":
        errors: list[float] = []
        for label, answer, *_ in found:
            try:
                error = float(answer) - float(label)
            except (TypeError, ValueError):
                continue
            if not isinstance(label, bool) and math.isfinite(error) and abs(error) < 1e150:
                errors.append(error)
        values = np.array(errors)
        return {"squared": values**2, "absolute": np.abs(values)}, len(found) - len(errors)
    miss, scores, n_bad = [], [], 0
    for label, answer, score, *_ in found:
        if label is None or isinstance(label, (list, dict)):
            n_bad += 1
            continue
        miss.append(float(spelling(label) != spelling(answer)))
        scores.append((score, spelling(label) == spelling(output.positive)))
    losses = {"miss": np.array(miss)}
    if output.task == "binary" and output.positive and all(math.isfinite(s) for s, _ in scores):
        p = np.array([s for s, _ in scores])
        y = np.array([float(is_positive) for _, is_positive in scores])
        losses["brier"] = (p - y) ** 2
        losses["surprise"] = -np.log(np.clip(np.where(y == 1, p, 1 - p), 1e-15, 1.0))
    return losses, n_bad
