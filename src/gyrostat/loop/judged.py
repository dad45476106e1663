"""Evidence that goes on from where it was: each line that the monitor closes is folded once, also across restarts."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gyrostat_runtime.files import write_atomic

from gyrostat.observations import Place, holds, read, start_of
from gyrostat.rollout.evidence import Evidence

KEEP_EVERY_S = 30.0


class Follower:
    """Folds a model's observations into one evidence at a time.

    What was folded is kept beside the observations now and then. It is only thrift: what is kept is taken up where it is
    whole and about the same question, and folded anew from the lines otherwise.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.path = folder, folder / f"{name}.kept"
        self.place = Place()
        self._of: tuple[str, Evidence] | None = None
        self._kept_at = 0.0

    def follow(self, evidence: Evidence, declaration: str, since_seq: int) -> Evidence:
        """What `evidence` is about, with every line so far.

        Args:
            evidence: without any line yet.
            declaration: digest of the one that it judges by.
            since_seq: routes seq; older lines say nothing about it.
        """
        question = json.dumps([*evidence.pair, declaration])
        if self._of is None or self._of[0] != question:
            kept = self._read(question, evidence)
            begun, self.place = kept or (evidence, start_of(self.folder, since_seq))
            self._of = (question, begun)
        evidence, before = self._of[1], self.place
        evidence.fold(self._lines())
        if self.place != before and time.monotonic() >= self._kept_at + KEEP_EVERY_S:
            self._keep(question, evidence)
        return evidence

    def _lines(self) -> Iterator[dict[str, Any]]:
        for line, place in read(self.folder, self.place):
            self.place = place
            yield line

    def _read(self, question: str, evidence: Evidence) -> tuple[Evidence, Place] | None:
        """What was kept of this question; what another release kept may fail halfway, so a copy takes it up."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            digest, _, content = self.path.read_text().partition("\n")
            if hashlib.sha256(content.encode()).hexdigest() != digest:
                return None
            kept = json.loads(content)
            place = Place.from_json(kept["place"])
            resumed = copy.deepcopy(evidence)
            if kept["question"] == question and holds(self.folder, place) and resumed.resume(kept["evidence"]):  # fmt: skip
                return resumed, place
        return None

    def _keep(self, question: str, evidence: Evidence) -> None:
        self._kept_at = time.monotonic()
        whole = {"question": question, "place": self.place.as_json(), "evidence": evidence.as_json()}  # fmt: skip
        with contextlib.suppress(OSError, ValueError):
            content = json.dumps(whole, allow_nan=False)
            digest = hashlib.sha256(content.encode()).hexdigest()
            write_atomic(self.path, f"{digest}\n{content}".encode())
