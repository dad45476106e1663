"""Who is told, as it is declared; secrets stay in variables."""

import pytest
from config.builders import Read

from gyrostat import config
from gyrostat.adapters.notify.settings import WHEN, Command, Mail, Webhook, identity
from gyrostat.errors import ConfigError, UnavailableError

MAIL = "smtp: 'smtp.example.org:587', from: loop@example.org, to: ops@example.org"


def test_webhook_command_and_mail_are_read(read: Read):
    declared = f"notify: [{{url: env:CHAT_WEBHOOK}}, {{command: ./page.sh, when: person_needed}}, {{{MAIL}, user: env:U, password: env:P}}]"
    webhook, command, mail = read("notify: []", declared).declaration.notify
    assert webhook == Webhook("env:CHAT_WEBHOOK", "", False, WHEN)
    assert command == Command("./page.sh", ("person_needed",))
    assert mail == Mail(
        "smtp.example.org:587", "loop@example.org", ("ops@example.org",), "env:U", "env:P", "starttls", False, WHEN
    )  # fmt: skip


@pytest.mark.parametrize(("receiver", "said"), [
    ("{}", "{command: ./page.sh}"), ("x", "{command: ./page.sh}"), ("{url: env:A, command: b}", "{command: ./page.sh}"),
    ("{url: env:A, wen: failed}", 'Did you mean "when"?'), ("{url: env:A, when: faild}", 'Did you mean "failed"?'),
    ("{url: env:A, when: []}", "person_needed"), ("{url: env:A, private: 'yes'}", "true or false"), ("{url: chat}", "env:NAME"),
    ("{url: 'ftp://a/b'}", "env:NAME"), ("{command: ''}", "without a shell"), ("{command: \"a 'b\"}", "without a shell"),
    ("{smtp: mail, from: a@b, to: [c@d]}", "HOST:PORT"), ("{smtp: 'm:25', from: a@b}", "to: [ops@example.org]"),
    ("{smtp: 'm:25', from: a, to: [c@d]}", "from: gyrostat@example.org"), ("{smtp: 'm:25', from: a@b, to: [c@d], tls: none}", "private: true"),
    ("{smtp: 'm:25', from: a@b, to: [c@d], user: env:U}", "go together"),
    ("{url: env:A}, {url: env:A, when: failed}", "each receiver once"),
])  # fmt: skip
def test_a_receiver_that_cannot_be_meant_is_refused_with_its_line(read: Read, receiver, said):
    with pytest.raises(ConfigError) as refused:
        read("notify: []", f"notify: [{receiver}]")
    assert said in str(refused.value)
    assert str(refused.value).startswith("config/config.yaml:47  notify: ")


@pytest.mark.parametrize("receiver", [
    "{url: 'https://user:s3cr3t@chat.example/x'}", "{url: 'https://chat.example/x?key=s3cr3t'}",
    "{url: 'https://chat.example/hooks/T0123456789/s3cr3ts3cr3ts3cr3ts3cr3t'}", "{url: env:A, token: s3cr3t}",
])  # fmt: skip
def test_a_secret_in_a_file_is_refused_and_not_repeated(read: Read, receiver):
    with pytest.raises(ConfigError) as refused:
        read("notify: []", f"notify: [{receiver}]")
    assert "s3cr3t" not in str(refused.value)
    assert "env:" in str(refused.value)


def test_a_name_becomes_its_value_only_when_it_is_used():
    assert config.secret("env:HOOK", {"HOOK": "x"}) == "x"
    assert config.secret("https://chat.example/", {}) == "https://chat.example/"
    with pytest.raises(UnavailableError, match="HOOK is not set"):
        config.secret("env:HOOK", {})


def test_another_wish_is_no_other_receiver():
    assert identity(Webhook("env:A", when=("stuck",))) == identity(Webhook("env:A"))
    assert identity(Webhook("env:A")) != identity(Webhook("env:B"))
