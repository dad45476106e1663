"""One sentence for each kind of entry: what happened, in the words that status, changes, the page and the demo share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gyrostat.terms import Entry


class Words(NamedTuple):
    """What an entry says to a person."""

    area: str
    """data, training, gates, release, production, batch, declaration, project."""
    text: str
    mark: str
    """passed, failed, warn, waiting, running or plain."""


def words(entry: Entry) -> Words:
    """The sentence; of a kind that has none, its name."""
    told = _SENTENCES.get(entry.kind)
    if told is None:
        return Words("ledger", entry.kind.replace("_", " "), "plain")
    area, mark, text = told
    return Words(area, text(entry) if callable(text) else text, mark)


def is_news(entry: Entry) -> bool:
    """Whether a person who asks what changed wants to read it; hand-overs and bookkeeping are not."""
    return entry.kind in _SENTENCES and entry.kind not in _QUIET


def run_of(entry: Entry) -> str:
    """The run's short name."""
    return entry.stream if entry.stream.startswith("run/") else ""


def number(value: Any, digits: int = 3) -> str:
    """A measured number as people read it."""
    if value is None:
        return "?"
    return f"{value:.{digits}g}" if abs(value) < 1e6 else f"{value:,.0f}"


def verdicts(entry: Entry) -> tuple[int, int, str]:
    """`(passed, all, headline)` of a gate entry."""
    found: dict[str, Any] = entry.body.get("detail", {}).get("verdicts", {})
    passed = sum(v["answer"] == "accept" for v in found.values())
    champion = found.get("champion", {})
    return passed, len(found), champion.get("reason", "")


def _gates(e: Entry) -> str:
    passed, n, headline = verdicts(e)
    return f"gates: {passed} of {n}" + (f"; {headline}" if headline else "")


def _failed_gates(e: Entry) -> str:
    return f"gates: {e.body.get('cause', '')}; not released"


def _snapshot(e: Entry) -> str:
    seen = e.body["seen"]
    traffic = (
        f", {seen['n_traffic']:,} of them labelled predictions" if seen.get("n_traffic") else ""
    )
    return f"snapshot {seen.get('made', '')[:7]}: {seen.get('n_rows', 0):,} rows{traffic}; {seen.get('checks', {}).get('n_rules', 0)} rules hold"


def _checks(e: Entry) -> str:
    checks = e.body["seen"]["checks"]
    return f"the data did not pass: {checks['n_rows_broken']:,} rows break {checks['n_broken']} of {checks['n_rules']} rules; training did not start"


def _trained(e: Entry) -> str:
    seen = e.body["seen"]
    code = seen.get("code", {})
    commit = f" at {code['commit'][:7]}" if code.get("commit") else ""
    dirty = " (changed since)" if code.get("dirty") else ""
    return f"trained: {seen.get('run', '')}{commit}{dirty}, {seen.get('n_rows', 0):,} rows, {number(seen.get('seconds'))} s"


def _packed(e: Entry) -> str:
    seen = e.body["seen"]
    if seen.get("flavour") == "onnx":
        return f"packed as ONNX, largest difference from the model {number(seen.get('largest_difference'), 1)}, signed"
    return f"packed as it is (native): {seen.get('reason', '')}; signed"


def _version(e: Entry) -> str:
    return e.outputs[0].rpartition("/")[2] if e.outputs else "?"


def _at_its_deadline(e: Entry, asked: str) -> str:
    is_held = e.body.get("detail", {}).get("then") == "hold"
    what = "undecided at its deadline, held as it is" if is_held else asked
    return f"{what}: {e.body.get('cause', '')}"


def _staged(e: Entry) -> str:
    seen = e.body["seen"]
    return f"staging: {seen.get('n_right', 0)} of {seen.get('n_requests', 0)} requests answered as trained"


def _approved(e: Entry) -> str:
    cause = e.body.get("cause", "")
    return f"approved {cause}" if cause.startswith("by ") else f"approval {cause}"


def _started(e: Entry) -> str:
    steps = e.body.get("detail", {}).get("steps", [])
    plan = ", ".join("shadow" if s == 0 else f"{100 * s:g} %" for s in steps)
    return f"rollout started: {plan}, then champion"


def _advanced(e: Entry) -> str:
    return f"next step: {e.body.get('cause', '')}"


def _promoted(e: Entry) -> str:
    return f"champion: {e.body.get('cause', '')}"


def _regressed(e: Entry) -> str:
    verdict = e.body.get("detail", {}).get("verdict", {})
    what = (
        "not released"
        if verdict.get("rule", "").startswith("rollout.replay/")
        else "rolled back by the loop"
    )
    return f"{what}: {verdict.get('reason') or e.body.get('cause', '')}"


def _champion_regressed(e: Entry) -> str:
    d = e.body.get("detail", {})
    return (
        f"rolled back by the loop: {d.get('metric', e.body.get('cause', ''))} {number(d.get('value'))} "
        f"(limit {number(d.get('limit'))}), watched after release"
    )


def _rolled_back(e: Entry) -> str:
    d = e.body.get("detail", {})
    reason = f": {d['reason']}" if d.get("reason") else ""
    return f"rolled back by {d.get('by', 'somebody')}{reason}; held until resume"


def _held(e: Entry) -> str:
    reason = e.body.get("detail", {}).get("reason")
    return f"held {e.body.get('cause', '')}" + (f": {reason}" if reason else "")


def _declared(e: Entry) -> str:
    diff = e.body.get("diff", [])
    first = f": {diff[0]['key']} {diff[0]['old']} -> {diff[0]['new']}" if diff else ""
    more = f" and {len(diff) - 1} more" if len(diff) > 1 else ""
    return f"declaration changed by {e.actor}{first}{more}" if diff else f"declared by {e.actor}"


def _triggered(e: Entry) -> str:
    why = e.body.get("why") or ""
    by = {"person": f"asked by {e.actor}", "first": "no champion yet"}.get(
        e.body["by"], e.body["by"]
    )
    return f"a run is wanted: {by}" + (f" ({why})" if why else "")


def _refused(e: Entry) -> str:
    cause: str = e.body.get("cause", "")
    return f"refused: {_UNFIT.get(cause, cause)}"


def batch(e: Entry) -> str:
    """How many rows of what, by which version, and how many have no answer."""
    b = e.body
    failed = f", {b['n_failed']:,} without an answer" if b["n_failed"] else ""
    return f"{b['n_rows']:,} rows of {b['input']} answered by version {b['by_version']}{failed}"


_UNFIT: dict[str, str] = {
    "champion": "it is the champion already, to the byte",
    "regressed": "the loop took this very bundle back before",
    "barred": "its snapshot is barred; free it: gyrostat data unbar",
}
"""Causes as `rollout.production.unfit` records them."""
_SENTENCES: dict[str, tuple[str, str, str | Callable[[Entry], str]]] = {
    "declared": ("declaration", "plain", _declared),
    "triggered": ("training", "warn", _triggered),
    "schedule_set": (
        "training",
        "plain",
        lambda e: f"schedule from now on: {e.body.get('cause', '')}",
    ),
    "scheduled": ("training", "plain", lambda e: f"a run is wanted: {e.body.get('cause', '')}"),
    "skipped": ("training", "plain", "no run: the budget is used up"),
    "run_opened": ("training", "running", lambda e: f"{e.outputs[0]} started"),
    "opened": ("training", "running", lambda e: f"opened: {e.body.get('cause', '')}"),
    "snapshotted": ("data", "passed", _snapshot),
    "checks_failed": ("data", "failed", _checks),
    "trained": ("training", "passed", _trained),
    "packed": ("training", "passed", _packed),
    "work_lost": ("training", "warn", lambda e: f"once more: {e.body.get('cause', '')}"),
    "gave_up": ("training", "failed", lambda e: f"failed: {e.body.get('cause', '')}"),
    "gate_passed": ("gates", "passed", _gates),
    "gate_failed": ("gates", "failed", _failed_gates),
    "gate_undecided": ("gates", "waiting", lambda e: f"gates undecided: {e.body.get('cause', '')}"),
    "rejected": ("training", "failed", lambda e: f"not released: {e.body.get('cause', '')}"),
    "cancelled": ("training", "failed", lambda e: f"cancelled {e.body.get('cause', '')}"),
    "offered": ("release", "plain", "offered for release"),
    "closed": ("training", "plain", "over"),
    "staging_started": ("release", "running", lambda e: f"version {_version(e)}: staging started"),
    "staging_passed": ("release", "passed", _staged),
    "staging_failed": ("release", "failed", lambda e: f"staging failed: {e.body.get('cause', '')}"),
    "staging_lost": ("release", "warn", "staging was lost, once more"),
    "approval_asked": ("release", "waiting", lambda e: _at_its_deadline(e, "waits for you")),
    "approved": ("release", "passed", _approved),
    "refused": ("release", "failed", _refused),
    "superseded": ("release", "plain", "superseded by a newer candidate"),
    "shadow_started": ("release", "running", _started),
    "canary_started": ("release", "running", _started),
    "replay_started": (
        "release",
        "running",
        "replays tables beside the champion, then champion",
    ),
    "replay_lost": ("release", "warn", lambda e: f"replay once more: {e.body.get('cause', '')}"),
    "replay_undecided": (
        "release",
        "waiting",
        lambda e: f"replay undecided: {e.body.get('cause', '')}",
    ),
    "advanced": ("release", "passed", _advanced),
    "promoted": ("release", "passed", _promoted),
    "overdue": ("release", "waiting", lambda e: _at_its_deadline(e, "needs a decision")),
    "expired": ("release", "failed", lambda e: f"expired: {e.body.get('cause', '')}"),
    "regressed": ("production", "failed", _regressed),
    "champion_regressed": ("production", "failed", _champion_regressed),
    "rolled_back": ("production", "failed", _rolled_back),
    "held": ("production", "waiting", _held),
    "resumed": ("production", "passed", lambda e: f"resumed {e.body.get('cause', '')}".strip()),
    "unbar_asked": (
        "data",
        "plain",
        lambda e: f"snapshot {e.body.get('snapshot', '')[:7]} freed by {e.actor}",
    ),
    "scored": ("batch", "passed", batch),
    "batches_set": ("batch", "plain", lambda e: f"batches from now on: {e.body.get('cause', '')}"),
    "batch_due": ("batch", "plain", lambda e: e.body.get("cause", "")),
    "batch_started": (
        "batch",
        "running",
        lambda e: f"{e.body.get('cause', '')}: version {e.body['detail']['version']} answers",
    ),
    "batch_lost": ("batch", "warn", lambda e: f"once more: {e.body.get('cause', '')}"),
    "batch_scored": ("batch", "passed", lambda e: f"answered: {e.body.get('cause', '')}"),
    "batch_failed": ("batch", "failed", lambda e: f"not answered: {e.body.get('cause', '')}"),
    "restored": (
        "project",
        "warn",
        lambda e: f"restored by {e.actor} from {e.body['file']}, as of entry/{e.body['after']}",
    ),
    "keys_rotated": (
        "project",
        "plain",
        lambda e: f"{e.body['new']} signs from now on, not {e.body['old']}; by {e.actor}",
    ),
    "collected": (
        "project",
        "plain",
        lambda e: (
            f"{e.body['n']:,} things removed from the disk by {e.actor}, {e.body['size_bytes'] / 1e6:,.1f} MB"
        ),
    ),
}
_QUIET = {
    "offered",
    "closed",
    "opened",
    "staging_lost",
    "scored",
    "batch_due",
    "batch_started",
    "batch_scored",
}
