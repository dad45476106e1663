"""A backup is one instant of a project that goes on, comes back whole, or is refused before anything is there."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gyrostat_runtime import keys
from processes.projects import AtRest

from gyrostat import backup
from gyrostat.backup.archive import FILES, MANIFEST, SEALED, SIGNATURE
from gyrostat.backup.restore import AlteredError
from gyrostat.cli.main import cli
from gyrostat.errors import UsageError
from gyrostat.ledger.chain import verify
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.registry import bundles

PHRASE = "correct horse battery"


@pytest.fixture
def project(tmp_path):
    """One with a champion, code, a link and a table."""
    root = tmp_path / "wines"
    root.mkdir()
    found = AtRest(root)
    (root / "src").mkdir()
    (root / "src" / "train.py").write_text("print('hi')\n")
    (root / "page.sh").write_text("#!/bin/sh\n")
    (root / "page.sh").chmod(0o755)
    (root / "elsewhere").symlink_to("/etc")
    (found.state / "routes" / "wine.json").write_text(
        json.dumps({"epoch": 1, "seq": 5, "arms": []})
    )
    (found.state / "routes" / "wine.applied").mkdir()
    (found.state / "routes" / "wine.applied" / "server-0.json").write_text("{}")
    (found.state / "run").mkdir(exist_ok=True)
    (found.state / "run" / "up.json").write_text("{}")
    (found.state / "access").mkdir()
    (found.state / "access" / "w0.jsonl").write_text("{}\n")
    return found


@pytest.fixture
def saved(project, tmp_path):
    """A backup of it, without keys."""
    return backup.save(project.root, project.state, tmp_path / "b.zip")


def state_of(folder):
    return folder / ".gyrostat" / "dev"


def test_everything_comes_back_but_what_is_this_machines(project, saved, tmp_path):
    found = backup.restore(saved.file, tmp_path / "back", signed_by=saved.key, actor="kim")
    back = tmp_path / "back"
    assert saved.links == ("elsewhere",)
    assert not (back / "elsewhere").exists()
    assert (back / "src" / "train.py").read_text() == "print('hi')\n"
    assert (back / "page.sh").stat().st_mode & 0o777 == 0o755
    assert (state_of(back) / "ledger.db").stat().st_mode & 0o777 == 0o600
    assert not (state_of(back) / "run").exists()
    assert not (state_of(back) / "access").exists()
    assert not (state_of(back) / "routes" / "wine.applied").exists()
    for path in project.bundle.iterdir():
        assert (state_of(back) / "bundles" / project.bundle.name / path.name).read_bytes() == path.read_bytes()  # fmt: skip
    assert found.n_entries == saved.n_entries > 3


def test_a_restore_begins_a_new_epoch_and_says_so_in_the_ledger(project, saved, tmp_path):
    for n, epoch in ((1, 2), (2, 3)):
        back = tmp_path / f"back{n}"
        backup.restore(saved.file, back, actor="kim")
        assert (state_of(back) / "epoch").read_text() == str(epoch)
        routes = json.loads((state_of(back) / "routes" / "wine.json").read_text())
        assert (routes["epoch"], routes["seq"]) == (epoch, 5)
        ledger = SqliteLedger(state_of(back) / "ledger.db")
        last = ledger.entry(ledger.position())
        assert (last.kind, last.actor, last.body["epoch"]) == ("restored", "kim", epoch)
        assert verify(ledger.entries()) is None
        ledger.close()
        saved = backup.save(back, state_of(back), tmp_path / f"again{n}.zip")


def test_without_keys_no_secret_is_in_it_and_old_bundles_stay_trusted(project, saved, tmp_path):
    with zipfile.ZipFile(saved.file) as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
    for name in ("signing.key", "log.key"):
        assert (project.state / "keys" / name).read_bytes() not in everything
    found = backup.restore(saved.file, tmp_path / "back")
    ring = state_of(tmp_path / "back") / "keys"
    assert not found.has_keys
    assert (ring / "signing.key").read_bytes() != (project.state / "keys" / "signing.key").read_bytes()  # fmt: skip
    assert (ring / "signing.key").stat().st_mode & 0o777 == 0o600
    trusted = keys.keyring(ring)
    assert keys.key_id(keys.public_key(keys.private_key(ring))) in trusted
    assert bundles.verify(state_of(tmp_path / "back"), project.bundle.name, trusted)


def test_keys_travel_under_a_passphrase_alone(project, tmp_path):
    saved = backup.save(project.root, project.state, tmp_path / "k.zip", passphrase=PHRASE)
    data = saved.file.read_bytes()
    assert (project.state / "keys" / "signing.key").read_bytes() not in data
    with pytest.raises(UsageError, match="do not open"):
        backup.restore(saved.file, tmp_path / "back", passphrase="another phrase")
    assert not (tmp_path / "back").exists()
    assert backup.restore(saved.file, tmp_path / "back", passphrase=PHRASE).has_keys
    for name in ("signing.key", "log.key"):
        assert (state_of(tmp_path / "back") / "keys" / name).read_bytes() == (project.state / "keys" / name).read_bytes()  # fmt: skip
    with pytest.raises(UsageError, match="too short"):
        backup.save(project.root, project.state, tmp_path / "s.zip", passphrase="short")


def test_nothing_is_overwritten(project, saved, tmp_path):
    with pytest.raises(UsageError, match="exists already"):
        backup.save(project.root, project.state, saved.file)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        backup.restore(saved.file, tmp_path / "full")
    assert (tmp_path / "full" / "mine").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    backup.restore(saved.file, tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.zip", "empty", "full", "wines"]


def test_a_backup_inside_the_project_does_not_hold_itself(project):
    first = backup.save(project.root, project.state, project.root / "one.zip")
    with zipfile.ZipFile(first.file) as archive:
        assert [n for n in archive.namelist() if "one.zip" in n or "tmp" in n] == []


# ---- one instant of a project that goes on

WRITER = """
import json, sys, time
from pathlib import Path
from gyrostat_runtime.files import write_atomic
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.terms import Draft
state = Path(sys.argv[1])
ledger = SqliteLedger(state / "ledger.db")
segment = (state / "observations" / "x" / "00000001.seg")
segment.parent.mkdir(parents=True, exist_ok=True)
(state / "snapshots").mkdir(exist_ok=True)
for n in range(1, 100000):
    write_atomic(state / "snapshots" / f"{n}.json", b"{}")                      # make
    ledger.append("x/x/1", Draft("said", 0.0, "w", body={"n": n}, key=str(n)), expect_seq=None, fence=None)   # say
    write_atomic(state / "routes" / "x.json", json.dumps({"epoch": 1, "seq": n}).encode())                      # show
    with segment.open("ab") as file:
        file.write(json.dumps({"seq": n}).encode() + b"\\n")                                                    # seen
    job = state / "jobs" / "x.x.1" / f"{n}-work"
    job.mkdir(parents=True)
    (job / "result.json").write_text("{}")
"""


def test_it_is_one_instant_whatever_goes_on(project, tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(project.state)])
    try:
        before = 0
        for n in range(20):
            deadline = time.monotonic() + 60
            while not (project.state / "snapshots" / f"{before + 3}.json").exists():
                assert time.monotonic() < deadline
                assert writer.poll() is None
                time.sleep(0.002)
            saved = backup.save(project.root, project.state, tmp_path / f"{n}.zip")
            # Frozen while it is looked at: each backup holds all there is, and would outgrow the test.
            writer.send_signal(signal.SIGSTOP)
            backup.restore(saved.file, tmp_path / "back")
            state = state_of(tmp_path / "back")
            ledger = SqliteLedger(state / "ledger.db")
            said = ledger.tail("x/x/1")[-1].body["n"]
            ledger.close()
            made = {int(p.stem) for p in (state / "snapshots").glob("*.json")}
            assert set(range(1, said + 1)) <= made  # all that is said is there
            assert json.loads((state / "routes" / "x.json").read_text())["seq"] <= said
            lines = (state / "observations" / "x" / "00000001.seg").read_bytes().splitlines()
            assert max(json.loads(line)["seq"] for line in lines if line.endswith(b"}")) <= said
            jobs = {int(p.name.partition("-")[0]) for p in (state / "jobs" / "x.x.1").iterdir()}
            assert max(jobs, default=0) <= said  # no work of a step that is not there
            assert said > before
            before = said
            shutil.rmtree(tmp_path / "back")
            writer.send_signal(signal.SIGCONT)
    finally:
        writer.kill()
        writer.wait()


# ---- altered


def rebuilt(saved, target, *, change=None, drop="", add=None, key=None, manifest=None):
    """The backup with one thing changed; signed again with a key of the attacker's where one is given."""
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(target, "w") as copy:
        for info in source.infolist():
            data = source.read(info)
            if info.filename == drop:
                continue
            if info.filename == MANIFEST and manifest is not None:
                value = json.loads(data)
                manifest(value)
                if key is not None:
                    value["key"] = key.public_key().public_bytes_raw().hex()
                data = json.dumps(value).encode()
                signature = key.sign(data).hex() if key is not None else ""
            if info.filename == SIGNATURE and manifest is not None and key is not None:
                data = json.dumps({"key": "", "signature": signature}).encode()
            copy.writestr(info, change(data) if change and info.filename == change.name else data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, data in (add or {}).items():
                copy.writestr(name, data)
    return target


def refused(file, tmp_path, said="altered", **options):
    with pytest.raises((AlteredError, UsageError), match=said) as error:
        backup.restore(file, tmp_path / "back", **options)
    assert not (tmp_path / "back").exists()
    assert [p.name for p in tmp_path.iterdir() if "restoring" in p.name] == []
    return error.value


def flip(name):
    def change(data):
        return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]

    change.name = name
    return change


def names(saved):
    with zipfile.ZipFile(saved.file) as archive:
        return archive.namelist()


def test_one_bit_of_any_file_is_found_before_anything_is_there(saved, tmp_path):
    every = names(saved)
    assert len(every) > 8
    for n, name in enumerate(every):
        refused(rebuilt(saved.file, tmp_path / f"{n}.zip", change=flip(name)), tmp_path)


def test_a_file_that_is_missing_added_or_there_twice_is_found(saved, tmp_path):
    name = next(n for n in names(saved) if n.endswith("model.onnx"))
    refused(rebuilt(saved.file, tmp_path / "1.zip", drop=name), tmp_path, "is missing")
    refused(rebuilt(saved.file, tmp_path / "2.zip", drop=MANIFEST), tmp_path, "no manifest")
    refused(rebuilt(saved.file, tmp_path / "3.zip", add={f"{FILES}src/evil.py": b"x"}), tmp_path, "not in its manifest")  # fmt: skip
    refused(rebuilt(saved.file, tmp_path / "4.zip", add={name: b"x"}), tmp_path, "twice")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\..\\evil", "C:/evil", "a//b", "./a", "a\0b", ""])  # fmt: skip
def test_a_name_that_leads_out_is_refused_also_when_it_is_signed(saved, tmp_path, name):
    def add(value):
        value["files"][name] = {"sha256": "0" * 64, "size": 1, "mode": 0o644}

    file = rebuilt(saved.file, tmp_path / "e.zip", manifest=add, key=Ed25519PrivateKey.generate())
    refused(file, tmp_path, "leads out")
    assert not (tmp_path.parent / "evil").exists()


def test_content_signed_by_another_key_is_refused_where_the_key_is_named(project, saved, tmp_path):
    file = rebuilt(saved.file, tmp_path / "e.zip", manifest=lambda v: None, key=Ed25519PrivateKey.generate())  # fmt: skip
    refused(file, tmp_path, "signed it", signed_by=saved.key)
    closed = backup.save(project.root, project.state, tmp_path / "k.zip", passphrase=PHRASE)
    file = rebuilt(closed.file, tmp_path / "e2.zip", manifest=lambda v: None, key=Ed25519PrivateKey.generate())  # fmt: skip
    refused(file, tmp_path, "other than those in it", passphrase=PHRASE)
    refused(
        rebuilt(closed.file, tmp_path / "e3.zip", change=flip(SEALED)), tmp_path, "keys are not"
    )


def test_a_ledger_cut_or_altered_and_signed_again_is_found_by_its_chain(project, saved, tmp_path):
    project.plant("UPDATE entries SET actor = 'eve' WHERE position = 2")
    file = backup.save(project.root, project.state, tmp_path / "a.zip").file
    refused(file, tmp_path, "entry/2 of dev")


def test_a_file_larger_than_promised_is_not_read_to_its_end(saved, tmp_path):
    name = next(n for n in names(saved) if n.endswith("train.py"))

    def grow(data):
        return b"0" * 50_000_000

    grow.name = name
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as copy, zipfile.ZipFile(saved.file) as source:  # fmt: skip
        for info in source.infolist():
            data = source.read(info)
            copy.writestr(info.filename, grow(data) if info.filename == name else data)
    read = []
    real = zipfile.ZipExtFile.read

    def counted(self, n=-1):
        data = real(self, n)
        read.append(len(data))
        return data

    zipfile.ZipExtFile.read = counted
    try:
        refused(tmp_path / "bomb.zip", tmp_path)
    finally:
        zipfile.ZipExtFile.read = real
    assert max(read) < 10_000_000


def test_a_file_cut_anywhere_or_with_a_flipped_byte_restores_nothing_else(saved, tmp_path):
    data, dice = saved.file.read_bytes(), random.Random(7)
    backup.restore(saved.file, tmp_path / "right")
    kept = {p.relative_to(tmp_path / "right"): p.read_bytes() for p in (tmp_path / "right" / "src").rglob("*") if p.is_file()}  # fmt: skip
    n_refused = 0
    for n in range(60):
        odd = bytearray(data)
        if n % 3 == 0:
            odd = odd[: dice.randrange(len(odd))]
        else:
            odd[dice.randrange(len(odd))] ^= 1 << dice.randrange(8)
        (tmp_path / "odd.zip").write_bytes(odd)
        try:
            backup.restore(tmp_path / "odd.zip", tmp_path / "back")
        except (AlteredError, UsageError):
            n_refused += 1
            assert not (tmp_path / "back").exists()
        else:  # a byte that says nothing, such as a time stamp of the zip's own
            found = {p.relative_to(tmp_path / "back"): p.read_bytes() for p in (tmp_path / "back" / "src").rglob("*") if p.is_file()}  # fmt: skip
            assert found == kept
            shutil.rmtree(tmp_path / "back")
    assert n_refused > 40


def test_a_full_disk_is_said_before_anything_is_written(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(1, 1, 0))
    refused(saved.file, tmp_path, "are free")


def test_the_command_line_takes_a_passphrase_by_name_only(project, tmp_path, monkeypatch):
    monkeypatch.setenv("PHRASE", PHRASE)
    at = ["--project", str(project.root)]
    run = CliRunner().invoke
    assert run(cli, ["backup", str(tmp_path / "c.zip"), "--passphrase", PHRASE, *at]).exit_code == 2
    done = run(cli, ["backup", str(tmp_path / "c.zip"), "--passphrase", "env:PHRASE", *at])
    assert done.exit_code == 0, done.output
    assert "secret keys encrypted" in done.output
    assert PHRASE not in done.output
    back = run(cli, ["restore", str(tmp_path / "c.zip"), str(tmp_path / "back"), "--passphrase", "env:PHRASE", "--json"])  # fmt: skip
    assert json.loads(back.stdout)["has_keys"] is True
    (tmp_path / "c.zip").write_bytes(b"no zip")
    odd = run(cli, ["restore", str(tmp_path / "c.zip"), str(tmp_path / "other")])
    assert odd.exit_code == 4
    assert "Nothing was restored, nothing was replaced." in " ".join(odd.output.split())
