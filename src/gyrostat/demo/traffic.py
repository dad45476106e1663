"""Real traffic for the story: rows over HTTP at a steady rate, answers counted by version, labels handed in later."""

from __future__ import annotations

import collections
import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

N_CLIENTS = 4
LABEL_DELAY_S = 0.5
Row = tuple[dict[str, Any], Any]
"""A record in the file's own spelling, and what turned out to be true (None: nobody will know)."""


@dataclass
class Tally:
    """What the users of the model saw."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    labelled: int = 0
    by_version: collections.Counter[int] = field(default_factory=collections.Counter)
    last_id: str = ""
    last_failure: str = ""


class Traffic:
    """Clients with keep-alive connections that ask for rows until `stop`.

    `world` turns a held-out row into what a user sends today; the story changes it to move the world.
    """

    def __init__(
        self, port: int, model: str, rows: Sequence[Row], *, per_second: float, seed: int = 7
    ) -> None:
        self.port, self.path, self.rows, self.per_second = (
            port,
            f"/invocations/{model}",
            rows,
            per_second,
        )
        self.world: Callable[[Row, random.Random], Row] = lambda row, _dice: row
        self.label_share = 1.0
        """Of the answers that anybody ever hears the truth about."""
        self.tally = Tally()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._labels: collections.deque[tuple[float, str, Any]] = collections.deque()
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(seed + n),), daemon=True)  # noqa: S311
            for n in range(N_CLIENTS)
        ]
        self._threads.append(threading.Thread(target=self._hand_in_labels, daemon=True))

    def start(self) -> None:
        """Let the clients go."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all clients; returns when they are gone."""
        self._over.set()
        for thread in self._threads:
            thread.join(10)

    def counts(self) -> Tally:
        """A copy of the tally as it stands."""
        with self._lock:
            return Tally(
                **{**vars(self.tally), "by_version": collections.Counter(self.tally.by_version)}
            )

    def _ask(self, dice: random.Random) -> None:
        link: http.client.HTTPConnection | None = None
        period_s = N_CLIENTS / self.per_second
        due = time.monotonic() + dice.random() * period_s
        while not self._over.is_set():
            if self._over.wait(max(0.0, due - time.monotonic())):
                break
            due = max(due + period_s, time.monotonic() - period_s)
            record, truth = self.world(dice.choice(self.rows), dice)
            body = json.dumps({"dataframe_records": [record]}, ensure_ascii=False).encode()
            try:
                link = link or http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                link.request("POST", self.path, body, {"Content-Type": "application/json"})
                answer = link.getresponse()
                status, text = answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                if link:
                    link.close()
                link, status, text = None, 0, str(error).encode()
            self._note(status, text, truth if dice.random() < self.label_share else None)
        if link:
            link.close()

    def _note(self, status: int, text: bytes, truth: Any) -> None:
        with self._lock:
            self.tally.sent += 1
            if status != 200:
                self.tally.failed += 1
                self.tally.last_failure = f"{status} {text[:200].decode('utf-8', 'replace')}"
                return
            answer = json.loads(text)
            self.tally.answered += 1
            self.tally.by_version[answer["version"]] += 1
            self.tally.last_id = answer["id"]
            if truth is not None:
                self._labels.append((time.monotonic() + LABEL_DELAY_S, answer["id"], truth))

    def _hand_in_labels(self) -> None:
        while not self._over.wait(0.25):
            with self._lock:
                due = []
                while self._labels and self._labels[0][0] <= time.monotonic():
                    _, prediction, label = self._labels.popleft()
                    due.append({"id": prediction, "label": label})
            if due and self._post_labels(due):
                with self._lock:
                    self.tally.labelled += len(due)

    def _post_labels(self, labels: list[dict[str, Any]]) -> bool:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            link.request(
                "POST",
                "/labels",
                json.dumps({"labels": labels}).encode(),
                {"Content-Type": "application/json"},
            )
            answer = link.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return False
        else:
            return answer.status == 202
        finally:
            link.close()
