"""Tables on a schedule in a project where everything runs: by the champion, on record, once, also when the loop is killed."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from gyrostat.loop import reconcile

from .conftest import Whole, running, wait

CONFIG = """\
version: 1
models:
  homes:
    data: {{source: data/homes.csv, target: price}}
    limits: {{rmse: {{max: 400}}}}
    gates: {{champion: {{margin: 400}}}}
    rollout: {{approval: never{steps}}}
    retraining: {{triggers: [], cooldown: 0s, budget: 60 per day}}
    batch:
      minutely: {{input: in/homes.csv, output: out/homes.parquet, schedule: {{cron: "* * * * *"}}, keep: [lot]}}
server: {{port: {port}}}
control_room: {{port: {control_port}}}
"""


def rows(path: Path, n: int) -> None:
    path.parent.mkdir(exist_ok=True)
    pl.select(
        lot=pl.int_range(n), rooms=1 + pl.int_range(n) % 6, humidity=(pl.int_range(n) % 100) / 100,
        city=pl.lit("seoul"),
    ).write_csv(path)  # fmt: skip


def declared(*, steps: str = "") -> Callable[[Whole], object]:
    def declare(found: Whole) -> None:
        text = CONFIG.format(steps=steps, port=found.port, control_port=found.control_port)
        (found.root / "config" / "config.yaml").write_text(text)

    return declare


def batch(project: Whole) -> dict:
    return project.picture()["batches"][0]


@pytest.mark.slow
def test_a_scheduled_table_is_answered_by_the_champion_once_though_the_loop_is_killed(
    tmp_path: Path,
) -> None:
    with running(tmp_path, declared()) as project:
        failed = wait("a moment without its input", lambda: (batch(project)["last"] or {}).get("failure"))  # fmt: skip
        assert "homes.csv" in failed
        rows(project.root / "in" / "homes.csv", 1_500_000)
        wait("answers under way", lambda: batch(project)["scoring"])
        os.kill(project.project.processes()["loop"].pid, signal.SIGKILL)
        last = wait(
            "the answers", lambda: (last := batch(project)["last"]) and last["ref"] and last
        )
        assert (last["rows"], last["failed"], last["version"]) == (1_500_000, 0, 1)
        answers = pl.read_parquet(project.root / "out" / "homes.parquet")
        assert answers.columns == ["row", "lot", "prediction", "version", "error"]
        assert (
            answers["lot"].cast(pl.Int64).equals(pl.int_range(1_500_000, eager=True).alias("lot"))
        )
        assert answers["prediction"].null_count() == 0

        ledger = project.project.ledger
        tail = ledger.tail("batching/homes")
        facts = reconcile.facts_of(ledger, "batching/homes")
        assert facts.outcomes[0].failure == ""
        scored = [e for e in tail if e.kind == "batch_scored"]
        started = Counter(e.body["detail"]["due"] for e in tail if e.kind == "batch_started")
        assert set(started.values()) == {1}
        records = ledger.tail("batch/homes")
        assert [e.inputs[0] for e in records] == [f"{e.stream}#{e.seq}" for e in scored][: len(records)]  # fmt: skip
        assert not [e for e in tail if e.kind == "batch_lost"]

        why = project.command("why", last["ref"])["chain"]
        assert "batch minutely, due " in why[0]["words"]
        assert [link["ref"] for link in why if link["what"] == "model"] == ["version/homes/1"]
        assert project.command("audit", "replay")["differ"] == []


@pytest.mark.slow
def test_a_model_that_only_scores_batches_is_released_by_replay_and_the_next_table_is_its(
    tmp_path: Path,
) -> None:
    with running(
        tmp_path, declared(steps=", steps: [], guardrails: {error_rate: +1pp}")
    ) as project:
        rows(project.root / "in" / "homes.csv", 3000)
        first = wait("a table by version 1", lambda: (last := batch(project)["last"]) and last["ref"] and last)  # fmt: skip
        assert (first["version"], first["failed"]) == (1, 0)
        config = project.root / "config" / "config.yaml"
        config.write_text(config.read_text().replace("    limits:", "    train: {params: {min_samples_leaf: 9, random_state: 3}}\n    limits:"))  # fmt: skip
        run = project.command("run", "homes", "--no-wait")
        wait("version 2", lambda: project.picture()["version"] == 2)
        ledger = project.project.ledger
        tail = ledger.tail("production/homes")
        promoted = [e for e in tail if e.kind == "promoted"][-1]
        assert "replayed 3,000 rows of homes.csv" in promoted.body["cause"]
        assert "% of answers changed" in promoted.body["cause"]
        assert "canary_started" not in [e.kind for e in tail]
        second = wait("a table by version 2", lambda: (last := batch(project)["last"]) and last["version"] == 2 and last["ref"])  # fmt: skip
        versions = pl.read_parquet(project.root / "out" / "homes.parquet")["version"]
        assert set(versions) == {2}
        why = project.command("why", second)["chain"]
        assert "staging, replay, champion" in next(
            x["words"] for x in why if x["what"] == "release"
        )
        replayed = project.command("audit", "replay")
        assert replayed["differ"] == []
        assert replayed["evidence"] >= 1
        project.command("roll-back", "homes", "--reason", "a test")
        wait("version 1 again", lambda: project.picture()["version"] == 1)
        assert run["run"]
