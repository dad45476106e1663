"""What must be true of every history, from the entries and from what the world recorded (I1 to I8).

`decide` and `fold` are taken from the lives, planted mistakes included: a mistake must be caught by the harm it does, not
by differing from the right code. Who owed what to whom is told again here, from the kinds alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gyrostat.errors import IllegalStepError
from gyrostat.ledger.chain import verify
from gyrostat.ledger.life import NEWEST, Say
from gyrostat.loop import reconcile
from gyrostat.rollout import production
from gyrostat.rollout.states import IN_TRAFFIC

if TYPE_CHECKING:
    from .history import History

WORK_BEHIND = {
    "snapshotted": "snapshot", "checks_failed": "snapshot", "trained": "training", "packed": "pack", "gate_passed": "evaluation",
    "gate_undecided": "evaluation", "staging_passed": "staging",
}  # fmt: skip
CALLED_FOR_BY = {
    "snapshot": "opened", "training": "snapshotted", "pack": "trained", "evaluation": "packed", "staging": "staging_started",
}  # fmt: skip
ENDS = ("promoted", "regressed", "refused", "expired", "superseded", "staging_failed")
RUN_ENDS = ("offered", "rejected", "checks_failed", "gate_failed", "gave_up", "cancelled")
RUN_OVER = (*RUN_ENDS, "gate_undecided")


def violations(history: History) -> list[str]:
    final: dict[str, Any] = {}
    try:
        found = [*_chain(history), *_world(history)]
        for stream in sorted(history.by_stream):
            found += _replay(history, stream, final)
        for model in history.models:
            found += [
                *_runs(history, model, final),
                *_hand_overs(history, model),
                *_production(history, model, final),
                *_router(history, model, final),
            ]
    except IllegalStepError as error:
        return [f"illegal step: {error}"]
    except (
        KeyError,
        AttributeError,
        ValueError,
        AssertionError,
    ) as error:  # a life that was led where it cannot be
        return [f"a step cannot even be judged again: {type(error).__name__} {error}"]
    return found


def _chain(history: History) -> Iterator[str]:
    if bad := verify(history.entries()):
        yield f"chain broken at {bad}"
    if any(later.at < earlier.at for earlier, later in pairwise(history.log)):
        yield "the ledger's time went back"


def _world(history: History) -> Iterator[str]:
    yield from (
        f"{what} {key} done {n} times" for (what, key), n in history.world.applied.items() if n > 1
    )
    yield from (
        f"{what} {key} was started after it was called off"
        for (what, key), job in history.world.jobs.items()
        if job.is_late
    )


def is_step(e: Any) -> bool:
    return "release" in e.body


def _replay(history: History, stream: str, final: dict[str, Any]) -> Iterator[str]:
    """Walk one stream once: judge each step again, and compare each claim with the world at its key."""
    world, life, fence = history.world, reconcile.life_of(stream), 0
    facts = life.Facts(stream)
    (_, kept_seq, kept) = next(iter(history.heads(stream)))
    for e in history.tail(stream):
        if is_step(e):
            if facts.declaration not in ("", e.body["declaration"]):
                yield f"{stream} {e.seq} {e.kind} was judged by {e.body['declaration']}, not by the {facts.declaration} it began with"
            terms = history.settings(stream.split("/")[0], e.body["declaration"])
            again = life.decide(facts, e.body["seen"], terms, e.body["now"])
            if not isinstance(again, Say) or (
                again.kind,
                again.inputs,
                again.outputs,
                again.cause,
            ) != (e.kind, e.inputs, e.outputs, e.body["cause"]):
                yield f"replay: {stream} {e.seq} said {e.kind}, judged again gives {again}"
            if (e.fence or 0) < fence:
                yield f"fence went back at {stream} {e.seq}"
            fence = max(fence, e.fence or 0)
            if e.kind in WORK_BEHIND:
                job = world.jobs.get((WORK_BEHIND[e.kind], facts.key))
                if (
                    job is None
                    or job.fate != "done"
                    or (e.outputs and e.outputs[0] != job.seen["made"])
                ):
                    yield f"{stream} {e.seq} {e.kind} names {e.outputs}, the world does not hold it for {facts.key}"
            for what in ("training", "staging"):
                if (
                    e.body["seen"].get("status") == "lost"
                    and (job := world.jobs.get((what, facts.key)))
                    and job.fate == "killed"
                ):
                    yield f"{stream} {e.seq}: {what} {facts.key} was stopped while it was needed"
        facts = life.fold(facts, e)
        if (
            facts.seq == kept_seq
            and kept.get("release") == NEWEST
            and (thawed := reconcile.thaw(stream, kept)) != facts
        ):
            yield f"checkpoint of {stream} at {facts.seq} is not what the entries say: {thawed}"
    final[stream] = facts
    kinds = Counter(e.kind for e in history.tail(stream))
    began = Counter(job.what for job in world.jobs.values() if job.stream == stream)
    n_lost = kinds["work_lost"] + kinds["staging_lost"]
    for what, cause in CALLED_FOR_BY.items():
        if began[what] > kinds[cause] + n_lost:
            yield f"{stream}: {what} {began[what]} times, called for {kinds[cause]} times and lost {n_lost} times"
    for (what, key), job in world.jobs.items():
        if job.stream == stream and job.alive(world.now) and key != facts.key:
            yield f"{what} {key} still runs, nobody needs it"


def _runs(history: History, model: str, final: dict[str, Any]) -> Iterator[str]:
    """Runs: one for a want, one at a time, none over the budget, all of them to their end, none from barred data."""
    from .history import RETRAINING

    stream = f"retraining/{model}"
    opened = [e for e in history.tail(stream) if e.kind == "run_opened"]
    for earlier, later in zip(opened, opened[RETRAINING.budget :], strict=False):
        if later.at - earlier.at < RETRAINING.budget_window_s:
            yield f"budget: {RETRAINING.budget + 1} runs within {(later.at - earlier.at) / 86400:.2f} days at {stream} {later.seq}"
    is_wanted, barred, known = False, set(), {}
    for e in history.tail(stream):
        match e.kind:
            case "triggered":
                is_wanted = True
            case "snapshot_barred":
                barred.add(e.body["snapshot"])
            case "snapshot_released":
                barred.discard(e.body["snapshot"])
            case "run_opened" | "skipped":
                if not is_wanted:
                    yield f"{stream} {e.seq} {e.kind} without a trigger"
                is_wanted = False
                if e.kind == "run_opened":
                    known[e.outputs[0]] = set(barred)
    f = final.get(stream)
    if f is not None and (f.state != "idle" or is_wanted or f.owes):
        yield f"{stream} did not come to rest: {f.state}, a run is wanted: {is_wanted}, owes {f.owes}"
    runs = {s: history.tail(s) for s in history.by_stream if s.startswith(f"run/{model}/")}
    open_until = 0
    for s, entries in sorted(runs.items(), key=lambda pair: pair[1][0].position):
        kinds = [e.kind for e in entries]
        if "opened" not in kinds:
            if "run_asked" in kinds:
                yield f"{s} was asked for and never opened"
            continue
        ends = [e.position for e in entries if e.kind in RUN_ENDS]
        waits = kinds.count("gate_undecided") == 1 and final[s].state == "undecided"
        if not waits and (len(ends) != 1 or "closed" not in kinds):
            yield f"{s} did not come to its end, or to two: {kinds}"
        if entries[kinds.index("opened")].position < open_until:
            yield f"{s} was opened while another was open"
        open_until = max([open_until, *[e.position for e in entries if e.kind in RUN_OVER][:1]])
        told: dict[str, int] = {}
        for e in entries:
            if e.kind == "snapshot_barred":
                told[e.body["snapshot"]] = e.seq
            if e.kind == "snapshotted" and e.outputs[0] in known.get(s, ()):
                yield f"{s} takes {e.outputs[0]}, which was barred when it was opened"
            if (
                e.kind in ("trained", "offered")
                and final[s].snapshot in told
                and told[final[s].snapshot] < e.seq
            ):
                yield f"{s} {e.seq} {e.kind} from {final[s].snapshot}, which was barred"


def _hand_overs(history: History, model: str) -> Iterator[str]:
    """Whatever one life owes another arrives exactly once."""
    owed: Counter[Any] = Counter()
    got: Counter[Any] = Counter()
    over: set[str] = set()
    for e in history.log:
        kind, _, rest = e.stream.partition("/")
        if rest.split("/")[0] != model:
            continue
        if kind == "retraining" and e.kind == "run_opened":
            owed[e.outputs[0], "run_asked", ""] += 1
        if kind == "run" and e.kind == "offered" and is_step(e):
            owed[f"production/{model}", "offered", e.stream] += 1
        if kind == "run" and e.kind in RUN_OVER and is_step(e) and e.stream not in over:
            over.add(e.stream)
            owed[f"retraining/{model}", "run_closed", e.stream] += 1
        if (
            e.kind in ("run_asked", "offered", "run_closed")
            and not is_step(e)
            and e.actor != "outside"
        ):
            got[e.stream, e.kind, e.body.get("run", "") if e.kind != "run_asked" else ""] += 1
    for what in sorted(set(owed) | set(got)):
        if got[what] != owed[what]:
            yield f"{what} was owed {owed[what]} times and told {got[what]} times"
    made = [
        int(e.body["run"].rpartition("/")[2])
        for e in history.tail(f"production/{model}")
        if e.kind == "offered"
        and e.actor != "outside"
        and not any(x.kind == "gate_undecided" for x in history.tail(e.body["run"]))
    ]
    if made != sorted(made):
        yield f"offers of {model} came out of order: runs {made}"
    running, heard = "", set()
    for e in history.tail(f"retraining/{model}"):
        running = (
            e.outputs[0] if e.kind == "run_opened" else "" if e.kind == "run_ended" else running
        )
        if e.kind == "snapshot_barred":
            heard.add(e.body["snapshot"])
            if running and not any(
                x.kind == "snapshot_barred" and x.body == e.body for x in history.tail(running)
            ):
                yield f"{running} never heard that {e.body['snapshot']} is barred"
        if e.kind == "snapshot_released":
            heard.discard(e.body["snapshot"])
    if heard != (barred := _barred(history, model)):
        yield f"production of {model} barred {barred}, retraining heard of {heard}"


def _barred(history: History, model: str) -> set[str]:
    """What production has barred in the end, told from the kinds alone."""
    barred: set[str] = set()
    snapshots = {
        e.body["bundle"]: e.body["snapshot"]
        for e in history.tail(f"production/{model}")
        if e.kind == "offered"
    }
    for e in history.tail(f"production/{model}"):
        if e.kind in ("regressed", "champion_regressed", "rolled_back") and e.body["cause"] in (
            "quality",
            "with data",
        ):
            barred.add(snapshots[e.inputs[0]])
        if e.kind == "resumed" and e.outputs:
            barred.discard(snapshots[e.outputs[0]])
        if e.kind == "unbar_asked":
            barred.discard(e.body["snapshot"])
    return barred


def _production(history: History, model: str, final: dict[str, Any]) -> Iterator[str]:
    """One champion, each offer ends once, nothing barred or regressed takes traffic unless a person brought it back."""
    stream = f"production/{model}"
    facts: Any = production.Facts(stream)
    ended: Counter[str] = Counter()
    offered: dict[str, str] = {}
    taken: set[str] = set()  # off traffic, by a person
    bad: set[str] = set()
    answers: set[tuple[str, str]] = set()
    holds: set[int] = set()
    unwanted: list[str] = []
    held = n_promoted = 0
    on_stage = ""
    for e in history.tail(stream):
        before, facts = facts, production.fold(facts, e)
        bundle, offer = (*e.inputs, "", "")[:2]
        match e.kind:
            case "rollback_asked" if production.can_go(before, e.body["bundle"], e.body["to"]):
                unwanted.append(e.body["bundle"])
            case "resume_asked":
                holds.add(e.body["held"])
            case "answered":
                answers.add((e.body["bundle"], e.body["answer"]))
        if is_step(e):
            if unwanted and e.kind != "rolled_back":
                yield f"{stream} {e.seq} {e.kind}, but a person wants {unwanted[0]} gone"
            served = e.body["seen"].get("served", before.routed_at)
            if e.kind not in ("rolled_back", "held") and served != before.routed_at:
                yield f"{stream} {e.seq} {e.kind} was judged by the traffic of {served}, not of {before.routed_at}"
        match e.kind:
            case "rolled_back":
                if bundle in [arm["bundle"] for arm in production.routes(facts)]:
                    yield f"{stream} {e.seq} rolled back {bundle}, which still answers"
                if (
                    on_stage
                    and offered[on_stage] != bundle
                    and on_stage not in [o.entry for o in facts.offers]
                ):
                    yield f"{stream} {e.seq} rolled back {bundle} and lost {offered[on_stage]}, which nobody meant"
                unwanted = [b for b in unwanted[1:] if production.can_go(facts, b)]
            case "held" if on_stage and on_stage not in [o.entry for o in facts.offers]:
                yield f"{stream} {e.seq} lost {offered[on_stage]} to a hold"
            case "resumed" if held not in holds:
                yield f"{stream} {e.seq} resumed, but nobody answered the hold of {held}"
            case "approved" if (
                e.body["cause"].startswith("by ") and (bundle, "approved") not in answers
            ):
                yield f"{stream} {e.seq} approved {bundle}, to which nobody said yes"
            case "superseded" if before.state in IN_TRAFFIC and offer == on_stage:
                yield f"{stream} {e.seq} supersedes {bundle}, which takes traffic"
            case "staging_started":
                waiting = [o for o in offered if not ended[o] and o not in taken]
                if offer != max(waiting, key=lambda o: int(o.rpartition("#")[2])):
                    yield f"{stream} {e.seq} takes up {offer} of {waiting}, not the newest"
                on_stage = offer
            case "promoted":
                n_promoted += 1
                truth = history.truth_at[stream, e.seq]
                is_unproven = (
                    truth["harm"]
                    and n_promoted > 1
                    and not e.body["cause"].startswith("approved by")
                )
                if is_unproven or not truth["is_answering"] or truth["gates"] == "reject":
                    yield f"{stream} {e.seq} promoted {bundle} in spite of {truth}"
                asks = history.rollouts[e.body["declaration"]].approval
                if (asks == "always" or (asks == "first" and n_promoted == 1)) and (
                    bundle,
                    "approved",
                ) not in answers:
                    yield f"{stream} {e.seq} promoted {bundle} without asking"
        if e.kind == "rolled_back" and on_stage and offered[on_stage] == bundle:
            taken.add(on_stage)
        if is_step(e) and facts.candidate is None:
            on_stage = ""
        if e.kind == "offered":
            offered[f"{stream}#{e.seq}"] = e.body["bundle"]
        if e.kind == "held" or e.kind == "rolled_back":
            held = e.seq
        if e.kind == "resumed":
            held = 0
            bad -= set(e.outputs)
        if held and e.kind in (
            "staging_started",
            "shadow_started",
            "canary_started",
            "advanced",
            "promoted",
        ):
            yield f"{stream} {e.seq} {e.kind} while held since {held}"
        if e.kind in ("regressed", "champion_regressed"):
            bad.add(e.inputs[0])
        if e.kind == "rolled_back" and facts.champion:
            bad.discard(facts.champion.bundle)  # a person named it
        if e.kind in ENDS and len(e.inputs) > 1:
            ended[e.inputs[1]] += 1
        arms = [arm["bundle"] for arm in production.routes(facts)]
        if back := bad & set(arms):
            yield f"{stream} {e.seq} {e.kind}: {back} regressed and answers again"
        if len([a for a in production.routes(facts) if a["role"] == "champion"]) > 1 or len(
            arms
        ) != len(set(arms)):
            yield f"{stream} {e.seq}: routes {arms}"
        if (
            before.state not in IN_TRAFFIC
            and facts.state in IN_TRAFFIC
            and facts.candidate is not None
            and facts.candidate.snapshot in facts.barred
        ):
            yield f"{stream} {e.seq} {e.kind}: takes traffic, its {facts.candidate.snapshot} is barred"
        if e.kind == "approved" and not before.answer and e.body["cause"].startswith("by "):
            yield f"{stream} {e.seq} approved by nobody"
    waiting = [o.entry for o in facts.offers] + ([facts.candidate.entry] if facts.candidate else [])
    removed = {o for o in offered if ended[o] == 0 and o not in waiting}
    taken_off = {e.inputs[0] for e in history.tail(stream) if e.kind == "rolled_back"}
    for offer, bundle in offered.items():
        if ended[offer] > 1 and bundle not in taken_off:
            yield f"{stream}: {bundle}, offered by {offer}, ended {ended[offer]} times"
        if offer in removed and bundle not in taken_off:
            yield f"{stream}: {bundle}, offered by {offer}, was lost"
    if not history.is_resting(facts):
        yield f"{stream} did not come to rest: {facts.state}, offers {facts.offers}, owes {facts.owes}, {facts.unwanted}"
    final[stream] = facts


def _router(history: History, model: str, final: dict[str, Any]) -> Iterator[str]:
    """What was shown is what the ledger says, in its order; whoever answered was routed then."""
    stream, world = f"production/{model}", history.world
    facts: Any = production.Facts(stream)
    routed: dict[int, list[dict[str, Any]]] = {}
    positions: dict[int, int] = {}
    applied = 0
    for e in history.tail(stream):
        before, facts = facts, production.fold(facts, e)
        if production.routes(before) != production.routes(facts):
            routed[e.seq], positions[e.seq] = production.routes(facts), e.position
        if e.kind == "applied":
            if e.body["arms"] != routed.get(e.body["seq"]):
                yield f"{stream} {e.seq} says applied what was not routed"
            if e.body["seq"] < applied:
                yield f"{stream} {e.seq}: applied went back"
            applied = e.body["seq"]
    shown = [(seq, value) for s, seq, value in world.shown if s == stream]
    for (earlier, _), (later, _) in pairwise(shown):
        if later < earlier:
            yield f"router of {model} went back from {earlier} to {later}"
    for seq, value in shown:
        if routed.get(seq) != value["arms"]:
            yield f"router of {model} showed {value['arms']} for {seq}, the ledger says {routed.get(seq)}"
    if world.router.get(stream, (0, {"arms": []}))[1]["arms"] != production.routes(facts):
        yield f"router of {model} ended at {world.router.get(stream)}, the ledger says {production.routes(facts)}"
    for n, s, seq, bundle in history.requests:
        if s == stream and (
            positions.get(seq, n + 1) > n
            or all(a["bundle"] != bundle or a["shadow"] for a in routed[seq])
        ):
            yield f"{bundle} answered by the routes of {seq}: {routed.get(seq)}"
