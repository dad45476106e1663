"""The doctor finds each fault that is planted, hides no other behind it, changes nothing, and says what to type."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest
from click.testing import CliRunner
from gyrostat_runtime import bundle
from gyrostat_runtime.bundle import Manifest
from loop.records import Records
from monitoring.builders import a_schema
from processes.projects import AtRest

import gyrostat
from gyrostat.cli.main import cli
from gyrostat.ledger.sqlite import SqliteLedger, sqlite3
from gyrostat.observations import Segments
from gyrostat.processes import doctor, runfiles
from gyrostat.processes.doctor import examine


class Made(AtRest):
    def finds(self, check, answer="fault"):
        found = [f for f in examine(self.root) if f.check == check and f.answer == answer]
        assert found, [f for f in examine(self.root) if f.answer != "ok"]
        assert all(f.command for f in found)
        return found[0]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A project in which all is well."""
    monkeypatch.setenv("TEST_HOOK", "https://chat.example/")
    monkeypatch.setattr(doctor, "DISK_WARNING", 0)
    monkeypatch.setattr(doctor, "DISK_FAULT", 0)
    monkeypatch.setattr(doctor.sandbox, "version", lambda: doctor.sandbox.HOLDS_SIGNALS)
    return Made(tmp_path)


CHECKS = {"declaration", "database", "chain", "clock", "stuck", "disk", "permissions", "keys", "bundles", "versions", "observations", "processes", "ports", "notify", "audit", "sandbox"}  # fmt: skip


def test_of_a_project_at_rest_only_that_it_rests_is_said(made):
    found = examine(made.root)
    assert {f.check for f in found} == CHECKS
    assert [f for f in found if f.answer != "ok"] == [
        doctor.Finding("processes", "warning", "`gyrostat up` does not run: nothing is decided", "gyrostat up")
    ]  # fmt: skip


def test_looking_changes_no_byte(made):
    def bytes_of():
        return {p: p.read_bytes() for p in made.root.rglob("*") if p.is_file() and p.suffix not in (".db-shm", ".db-wal")}  # fmt: skip

    before = bytes_of()
    examine(made.root)
    assert {p.name for p, data in bytes_of().items() if before.get(p) != data} <= {"ledger.db-shm", "ledger.db-wal"}  # fmt: skip


def test_an_altered_entry(made):
    made.plant("UPDATE entries SET actor = 'eve' WHERE position = 3")
    assert made.finds("chain").what == "entry/3 is not what was written"


def test_a_damaged_database_hides_no_other_finding(made):
    path = made.state / "ledger.db"
    data = bytearray(path.read_bytes())
    data[100:4000] = bytes(3900)
    path.write_bytes(data)
    for side in ("-wal", "-shm"):
        path.with_name(path.name + side).unlink(missing_ok=True)
    assert made.finds("database").command == "gyrostat restore FILE DIR"
    assert {f.check for f in examine(made.root)} == CHECKS - {"chain", "clock", "stuck"}


def test_a_database_that_is_gone_is_not_made_anew(made):
    path = made.state / "ledger.db"
    for side in ("", "-wal", "-shm"):
        path.with_name(path.name + side).unlink(missing_ok=True)
    made.finds("database")
    assert not path.exists()


def test_a_locked_database(made):
    db = sqlite3.connect(made.state / "ledger.db", isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    try:
        assert "locked" in made.finds("database").what
    finally:
        db.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_database_that_may_not_be_written(made):
    (made.state / "ledger.db").chmod(0o400)
    assert made.finds("database").command.startswith("chmod u+w")


def test_a_port_that_is_anothers_is_told_from_our_own(made):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", made.port))
        taken.listen()
        assert str(made.port) in made.finds("ports").what
        runfiles.write(made.state, "server-0", port=made.port)
        assert not [f for f in examine(made.root) if f.check == "ports" and f.answer != "ok"]


@pytest.mark.parametrize(("path", "mode"), [("keys/signing.key", 0o644), ("keys", 0o755), ("ledger.db", 0o644), (".", 0o777)])  # fmt: skip
def test_what_others_may_read_or_write(made, path, mode):
    (made.state / path).chmod(mode)
    assert made.finds("permissions").command.startswith("chmod ")


def test_a_full_disk(made, monkeypatch):
    monkeypatch.setattr(doctor, "DISK_FAULT", 10**18)
    assert "a full disk stops" in made.finds("disk").what


@pytest.mark.parametrize(("version", "says"), [(0, "no Landlock"), (4, "signals")])
def test_a_training_that_nothing_holds(made, monkeypatch, version, says):
    monkeypatch.setattr(doctor.sandbox, "version", lambda: version)
    assert says in made.finds("sandbox", "warning").what


def test_another_version_of_what_a_model_runs_on(made, monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda name: "0.0.1")
    found = made.finds("versions", "warning")
    assert found.command.startswith("pip install numpy==")


def test_another_version_of_the_library_that_a_native_model_comes_from(made, monkeypatch):
    packed = made.state / "native"
    packed.mkdir()
    (packed / "model.pkl").write_bytes(b"model")
    (packed / "environment.txt").write_text("lightgbm==4.6.0\nmlflow==1.0\nxgboost-cpu==3.2.0\n")
    said = Manifest("wine", "native", a_schema(), environment={"file": "environment.txt"})
    digest = bundle.write(packed, said)
    packed.rename(made.state / "bundles" / digest)
    routes = {"arms": [{"bundle": digest}]}
    (made.state / "routes" / "wine.json").write_text(json.dumps(routes))
    there = {"lightgbm": "4.7.0", "xgboost-cpu": "3.1.0", "mlflow": "3.17.2"}
    monkeypatch.setattr(doctor, "_installed", lambda name: there.get(name, ""))
    found = made.finds("versions")
    assert "lightgbm 4.7.0 (packed with 4.6.0), xgboost-cpu 3.1.0 (packed with 3.2.0)" in found.what
    assert found.command == "pip install lightgbm==4.6.0 xgboost-cpu==3.2.0"


def test_a_clock_behind_the_last_entry(made, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    assert "behind the last entry" in made.finds("clock").what


def test_a_key_that_is_missing_broken_or_not_trusted(made):
    (made.state / "keys" / "keyring.json").write_text("{}")
    assert "is not trusted here" in made.finds("keys").what
    (made.state / "keys" / "signing.key").write_text("x")
    assert "is not a key" in made.finds("keys").what
    (made.state / "keys" / "signing.key").unlink()
    assert "signing.key missing" in made.finds("keys").what


def test_an_altered_bundle_in_traffic(made):
    (made.bundle / "model.onnx").write_bytes(b"other")
    assert made.finds("bundles").command == "gyrostat roll-back wine"


def test_observations_that_are_damaged(made):
    folder = made.state / "observations" / "wine"
    segments = Segments(folder)
    for second in range(4):
        segments.append([{"second": second, "n": 5}], {"closed": second})
    path = folder / "00000001.seg"
    path.write_bytes(path.read_bytes().replace(b'"n":5', b'"n":9', 1))
    found = made.finds("observations")
    assert "not what was written from byte 0 on" in found.what
    assert found.command == f"mv {path} {path}.damaged"


def test_a_stuck_stream(made):
    ledger = SqliteLedger(made.state / "ledger.db")
    Records(ledger).plant()
    ledger.close()
    assert "production/wine" in made.finds("stuck").what


def test_a_receiver_that_is_not_told(made, monkeypatch):
    monkeypatch.delenv("TEST_HOOK")
    assert "TEST_HOOK is not set" in made.finds("notify", "warning").what


def test_a_head_that_is_not_kept_elsewhere(made):
    path = made.root / "config" / "config.yaml"
    path.write_text(path.read_text() + "\naudit: {anchor: [{file: absent/heads.jsonl}]}\n")
    made.finds("audit", "warning")
    CliRunner().invoke(cli, ["audit", "anchor", "--project", str(made.root)])
    found = made.finds("audit")
    assert "absent/heads.jsonl" in found.what
    assert found.command == "gyrostat audit anchor"


def test_a_declaration_that_cannot_be_read_hides_no_other_finding(made):
    (made.root / "config" / "config.yaml").write_text("version: 2\n")
    (made.bundle / "model.onnx").write_bytes(b"other")
    made.finds("declaration")
    made.finds("bundles")


def test_the_command_line_says_what_to_type_and_ends_with_1_on_a_fault(made):
    done = CliRunner().invoke(cli, ["doctor", "--project", str(made.root)])
    assert done.exit_code == 0
    assert done.output.splitlines()[-1] == "0 faults, 1 warnings."
    made.plant("DELETE FROM entries WHERE position = 2")
    done = CliRunner().invoke(cli, ["doctor", "--project", str(made.root)])
    assert done.exit_code == 1
    assert "no    chain        entry/2 is not what was written\n                   gyrostat audit verify" in done.output  # fmt: skip
    asked = CliRunner().invoke(cli, ["doctor", "--json", "--project", str(made.root)])
    assert json.loads(asked.stdout)["faults"] == 2  # and the stream cannot be read on


def test_a_server_of_an_earlier_up_that_cannot_be_replaced_is_said_by_status_too(made):
    words = "server-0 of an earlier `gyrostat up` still answers"
    runfiles.write(made.state, "server-0")
    runfiles.write(made.state, "up", pid=os.getppid())  # it keeps us
    assert words not in str(gyrostat.Project(made.root).status())
    runfiles.write(made.state, "up")  # and now it does not
    assert words in str(gyrostat.Project(made.root).status())
    assert any(words in finding.what for finding in examine(made.root))
