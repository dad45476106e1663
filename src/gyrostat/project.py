"""The door: one method for each verb. The command line, the control room, the demo and notebooks come in by it."""

from __future__ import annotations

import contextlib
import csv
import getpass
import json
import math
import os
import shutil
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gyrostat_runtime.files import write_atomic

from gyrostat import config, told
from gyrostat.adapters.local.workers import ROOM_BYTES
from gyrostat.errors import DataError, GyrostatError, LedgerError, TakenError, UsageError
from gyrostat.ledger import times, words
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop.overview import overview
from gyrostat.terms import Answer, Draft, Entry, Ref, RunTold, Told, Verdict

if TYPE_CHECKING:
    import polars

Say = Callable[[str], None]
PREDICTIONS = 100_000
"""Rows of the log that are given unless more are asked for."""


def init(
    folder: str | Path,
    data: str | Path,
    target: str | None,
    *,
    task: str | None = None,
    name: str | None = None,
) -> Told:
    """Make a project around a table; see `scaffold.init`."""
    from gyrostat import scaffold

    return scaffold.init(Path(folder), Path(data), target, task=task, name=name)


def restore(
    file: str | Path,
    folder: str | Path,
    *,
    passphrase: str = "",
    signed_by: str = "",
    actor: str = "",
) -> Told:
    """A project again from a backup, in an empty folder; see `gyrostat.backup`."""
    from gyrostat import backup

    return told.restored(
        backup.restore(
            Path(file),
            Path(folder),
            passphrase=passphrase,
            signed_by=signed_by,
            actor=actor or whoami(),
        ),
        Path(folder),
    )


def explain(data: str | Path, target: str | None, column: str, *, task: str | None = None) -> Told:
    """How `init` judges one column of a table; see `scaffold.explain`."""
    from gyrostat import scaffold

    return scaffold.explain(Path(data), target, column, task=task)


def whoami() -> str:
    """Who asks, as the operating system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


@dataclass(frozen=True)
class Rows:
    """Rows of a snapshot as a user would send them; prints as a count."""

    records: list[dict[str, Any]]
    labels: list[Any]
    numbers: dict[str, str]
    """Columns that hold numbers, to their kind: number or integer."""
    categories: list[str]
    task: str
    limit: float
    """The declared limit of the champion's metric; 0: none."""
    entities: tuple[str, ...] = ()
    """Columns that say whose a row is; all rows of one are on one side of the split."""

    def __str__(self) -> str:
        return (
            f"{len(self.records):,} rows of {len(self.records[0]) if self.records else 0} columns"
        )


@dataclass(frozen=True)
class Data:
    """A project's tables."""

    project: Project

    def open(self, snapshot: str | None = None, *, side: str | None = None) -> polars.DataFrame:
        """The rows of a snapshot as a Polars frame; default: the newest whose checks held.

        Besides the table's own columns: `_side` (train, heldout), `_origin` (source, traffic), `_seen_at`.

        Args:
            snapshot: `snapshot/wine/d3f9a1c`, or the id; in a project of several models also a model's name.
            side: `train` or `heldout` only.

        Raises:
            UsageError: there is no such snapshot, or no such side.
        """
        from gyrostat.data import snapshots, split

        if side not in (None, split.TRAIN, split.HELDOUT):
            raise UsageError(f"There is no side {side!r}: {split.TRAIN} or {split.HELDOUT}.")
        project, known = self.project, self.project.loaded.declaration.models
        ref = project.ref(snapshot) if snapshot and "/" in snapshot else None
        id = ref.id if ref else None if snapshot in known else snapshot
        name = project.model(ref.model if ref else snapshot if snapshot in known else None)
        if id is None:
            newest = snapshots.newest(project.state, name)
            if newest is None:
                raise UsageError(f"{name} has no snapshot yet. Make one: gyrostat run")
            id = newest["id"]
        rows = snapshots.read(project.state, name, id)
        return rows if side is None else rows.filter(rows["_side"] == side)


class Project:
    """A project's folder, opened. Cheap to make; reads what it needs when asked."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.root = config.project_root(Path(folder) if folder else Path.cwd())
        self._watched: config.Watched | None = None
        self._ledger: SqliteLedger | None = None

    def __repr__(self) -> str:
        return f"gyrostat.Project({str(self.root)!r})"

    @property
    def loaded(self) -> config.Loaded:
        """The declaration in force."""
        if self._watched is None:
            self._watched = config.Watched(self.root)
        self._watched.has_changed()
        return self._watched.loaded

    @property
    def state(self) -> Path:
        """Where everything is kept: `.gyrostat/<env>`."""
        return self.loaded.state

    @property
    def ledger(self) -> SqliteLedger:
        """The one truth."""
        if self._ledger is not None and not self._ledger.is_current:
            self._ledger.close()  # it is gone or another stands in its place: opening it says so
            self._ledger = None
        if self._ledger is None:
            self._ledger = SqliteLedger(self.state / "ledger.db")
        return self._ledger

    def model(self, name: str | None) -> str:
        """The name, checked; may be left out where there is one model.

        Raises:
            UsageError: there is no such model, or there are several.
        """
        known = list(self.loaded.declaration.models)
        if name is None:
            if len(known) == 1:
                return known[0]
            raise UsageError(f"Which model? This project has {', '.join(known)}.")
        if name not in known:
            raise UsageError(f"There is no model {name!r}. Declared: {', '.join(known)}.")
        return name

    def ref(self, text: str) -> Ref:
        """A thing's name, read; the model may be left out where there is one.

        Raises:
            UsageError: it has not the form of a ref.
        """
        known = list(self.loaded.declaration.models)
        try:
            return Ref.parse(text, only_model=known[0] if len(known) == 1 else None)
        except ValueError as error:
            raise UsageError(f"{error}.") from None

    # ---- asking

    def status(self, *, at: str | None = None) -> Told:
        """Does it hurt users, must you act, what is the loop doing, what changed, what to type."""
        moment = self._time(at) if at else None
        facts = overview(self.ledger, self.state, self.loaded, at=moment)
        facts["processes"] = sorted(self.processes()) if at is None else []
        facts["mistake"] = self._mistake()
        facts["troubles"] = [] if at is not None else self._troubles()
        return Told(
            tuple(told.status(facts, is_up="loop" in facts["processes"], is_past=at is not None)),
            facts,
            draw=told.status_drawn,
        )

    def _mistake(self) -> str:
        """Of the declaration as it is on disk, if the loop runs by an older one."""
        try:
            config.load(self.root)
        except GyrostatError as error:
            return str(error)
        return ""

    def _troubles(self) -> list[str]:
        """What holds up the loop, and predictions not."""
        free = shutil.disk_usage(self.state).free
        full = [
            f"the disk is full ({free / 1e6:,.1f} MB free): no work begins, what cannot be written waits"
        ]
        why = self.ledger.why_not_writable()
        return [
            *(full if free < ROOM_BYTES else []),
            *([f"nothing can be put on record now: {why}"] if why else []),
            *self._unreplaced(),
        ]

    def _unreplaced(self) -> list[str]:
        """Servers of an `up` that is gone."""
        from gyrostat.processes import runfiles

        running = self.processes()
        before = runfiles.of_an_earlier_up(running)
        ours = [n for n in running if n.startswith("server") and n not in before]
        log = self.state / "run" / f"{ours[0] if ours else 'server'}.log"
        return [
            f"{name} of an earlier `gyrostat up` still answers: the new {' and '.join(ours) or 'server'} "
            f"cannot yet (see {log})"
            for name in before
        ]

    def _time(self, text: str) -> float:
        try:
            return times.parse(text)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def pulse(self) -> str:
        """Changes when something did: cheap enough to ask twice a second."""
        stamp = [str(self.ledger.position())]
        for path in sorted((self.state / "observations").glob("*/live.json")):
            with contextlib.suppress(OSError):
                stamp.append(str(path.stat().st_mtime_ns))
        return "-".join(stamp)

    def recent(self, model: str, *, limit: int = 12) -> dict[str, Any]:
        """The newest news of a model, for a page."""
        news = []
        after = max(0, self.ledger.position() - 60 * limit)
        for entry in self.ledger.entries(after=after):
            if self._is_of(entry, model) and words.is_news(entry):
                news.append(entry)
        return {"events": [self._event(e) for e in reversed(news[-limit:])]}

    @staticmethod
    def _is_of(entry: Entry, model: str) -> bool:
        parts = entry.stream.split("/")
        return parts[0] == "declaration" or (len(parts) > 1 and parts[1] == model)

    @staticmethod
    def _event(entry: Entry) -> dict[str, Any]:
        area, text, mark = words.words(entry)
        return {
            "entry": entry.ref, "at": times.iso(entry.at), "stream": entry.stream, "kind": entry.kind, "area": area,
            "text": text, "mark": mark, "actor": entry.actor,
        }  # fmt: skip

    def words(self, entry: Entry) -> str:
        """An entry as one line."""
        area, text, _ = words.words(entry)
        return f"{area:10} {text}"

    def changes(self, model: str | None = None, *, since: str = "24h") -> Told:
        """What changed, newest first; where users were harmed, also the changes closest before it, the closest first."""
        from gyrostat.loop import harm

        name, moment = self.model(model), self._time(since)
        known = [e for e in self.ledger.entries() if self._is_of(e, name) and words.is_news(e)]
        found = [e for e in known if e.at >= moment]
        seen = harm.onset(found)
        closest = harm.closest(known, seen) if seen else []
        facts = {
            "model": name,
            "since": times.iso(moment),
            "harm": self._event(seen) if seen else None,
            "closest": [self._event(e) | {"before_s": seen.at - e.at} for e in closest] if seen else [],
            "changes": [self._event(e) for e in reversed(found)],
        }  # fmt: skip
        lines = told.harmed(facts)
        lines += [f"{times.local(e.at):>12}  {self.words(e)}" for e in reversed(found)]
        return Told(
            tuple(lines or [f"{name}: nothing changed since {times.local(moment)}."]), facts
        )

    def why(self, ref: str | RunTold, *, forward: bool = False) -> Told:
        """Where a thing comes from, back to data, code, gates and approval.

        Args:
            ref: takes what `run` answered, too.
            forward: what came of it instead: from a snapshot, run or version to how many predictions.
        """
        from gyrostat.loop import lineage

        named = self.ref(ref.ref if isinstance(ref, RunTold) else ref)
        follow = lineage.forward if forward else lineage.why
        chain = follow(self.ledger, self.state, self.loaded, named)
        return Told(tuple(told.chain(chain)), {"ref": str(named), "chain": chain})

    def open(self, ref: str = "") -> Told:
        """The address of a thing's page in the control room; without a ref, of the first page.

        Raises:
            UsageError: `up` does not run, so there is no page.
        """
        path = str(self.ref(ref)) if ref else ""
        control = self.processes().get("control")
        if control is None:
            raise UsageError("The control room does not run. Start it: gyrostat up")
        url = f"http://127.0.0.1:{control.port}/{quote(path)}"
        return Told((url,), {"ref": path, "url": url})

    def who_served(self, model: str | None = None, *, at: str | None = None) -> Told:
        """Which versions answered at a time, by the routes that every server had said to answer by, and in batches."""
        from gyrostat.loop import lineage
        from gyrostat.loop.reconcile import served_at

        name = self.model(model)
        moment = self._time(at) if at else time.time()
        entry = served_at(self.ledger, name, moment)
        batches = lineage.batches(self.ledger, name, at=moment)
        if entry is None:
            nobody = f"{name}: nobody answered at {times.local(moment)}."
            return Told(
                tuple(link["words"] for link in batches) or (nobody,),
                {"model": name, "at": times.iso(moment), "arms": [], "batches": batches},
            )
        lines = [
            f"{name}  at {times.local(moment)}, routes {entry.body['seq']} applied {times.local(entry.at)} ({entry.ref})"
        ]
        for arm in entry.body["arms"]:
            part = "shadow, answers nobody" if arm["shadow"] else f"{100 * arm['share']:g} %"
            lines.append(
                f"       version/{name}/{arm['version']}  {arm['role']:9}  {part}  bundle {arm['bundle'][:12]}"
            )
        lines += [f"       {link['words']}" for link in batches]
        facts = {
            "model": name,
            "at": times.iso(moment),
            "since": times.iso(entry.at),
            "entry": entry.ref,
            "arms": entry.body["arms"],
            "batches": batches,
        }
        return Told(tuple(lines), facts)

    def assignments(
        self,
        model: str | None = None,
        *,
        version: int | None = None,
        key: str | None = None,
        csv: str | Path | None = None,
    ) -> Told:
        """Who was given which arm while a release went on, and how the arms compare by the labels that came.

        Args:
            version: the challenger's; default: of the newest release that had requests divided.
            key: of these assignments only that of one client's `X-Gyrostat-Key`.
            csv: a file for all of them, those of predictions without a key among them.

        Raises:
            UsageError: no requests were divided, or there is no such version.
        """
        from gyrostat.loop import assignments
        from gyrostat.registry import versions

        name = self.model(model)
        known = {v.bundle: v.number for v in versions.read(self.ledger, name).all}
        bundle = next((b for b, number in known.items() if number == version), "")
        if version is not None and not bundle:
            raise UsageError(f"There is no version/{name}/{version}. See: gyrostat status")
        found = assignments.split(self.state, name, bundle=bundle)
        alpha = self.loaded.declaration.models[name].rollout.wrong_decisions
        facts = {
            "model": name, "since": times.iso(found.seconds[0]), "until": times.iso(found.seconds[-1]),
            "steps": len(found.steps), **assignments.compared(found, alpha=alpha),
        }  # fmt: skip
        for arm in facts["arms"].values():
            arm["version"] = known.get(arm["bundle"])
        given = assignments.assignments(self.state, name, found)
        if csv is not None:
            assignments.write_csv(Path(csv), (assignments.as_json(one, known) for one in given))
            return Told((*told.arms(facts), f"Wrote {csv}."), facts | {"csv": str(csv)})
        wanted = assignments.hashed(self.state, key) if key is not None else None
        keyed = [assignments.as_json(one, known) for one in given if one.key and wanted in (None, one.key)]  # fmt: skip
        if key is None:
            for role, arm in facts["arms"].items():
                arm["keys"] = sum(one["arm"] == role for one in keyed)
        facts["assignments"] = keyed
        lines = told.arms(facts) + (told.assigned(key, keyed) if key is not None else [])
        return Told(tuple(lines), facts)

    def config(self) -> Told:
        """The declaration in force and where each value came from."""
        facts = {
            "values": self.loaded.values,
            "origins": self.loaded.origins,
            "digest": self.loaded.digest,
            "env": self.loaded.env,
        }
        return Told(tuple(config.render(self.loaded)), facts)

    def config_schema(self) -> Told:
        """The JSON schema of the declaration."""
        schema = config.json_schema()
        return Told((json.dumps(schema, indent=1, ensure_ascii=False),), schema)

    def audit_verify(self, *, anchors: tuple[str, ...] = ()) -> Told:
        """Check every entry against the chain, and the chain against the heads that are kept elsewhere."""
        from gyrostat.adapters.anchors import heads
        from gyrostat.ledger import audit
        from gyrostat.processes import anchoring

        found, odd = anchoring.anchors(self.loaded, files=tuple(Path(a) for a in anchors))
        ledger = self.ledger
        report = audit.verify(ledger.rows(), found, row_at=ledger.row, search=ledger.rows)
        lost = set(report.lost)
        odd += heads.going_back(anchor for anchor in found if anchor not in lost)
        return told.verified(report, odd, has_anchor=bool(found))

    def audit_anchor(self) -> Told:
        """Keep the head of the chain elsewhere now."""
        from gyrostat.processes import anchoring

        if not self.loaded.declaration.audit.anchors:
            raise UsageError(
                "No place is declared. Name one: audit: {anchor: [{file: /mnt/other/heads.jsonl}]}. Nothing was kept."
            )
        return told.anchored(*anchoring.anchor(self.loaded, self.ledger))

    def audit_replay(self, model: str | None = None) -> Told:
        """Judge every recorded decision again from what was recorded with it."""
        from gyrostat.loop.replay import replay

        name = self.model(model) if model else ""
        return told.replayed(replay(self.ledger, self.state, model=name))

    def keys_rotate(self, *, reason: str = "", actor: str = "") -> Told:
        """Sign with a new key from now on; what the old one signed stays trusted."""
        from gyrostat_runtime import keys
        from gyrostat_runtime.errors import RuntimeFault

        actor = actor or whoami()
        self._may_answer(actor)
        try:
            old, new = keys.rotate(self.state / "keys")
        except RuntimeFault as fault:
            raise UsageError(f"{fault}. Nothing was changed.") from None
        body = {"old": old, "new": new, "actor": actor, "reason": reason}
        entry = self._tell("project", "keys_rotated", body, key=f"keys/{new}", actor=actor)
        line = f"{new} signs from now on; {old} is trusted for what it signed ({entry.ref})"
        return Told((line,), {"old": old, "new": new, "entry": entry.ref})

    def gc(self, *, is_dry: bool = False, actor: str = "") -> Told:
        """Remove what nothing needs any more, and earlier champions as far as `storage.budget` asks for it."""
        from gyrostat.loop import collect

        found = collect.survey(self.ledger, self.state, list(self.loaded.declaration.models))
        budget = self.loaded.declaration.storage_bytes
        removed, kept, entry = collect.collect(
            self.ledger,
            self.state,
            found,
            budget_bytes=budget,
            actor=actor or whoami(),
            is_dry=is_dry,
        )
        return told.collected(found, removed, kept, entry, budget, is_dry=is_dry)

    def backup(self, file: str | Path, *, passphrase: str = "") -> Told:
        """The whole project to one new file, also while it runs; see `gyrostat.backup`."""
        from gyrostat import backup

        return told.saved(backup.save(self.root, self.state, Path(file), passphrase=passphrase))

    def doctor(self) -> Told:
        """Look at every part of the project; says what is wrong and what to type."""
        from gyrostat.processes import doctor

        return told.doctor(doctor.examine(self.root))

    def notify_test(self) -> Told:
        """Send each declared receiver a test message now."""
        from gyrostat.processes import notifying

        return told.notified(notifying.test(self.loaded))

    def data_report(self, ref: str | None = None, *, html: str | Path | None = None) -> Told:
        """What was understood of the source and why; which rules hold of a snapshot, default the newest.

        Args:
            html: write the same as one page to this file.
        """
        from gyrostat.data import checks, report, snapshots
        from gyrostat.data.infer import infer

        model = None
        if ref and "/" in ref:
            parsed = self.ref(ref)
            model, ref = parsed.model, parsed.id
        name = self.model(model)
        known = snapshots.records(self.state, name) if ref is None else []
        record = snapshots.record(self.state, name, ref) if ref else known[-1] if known else None
        lines: list[str] = []
        facts: dict[str, Any] = {"model": name}
        if record is not None:
            judged = record["checks"]
            lines += [
                f"snapshot/{name}/{record['id']}  {record['n_rows']:,} rows ({record['n_traffic']:,} labelled predictions), {record['source']}",
                f"ok    {judged['n_rules']} of {judged['n_rules']} rules hold"
                if not judged["broken"]
                else f"no    {judged['n_rows_broken']:,} rows break {judged['n_broken']} of {judged['n_rules']} rules",
                *(f"      {line}" for line in checks.lines(judged)),
                f"split {snapshots.sides(record)}",
            ]
            keys = (
                "id",
                "n_rows",
                "n_source",
                "n_traffic",
                "n_train",
                "n_heldout",
                "n_apart",
                "split",
                "fingerprint",
                "checks",
                "passed",
            )
            facts |= {k: record[k] for k in keys if k in record}
        if ref is None or html is not None:
            settings = self.loaded.declaration.models[name].data
            try:
                df, _ = snapshots.source_of(self.root, settings)
                found = infer(df, settings.target, task=settings.task)
            except DataError as error:
                # What the snapshot says is no less true for it.
                if record is None or html is not None:
                    raise
                lines += [f"no    {line}" for line in str(error).splitlines()]
                return Told(tuple(lines), facts | {"problem": str(error)}, exit_code=1)
            understood = report.facts(df, found, settings)
            facts["understood"] = understood
            lines += report.lines(understood)
            if html is not None:
                broken = checks.lines(record["checks"]) if record else []
                title = f"{name}: {settings.source.path}"
                write_atomic(Path(html), report.page(understood, title, broken).encode())
                lines.append(f"Wrote {html}")
        is_broken = record is not None and bool(record["checks"]["broken"])
        return Told(tuple(lines), facts, exit_code=1 if is_broken else 0)

    def data_diff(self, old: str, new: str) -> Told:
        """What one snapshot has otherwise than another: rows, columns, distributions."""
        from gyrostat.data import diff

        parsed = [self.ref(ref) if "/" in ref else None for ref in (old, new)]
        models = {ref.model for ref in parsed if ref}
        if len(models) > 1:
            raise UsageError("Snapshots of two models cannot be compared. Nothing was done.")
        name = self.model(models.pop() if models else None)
        ids = [ref.id if ref else text for ref, text in zip(parsed, (old, new), strict=True)]
        found = diff.diff(self.state, name, *ids)
        return Told(tuple(diff.lines(found)), found)

    def rows(self, model: str | None = None, *, side: str = "heldout") -> Rows:
        """Rows of the newest snapshot as a user would send them, with what was true of them."""
        from gyrostat_runtime.schema import Schema

        from gyrostat.data import frames, snapshots

        name = self.model(model)
        known = [r for r in snapshots.records(self.state, name) if r["passed"]]
        if not known:
            raise UsageError(f"{name} has no snapshot yet. Make one: gyrostat run")
        record = known[-1]
        schema = Schema.from_json(record["schema"])
        df = snapshots.read(self.state, name, record["id"])
        df = df.filter((df["_side"] == side) & (df["_origin"] == "source"))
        labels = [frames.as_json(v, schema) for v in df[schema.output.target].to_list()]
        declared = self.loaded.declaration.models[name]
        settings, data = declared.gates, declared.data
        limit = next(
            (x.bound for x in settings.limits if x.metric == settings.champion.metric), 0.0
        )
        used = {f.column for f in schema.features}
        inputs = [c for c in schema.inputs if c.name in used]
        numbers = {c.name: c.kind for c in inputs if c.kind in ("number", "integer")}
        categories = [c.name for c in inputs if c.kind == "category"]
        entities = tuple(c for c in dict.fromkeys((data.split.group, data.keys.entity)) if c)
        return Rows(
            frames.records(df, schema), labels, numbers, categories, schema.output.task, limit, entities
        )  # fmt: skip

    def predictions(
        self, model: str | None = None, *, since: str = "1h", limit: int = PREDICTIONS
    ) -> polars.DataFrame:
        """What was asked and answered, with the labels that came: a Polars frame, oldest first.

        Args:
            limit: of more rows than this the newest are given, and a warning says how many there were.

        Returns:
            Columns `id, time, version, arm, asked, key, status, inputs, prediction, label`. `inputs` is a struct
            (`frame.unnest("inputs")` spreads it); personal columns and keys are the hashes that were logged. `prediction`
            is null where an error was answered, `label` where none has come. Rows with the arm `shadow` answered nobody;
            of those that were `asked` for the client chose the arm.

        Raises:
            UsageError: `limit` is not positive, or `since` is no time.
        """
        from gyrostat.data import predictions
        from gyrostat.registry import versions

        name = self.model(model)
        if limit < 1:
            raise UsageError(f"limit is {limit}; it must be at least 1.")
        known = {v.bundle: v.number for v in versions.read(self.ledger, name).all}
        found = predictions.read(
            self.state, name, since=self._time(since), limit=limit, versions=known
        )
        if found.n_all > limit:
            text = f"the newest {limit:,} of {found.n_all:,} predictions; others: a larger limit="
            warnings.warn(text, stacklevel=2)
        return found.frame

    @property
    def data(self) -> Data:
        """The tables of this project: `project.data.open()`."""
        return Data(self)

    def processes(self) -> dict[str, Any]:
        """What runs of this project, by name."""
        from gyrostat.processes import runfiles

        return runfiles.alive(self.state)

    # ---- answering

    def _tell(self, stream: str, kind: str, body: dict[str, Any], *, key: str, actor: str) -> Entry:
        """An event, once."""
        return self.ledger.append(
            stream,
            Draft(kind, self.ledger.now(), actor, body=body, key=key),
            expect_seq=None,
            fence=None,
        )

    def _production(self, model: str) -> Any:
        from gyrostat.loop.reconcile import facts_of

        return facts_of(self.ledger, f"production/{model}")

    def _may_answer(self, actor: str) -> None:
        approvers = self.loaded.declaration.approvers
        if approvers and actor not in approvers:
            raise UsageError(
                f"{actor} may not decide. governance.approvers: {', '.join(approvers)}. Nothing was changed."
            )

    def answer(self, ref: str | None, answer: str, *, reason: str = "", actor: str = "") -> Told:
        """Say yes or no to what waits: a model's name, `version/...` or `run/...`.

        Raises:
            UsageError: nothing waits there.
        """
        actor = actor or whoami()
        self._may_answer(actor)
        known = self.loaded.declaration.models
        model, wanted = (
            (self.model(ref), None)
            if ref is None or ref in known
            else ((r := self.ref(ref)).model, r)
        )
        asks = self.status().facts["models"][self.model(model)]["needs_you"]
        asks = [
            a for a in asks if a["what"] != "held" and (wanted is None or a["ref"] == str(wanted))
        ]
        if not asks:
            where = f"{wanted}" if wanted else model
            raise UsageError(f"Nothing waits for an answer at {where}. See: gyrostat status")
        if len(asks) > 1:
            raise UsageError(
                f"Several things wait at {model}: name one: {', '.join(a['ref'] for a in asks)}"
            )
        ask = asks[0]
        body = {"answer": answer, "actor": actor, "reason": reason}
        if ask["what"] == "undecided":
            entry = self._tell(
                ask["ref"],
                "answered",
                body | {"run": ask["ref"]},
                key=f"answer/{actor}/{uuid.uuid4().hex[:8]}",
                actor=actor,
            )
        else:
            f = self._production(model)
            body |= {"bundle": f.candidate.bundle, "version": f.candidate.version}
            entry = self._tell(
                f"production/{model}",
                "answered",
                body,
                key=f"answer/{f.mark}/{actor}/{uuid.uuid4().hex[:8]}",
                actor=actor,
            )
        verb = "approved" if answer == "approved" else "rejected"
        lines = [f"{ask['ref']}: {verb} by {actor} ({entry.ref})"]
        if "loop" not in self.processes():
            lines.append("The loop does not run; it acts when it does: gyrostat up")
        return Told(tuple(lines), {"ref": ask["ref"], "answer": answer, "entry": entry.ref})

    def roll_back(
        self,
        model: str | None = None,
        *,
        to: int | None = None,
        with_data: bool = False,
        reason: str = "",
        actor: str = "",
        say: Say | None = None,
    ) -> Told:
        """Take off the candidate in traffic, else the champion; then production is held until `resume`.

        Raises:
            UsageError: there is nothing to go back to.
        """
        from gyrostat.rollout import production
        from gyrostat.rollout.states import IN_TRAFFIC

        name, actor = self.model(model), actor or whoami()
        self._may_answer(actor)
        f = self._production(name)
        if f.champion is None:
            raise UsageError(f"{name} has no champion; there is nothing to roll back.")
        goes_to, bundle = "", f.champion.bundle
        if to is not None:
            known = {
                o.version: o
                for o in (*f.released, *f.regressed, *((f.removed,) if f.removed else ()))
            }
            if to == f.champion.version or to not in known:
                listed = (
                    ", ".join(str(v) for v in sorted(known) if v != f.champion.version) or "none"
                )
                raise UsageError(
                    f"Version {to} cannot be gone back to. Earlier versions: {listed}. Nothing was changed."
                )
            goes_to = known[to].bundle
        elif f.state in IN_TRAFFIC and f.candidate is not None:
            bundle = f.candidate.bundle
        if not production.can_go(f, bundle, goes_to):
            raise UsageError(
                f"There is no earlier version of {name} to go back to. Nothing was changed."
            )
        body = {
            "bundle": bundle,
            "to": goes_to,
            "with_data": with_data,
            "reason": reason,
            "actor": actor,
        }
        entry = self._tell(
            f"production/{name}",
            "rollback_asked",
            body,
            key=f"rollback/{uuid.uuid4().hex}",
            actor=actor,
        )
        lines = []
        if "loop" not in self.processes():
            lines.append(
                f"{name}: asked ({entry.ref}). The loop does not run; it acts when it does: gyrostat up"
            )
            return Told(tuple(lines), {"model": name, "entry": entry.ref, "is_done": False})
        began = time.monotonic()
        while time.monotonic() - began < 30:
            f = self._production(name)
            if f.state == "held" and f.applied >= f.routed_at:
                break
            time.sleep(0.05)
        took = time.monotonic() - began
        gone = f.removed.version if f.removed else "?"
        now = f.champion.version if f.champion else "none"
        lines.append(
            f"{name}: version {gone} -> version {now}, {took:.2g} s until it answered everything"
        )
        if with_data and f.removed:
            lines.append(
                f"  data       snapshot {f.removed.snapshot[:7]} is barred; free it: gyrostat data unbar {f.removed.snapshot[:7]}"
            )
        lines.append(f"  held       nothing is released until: gyrostat resume {name}")
        lines.append(
            "             a rollback does not cure wrong inputs: the other version gets the same rows"
        )
        lines.append(f"{entry.ref}   back again: gyrostat roll-back {name} --to {gone}")
        return Told(
            tuple(lines),
            {
                "model": name,
                "entry": entry.ref,
                "is_done": True,
                "from": gone,
                "to": now,
                "seconds": took,
            },
        )

    def hold(self, model: str | None = None, *, reason: str = "", actor: str = "") -> Told:
        """Release nothing until `resume`; routes stay with the champion."""
        name, actor = self.model(model), actor or whoami()
        if self._production(name).state == "held":
            raise UsageError(f"{name} is held already. End it: gyrostat resume {name}")
        entry = self._tell(
            f"production/{name}",
            "hold_asked",
            {"actor": actor, "reason": reason},
            key=f"hold/{uuid.uuid4().hex}",
            actor=actor,
        )
        return Told(
            (f"{name}: held ({entry.ref}). Nothing is released until: gyrostat resume {name}",),
            {"model": name, "entry": entry.ref},
        )

    def resume(self, model: str | None = None, *, reason: str = "", actor: str = "") -> Told:
        """End the hold."""
        name, actor = self.model(model), actor or whoami()
        self._may_answer(actor)
        f = self._production(name)
        if f.state != "held":
            raise UsageError(f"{name} is not held. See: gyrostat status")
        body = {"held": f.mark, "champion": "", "actor": actor, "reason": reason}
        entry = self._tell(
            f"production/{name}",
            "resume_asked",
            body,
            key=f"resume/{f.mark}/{uuid.uuid4().hex[:8]}",
            actor=actor,
        )
        return Told((f"{name}: resumed ({entry.ref})",), {"model": name, "entry": entry.ref})

    def data_unbar(self, snapshot: str, *, reason: str = "", actor: str = "") -> Told:
        """Let a barred snapshot be used again."""
        actor = actor or whoami()
        barred = {
            s: name
            for name in self.loaded.declaration.models
            for s in self._production(name).barred
        }
        wanted = snapshot.rpartition("/")[2]
        found = [s for s in barred if wanted and s.startswith(wanted)]
        if len(found) != 1:
            raise UsageError(f"{snapshot!r} is not barred. Barred: {', '.join(barred) or 'none'}.")
        name = barred[found[0]]
        body = {"snapshot": found[0], "actor": actor, "reason": reason}
        entry = self._tell(
            f"production/{name}", "unbar_asked", body, key=f"unbar/{uuid.uuid4().hex}", actor=actor
        )
        return Told(
            (f"snapshot/{name}/{found[0]}: free again ({entry.ref})",),
            {"snapshot": found[0], "entry": entry.ref},
        )

    def labels(self, given: Any, *, model: str | None = None) -> Told:
        """Hand in labels with `id` and `label`: a file (CSV with a header, or JSON lines), or a Polars or pandas frame.

        Raises:
            UsageError: it, or a row of it, is not of that form; none was stored.
        """
        from gyrostat_runtime import log

        name = self.model(model)
        origin, rows = _label_rows(given)
        is_number = self.loaded.declaration.models[name].data.task == "regression"
        found = []
        for n, row in enumerate(rows, 1):
            if not isinstance(row, dict) or not row.get("id") or row.get("label") is None:
                raise UsageError(
                    f"{origin}, row {n}: `id` and `label` are needed. Nothing was stored."
                )
            label = row["label"]
            if is_number and not _is_finite(label):
                try:
                    label = float(label)
                except (TypeError, ValueError):
                    label = math.nan
                if not math.isfinite(label):
                    raise UsageError(
                        f"{origin}, row {n}: a number is needed as label, got {row['label']!r}. Nothing was stored."
                    )
            found.append((str(row["id"]), label))
        writer = log.LabelWriter(
            self.state / "labels" / name, f"file-{os.getpid()}-{time.time_ns()}"
        )
        for id, label in found:
            writer.append(log.Label(id, label, time.time(), origin))
        writer.close()
        return Told(
            (
                f"{name}: {len(found):,} labels stored; unknown ids are parked until their prediction is known.",
            ),
            {"model": name, "n": len(found)},
        )

    # ---- acting

    def run(
        self, model: str | None = None, *, wait: bool = True, key: str | None = None, refused_ok: bool = False, reason: str = "",
        actor: str = "", say: Say = print,
    ) -> RunTold:  # fmt: skip
        """Make a candidate now. While `up` runs it is followed to the end of its release; without, to its offer."""
        from gyrostat.processes import following

        made = following.run(
            self,
            self.model(model),
            wait=wait,
            key=key,
            refused_ok=refused_ok,
            reason=reason,
            actor=actor or whoami(),
            say=say,
        )
        return self._with_gates(made)

    def predict(
        self,
        model: str | None = None,
        *,
        input: str | Path,
        output: str | Path,
        version: int | None = None,
        keep: Iterable[str] = (),
        strict: bool = False,
        actor: str = "",
        say: Say = print,
    ) -> Told:
        """Answer every row of a table, however large; see `gyrostat.batch`. A killed call goes on when it is made again.

        Args:
            input: a file (CSV, gzip'd CSV, JSON lines, Parquet), or `snapshot/wine/d3f9a1c`.
            output: a file whose name ends in .parquet or .csv.
            version: default: the champion.
            keep: columns of the input that stand beside the answers, besides the declared keys.
            strict: a row without an answer ends it with exit code 1; the output is there all the same.

        Raises:
            UsageError, DataError, BundleError, JobError: it cannot be done.
        """
        from gyrostat import batch
        from gyrostat.registry import versions

        name = self.model(model)
        known = versions.read(self.ledger, name)
        chosen = known.number(known.champion if version is None else version)
        if chosen is None:
            listed = ", ".join(str(v.number) for v in known.all) or "none yet"
            what = "has no champion" if version is None else f"has no version {version}"
            raise UsageError(f"{name} {what}. Its versions: {listed}. Name one with --version, or release one: gyrostat status. Nothing was done.")  # fmt: skip
        declared = self.loaded.declaration.models[name]
        source, frame, fingerprint = self._input(name, input)
        actor = actor or whoami()
        told_of: list[Entry] = []

        def record(scored: batch.Scored) -> None:
            body = {
                "id": scored.id, "by_version": chosen.number, "bundle": chosen.bundle, "input": source, "output": Path(output).name,
                "input_digest": scored.input_digest, "output_digest": scored.output_digest, "n_rows": scored.n_rows,
                "n_failed": scored.n_failed, "began_at": scored.began_at, "actor": actor,
            }  # fmt: skip
            ends = ((chosen.ref, chosen.bundle, scored.input_digest), (scored.output_digest,))
            draft = Draft("scored", self.ledger.now(), actor, *ends, body, key=f"batch/{scored.id}")
            told_of.append(self.ledger.append(f"batch/{name}", draft, expect_seq=None, fence=None))

        wanted = batch.Batch(
            self.state, name, chosen.number, chosen.bundle, declared.data, None if frame is not None else Path(input), Path(output),
            frame, fingerprint, tuple(keep), declared.serving.missing, declared.serving.new_category,
        )  # fmt: skip
        scored = batch.score(wanted, record=record, say=say)
        return told.scored(scored, told_of[-1], Path(output), is_strict=strict)

    def _input(self, model: str, input: str | Path) -> tuple[str, polars.DataFrame | None, str]:
        """`(how it is named, its rows where they are a snapshot, their fingerprint)`."""
        from gyrostat.data import snapshots

        if not str(input).startswith("snapshot/") or Path(input).exists():
            return Path(input).name, None, ""
        ref = self.ref(str(input))
        made = snapshots.record(self.state, ref.model, ref.id)
        rows = snapshots.read(self.state, ref.model, made["id"])
        return f"snapshot/{ref.model}/{made['id']}", rows, made["fingerprint"]

    def offer(
        self, model: Any, X: Any, y: Any, *, name: str | None = None, wait: bool = True, reason: str = "", actor: str = "",
        say: Say = print,
    ) -> RunTold:  # fmt: skip
        """A fitted model becomes a candidate: a run that opens it in a clean process instead of training one.

        The run packs, judges and releases it as any other. Guaranteed: no row of `X` is one that candidates are judged by
        (else the run fails and says how many), and the model opens and predicts without this notebook. Not guaranteed: that
        it was fitted on `X` and nothing else; only a training that the loop does itself shows that. The record says that it
        was offered, and by whom. Of several offers that wait for a run, the last counts.

        Args:
            model: fitted, with `predict`; what it was made of must be installed, in the project, or in the notebook itself.
            X: the rows it was fitted on, a pandas or Polars frame with the columns that the model sees.
            y: their labels.
            name: the project's model that it is a candidate for; may be left out where there is one.

        Raises:
            UsageError: it cannot be offered; nothing was changed.
        """
        from gyrostat.processes import following
        from gyrostat.training import offer

        wanted = self.model(name)
        kept = offer.keep(self.state, wanted, model, X, y)
        made = following.run(
            self, wanted, wait=wait, key=None, refused_ok=False, reason=reason or f"{kept.what} offered from a notebook",
            actor=actor or whoami(), say=say, offered=kept.digest,
        )  # fmt: skip
        return self._with_gates(made)

    def _with_gates(self, made: Told) -> RunTold:
        stream = made.facts.get("run")
        entries = self.ledger.tail(stream) if stream else []
        gate = next((e for e in reversed(entries) if e.kind.startswith("gate_")), None)
        found = gate.body.get("detail", {}).get("verdicts", {}) if gate else {}
        gates = {
            name: Verdict(**{**verdict, "answer": Answer(verdict["answer"])})
            for name, verdict in found.items()
        }
        facts = made.facts | {"gates": found}
        return RunTold(made.lines, facts, made.exit_code, told.verdicts_drawn, gates)

    def up(
        self,
        *,
        port: int | None = None,
        control_port: int | None = None,
        say: Say = print,
        begins_again: bool = False,
    ) -> Told:
        """Start everything and keep it until Ctrl-C or SIGTERM, or until another release is installed.

        Args:
            begins_again: then replace this process by the same command of the other release, on the same sockets.

        Raises:
            TakenError: a port is taken, or `up` runs already; nothing was started.
        """
        from gyrostat_runtime import keys

        from gyrostat.loop.declare import declare
        from gyrostat.processes import following, handover, runfiles
        from gyrostat.processes.supervisor import (
            Child,
            Supervisor,
            bind,
            next_generation,
            settle,
            take_over,
        )

        declaration, state, actor = self.loaded.declaration, self.state, whoami()
        lock = runfiles.Lock(state, "up")
        lock.take_or_refuse("`gyrostat up`")
        try:
            runfiles.write(state, "up")
            port = port or declaration.server.port
            handed, before = take_over(state)
            handed |= handover.inherited()
            settle(state)
            control_port = control_port or declaration.control_port
            server = handed.pop(port, None) or bind(
                declaration.server.host, port, setting="server.port", option="--port"
            )
            try:
                control = handed.pop(control_port, None) or bind(
                    "127.0.0.1", control_port, setting="control_room.port", option="--control-port"
                )
            except TakenError:
                server.close()
                raise
            for unused in handed.values():
                unused.close()
            say = _never_failing(say)
            began_after = None
            try:
                runfiles.write(state, "up", port=server.getsockname()[1])
                keys.create_keys(state / "keys")
                began_after = self.ledger.position()
                declare(self.ledger, self.loaded, actor)
            except (LedgerError, OSError) as error:
                # What is on disk answers all the same; the loop waits, and says so.
                say(f"no    {error}")
            stop = threading.Event()

            def children() -> list[Child]:
                return following.children(self, server, control, actor, next_generation(before))

            supervisor = Supervisor(state, children(), say, stop, children, list(before))
            _stop_on_signals(stop)
            say(
                f"gyrostat {_version()}  {', '.join(declaration.models)}  control room http://127.0.0.1:{control.getsockname()[1]}  "
                f"predictions http://127.0.0.1:{server.getsockname()[1]}"
            )
            narrator = threading.Thread(
                target=following.narrate, args=(self, began_after, say, stop), daemon=True
            )
            narrator.start()
            supervisor.run()
            narrator.join(2)
        finally:
            runfiles.remove(state, "up")
            lock.release()
        if supervisor.upgraded_to:
            say(
                f"gyrostat {supervisor.upgraded_to} was installed: everything ended, and begins again as that release"
            )
            if begins_again:
                handover.begin_again([server, control])
        say("everything ended; start again with: gyrostat up")
        return Told((), {"is_ended": True})

    def serve(self, *, host: str | None = None, port: int | None = None, say: Say = print) -> Told:
        """The model server alone, in this process, from what is on disk; as a container of SageMaker or Vertex AI too.

        Args:
            host: An address other than loopback needs a token in `GYROSTAT_TOKEN`.
            port: Without it `AIP_HTTP_PORT` decides, then `server.port`.

        Raises:
            TakenError: the port is taken.
            UsageError: the address needs a token, or an `AIP_*` variable makes no sense.
        """
        from gyrostat_runtime import keys

        from gyrostat.processes.supervisor import bind
        from gyrostat.serving.access import token_for
        from gyrostat.serving.server import serve
        from gyrostat.serving.vertex import Vertex

        declaration = self.loaded.declaration
        host = host or declaration.server.host
        token, vertex = token_for(host, os.environ), Vertex.from_environ(os.environ)
        if any(name.startswith("server") for name in self.processes()):
            raise TakenError("The model server runs already (`gyrostat up`). Nothing was started.")
        sock = bind(
            host,
            port or vertex.port or declaration.server.port,
            setting="server.port",
            option="--port",
        )
        keys.create_keys(self.state / "keys")
        say(f"predictions http://{host}:{sock.getsockname()[1]}   Ctrl-C ends it")
        models = {name: m.serving for name, m in declaration.models.items()}
        serve(
            self.state,
            sock=sock,
            worker="serve-0",
            settings=declaration.server,
            models=models,
            token=token,
            vertex=vertex,
        )
        return Told((), {"is_ended": True})


def _version() -> str:
    from gyrostat import __version__

    return __version__


def _never_failing(say: Say) -> Say:
    """A terminal that was closed, or a log on a full disk, ends nothing."""

    def said(line: str) -> None:
        with contextlib.suppress(OSError):
            say(line)

    return said


def _stop_on_signals(stop: threading.Event) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())


def _is_finite(label: Any) -> bool:
    return isinstance(label, (int, float)) and not isinstance(label, bool) and math.isfinite(label)


def _label_rows(given: Any) -> tuple[str, Iterable[Any]]:
    """`(where from, rows)` of a file or a frame."""
    if isinstance(given, (str, Path)):
        path = Path(given)
        if not path.is_file():
            raise UsageError(f"There is no file {path}. Nothing was stored.")
        return f"file:{path.name}", _label_lines(path)
    names = getattr(given, "columns", None)
    if names is None or {"id", "label"} - set(names):
        raise UsageError(
            f"A file, or a Polars or pandas frame with the columns id and label is needed, got {type(given).__name__}"
            + (f" with {', '.join(map(str, names))}" if names is not None else "")
            + ". Nothing was stored."
        )
    own = given[["id", "label"]]
    if hasattr(own, "iter_rows"):
        return "frame", own.iter_rows(named=True)
    # In pandas a missing value is NaN, which JSON and the log do not have.
    return "frame", own.astype(object).where(own.notna(), None).to_dict("records")


def _label_lines(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("{"):
        for n, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError:
                    raise UsageError(
                        f"{path.name}, line {n}: no JSON. Nothing was stored."
                    ) from None
        return
    yield from csv.DictReader(text.splitlines())
