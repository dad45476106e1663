"""The states of production and its one table: the diagram in docs/lifecycle.md, the loop and the tests all read it."""

from __future__ import annotations

from enum import StrEnum

from gyrostat.ledger.life import STAY, last


class State(StrEnum):
    """What production of one model is doing."""

    KEEPING = "keeping"
    STAGING = "staging"
    STAGED = "staged"
    WAITING_APPROVAL = "waiting_approval"
    APPROVED = "approved"
    REPLAYING = "replaying"
    SHADOW = "shadow"
    CANARY = "canary"
    HELD = "held"


S = State
IN_TRAFFIC = (S.SHADOW, S.CANARY)
COMPARED = (*IN_TRAFFIC, S.REPLAYING)
"""Judged beside the champion."""
REPLACEABLE = (S.STAGING, S.STAGED, S.WAITING_APPROVAL, S.REPLAYING)
"""By a newer offer; what takes traffic is finished first."""

TRANSITIONS: dict[tuple[State, str], State | None] = {
    (S.KEEPING, "staging_started"): S.STAGING,
    (S.STAGING, "staging_lost"): S.STAGING,
    (S.STAGING, "staging_passed"): S.STAGED,
    (S.STAGING, "staging_failed"): S.KEEPING,
    (S.STAGED, "approval_asked"): S.WAITING_APPROVAL,
    (S.STAGED, "approved"): S.APPROVED,              # the declaration does not ask
    (S.WAITING_APPROVAL, "approved"): S.APPROVED,
    (S.APPROVED, "promoted"): S.KEEPING,             # the first of its name: nobody to compare with
    (S.APPROVED, "replay_started"): S.REPLAYING,     # no steps: it answers no request, but tables beside the champion
    (S.REPLAYING, "replay_lost"): S.REPLAYING,
    (S.REPLAYING, "replay_undecided"): S.REPLAYING,  # with the next batch again
    (S.APPROVED, "shadow_started"): S.SHADOW,
    (S.APPROVED, "canary_started"): S.CANARY,
    (S.SHADOW, "advanced"): S.CANARY,
    (S.CANARY, "advanced"): S.CANARY,
    **{(state, "promoted"): S.KEEPING for state in COMPARED},
    **{(state, "overdue"): STAY for state in COMPARED},            # a person is asked; traffic goes on
    **{(state, "expired"): S.KEEPING for state in COMPARED},
    (S.KEEPING, "refused"): STAY,                    # turned away at the door
    **{(state, "refused"): S.KEEPING for state in (*REPLACEABLE, S.APPROVED, *IN_TRAFFIC)},
    **{(state, "held"): S.HELD for state in S if state is not S.HELD},
    (S.HELD, "resumed"): S.KEEPING,
    **{(state, "superseded"): S.KEEPING if state in REPLACEABLE else STAY for state in S},
    **{(state, "regressed"): S.KEEPING for state in COMPARED},
    **{(state, "champion_regressed"): STAY for state in S if state not in IN_TRAFFIC},
    **{(state, "rolled_back"): S.HELD for state in S},
    **{(state, "told"): STAY for state in S},
}  # fmt: skip
LAST = last(S, TRANSITIONS)
