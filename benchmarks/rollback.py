"""From fault to finished rollback: a candidate that fails every request it gets, at 100 requests a second. `make bench-rollback`.

The candidate passes its gates and staging, takes half of the traffic, and then users begin to send rows that it fails
and the champion answers. Counted from the first failed answer to the last, as the users see it, and to the entry that
says every server answers by the champion alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from gyrostat.demo import story, worlds
from gyrostat.demo.traffic import Traffic

OVERLAY = """\
models:
  {model}:
    limits: {{rmse: {{max: 100}}, latency_p99: {{max: 2s}}}}
    gates: {{champion: {{margin: 10}}}}
    rollout:
      approval: never
      steps: [50%]
      bake: {{requests: 100000, time: 1h}}
      guardrails: {{error_rate: +1pp}}
    retraining: {{triggers: [], cooldown: 0s, budget: 60 per day}}
server: {{port: {port}}}
control_room: {{port: {control_port}}}
"""
PER_SECOND = 100.0


def main() -> None:
    """Print each rollback and the median."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("-n", type=int, default=7, help="rollbacks")
    n = asked.parse_args().n
    with tempfile.TemporaryDirectory() as folder, story.table(None) as table:
        stage = story.Stage(Path(folder) / "wine", lambda line: print(line, flush=True))
        try:
            _start(stage, table)
            times = [_one(stage, number) for number in range(n)]
        finally:
            story.end(stage)
    print(
        f"fault to finished rollback, median of {n}: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})   wanted: <= 5 s"
    )


def _start(stage: story.Stage, table: Path) -> None:
    made = stage.command("init", str(stage.folder), "--data", str(table), where=stage.folder.parent)
    stage.model = made["model"]
    stage.port, stage.control_port = story.free(8080), story.free(7007)
    overlay = OVERLAY.format(model=stage.model, port=stage.port, control_port=stage.control_port)
    (stage.folder / "config" / "dev.yaml").write_text(overlay, encoding="utf-8")
    story.start_up(stage)
    stage.wait("a champion", lambda: (stage.status()["champion"] or {}).get("applied"))
    rows = stage.project.rows(stage.model, side="heldout")
    stage.traffic = Traffic(
        stage.port,
        stage.model,
        list(zip(rows.records, rows.labels, strict=True)),
        per_second=PER_SECOND,
    )
    stage.traffic.start()


def _one(stage: story.Stage, number: int) -> float:
    assert stage.traffic is not None
    source = stage.folder / "src" / "train.py"
    honest = source.read_text(encoding="utf-8")
    strange = worlds.strange_rows(stage.project.rows(stage.model, side="heldout"))
    after = stage.project.ledger.position()
    source.write_text(
        f"{honest}{strange.code}\n# {number}: another code, another candidate\n", encoding="utf-8"
    )
    try:
        stage.command("run", "--no-wait", "--reason", f"rollback {number}")
        stage.wait(
            "the candidate to take traffic",
            lambda: (
                any(a["role"] == "candidate" and a["share"] > 0 for a in stage.status()["arms"])
                and stage.entries("applied", after=after)
            ),
        )
    finally:
        source.write_text(honest, encoding="utf-8")
    failed_before = stage.traffic.counts().failed
    stage.traffic.world = lambda row, _dice: ({**row[0], strange.column: strange.value}, None)
    first = last = 0.0
    failed = failed_before
    while not (entry := _applied(stage, after)) or time.monotonic() - last < 1.0:
        now, count = time.monotonic(), stage.traffic.counts().failed
        if count > failed:
            first, last, failed = first or now, now, count
        time.sleep(0.005)
    stage.traffic.world = lambda row, _dice: row
    print(
        f"  {number + 1}: the last of {failed - failed_before} failed answers came {last - first:.2f} s after the first; entry/{entry}",
        flush=True,
    )
    return last - first


def _applied(stage: story.Stage, after: int) -> int:
    regressed = stage.entries("regressed", after=after)
    if not regressed:
        return 0
    applied = stage.entries("applied", after=regressed[-1].position)
    return applied[-1].position if applied else 0


if __name__ == "__main__":
    main()
