"""Heads are kept in a file, a repository and behind a webhook, signed; what is kept there is read with suspicion."""

from __future__ import annotations

import json
import subprocess

import pytest
from adapters.notify.receivers import an_http_inbox
from gyrostat_runtime import keys

from gyrostat.adapters.anchors import heads
from gyrostat.adapters.anchors.keep import keep, kept
from gyrostat.adapters.anchors.settings import FileAnchor, GitAnchor, WebAnchor
from gyrostat.adapters.notify.address import UndeliveredError
from gyrostat.adapters.notify.settings import Webhook

KEY, OTHER = "11" * 32, "22" * 32


def ring(*private):
    return {keys.key_id(p): p for p in (keys.public_key(k) for k in private)}


def a_head(position=7, key=KEY, project="wines"):
    return heads.sign(project, "dev", position, f"{position:064x}", 1.0, key)


def put(place, folder, *lines):
    for line in lines:
        keep(place, line, project=folder, secret=lambda t: t)


def got(place, folder, *, trusted=(KEY,)):
    text = kept(place, project=folder, name="wines", env="dev")
    return heads.read(text, project="wines", env="dev", ring=ring(*trusted), where="there")


def positions(found):
    return [a.position for a in found[0]]


@pytest.fixture(params=["file", "git"])
def place(request, tmp_path):
    """One from which heads can be read again."""
    if request.param == "file":
        return FileAnchor("heads.jsonl")
    subprocess.run(["git", "init", "-q", str(tmp_path / "heads")], check=True)
    return GitAnchor("heads")


def test_heads_come_back_as_they_were_signed(place, tmp_path):
    put(place, tmp_path, a_head(7), a_head(9), a_head(9))
    found, odd = got(place, tmp_path)
    assert ([(a.position, a.hash) for a in found], odd) == ([(7, f"{7:064x}"), (9, f"{9:064x}"), (9, f"{9:064x}")], [])  # fmt: skip


def test_heads_of_another_project_are_not_ours(place, tmp_path):
    put(place, tmp_path, a_head(7))
    if isinstance(place, FileAnchor):
        put(place, tmp_path, a_head(8, project="beers"))
    assert positions(got(place, tmp_path)) == [7]


def test_a_head_that_was_altered_or_signed_by_a_stranger_does_not_count_and_is_said(tmp_path):
    place = FileAnchor("heads.jsonl")
    put(place, tmp_path, a_head(7), a_head(8, key=OTHER), {**a_head(9), "position": 10})
    (tmp_path / "heads.jsonl").open("a").write('{"project": "wines", "env": "dev"}\nno json\n')
    found, odd = got(place, tmp_path)
    assert [a.position for a in found] == [7]
    assert len(odd) == 4
    assert "line 2 of there" in odd[0]
    assert positions(got(place, tmp_path, trusted=(KEY, OTHER))) == [7, 8]


def test_a_torn_append_is_closed_off_by_the_next(tmp_path):
    place = FileAnchor("heads.jsonl")
    put(place, tmp_path, a_head(7))
    whole = (tmp_path / "heads.jsonl").read_bytes()
    (tmp_path / "heads.jsonl").write_bytes(whole + whole[:40])
    assert (positions(got(place, tmp_path)), got(place, tmp_path)[1]) == ([7], [])
    put(place, tmp_path, a_head(9))
    assert positions(got(place, tmp_path)) == [7, 9]


def test_heads_that_go_back_are_noticed(tmp_path):
    place = FileAnchor("heads.jsonl")
    put(place, tmp_path, a_head(9), a_head(7))
    assert heads.going_back(got(place, tmp_path)[0]) == ["there goes back from entry/9 to entry/7"]


def test_of_a_repository_only_what_is_committed_counts(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path / "heads")], check=True)
    put(GitAnchor("heads"), tmp_path, a_head(7))
    (tmp_path / "heads" / "wines-dev.jsonl").write_text("")
    assert positions(got(GitAnchor("heads"), tmp_path)) == [7]


def test_a_hook_of_the_repository_is_not_run_and_its_history_can_be_pushed(tmp_path):
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "far")], check=True)
    subprocess.run(["git", "clone", "-q", str(tmp_path / "far"), str(tmp_path / "heads")], check=True, stderr=subprocess.DEVNULL)  # fmt: skip
    hook = tmp_path / "heads" / ".git" / "hooks" / "post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    subprocess.run(["git", "-C", str(tmp_path / "heads"), "config", "push.default", "current"], check=True)  # fmt: skip
    put(GitAnchor("heads", push=True), tmp_path, a_head(7))
    assert not (tmp_path / "ran").exists()
    log = subprocess.run(["git", "-C", str(tmp_path / "far"), "log", "--oneline", "--all"], capture_output=True, text=True, check=True)  # fmt: skip
    assert "wines dev: entry/7" in log.stdout


def test_a_place_that_takes_nothing_says_why(tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(UndeliveredError, match="git"):
        put(GitAnchor("plain"), tmp_path, a_head())
    with pytest.raises(UndeliveredError, match=r"heads.jsonl cannot be written \(No such file"):
        put(FileAnchor("absent/heads.jsonl"), tmp_path, a_head())
    assert not list((tmp_path / "plain").iterdir())


def test_a_webhook_gets_the_line_that_verify_reads_again(tmp_path):
    with an_http_inbox() as inbox:
        put(WebAnchor(Webhook(inbox.url, private=True)), tmp_path, a_head(7))
        text = json.dumps(inbox.got[0][1]) + "\n"
    found = heads.read(text, project="wines", env="dev", ring=ring(KEY), where="x")
    assert positions(found) == [7]
