"""`gyrostat predict` through the door: which version answers, what stands in the record, and how it ends."""

import hashlib
import json
import time

import pytest
from batch.builders import a_bundle, a_table
from click.testing import CliRunner
from loop.records import Records
from processes.projects import DECLARATION

import gyrostat
from gyrostat.cli.main import cli
from gyrostat.errors import UsageError
from gyrostat.ledger import times
from gyrostat.ledger.sqlite import SqliteLedger


@pytest.fixture
def wine(tmp_path):
    """A project whose champion, version 2, answers 1 + alcohol + pH; the bundle of version 1 is gone."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(DECLARATION)
    project = gyrostat.Project(tmp_path)
    project.state.mkdir(parents=True)
    ledger = SqliteLedger(project.state / "ledger.db")
    records = Records(ledger)
    records.crown()
    for run in ("run/wine/1", "run/wine/2"):
        records.event(run, "run_asked", barred=[])
    records.crown(a_bundle(project.state))
    ledger.close()
    return project


def predict(project, **said):
    return project.predict(actor="kim", say=lambda line: None, **said)


def test_the_champion_answers_and_the_record_says_what_of_what(wine, tmp_path):
    table, output = a_table(tmp_path / "march.csv", 20), tmp_path / "answers.csv"
    began = time.time()
    told = predict(wine, input=table, output=output)
    assert told.exit_code == 0
    assert told.facts["ref"] == "batch/wine/1"
    (entry,) = wine.ledger.tail("batch/wine")
    assert entry.body | {"id": ""} == {
        "id": "", "by_version": 2, "bundle": told.facts["bundle"], "input": "march.csv", "output": "answers.csv", "n_rows": 20, "n_failed": 0,
        "input_digest": hashlib.sha256(table.read_bytes()).hexdigest(), "actor": "kim", "began_at": entry.body["began_at"],
        "output_digest": hashlib.sha256(output.read_bytes()).hexdigest(),
    }  # fmt: skip
    why = "\n".join(wine.why("batch/1").lines)
    assert "20 rows of march.csv answered by version 2" in why
    assert entry.body["output_digest"] in why
    assert "version/wine/2, champion since" in why
    forward = wine.why("version/2", forward=True).facts["chain"]
    assert [link["ref"] for link in forward if link["what"] == "batch"] == ["batch/wine/1"]
    assert not [link for link in wine.why("version/1", forward=True).facts["chain"] if link["what"] == "batch"]  # fmt: skip
    while_it_ran = wine.who_served(at=times.iso(entry.at))
    assert [b["ref"] for b in while_it_ran.facts["batches"]] == ["batch/wine/1"]
    assert wine.who_served(at=times.iso(began - 60)).facts["batches"] == []


def test_a_version_can_be_named_and_one_that_is_not_there_is_said(wine, tmp_path):
    table = a_table(tmp_path / "t.csv", 5)
    assert predict(wine, input=table, output=tmp_path / "o.csv", version=2).facts["version"] == 2
    with pytest.raises(UsageError, match=r"has no version 7. Its versions: 1, 2"):
        predict(wine, input=table, output=tmp_path / "o.csv", version=7)
    with pytest.raises(gyrostat.errors.BundleError, match="not in bundles/"):
        predict(wine, input=table, output=tmp_path / "o2.csv", version=1)
    assert not (tmp_path / "o2.csv").exists()


def test_without_a_champion_nothing_answers(wine, tmp_path):
    records = Records(wine.ledger)
    records.step("production/wine", "champion_regressed", cause="quality")
    records.step("production/wine", "champion_regressed", cause="quality")
    with pytest.raises(UsageError, match="has no champion"):
        predict(wine, input=a_table(tmp_path / "t.csv", 5), output=tmp_path / "o.csv")


@pytest.mark.parametrize(
    ("rows", "options", "code"),
    [(["1,2", "x,2"], [], 0), (["1,2", "x,2"], ["--strict"], 1), (["x,2"], [], 1), (["1,2"], ["--strict"], 0)],
)  # fmt: skip
def test_rows_without_an_answer_are_counted_and_end_with_1_if_asked_or_if_none_has_one(wine, tmp_path, rows, options, code):  # fmt: skip
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["alcohol,pH", *rows, ""]))
    argv = ["predict", "--project", str(tmp_path), "--input", str(table), "--output", str(tmp_path / "o.csv"), "--json", *options]  # fmt: skip
    done = CliRunner().invoke(cli, argv)
    assert done.exit_code == code, done.output
    facts = json.loads(done.stdout)
    assert (facts["rows"], facts["failed"]) == (len(rows), sum(r.startswith("x") for r in rows))
    assert (tmp_path / "o.csv").exists()
    assert wine.ledger.position() > 0
