"""One message to one receiver: told, or an `UndeliveredError` that says why without saying a secret."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import signal
import smtplib
import ssl
import subprocess
from collections.abc import Callable
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gyrostat.adapters.notify import address
from gyrostat.adapters.notify.address import TIMEOUT_S, UndeliveredError
from gyrostat.adapters.notify.message import Message
from gyrostat.adapters.notify.settings import Command, Mail, Receiver, Webhook

COMMAND_S = 30.0
LATER = frozenset({408, 425, 429})
"""Of the 4xx answers those that another time may change."""
Secret = Callable[[str], str]
"""What `env:NAME` stands for; another text is itself."""


def deliver(receiver: Receiver, message: Message, *, secret: Secret, folder: Path) -> None:
    """Tell it.

    Args:
        folder: Where a command runs: the project's.

    Raises:
        UndeliveredError: it was not told, or nobody knows.
    """
    match receiver:
        case Webhook():
            post(receiver, _json(message), key=message.id, secret=secret)
        case Command():
            _run(receiver, message, folder)
        case Mail():
            _mail(receiver, message, secret)


# ---- webhook


class _Http(http.client.HTTPConnection):
    """Connects to the address that was judged. Follows no redirect and knows no proxy: http.client has neither."""

    def __init__(self, host: str, port: int, *, private: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S)
        self._private = private

    def connect(self) -> None:
        self.sock = address.connect(self.host, self.port, private=self._private)


class _Https(_Http):
    """The certificate must name the host that was declared."""

    default_port = 443

    def connect(self) -> None:
        super().connect()
        self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def post(receiver: Webhook, body: bytes, *, key: str, secret: Secret) -> None:
    """Post JSON.

    Args:
        key: Of the content: the same for a repeat.

    Raises:
        UndeliveredError: it did not arrive, or nobody knows.
    """
    url = urlsplit(secret(receiver.url))
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UndeliveredError("it holds no http or https URL", is_final=True)
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        raise UndeliveredError("its port is not a number", is_final=True) from None
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": key,
        "User-Agent": "gyrostat",
    }
    if receiver.token:
        headers["Authorization"] = f"Bearer {secret(receiver.token)}"
    link = (_Https if url.scheme == "https" else _Http)(
        url.hostname, port, private=receiver.private
    )
    try:
        link.request("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""), body, headers)  # fmt: skip
        status = link.getresponse().status
    except ssl.SSLError as error:
        raise UndeliveredError(
            f"its certificate does not hold, or TLS failed ({error.reason})"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UndeliveredError(f"the connection failed ({address.why(error)})") from error
    finally:
        link.close()
    if 300 <= status < 400:
        raise UndeliveredError(
            f"it answers with a redirect ({status}), which is refused. Declare where it leads to",
            is_final=True,
        )
    if not 200 <= status < 300:
        is_final = 400 <= status < 500 and status not in LATER
        raise UndeliveredError(f"it answered {status}", is_final=is_final)


def _json(message: Message) -> bytes:
    return json.dumps(message.as_json(), ensure_ascii=False, allow_nan=False).encode()


# ---- command


def _run(receiver: Command, message: Message, folder: Path) -> None:
    named = {
        "NOTIFY_ID": message.id,
        "NOTIFY_KIND": message.kind,
        "NOTIFY_TEXT": message.text.replace("\0", ""),
    }
    try:
        process = subprocess.Popen(
            shlex.split(receiver.command), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True, env={**os.environ, **named},
        )  # fmt: skip
    except OSError as error:
        raise UndeliveredError(f"it cannot be run ({address.why(error)})") from error
    try:
        _, talk = process.communicate(_json(message), timeout=COMMAND_S)
    except subprocess.TimeoutExpired:
        raise UndeliveredError(f"it took longer than {COMMAND_S:g} s and was ended") from None
    finally:
        with contextlib.suppress(OSError):  # it, and what it left running
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        last = (talk.decode(errors="replace").strip().splitlines() or [""])[-1][:200]
        raise UndeliveredError(
            f"it ended with status {process.returncode}" + (f": {last}" if last else "")
        )


# ---- mail


class _Smtp(smtplib.SMTP):
    def __init__(self, host: str, port: int, *, private: bool) -> None:
        self._private = private
        super().__init__(host, port, timeout=TIMEOUT_S)

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:
        return address.connect(host, port, private=self._private)


class _Smtps(_Smtp):
    def _get_socket(self, host: str, port: int, timeout: float) -> Any:
        plain = super()._get_socket(host, port, timeout)
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _mail(receiver: Mail, message: Message, secret: Secret) -> None:
    host, _, port = receiver.smtp.rpartition(":")
    mail = EmailMessage()
    mail["From"], mail["To"] = receiver.sender, ", ".join(receiver.to)
    mail["Subject"] = " ".join(message.title.split())[:200]
    mail["Date"] = format_datetime(datetime.fromisoformat(message.at))
    # A mail server, or a reader, drops the second mail with the same id.
    mail["Message-ID"] = f"<{message.id}@gyrostat>"
    mail.set_content(message.text)
    try:
        with (_Smtps if receiver.tls == "tls" else _Smtp)(
            host, int(port), private=receiver.private
        ) as link:
            if receiver.tls == "starttls":
                link.starttls(context=ssl.create_default_context())
            if receiver.user:
                link.login(secret(receiver.user), secret(receiver.password))
            link.send_message(mail)
    except smtplib.SMTPResponseException as error:
        is_final = 500 <= error.smtp_code < 600
        raise UndeliveredError(
            f"the mail server answered {error.smtp_code}", is_final=is_final
        ) from error
    except smtplib.SMTPNotSupportedError as error:
        raise UndeliveredError(
            "the mail server has no STARTTLS, or no login", is_final=True
        ) from error
    except ssl.SSLError as error:
        raise UndeliveredError(
            f"the mail server's certificate does not hold, or TLS failed ({error.reason})"
        ) from error
    except (OSError, smtplib.SMTPException) as error:
        raise UndeliveredError(f"the mail server failed ({address.why(error)})") from error
