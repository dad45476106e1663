"""Each kind of receiver, for real: what it gets, what counts as told, and that no secret is in what is said."""

import json
import stat
import time

import psutil
import pytest
from adapters.notify.receivers import a_mail_inbox, a_message, an_http_inbox

from gyrostat.adapters.notify import deliver as delivering
from gyrostat.adapters.notify.address import UndeliveredError
from gyrostat.adapters.notify.deliver import deliver
from gyrostat.adapters.notify.settings import Command, Mail, Webhook

SECRETS = {"env:HOOK": "", "env:TOKEN": "s3cr3t-token"}


def told(receiver, message=None, folder="."):
    deliver(receiver, message or a_message(), secret=lambda t: SECRETS.get(t, t), folder=folder)


@pytest.fixture
def http(monkeypatch):
    """A webhook's other end."""
    with an_http_inbox() as inbox:
        monkeypatch.setitem(SECRETS, "env:HOOK", f"{inbox.url}/T0/s3cr3t-path?k=s3cr3t-query")
        yield inbox


def test_a_webhook_gets_everything_and_a_key_to_drop_repeats_by(http):
    told(Webhook("env:HOOK", token="env:TOKEN", private=True))
    ((headers, body),) = http.got
    assert headers["Idempotency-Key"] == "i" * 32
    assert headers["Authorization"] == "Bearer s3cr3t-token"
    assert body["id"] == "i" * 32
    for name in ("ref", "harm", "done", "command", "what", "at"):
        assert body[name]
        assert name == "at" or body[name] in body["text"]


def test_loopback_is_refused_unless_declared(http):
    with pytest.raises(UndeliveredError, match="private: true"):
        told(Webhook(http.url))
    assert http.got == []


def test_a_redirect_is_refused_and_not_followed(http):
    with an_http_inbox() as other:
        http.answers, http.location = [307], other.url
        with pytest.raises(UndeliveredError, match="redirect"):
            told(Webhook(http.url, private=True))
        assert other.got == []


@pytest.mark.parametrize(("status", "is_final"), [(500, False), (503, False), (429, False), (404, True), (400, True)])  # fmt: skip
def test_any_other_answer_is_not_told(http, status, is_final):
    http.answers = [status]
    with pytest.raises(UndeliveredError, match=str(status)) as refused:
        told(Webhook(http.url, private=True))
    assert refused.value.is_final is is_final


@pytest.mark.parametrize(
    ("url", "status"), [("", 500), ("http://127.0.0.1:1/s3cr3t-path", 0), ("ftp://s3cr3t-host/", 0), ("http://s3cr3t-host.invalid/", 0),
                        ("http://127.0.0.1:s3cr3t/", 0)],
)  # fmt: skip
def test_no_error_says_a_secret(http, monkeypatch, url, status):
    if url:
        monkeypatch.setitem(SECRETS, "env:HOOK", url)
    http.answers = [status]
    with pytest.raises(UndeliveredError) as refused:
        told(Webhook("env:HOOK", token="env:TOKEN", private=True))
    assert "s3cr3t" not in str(refused.value)


def test_a_command_gets_the_message_on_its_input(tmp_path):
    page = tmp_path / "page.sh"
    page.write_text('#!/bin/sh\ncat > got.json\necho "$NOTIFY_KIND $NOTIFY_ID $1" > said\n')
    page.chmod(page.stat().st_mode | stat.S_IXUSR)
    told(Command("./page.sh 'two words; $(touch x)'"), folder=tmp_path)
    assert json.loads((tmp_path / "got.json").read_text())["command"] == "gyrostat approve version/wine/4"  # fmt: skip
    assert (tmp_path / "said").read_text() == f"person_needed {'i' * 32} two words; $(touch x)\n"
    assert not (tmp_path / "x").exists()  # no shell in between


def test_a_command_that_fails_has_told_nobody(tmp_path):
    with pytest.raises(UndeliveredError, match="status 3: no such channel"):
        told(Command("sh -c 'echo no such channel >&2; exit 3'"), folder=tmp_path)
    with pytest.raises(UndeliveredError, match="cannot be run"):
        told(Command("./absent.sh"), folder=tmp_path)


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(delivering, "COMMAND_S", 0.3)
    with pytest.raises(UndeliveredError, match="took longer"):
        told(Command("sh -c 'sleep 600 & echo $! > child; wait'"), folder=tmp_path)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 30
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child lives"
        time.sleep(0.01)


def test_a_mail_has_the_message_and_an_id_that_repeats():
    with a_mail_inbox() as inbox:
        mail = Mail(f"127.0.0.1:{inbox.port}", "loop@example.org", ("ops@example.org",), tls="none", private=True)  # fmt: skip
        told(mail)
        told(mail)
        first, second = inbox.got
        assert "Subject: wine (wines, dev): a person is needed: waits for you" in first
        assert "gyrostat approve version/wine/4" in first
        ids = {line for text in (first, second) for line in text.splitlines() if line.startswith("Message-ID")}  # fmt: skip
        assert ids == {f"Message-ID: <{'i' * 32}@gyrostat>"}


def test_mail_without_tls_is_not_sent_where_it_is_needed():
    with a_mail_inbox() as inbox:
        with pytest.raises(UndeliveredError, match="no STARTTLS"):
            told(Mail(f"127.0.0.1:{inbox.port}", "a@b", ("c@d",), private=True))
        with pytest.raises(UndeliveredError, match="private: true"):
            told(Mail(f"127.0.0.1:{inbox.port}", "a@b", ("c@d",)))
        assert inbox.got == []
