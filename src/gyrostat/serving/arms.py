"""Arms: the bundles that one model's requests go to, and the choice between them."""

from __future__ import annotations

import hashlib
import math
import random
import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gyrostat_runtime.flight import InFlight, Slot
from gyrostat_runtime.schema import Schema
from gyrostat_runtime.session import Session

Role = Literal["champion", "candidate"]
_DIGEST = re.compile(r"^[A-Za-z0-9_-]{1,128}$")


class BadRoutesError(Exception):
    """A routes file that says something which cannot be served; the message is one line."""


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """One arm as the routes file names it."""

    bundle: str
    version: int
    role: Role
    share: float
    shadow: bool


@dataclass(frozen=True, slots=True)
class Routes:
    """A routes file that was read and makes sense: one champion, perhaps others beside it."""

    model: str
    epoch: int
    seq: int
    salt: str
    arms: tuple[ArmSpec, ...]
    since: float
    raw: dict[str, Any] = field(repr=False)

    @property
    def place(self) -> tuple[int, int]:
        """Routes only ever go forward in this."""
        return self.epoch, self.seq

    @classmethod
    def from_json(cls, value: Any, model: str) -> Routes:
        """Read the JSON of a routes file.

        Raises:
            BadRoutesError: it cannot be served as it stands.
        """
        try:
            arms = tuple(
                ArmSpec(
                    _bundle(a["bundle"]),
                    int(a.get("version") or 0),
                    _role(a["role"]),
                    float(a.get("share", 0.0)),
                    bool(a.get("shadow", False)),
                )
                for a in value["arms"]
            )
            routes = cls(
                str(value.get("model", model)),
                int(value["epoch"]),
                int(value["seq"]),
                str(value.get("salt") or ""),
                arms,
                float(value.get("since") or 0.0),
                value,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadRoutesError(
                f"the routes cannot be read: {type(error).__name__}: {error}"
            ) from None
        if routes.model != model:
            raise BadRoutesError(f"these routes are of model {routes.model!r}, not {model!r}")
        if [a.role for a in arms if not a.shadow].count("champion") != 1:
            raise BadRoutesError("routes need exactly one champion that answers")
        live = [a.share for a in arms if not a.shadow]
        if any(not math.isfinite(s) or s < 0 for s in live) or not math.isclose(
            sum(live), 1.0, abs_tol=1e-6
        ):
            raise BadRoutesError(
                f"the shares of the arms that answer must add up to 1, they are {live}"
            )
        return routes


def _bundle(text: Any) -> str:
    # It becomes the name of a folder.
    if not isinstance(text, str) or not _DIGEST.match(text):
        raise ValueError(f"{text!r} is no digest")
    return text


def _role(text: Any) -> Role:
    if text not in ("champion", "candidate"):
        raise ValueError(f"role {text!r} is neither champion nor candidate")
    return text


@dataclass(slots=True)
class Loaded:
    """A bundle that is open and warm, shared by all routes that name it."""

    session: Session
    schema: Schema
    call_s: float
    """What a call with one row took when it was warm."""
    in_flight: int = 0
    """Calls in other threads; a bundle that is not named any more is closed when there are none."""
    is_retired: bool = False

    @property
    def is_inline(self) -> bool:
        """Whether a call is so short that another thread would only cost: below 2 ms, in this process."""
        return self.session.manifest.flavour == "onnx" and self.call_s < 0.002


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm, ready to answer."""

    spec: ArmSpec
    loaded: Loaded
    has_champions_schema: bool
    slot: Slot
    """Where requests are counted while this arm has them."""
    is_asked: bool = False
    """The client chose it, so that what it answers is evidence of nothing."""

    @property
    def names(self) -> tuple[str, ...]:
        """What a tester may call it."""
        role = "challenger" if self.spec.role == "candidate" else self.spec.role
        return role, f"version={self.spec.version}"


@dataclass(frozen=True, slots=True)
class Served:
    """What one model answers with now; replaced whole, so a request sees one state of it."""

    routes: Routes
    champion: Arm
    live: tuple[Arm, ...]
    """Candidates first: a key that was theirs at 5 % is theirs at 25 %."""
    shadows: tuple[Arm, ...]
    applied_at: float
    is_inline: bool
    """Whether every arm that answers does so without another thread."""

    @classmethod
    def of(
        cls, routes: Routes, loaded: dict[str, Loaded], applied_at: float, in_flight: InFlight
    ) -> Served:
        """Put routes and open bundles together."""
        (champion,) = [a for a in routes.arms if a.role == "champion" and not a.shadow]
        schema = loaded[champion.bundle].schema
        arms = [
            Arm(
                a,
                loaded[a.bundle],
                loaded[a.bundle].schema == schema,
                in_flight.slot(routes.seq, a.bundle, "shadow" if a.shadow else a.role),
            )
            for a in routes.arms
        ]
        live = sorted(
            (a for a in arms if not a.spec.shadow), key=lambda a: a.spec.role == "champion"
        )
        return cls(
            routes,
            next(a for a in arms if a.spec is champion),
            tuple(live),
            tuple(a for a in arms if a.spec.shadow),
            applied_at,
            all(arm.loaded.is_inline for arm in live),
        )

    def only(self, asked: str) -> Served:
        """What answers a tester who asks for `champion`, `challenger` or `version=4`: that arm alone, no copies.

        Raises:
            LookupError: no arm here is called that; the message is one line.
        """
        for arm in (*self.live, *self.shadows):
            if asked in arm.names:
                # Not in the arm's own slot: what a dying server owes a tester is no error of the arm.
                chosen = replace(arm, slot=Slot(memoryview(bytearray(16)).cast("q")), is_asked=True)
                is_inline = chosen.loaded.is_inline
                return replace(self, live=(chosen,), shadows=(), is_inline=is_inline)
        known = ", ".join(name for arm in (*self.live, *self.shadows) for name in arm.names)
        raise LookupError(f"there is no arm {asked[:100]!r} in the routes; there is {known}")

    def choose(self, key: bytes) -> Arm:
        """The arm for one request: drawn by share; with a key always the same one while shares stand."""
        if len(self.live) == 1:
            return self.live[0]
        drawn = draw(self.routes.salt, key) if key else random.random()  # noqa: S311 - a share, no secret
        for arm in self.live:
            drawn -= arm.spec.share
            if drawn < 0:
                return arm
        return self.champion


def draw(salt: str, key: bytes) -> float:
    """A key's fixed place in [0, 1), another one for each salt."""
    digest = hashlib.blake2b(
        key, key=hashlib.sha256(salt.encode()).digest(), digest_size=8
    ).digest()
    return int.from_bytes(digest) / 2**64
