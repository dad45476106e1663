"""What a worker can do: snapshot, training, pack, evaluation, staging, scoring, replay. Each runs in a process of its own.

Heavy libraries are imported here and nowhere in the loop.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gyrostat_runtime import keys
from gyrostat_runtime.files import write_atomic
from gyrostat_runtime.schema import Schema

from gyrostat import config


def _settings(spec: dict[str, Any]) -> config.ModelSettings:
    return config.stored(Path(spec["state"]), spec["declaration"]).models[spec["model"]]


def snapshot(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """The table as it is now, and whether its checks hold."""
    from gyrostat.data import snapshots

    settings = _settings(spec)
    record = snapshots.take(
        Path(spec["project"]), Path(spec["state"]), spec["model"], settings.data,
        barred=frozenset(spec["barred"]), mature_after_s=settings.monitoring.mature_after_s,
    )  # fmt: skip
    if record is None:
        return {"made": ""}
    checks = {k: v for k, v in record["checks"].items() if k != "broken"}
    broken = [{k: b[k] for k in ("column", "rule", "rows")} for b in record["checks"]["broken"]]
    numbers = {
        k: record[k]
        for k in (
            "n_rows",
            "n_source",
            "n_traffic",
            "n_train",
            "n_heldout",
            "passed",
            "fingerprint",
        )
    }
    return {
        "made": record["id"],
        **numbers,
        "source": record["source"],
        "checks": {**checks, "broken": broken},
    }


def _rows(spec: dict[str, Any]) -> tuple[Any, Schema, dict[str, Any]]:
    from gyrostat.data import snapshots

    state = Path(spec["state"])
    record = snapshots.record(state, spec["model"], spec["snapshot"])
    return (
        snapshots.read(state, spec["model"], spec["snapshot"]),
        Schema.from_json(record["schema"]),
        record,
    )


def training(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Fit on the training side; scripts find a source that holds these rows only. An offered model is opened instead."""
    from gyrostat.data import frames
    from gyrostat.data.settings import SourceSettings
    from gyrostat.training import fit, offer

    settings = _settings(spec)
    rows, schema, _ = _rows(spec)
    train = rows.filter(rows["_side"] == "train")
    raw, offered, compared = None, None, {}
    features = frames.features(train, schema)
    if digest := spec.get("offered"):
        offered = offer.read(Path(spec["state"]), spec["model"], digest)
        heldout = frames.features(rows.filter(rows["_side"] == "heldout"), schema)
        compared = offer.compare(offered, features, heldout)
    elif fit.is_script(settings.train):
        source: SourceSettings = settings.data.source
        raw = (Path(source.path), _in_its_format(train, schema, source))
    fit.prepare(
        folder, frame=features, labels=frames.target(train, schema), schema=schema,
        settings=settings.train, raw=raw, offered=offered.model if offered else None,
    )  # fmt: skip
    result = fit.fit(
        folder,
        state=Path(spec["state"]),
        project=Path(spec["project"]),
        settings=settings.train,
        environ=dict(os.environ),
    )
    if offered:
        named = f"{offered.what}, offered from a notebook"
        return result | {
            "n_rows": offered.n_rows,
            "run": named,
            "offered": {"digest": offered.digest, **compared},
        }
    return result | {"n_rows": train.height}


def _in_its_format(rows: Any, schema: Schema, source: Any) -> bytes:
    """Rows as the source has them: a script that reads the file finds the same columns in the same form."""
    import io

    from gyrostat.data import files

    names = [*(c.name for c in schema.inputs), schema.output.target]
    table = rows.select(names)
    buffer = io.BytesIO()
    if source.format == "parquet":
        table.write_parquet(buffer)
        return buffer.getvalue()
    if source.format == "jsonl":
        table.write_ndjson(buffer)
        return files.packed(buffer.getvalue(), source.path)
    frame = table.to_pandas()
    integers = [c.name for c in schema.inputs if c.kind == "integer"]
    target = frame[schema.output.target]
    if schema.output.task == "regression" and (target == target.round()).all():
        integers.append(schema.output.target)
    for name in integers:
        frame[name] = frame[name].astype("Int64")
    text = frame.to_csv(index=False, sep=source.separator, decimal=source.decimal)
    return files.packed(text.encode(source.encoding), source.path)


def _hold(folder: Path, spec: dict[str, Any], writable: Sequence[Path] = ()) -> None:
    """From here on a user's pickle may run: it reads no key, and writes nowhere but in this job, and where it must."""
    from gyrostat.training import fit, sandbox

    own = folder / "tmp"
    own.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(own)
    sandbox.enter(writable=[folder, *writable], hidden=fit.secrets_of(Path(spec["state"])))


def pack(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """The fitted model as a bundle; the runner signs it."""
    import shutil

    import cloudpickle

    from gyrostat.data import frames
    from gyrostat.training import environment
    from gyrostat.training.pack import pack as make

    settings = _settings(spec)
    job = folder.parent / f"{spec['training_seq']}-training"
    trained = json.loads((job / "result.json").read_bytes())
    sys.path.insert(0, str(job / "code"))
    # A script's neighbours go by their bare names; last, so that none stands before a module of ours.
    sys.path.append(str(job / "code" / "src"))
    _hold(folder, spec)
    with (job / "model.pkl").open("rb") as file:
        model = cloudpickle.load(file)
    rows, schema, record = _rows(spec)
    train, heldout = rows.filter(rows["_side"] == "train"), rows.filter(rows["_side"] == "heldout")
    target = folder / "bundle"
    shutil.rmtree(target, ignore_errors=True)
    # Dated by its snapshot: packing the same model again gives the same bytes.
    packed = make(
        target, name=spec["model"], model=model, model_file=job / "model.pkl", schema=schema,
        features=frames.features(train, schema), heldout_features=frames.features(heldout, schema),
        snapshot=record, training=trained, made_at=record["made_at"], code=job / "code", limits=settings.gates.limits,
        lock=(job / environment.FILE).read_text(encoding="utf-8") if "environment" in trained else "",
    )  # fmt: skip
    return packed.as_json()


def _session(spec: dict[str, Any], digest: str) -> Any:
    from gyrostat_runtime.session import Session

    from gyrostat.registry import bundles

    state, memory_bytes = Path(spec["state"]), _settings(spec).serving.memory_bytes
    return Session.open(
        bundles.path(state, digest), keys.keyring(state / "keys"), timeout_s=30.0, memory_bytes=memory_bytes,
    )  # fmt: skip


def evaluation(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """What the packed bundle answers on rows that neither it nor the champion has seen."""
    import hashlib

    from gyrostat.data import frames, snapshots
    from gyrostat.gates.evidence import evaluate
    from gyrostat.registry import bundles

    settings, state = _settings(spec), Path(spec["state"])
    rows, schema, record = _rows(spec)
    heldout, train = rows.filter(rows["_side"] == "heldout"), rows.filter(rows["_side"] == "train")
    _hold(folder, spec)
    champion = spec.get("champion")
    theirs, made_at, is_unseen = None, None, None
    if champion:
        theirs = _session(spec, champion["bundle"])
        made_at = snapshots.record(state, spec["model"], champion["snapshot"])["made_at"]
        is_unseen = snapshots.unseen(state, spec["model"], champion["snapshot"], record, heldout)
    candidate = _session(spec, spec["bundle"])
    try:
        place = bundles.path(state, spec["bundle"])
        evidence = evaluate(
            candidate, theirs, heldout=frames.columns_of(heldout, schema), truth=frames.target(heldout, schema),
            train_truth=frames.target(train, schema), settings=settings.gates,
            size_bytes=sum(f.stat().st_size for f in place.rglob("*") if f.is_file()),
            champion_bundle=champion["bundle"] if champion else "", seen_at=heldout["_seen_at"].to_numpy(), champion_made_at=made_at, is_unseen=is_unseen,
        )  # fmt: skip
    finally:
        candidate.close()
        if theirs is not None:
            theirs.close()
    content = json.dumps(evidence, sort_keys=True, allow_nan=False).encode()
    write_atomic(folder / "evidence.json", content)
    return {"made": "evidence:" + hashlib.sha256(content).hexdigest(), "evidence": evidence}


def staging(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """The bundle behind a real server, asked over HTTP."""
    import hashlib

    from gyrostat_runtime.rows import from_columns

    from gyrostat.data import frames
    from gyrostat.loop.staging import N_REQUESTS, stage

    rows, schema, _ = _rows(spec)
    few = rows.filter(rows["_side"] == "heldout").head(N_REQUESTS)
    session = _session(spec, spec["bundle"])
    try:
        expected = session.predict(
            from_columns(frames.columns_of(few, schema), session.schema)
        ).values
    finally:
        session.close()
    report = stage(
        folder, state=Path(spec["state"]), model=spec["model"], bundle=spec["bundle"],
        rows=frames.records(few, schema), expected=expected,
    )  # fmt: skip
    content = json.dumps(report, sort_keys=True).encode()
    write_atomic(folder / "report.json", content)
    return {"made": "report:" + hashlib.sha256(content).hexdigest(), **report}


def scoring(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """A declared batch, by the version that it was started with; another try goes on where this one ends."""
    from gyrostat import batch
    from gyrostat.errors import TakenError, UnavailableError

    settings, project = _settings(spec), Path(spec["project"])
    declared = next(b for b in settings.batches if b.name == spec["batch"])
    output = project / spec["output"]
    output.parent.mkdir(parents=True, exist_ok=True)
    _hold(folder, spec, writable=[output.parent])
    wanted = batch.Batch(
        Path(spec["state"]), spec["model"], spec["version"], spec["bundle"], settings.data, project / spec["input"], output,
        keep=declared.keep, missing=settings.serving.missing, new_category=settings.serving.new_category,
    )  # fmt: skip
    try:
        scored = batch.score(wanted, record=lambda _: None, say=print)
    except TakenError as error:  # a try before this one, or a person: it ends
        raise UnavailableError(str(error)) from error
    return {
        "made": scored.output_digest, "id": scored.id, "n_rows": scored.n_rows, "n_failed": scored.n_failed,
        "input_digest": scored.input_digest, "began_at": scored.began_at, "seconds": scored.seconds,
    }  # fmt: skip


def replay(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """A table that was answered, by champion and candidate side by side."""
    import hashlib

    from gyrostat import batch
    from gyrostat.data.streams import open_stream
    from gyrostat.errors import UnavailableError
    from gyrostat.loop import paired

    settings, input = _settings(spec), Path(spec["project"]) / spec["input"]
    target, answers = settings.data.target, [folder / "champion.parquet", folder / "candidate.parquet"]  # fmt: skip
    keep = tuple({target} & set(open_stream(input, frozenset({target}), settings.data.source).columns))  # fmt: skip
    _hold(folder, spec)
    versions = ((spec["champion_version"], spec["champion_bundle"]), (spec["version"], spec["bundle"]))  # fmt: skip
    digests = set()
    for output, (version, bundle) in zip(answers, versions, strict=True):
        wanted = batch.Batch(
            Path(spec["state"]), spec["model"], version, bundle, settings.data, input, output, keep=keep,
            missing=settings.serving.missing, new_category=settings.serving.new_category,
        )  # fmt: skip
        digests.add(batch.score(wanted, record=lambda _: None, say=print).input_digest)
    if len(digests) > 1:
        raise UnavailableError(f"{input.name} changed while it was replayed.")
    session = _session(spec, spec["bundle"])
    output = session.schema.output
    session.close()
    evidence = paired.measure(
        *answers, target=batch.beside(target) if keep else "", output=output, input=input.name,
        guardrails=settings.rollout.guardrails, limits=settings.gates.limits, alpha=spec["alpha"],
    ) | {"input_digest": digests.pop(), "alpha": spec["alpha"]}  # fmt: skip
    for path in answers:
        path.unlink()
    content = json.dumps(evidence, sort_keys=True, allow_nan=False).encode()
    write_atomic(folder / "evidence.json", content)
    made = "evidence:" + hashlib.sha256(content).hexdigest()
    return {
        "made": made, "evidence": evidence, "champion_bundle": spec["champion_bundle"], "of": spec["of"],
    }  # fmt: skip


TASKS: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {
    "snapshot": snapshot, "training": training, "pack": pack, "evaluation": evaluation, "staging": staging,
    "scoring": scoring, "replay": replay,
}  # fmt: skip
