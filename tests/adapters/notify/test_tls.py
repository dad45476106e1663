"""Receivers under TLS, with certificates of an authority of our own: who is not who was declared hears nothing."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from adapters.notify.receivers import a_mail_inbox, a_message, an_http_inbox
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gyrostat.adapters.notify.address import UndeliveredError
from gyrostat.adapters.notify.deliver import deliver
from gyrostat.adapters.notify.settings import Mail, Receiver, Webhook


def told(receiver: Receiver) -> None:
    deliver(receiver, a_message(), secret=lambda text: text, folder=Path())


class Authority:
    """Signs certificates, as a company's own does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of this test")])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        own = self._begun(self.name, self.key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = own.add_extension(usage, critical=True).sign(self.key, hashes.SHA256())
        self.path = folder / "authority.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _begun(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, days: int = 1
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=days))
        )

    def serves(self, host: str, *, days: int = 1) -> ssl.SSLContext:
        """What a server needs that is `host`, for so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        is_address = host[0].isdigit()
        known = x509.IPAddress(ipaddress.ip_address(host)) if is_address else x509.DNSName(host)
        made = self._begun(name, key, days).add_extension(
            x509.SubjectAlternativeName([known]), critical=False
        )
        path = self.folder / "server.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """As a machine is set up whose company has an authority of its own."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return authority


def webhook(port: int) -> Webhook:
    return Webhook(f"https://127.0.0.1:{port}/hook", private=True)


def mail(port: int, tls: str) -> Mail:
    return Mail(f"127.0.0.1:{port}", "loop@example.org", ("ops@example.org",), tls=tls, private=True)  # fmt: skip


def test_a_webhook_whose_certificate_holds_is_told(trusted: Authority) -> None:
    with an_http_inbox(trusted.serves("127.0.0.1")) as inbox:
        told(webhook(inbox.port))
    assert len(inbox.got) == 1


@pytest.mark.parametrize("why", ["stranger", "other host", "expired"])
def test_a_webhook_whose_certificate_does_not_hold_hears_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why != "stranger":
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    host = "hooks.example.org" if why == "other host" else "127.0.0.1"
    with an_http_inbox(authority.serves(host, days=-1 if why == "expired" else 1)) as inbox:
        with pytest.raises(UndeliveredError, match="its certificate does not hold") as refused:
            told(webhook(inbox.port))
        assert inbox.got == []
    assert not refused.value.is_final  # somebody may renew it


@pytest.mark.parametrize("tls", ["tls", "starttls"])
def test_mail_goes_to_a_server_whose_certificate_holds(trusted: Authority, tls: str) -> None:
    context = trusted.serves("127.0.0.1")
    with a_mail_inbox(**{tls: context}) as inbox:
        told(mail(inbox.port, tls))
    assert "waits for you" in inbox.got[0]


@pytest.mark.parametrize("tls", ["tls", "starttls"])
@pytest.mark.parametrize("host", ["127.0.0.1", "mail.example.org"])
def test_mail_goes_to_nobody_else(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tls: str, host: str
) -> None:
    if host != "127.0.0.1":
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    with a_mail_inbox(**{tls: authority.serves(host)}) as inbox:
        with pytest.raises(UndeliveredError, match="certificate does not hold"):
            told(mail(inbox.port, tls))
        assert inbox.got == []
