"""The monitor's process: `python -m gyrostat.processes.monitor --state DIR --settings JSON`.

Settings: `{"models": {name: {"limits": [{"metric", "max"|"min"}], "monitoring": {...}, "retraining": {...}}}}`, fields as
in the settings classes. It reads the logs, appends closed seconds to the segments, writes `live.json`, and tells the
retraining life what it found. Ended at any moment, it goes on where its last append stands: nothing is counted twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from gyrostat_runtime import log
from gyrostat_runtime.files import write_atomic

from gyrostat import predictionlog
from gyrostat.errors import DamagedError, LedgerError
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.monitoring.reference import Reference
from gyrostat.monitoring.settings import MonitoringSettings
from gyrostat.monitoring.summary import Live
from gyrostat.monitoring.watch import Monitor, row_id
from gyrostat.observations import Place, Segments, prune, read
from gyrostat.ports import Ledger
from gyrostat.processes.compacting import Compactor
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.retraining.triggers import triggers
from gyrostat.terms import Draft, Limit

POLL_S = 0.2
LIVE_S = 1.0
LOOK_UP_S = 5.0
MARK_S = 60.0
"""How far we have read is written down at least this often, also while nothing is asked."""
MOST_TOLD = 1000
REOPEN_S, PATIENCE_S = 5.0, 2.0
"""The ledger: between two tries to open it, and how long a call may wait while seconds want to be closed."""
PRUNE_S = 3600.0
COMPACT_S = 600.0


class Watcher:
    """One model's monitor with its files."""

    def __init__(
        self,
        state: Path,
        model: str,
        *,
        limits: tuple[Limit, ...] = (),
        monitoring: MonitoringSettings = MonitoringSettings(),  # noqa: B008 - frozen
        retraining: RetrainingSettings = RetrainingSettings(),  # noqa: B008 - frozen
        ledger: Ledger | None = None,
        compactor: Compactor | None = None,
        now: float | None = None,
    ) -> None:
        self.state, self.model, self.ledger = state, model, ledger
        self.compactor = compactor
        self.monitoring, self.retraining = monitoring, retraining
        self.folder = state / "observations" / model
        self.segments = Segments(self.folder)
        self._references: dict[str, Reference | None] = {}
        self._slow: dict[int, float | None] = {}
        mark = self.segments.mark
        self.monitor = Monitor(
            reference=self._reference,
            limits=limits,
            slow_s=self._slow_s,
            mature_after_s=monitoring.mature_after_s,
            closed=mark.get("closed", -1),
        )
        self.live = Live(model, monitoring, reference=self._reference, limits=limits)
        since = Place(max(0, self.segments.place.segment - 1), 0)
        try:
            self.live.fold(line for line, _ in read(self.folder, since))
        except DamagedError as error:  # the picture begins with what comes now
            print(error, file=sys.stderr)  # noqa: T201
        self.tail = log.Tail(state / "log" / model, mark.get("log"))
        self.labels = log.LabelTail(state / "labels" / model, mark.get("labels"))
        self._replay_until: dict[str, list[int]] = mark.get("read", {})
        self._polls: deque[tuple[dict[str, Any], int]] = deque()
        self._batch: list[dict[str, Any]] = []
        """What the disk did not take: it comes first again, so that whoever read it reads the same."""
        self._lines: list[dict[str, Any]] = []
        self._label_lines: list[dict[str, Any]] = []
        self._looked_up = self._wrote = self._pruned = self._compacted = 0.0
        started = time.time() if now is None else now
        self._marked = started
        self._told: dict[str, None] = {}
        if mark:
            self.monitor.recall_writers(mark.get("writers", {}), started)
            self.monitor.recall_owed(mark.get("owed", {}))
            self._recall_labels(mark, started)

    # ---- what stands elsewhere

    def _reference(self, bundle: str) -> Reference | None:
        if bundle not in self._references:
            try:
                found = Reference.read(self.state / "bundles" / bundle)
            except (OSError, ValueError, KeyError, TypeError) as error:
                print(f"no reference for bundle {bundle}: {error}", file=sys.stderr)  # noqa: T201
                found = None
            if len(self._references) > 16:
                self._references.clear()
            self._references[bundle] = found
        return self._references[bundle]

    def _slow_s(self, routes_seq: int) -> float | None:
        if routes_seq not in self._slow:
            try:
                routes = json.loads((self.state / "routes" / f"{self.model}.json").read_bytes())
            except (OSError, ValueError):
                return None
            self._slow[int(routes.get("seq", -1))] = routes.get("slow_s")
            if routes_seq not in self._slow:
                # Those routes were replaced before we read them; the bound seldom moves.
                self._slow[routes_seq] = routes.get("slow_s")
        return self._slow[routes_seq]

    def _recall_labels(self, mark: Mapping[str, Any], now: float) -> None:
        """What was counted before a restart is not counted again; what waited then waits again."""
        coming = self.labels.poll()
        pending = {(label.id, label.at, label.source) for _, label in coming}
        waited = {row_id(id) for id in mark.get("waiting", ())}
        since = now - self.monitoring.mature_after_s - 86400.0
        again: list[log.Label] = []
        for label in log.read_labels(self.state / "labels" / self.model, since=since):
            if (label.id, label.at, label.source) in pending:
                continue
            try:
                is_mature = log.time_of(label.id) + self.monitoring.mature_after_s <= mark["at"]
            except ValueError:
                continue
            if not is_mature or row_id(label.id) in waited:
                again.append(label)
            else:
                self.monitor.was_fed(label)
        self.monitor.take_labels([*again, *(label for _, label in coming)], now)

    # ---- one turn

    def turn(self, now: float) -> None:
        """Read what is new, append what is closed, and now and then write what is known.

        Raises:
            OSError: the disk does not take it; call again, nothing is lost.
        """
        before = self.tail.position
        events = self.tail.poll()
        if events:
            is_replay = self._is_replay(before)
            last = self.monitor.take(events, now, is_replay=is_replay)
            if last is not None:
                self._polls.append((before, last))
        labels = [label for _, label in self.labels.poll()]
        if labels:
            self.monitor.take_labels(labels, now)
        closed_before = self.monitor.closed
        self._label_lines += self.monitor.join(now, self._look_up(now))
        # Kept until they are on the disk: what is closed cannot be asked of the monitor again.
        self._lines += self.monitor.close(now)
        has_closed = self.monitor.closed > closed_before
        is_due = self._batch or self._lines or (self._label_lines and has_closed)
        if is_due or now - self._marked >= MARK_S:
            self._append(now)
        if now - self._pruned >= PRUNE_S:
            self._pruned = now
            self._prune(now - self.monitoring.keep_s)
        if self.compactor is not None and now - self._compacted >= COMPACT_S:
            self._compacted = now
            # What a restart reads again stands behind the last mark; all before it is read for good.
            passed = {w: n - 1 for w, (n, _) in self.segments.mark.get("log", {}).items()}
            self.compactor.look(passed, now=now, before=now - self.monitoring.keep_s)
        if now - self._wrote >= LIVE_S:
            self._wrote = now
            self.publish(now)

    def _prune(self, before: float) -> None:
        """What is older than `monitoring.keep` goes: predictions and labels, and the counts of them."""
        for kind in ("log", "labels"):
            log.prune(self.state / kind / self.model, before)
        prune(self.folder, before)

    def _is_replay(self, place: Mapping[str, list[int]]) -> bool:
        if not self._replay_until:
            return False
        if all(list(place.get(w, (0, 0))) >= list(end) for w, end in self._replay_until.items()):
            self._replay_until = {}
            return False
        return True

    def _look_up(self, now: float) -> dict[str, Any]:
        """Predictions that labels ask for and that are too old for memory, from the log: one pass for all of them."""
        wanted = self.monitor.wanted()
        if not wanted or now - self._looked_up < LOOK_UP_S:
            return {}
        self._looked_up = now
        names = set(wanted)
        times = sorted(log.time_of(id) for id in names)
        found: list[log.Frame] = []
        start = 0
        for n in range(1, len(times) + 1):  # labels of one day do not make us read the year
            if n == len(times) or times[n] - times[n - 1] > 600:
                frames = predictionlog.read(
                    self.state,
                    self.model,
                    since=times[start] - 1,
                    until=times[n - 1] + 120,
                )
                found += [frame for frame in frames if frame.id in names]
                start = n
        return self.monitor.found(found)

    def _append(self, now: float) -> None:
        closed = self.monitor.closed
        while self._polls and self._polls[0][1] <= closed:
            self._polls.popleft()
        read_until = self.tail.position
        mark = {
            "at": now,
            "closed": closed,
            "log": self._polls[0][0] if self._polls else read_until,
            "read": read_until,
            "labels": self.labels.position,
            "waiting": self.monitor.wanted_rows(),
            "writers": self.monitor.writers,
            "owed": self.monitor.owed,
        }
        self._batch += [*self._lines, *self._label_lines]
        self._lines, self._label_lines = [], []
        self.segments.append(self._batch, mark)
        self._marked = now
        self.live.fold(self._batch)
        self._batch = []

    def publish(self, now: float) -> None:
        """Write `live.json` and tell the retraining life."""
        live = self.live.as_json(
            now,
            closed=self.monitor.closed,
            counts=self.monitor.counts,
            parked=self.monitor.n_parked,
            dropped=self.monitor.dropped,
            place=self.segments.place.as_json(),
        )
        write_atomic(
            self.folder / "live.json",
            json.dumps(live, ensure_ascii=False, allow_nan=False).encode(),
        )
        self._tell(live)

    def _tell(self, live: Mapping[str, Any]) -> None:
        if self.ledger is None:
            return
        stream = f"retraining/{self.model}"
        for trigger in triggers(live, self.retraining):
            if trigger.key in self._told:
                continue
            body, key = trigger.as_body(), trigger.key
            try:
                # A repeat is no entry: the key stands once in the stream.
                if not self.ledger.knows(stream, key):
                    draft = Draft("triggered", self.ledger.now(), "monitor", body=body, key=key)
                    self.ledger.append(stream, draft, expect_seq=None, fence=None)
            except LedgerError:
                return  # told again with the next picture
            if len(self._told) > MOST_TOLD:
                self._told.clear()
            self._told[trigger.key] = None


def run(state: Path, settings: Mapping[str, Any], stop: threading.Event) -> None:
    """Watch every model until `stop` is set. Without a ledger, or on a full disk, it counts on and tells later."""
    watchers = [
        Watcher(
            state,
            model,
            limits=tuple(_make(Limit, x) for x in said.get("limits", ())),
            monitoring=_make(MonitoringSettings, said.get("monitoring", {})),
            retraining=_make(RetrainingSettings, said.get("retraining", {})),
            compactor=Compactor(state, model),
        )
        for model, said in settings.get("models", {}).items()
    ]
    ledger, opened_at, said = None, 0.0, ""
    while not stop.wait(POLL_S):
        trouble = ""
        if (ledger is None or not ledger.is_current) and time.monotonic() >= opened_at:
            opened_at = time.monotonic() + REOPEN_S
            if ledger is not None:
                ledger.close()
            try:
                ledger = SqliteLedger(state / "ledger.db", patience_s=PATIENCE_S)
            except LedgerError as error:
                ledger, trouble = None, str(error)
        for watcher in watchers:
            watcher.ledger = ledger
            try:
                watcher.turn(time.time())
            except OSError as error:  # a full disk: nothing is lost, the next turn does it again
                trouble = f"{watcher.model}: {error}"
        if trouble and trouble != said:
            said = trouble
            with contextlib.suppress(OSError):
                print(trouble, file=sys.stderr)  # noqa: T201
    for watcher in watchers:
        with contextlib.suppress(OSError):
            watcher.publish(time.time())
        if watcher.compactor is not None:
            watcher.compactor.end()


def _make(kind: Any, values: Mapping[str, Any]) -> Any:
    """A frozen settings object from JSON values; unknown keys are left for a newer release."""
    given: dict[str, Any] = {}
    defaults = None if kind is Limit else kind()
    for field in fields(kind):
        if field.name not in values:
            continue
        value = values[field.name]
        default = getattr(defaults, field.name, None)
        if is_dataclass(default) and isinstance(value, Mapping):
            value = _make(type(default), value)
        given[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**given)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; ends with 0 at SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="gyrostat-monitor", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--settings", default="{}", help="JSON")
    asked = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.suppress(KeyboardInterrupt):
        run(asked.state, json.loads(asked.settings), stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
