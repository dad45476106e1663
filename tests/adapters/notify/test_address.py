"""A message goes to addresses of the open internet alone, unless others are declared; looked up once."""

import socket

import pytest

from gyrostat.adapters.notify.address import UndeliveredError, connect, is_public, resolve


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    ],
)  # fmt: skip
def test_no_address_of_this_house_is_public(text):
    assert not is_public(text)


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101"])  # fmt: skip
def test_addresses_out_there_are(text):
    assert is_public(text)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f000001", "127.1", "::1"])  # fmt: skip
def test_however_it_is_spelled_loopback_is_refused(host):
    with pytest.raises(UndeliveredError, match="private: true"):
        resolve(host, 80, private=False)


def _answers(monkeypatch, *answers):
    asked = []

    def look_up(host, port, **_):
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    _answers(monkeypatch, ["1.1.1.1", "10.0.0.1"])
    with pytest.raises(UndeliveredError, match="refused"):
        resolve("chat.example", 443, private=False)


def test_a_name_that_means_another_address_at_the_second_look_is_connected_to_the_first(monkeypatch):  # fmt: skip
    asked = _answers(monkeypatch, ["1.1.1.1"], ["127.0.0.1"])
    called = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, to: called.append(to))
    connect("chat.example", 443, private=False).close()
    assert called == [("1.1.1.1", 443)]
    assert asked == ["chat.example"]
