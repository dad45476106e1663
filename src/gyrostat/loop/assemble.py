"""The one place that picks adapters: the world of the loop as it really is on one machine."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gyrostat_runtime.files import write_atomic

from gyrostat import config
from gyrostat.adapters.local.workers import LocalWorkers
from gyrostat.errors import DamagedError, UnavailableError
from gyrostat.loop import reconcile, run
from gyrostat.loop.judged import Follower
from gyrostat.loop.reconcile import Terms
from gyrostat.observations import DAMAGED, ROLLOUT
from gyrostat.observations import evidence as evidence_of
from gyrostat.rollout.evidence import Evidence
from gyrostat.serving.receipts import receipts

Current = Callable[[], config.Loaded]
log = logging.getLogger(__name__)
DAMAGED_S = 5.0
SCORING_S = 86400.0
"""A batch that takes longer is ended; what it has answered is kept, and its next try goes on from there."""


class Declarations:
    """Settings by digest: the one in force, and those that runs and rollouts pinned."""

    def __init__(self, current: Current) -> None:
        self.current = current
        self._kept: dict[str, config.Declaration] = {}

    def model(self, name: str, digest: str = "") -> tuple[config.ModelSettings, str]:
        """The settings of a model in the declaration `digest`, or in the one in force, and its digest.

        Raises:
            UnavailableError: the pinned declaration is not there.
        """
        loaded = self.current()
        if not digest or digest == loaded.digest:
            declaration, digest = loaded.declaration, loaded.digest
        elif digest in self._kept:
            declaration = self._kept[digest]
        else:
            try:
                declaration = self._kept.setdefault(digest, config.stored(loaded.state, digest))
            except OSError as error:
                raise UnavailableError(
                    f"The declaration {digest[:12]} that was pinned is not there: {error}"
                ) from error
        if name not in declaration.models:
            raise UnavailableError(f"The model {name!r} is no longer declared; its streams wait.")
        return declaration.models[name], digest

    def terms(self) -> Terms:
        """What the reconciler asks for each life."""

        def found(stream: str, pinned: str) -> tuple[Any, str]:
            kind, model = stream.split("/")[:2]
            settings, digest = self.model(model, pinned)
            match kind:
                case "retraining":
                    return settings.retraining, digest
                case "run":
                    return run.RunTerms(settings.gates), digest
                case "batching":
                    return settings.batches, digest
            return settings.rollout, digest

        return found


class LocalWorld:
    """`ports.World` on one machine: jobs are processes, the router is a file, counts come from the monitor's segments."""

    def __init__(self, project: Path, state: Path, declarations: Declarations) -> None:
        self.project, self.state, self.declarations = project, state, declarations
        self.workers = LocalWorkers(state)
        self._followers: dict[str, tuple[Follower, Follower]] = {}
        self._left: dict[str, float] = {}
        self._damaged: dict[str, float] = {}
        """When damage was found in a model's observations; they are not read again each time somebody looks."""

    # ---- looking

    def look(self, stream: str, what: str, key: str) -> dict[str, Any]:
        """See `ports.World.look` and docs/lifecycle.md."""
        seq = int(key.rpartition("#")[2])
        if what == "receivers" and stream.startswith("run/"):
            return {"floor": self.workers.floor(stream)}
        if stream.startswith("batching/"):
            return {} if what == "nothing" else self._look_batching(stream, seq, what)
        if not stream.startswith("production/"):
            return {} if what == "nothing" else self.workers.look(stream, seq, what)
        model = stream.split("/")[1]
        seen: dict[str, Any] = {}
        served = self._served(model)
        if served is not None:
            seen["served"] = served
        routes = self.routes(model)
        is_ours = routes is not None and routes["epoch"] == self.epoch
        seen["shown"] = routes["seq"] if routes is not None and is_ours else 0
        if routes is not None and what in ("traffic", "receivers", "replay", "nothing"):
            seen |= self._judged(model, routes, is_in_traffic=what == "traffic")
        if what in ("staging", "replay"):
            return seen | self.workers.look(stream, seq, what)
        if what == "receivers":
            seen["floor"] = self.workers.floor(stream)
        return seen

    def _look_batching(self, stream: str, seq: int, what: str) -> dict[str, Any]:
        seen: dict[str, Any] = {"floor": self.workers.floor(stream)}
        if what == "scoring":
            return seen | self.workers.look(stream, seq, what)
        routes = self.routes(stream.split("/")[1])
        arms = routes["arms"] if routes is not None and routes["epoch"] == self.epoch else []
        for arm in arms:
            if arm["role"] == "champion":
                seen["champion"] = {"bundle": arm["bundle"], "version": arm["version"]}
        return seen

    def routes(self, model: str) -> dict[str, Any] | None:
        """What was shown last."""
        try:
            return json.loads((self.state / "routes" / f"{model}.json").read_bytes())
        except (OSError, ValueError):
            return None

    def _served(self, model: str) -> int | None:
        """The seq that every server answers by that lives and takes requests; None while there is none."""
        found = [
            receipt.seq if receipt.epoch == self.epoch else 0
            for receipt in receipts(self.state, model)
            if not receipt.waits and receipt.is_living
        ]
        if found:
            return min(found)
        # Before the first routes a server that lives has applied nothing: the file is what it will read.
        return 0 if self.routes(model) is None else None

    @property
    def epoch(self) -> int:
        """A restore starts a new one, so that seqs may begin again."""
        try:
            return int((self.state / "epoch").read_text())
        except (OSError, ValueError):
            return 1

    def _judged(self, model: str, routes: dict[str, Any], *, is_in_traffic: bool) -> dict[str, Any]:
        """What the monitor's lines say; nothing, which never passes, where they are damaged.

        A person's answer goes through all the same.
        """
        if time.monotonic() - self._damaged.get(model, -DAMAGED_S) < DAMAGED_S:
            return {}
        try:
            seen = self._folded(model, routes, is_in_traffic=is_in_traffic)
        except DamagedError as error:
            self._damaged[model] = time.monotonic()
            self._say_damaged(model, error)
            return {}
        self._say_damaged(model, None)
        return seen

    def _folded(self, model: str, routes: dict[str, Any], *, is_in_traffic: bool) -> dict[str, Any]:
        """Fold what the monitor closed since the last look: about the champion, and about a candidate beside it."""
        settings, declaration = self.declarations.model(model, routes.get("declaration", ""))
        if model not in self._followers:
            folder = self.state / "observations" / model
            self._followers[model] = Follower(folder, "champion"), Follower(folder, "rollout")
        alone, beside = self._followers[model]
        champion = next((a["bundle"] for a in routes["arms"] if a["role"] == "champion"), "")
        since = routes.get("promoted_seq", 0)
        fresh = Evidence(settings.rollout, settings.gates, champion=champion, champion_since_seq=since)  # fmt: skip
        seen: dict[str, Any] = {
            "champion": alone.follow(fresh, declaration, since).champion_limits()
        }
        if is_in_traffic:
            share = next(
                (arm["share"] for arm in routes["arms"] if arm["role"] == "candidate"), 0.5
            )
            since = routes.get("rollout_seq", 0)
            fresh = Evidence.of_rollout(settings.rollout, settings.gates, routes["arms"], since)
            evidence = beside.follow(fresh, declaration, since)
            seen["traffic"] = evidence.traffic(
                routes["seq"], share=share or 0.5, evidence=evidence_of(beside.place)
            )
            if seen["traffic"] is not None:
                self._leave(model, seen["traffic"])
        return seen

    def _say_damaged(self, model: str, error: DamagedError | None) -> None:
        path = self.state / "observations" / model / DAMAGED
        with contextlib.suppress(OSError):
            if error is None:
                path.unlink(missing_ok=True)
            elif not path.exists():
                log.warning("%s", error)
                write_atomic(path, json.dumps({"why": str(error), **error.facts}).encode())

    def _leave(self, model: str, traffic: dict[str, Any]) -> None:
        """For those who only look: what a rollout was last judged from. About once a second, and never in the way."""
        now = time.monotonic()
        if now - self._left.get(model, 0.0) < 1.0:
            return
        self._left[model] = now
        with contextlib.suppress(OSError):
            write_atomic(
                self.state / "observations" / model / ROLLOUT,
                json.dumps(reconcile.finite(traffic), ensure_ascii=False).encode(),
            )

    # ---- acting

    def start(
        self, stream: str, what: str, key: str, inputs: tuple[str, ...], spec: dict[str, Any]
    ) -> None:
        """See `ports.World.start`."""
        model, seq = stream.split("/")[1], int(key.rpartition("#")[2])
        settings, digest = self.declarations.model(model, spec.get("declaration", ""))
        whole = spec | {
            "key": key, "inputs": list(inputs), "project": str(self.project), "state": str(self.state), "model": model,
            "declaration": digest, "asked_at": time.time(),
        }  # fmt: skip
        if what == "training":
            resources = settings.train.resources
            whole["limits"] = {"time_s": resources.time_s, "memory_bytes": resources.memory_bytes}
        if what in ("scoring", "replay"):
            whole["limits"] = {"time_s": SCORING_S}
        if what == "evaluation":
            whole["champion"] = self._champion(model)
        try:
            self.workers.start(
                stream, seq, what, whole, project=self.project if what == "training" else None
            )
        except OSError as error:
            raise UnavailableError(
                f"The {what} of {stream} could not be started: {error}"
            ) from error

    def _champion(self, model: str) -> dict[str, Any] | None:
        """Who answers now, for a comparison on the same rows."""
        from gyrostat.registry import bundles

        routes = self.routes(model)
        bundle = (
            next((arm["bundle"] for arm in routes["arms"] if arm["role"] == "champion"), "")
            if routes
            else ""
        )
        if not bundle:
            return None
        manifest = json.loads((bundles.path(self.state, bundle) / "manifest.json").read_bytes())
        return {"bundle": bundle, "snapshot": manifest["snapshot"]}

    def show(self, stream: str, receiver: str, seq: int, value: dict[str, Any]) -> None:
        """See `ports.World.show`."""
        if receiver == "workers":
            try:
                self.workers.raise_floor(stream, seq)
            except OSError as error:
                raise UnavailableError(
                    f"The floor of {stream} could not be written: {error}"
                ) from error
            return
        model = stream.split("/")[1]
        current = self.routes(model)
        if current and current["epoch"] == self.epoch and current["seq"] >= seq:
            return
        routes = {
            "model": model, "epoch": self.epoch, "seq": seq, "since": time.time(), "slow_s": None,
            "salt": current["salt"] if current else secrets.token_hex(8), **value,
        }  # fmt: skip
        path = self.state / "routes" / f"{model}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(routes, ensure_ascii=False).encode())
        except OSError as error:
            raise UnavailableError(
                f"The routes of {model} could not be written: {error}"
            ) from error
