"""A project whose heads are kept elsewhere: cut or written anew, with all that its own machine has, it is given away."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from click.testing import CliRunner
from config.builders import DECLARATION
from gyrostat_runtime import bundle, keys
from loop.records import Records
from processes.projects import AtRest

from gyrostat import config
from gyrostat.cli.main import cli
from gyrostat.ledger.audit import digest
from gyrostat.ledger.sqlite import SqliteLedger, sqlite3
from gyrostat.processes import anchoring
from gyrostat.processes.anchoring import Anchoring

PLACES = "audit: {anchor: [{file: ../heads.jsonl}, {git: ../heads}], every: 1s}\nnotify: []"


class Made(AtRest):
    def __init__(self, root):
        super().__init__(root)
        path = root / "config" / "config.yaml"
        subprocess.run(["git", "init", "-q", str(root.parent / "heads")], check=True)
        path.write_text(DECLARATION.replace("notify: []", PLACES))
        self.loaded = config.load(root, {})
        self.ledger = SqliteLedger(self.state / "ledger.db")

    def run(self, *arguments):
        done = CliRunner().invoke(cli, [*arguments, "--json", "--project", str(self.root)])
        return done.exit_code, json.loads(done.stdout)

    def anchor(self):
        position, failed = anchoring.anchor(self.loaded, self.ledger)
        assert not failed
        return position

    def reseal(self, start, **changes):
        """As somebody who can write the whole file: every entry from `start` on is another, and the chain holds."""
        with sqlite3.connect(self.state / "ledger.db") as db:
            db.executescript("DROP TRIGGER IF EXISTS no_update; DROP TRIGGER IF EXISTS no_delete;")
            rows = db.execute("SELECT * FROM entries ORDER BY position").fetchall()
            prev = rows[start - 2][12] if start > 1 else "0" * 64
            for row in rows[start - 1 :]:
                row = (*row[:6], changes.get("actor", row[6]), *row[7:11], prev, "")
                row = (*row[:12], digest(row))
                db.execute("UPDATE entries SET actor=?, prev=?, hash=? WHERE position=?", (row[6], row[11], row[12], row[0]))  # fmt: skip
                prev = row[12]
        db.close()


@pytest.fixture
def made(tmp_path):
    """With one head kept in a file and in a repository."""
    (tmp_path / "wines").mkdir()
    found = Made(tmp_path / "wines")
    found.anchor()
    yield found
    found.ledger.close()


def test_an_honest_project_says_how_far_others_vouch_for_it(made):
    position = made.ledger.position()
    Records(made.ledger).fail()
    code, facts = made.run("audit", "verify")
    assert (code, facts["is_whole"], facts["anchored_to"], facts["anchors"]) == (
        0,
        True,
        position,
        2,
    )


def test_a_cut_end_is_found(made):
    n = made.ledger.position()
    made.plant("DELETE FROM entries WHERE position > ?", n - 2)
    code, facts = made.run("audit", "verify")
    assert (code, facts["what"], facts["first_bad"]) == (1, "cut", f"entry/{n - 1}")


def test_all_of_it_written_anew_is_found(made):
    made.reseal(1, actor="eve")
    code, facts = made.run("audit", "verify")
    assert (code, facts["what"]) == (1, "rewritten")


def test_after_a_restore_the_heads_of_the_lost_time_are_said_and_do_no_harm(made):
    n = made.ledger.position() - 2
    made.plant("DELETE FROM entries WHERE position > ?", n)
    body = {"after": n, "made_at": 5.0, "file": "wine.zip", "epoch": 2, "signed_by": "k", "actor": "kim"}  # fmt: skip
    Records(made.ledger).event("project", "restored", **body)
    facts = {}
    for _ in range(2):
        code, facts = made.run("audit", "verify")
        assert (code, facts["lost_heads"], facts["odd"]) == (0, 2, [])
        assert [(r["entry"], r["file"]) for r in facts["restores"]] == [(f"entry/{n + 1}", "wine.zip")]  # fmt: skip
        made.anchor()  # of what is there now, though it goes back behind those
    assert facts["anchored_to"] == n + 1
    done = CliRunner().invoke(cli, ["audit", "verify", "--project", str(made.root)])
    assert "kim restored this" in done.output
    assert "Nobody restored anything? Then the record was cut there." in done.output


def test_without_anchors_it_is_said_that_no_chain_shows_that(made):
    made.reseal(1, actor="eve")
    (made.root / "config" / "config.yaml").write_text(DECLARATION)
    done = CliRunner().invoke(cli, ["audit", "verify", "--project", str(made.root)])
    assert done.exit_code == 0
    assert "no chain can show: audit: {anchor:" in done.output


@pytest.mark.parametrize("how", ["emptied", "deleted", "stranger"])
def test_heads_that_are_gone_or_replaced_are_no_silence(made, how):
    path = made.root.parent / "heads.jsonl"
    match how:
        case "emptied":
            path.write_text("")
        case "deleted":
            path.unlink()
        case "stranger":
            line = json.loads(path.read_text())
            path.write_text(json.dumps({**line, "hash": "e" * 64}) + "\n")
    code, facts = made.run("audit", "verify")
    assert code == 1
    assert facts["odd"]


def test_heads_that_somebody_else_kept_are_compared_too(made):
    kept = made.root.parent / "from-the-webhook.jsonl"
    kept.write_text((made.root.parent / "heads.jsonl").read_text())
    (made.root / "config" / "config.yaml").write_text(DECLARATION)
    made.reseal(2, actor="eve")
    assert made.run("audit", "verify")[0] == 0
    assert made.run("audit", "verify", "--anchor", str(kept))[1]["what"] == "rewritten"


def test_after_a_key_was_rotated_old_heads_and_bundles_stay_trusted(made):
    old = keys.private_key(made.state / "keys")
    code, facts = made.run("keys", "rotate", "--reason", "it leaked")
    assert code == 0
    new = keys.private_key(made.state / "keys")
    assert new != old
    assert (made.state / "keys" / "signing.key").stat().st_mode & 0o777 == 0o600
    assert facts["new"] == keys.key_id(keys.public_key(new))
    made.anchor()
    code, verified = made.run("audit", "verify")
    assert (code, verified["anchors"]) == (0, 4)
    ring = keys.keyring(made.state / "keys")
    assert set(ring) == {facts["old"], facts["new"]}
    assert bundle.verify(made.bundle, ring)
    last = made.ledger.entry(int(facts["entry"].partition("/")[2]))
    assert (last.kind, last.body["reason"]) == ("keys_rotated", "it leaked")


def test_the_loop_keeps_a_head_when_something_is_new_and_only_then(made):
    (made.state / "run").mkdir(exist_ok=True)
    lines = made.root.parent / "heads.jsonl"

    def kept_after(seconds):
        tending = Anchoring(made.root, made.state)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            tending._due = 0.0
            tending.tend(made.ledger, made.loaded)
            if tending.process is not None and tending.process.wait(60) == 0:
                break
            time.sleep(0.05)
        return len(lines.read_text().splitlines())

    note = made.state / anchoring.NOTE
    note.write_text(
        json.dumps({**anchoring.last(made.state), "at": 1.0})
    )  # long ago, but nothing is new
    assert kept_after(0.3) == 1
    Records(made.ledger).fail()
    assert kept_after(60) == 2


def test_a_place_that_fails_is_said_and_tried_again(made, monkeypatch):
    (made.root.parent / "heads.jsonl").unlink()
    (made.root.parent / "heads.jsonl").mkdir()
    code, facts = made.run("audit", "anchor")
    assert code == 3
    assert list(facts["failed"]) == ["../heads.jsonl"]
    assert anchoring.last(made.state)["failed"]
