"""The process that tells: killed at any moment it leaves nothing out, and a repeat can be told from news."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from adapters.notify.receivers import an_http_inbox
from config.builders import DECLARATION
from loop.records import Records

from gyrostat import config
from gyrostat.cli.main import cli
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop.declare import declare
from gyrostat.processes import notifying
from gyrostat.processes.notifying import Notifier, Notifying

RECEIVERS = "notify: [{url: env:TEST_HOOK, private: true}, {command: ./page.sh, when: rolled_back}]"
COMMAND = [sys.executable, "-m", "gyrostat.processes.notifying", "--project"]


def wait(what, is_there, patience_s=60.0):
    deadline = time.monotonic() + patience_s
    while not (found := is_there()):
        assert time.monotonic() < deadline, f"waited {patience_s:g} s for {what}"
        time.sleep(0.02)
    return found


class Made:
    """A project with a webhook and a command, and a ledger to write in."""

    def __init__(self, root, inbox):
        self.root, self.inbox = root, inbox
        self.declare(RECEIVERS)
        self.ledger = SqliteLedger(self.loaded.state / "ledger.db")
        declare(self.ledger, self.loaded, "kim")
        self.records = Records(self.ledger)
        page = root / "page.sh"
        page.write_text("#!/bin/sh\ncat >> paged; echo >> paged\n")
        page.chmod(0o755)

    def declare(self, receivers):
        (self.root / "config").mkdir(exist_ok=True)
        (self.root / "config" / "config.yaml").write_text(DECLARATION.replace("notify: []", receivers))  # fmt: skip
        self.loaded = config.load(self.root, {})

    def told(self):
        return [body["ref"] for _, body in self.inbox.got]

    def paged(self):
        path = self.root / "paged"
        return [json.loads(line)["ref"] for line in path.read_text().splitlines()] if path.exists() else []  # fmt: skip

    def once(self):
        Notifying(self.loaded, self.ledger).run(threading.Event())


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Everything in place, and a web server that is told."""
    with an_http_inbox() as inbox:
        monkeypatch.setenv("TEST_HOOK", f"{inbox.url}/s3cr3t")
        found = Made(tmp_path, inbox)
        yield found
        found.ledger.close()


def test_each_receiver_is_told_once_of_what_it_wants(made):
    made.records.crown()
    made.records.canary()
    rolled_back = made.records.regress().ref
    failed = made.records.fail().ref
    made.once()
    made.once()
    assert made.told() == [rolled_back, failed]
    assert made.paged() == [rolled_back]


def test_a_stuck_stream_is_told_once(made):
    made.records.crown()
    planted = made.records.plant().ref
    made.once()
    made.records.fail()
    made.once()
    assert [body["kind"] for _, body in made.inbox.got] == ["stuck", "failed"]
    assert made.told()[0] == planted


def test_a_new_receiver_does_not_hear_of_what_was_before_it(made):
    made.declare("notify: []")
    declare(made.ledger, made.loaded, "kim")
    made.records.fail(1)
    made.once()
    made.declare(RECEIVERS)
    declare(made.ledger, made.loaded, "kim")
    news = made.records.fail(2).ref
    made.once()
    assert made.told() == [news]


def test_news_from_before_the_process_first_ran_is_not_lost(made):
    news = made.records.fail(1).ref
    made.once()
    assert made.told() == [news]


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_left_out_and_repeats_have_the_same_id(made):
    refs = [made.records.fail(n).ref for n in range(1, 25)]
    for n in range(12):
        process = subprocess.Popen([*COMMAND, str(made.root)], stderr=subprocess.DEVNULL)
        before = len(made.inbox.got)
        wait("something told", lambda: len(made.inbox.got) > before or process.poll() is not None)  # noqa: B023
        time.sleep(0.001 * n)  # another instant each time
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run([*COMMAND, str(made.root)], timeout=60).returncode == 0
    ids = {}
    for headers, body in made.inbox.got:
        ids.setdefault(body["ref"], set()).add(headers["Idempotency-Key"])
    assert list(ids) == refs
    assert all(len(found) == 1 for found in ids.values())
    # at most one repeat for each kill
    assert len(made.inbox.got) <= len(refs) + 12


def test_a_receiver_that_is_down_holds_up_neither_the_other_nor_the_loop(made, monkeypatch):
    monkeypatch.setenv("TEST_HOOK", "http://127.0.0.1:1/s3cr3t")
    made.records.crown()
    made.records.canary()
    ref = made.records.regress().ref
    notifier = Notifier(made.root, made.loaded.state)
    (made.loaded.state / "run").mkdir(parents=True, exist_ok=True)
    notifier.tend(made.ledger, made.loaded)
    wait("the command", lambda: made.paged() == [ref])
    assert notifier.process
    assert notifier.process.poll() is None  # it goes on trying
    notifier.end()
    assert notifier.process.wait(30) is not None
    log = (made.loaded.state / "run" / "notifying.log").read_text()
    assert "was not told to env:TEST_HOOK" in log
    made.inbox.got.clear()
    monkeypatch.setenv("TEST_HOOK", made.inbox.url)
    monkeypatch.setattr("gyrostat.adapters.notify.outbox.BACKOFF_S", (0.0,))
    wait("the webhook", lambda: made.once() or made.told() == [ref])
    assert made.paged() == [ref]


def test_it_ends_with_the_loop_that_started_it(made, monkeypatch):
    monkeypatch.setenv("TEST_HOOK", "http://127.0.0.1:1/")
    made.records.fail()
    starter = f"import subprocess, time; p = subprocess.Popen({[*COMMAND, str(made.root)]!r}); print(p.pid, flush=True); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    lock = made.loaded.state / "notify"
    wait("a first try", lambda: list(lock.glob("*.json")))
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def is_gone():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        import psutil

        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    wait("its end", is_gone)


def test_no_secret_is_stored_or_shown(made):
    made.records.fail()
    made.once()
    made.inbox.answers = [500]
    made.records.fail(2)
    Notifying(made.loaded, made.ledger).once(made.loaded.declaration.notify[0])
    kept = [p for p in made.root.rglob("*") if p.is_file()]
    assert len(kept) > 5
    assert [p for p in kept if b"s3cr3t" in p.read_bytes()] == []


def test_notify_test_tells_each_and_says_which_it_could_not(made, monkeypatch, capsys):
    found = notifying.test(made.loaded)
    assert [why for _, why in found] == ["", ""]
    assert made.inbox.got[-1][1]["kind"] == "test"
    monkeypatch.delenv("TEST_HOOK")
    from click.testing import CliRunner

    done = CliRunner().invoke(cli, ["notify", "test", "--project", str(made.root)])
    assert done.exit_code == 3
    assert done.output.splitlines() == [
        "no    webhook  env:TEST_HOOK: the variable TEST_HOOK is not set where `gyrostat up` runs",
        "ok    command  ./page.sh",
    ]
    asked = CliRunner().invoke(cli, ["notify", "test", "--json", "--project", str(made.root)])
    assert [r["is_told"] for r in json.loads(asked.stdout)["receivers"]] == [False, True]
