"""Whose word counts: that of servers which live and take requests."""

import json
import os
import subprocess
import sys

import pytest

from gyrostat import pids
from gyrostat.loop.assemble import LocalWorld
from gyrostat.serving import receipts


@pytest.fixture
def say(tmp_path):
    """Writes what a server says of the routes."""
    folder = receipts.folder(tmp_path, "wine")
    folder.mkdir(parents=True)
    (tmp_path / "routes" / "wine.json").write_text("{}")
    mine = {"pid": os.getpid(), "birth": pids.birth(os.getpid()), "epoch": 1}

    def saying(server, seq, **more):
        (folder / f"{server}.json").write_text(json.dumps(mine | {"seq": seq} | more))

    return saying


@pytest.fixture
def served(tmp_path):
    """What the loop makes of it."""
    world = LocalWorld(tmp_path, tmp_path, None)
    return lambda: world._served("wine")


def test_the_oldest_routes_that_a_living_server_answers_by_count(say, served):
    assert served() is None
    say("server-0", 8)
    say("server-1", 7)
    assert served() == 7


def test_a_pid_that_another_process_got_meanwhile_is_not_the_server(say, served):
    say("server-0", 8)
    say("server-1", 7, birth=pids.birth(os.getpid())[:-1] + "x")
    assert served() == 8


def test_one_that_ended_or_is_a_zombie_does_not_count(say, served):
    say("server-0", 8)
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        say("server-1", 7, pid=child.pid, birth="")
        assert served() == 8
    finally:
        child.wait()
    assert served() == 8


def test_one_that_takes_no_requests_yet_does_not_count_and_is_not_at_work(say, served, tmp_path):
    say("server-0", 8)
    say("server-0b", 0, waits=True)
    assert served() == 8
    assert not receipts.is_at_work(tmp_path, "server-0b", os.getpid())
    assert receipts.is_at_work(tmp_path, "server-0", os.getpid())
    assert not receipts.is_at_work(tmp_path, "server-0", os.getpid() + 1)


def test_half_a_receipt_is_none(say, served, tmp_path):
    say("server-0", 8)
    (receipts.folder(tmp_path, "wine") / "server-1.json").write_text('{"pid": 1, "se')
    (receipts.folder(tmp_path, "wine") / "server-2.json").write_text("[]")
    assert served() == 8
