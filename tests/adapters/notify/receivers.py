"""Real receivers on this machine: an HTTP server and a mail server that keep what they got."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gyrostat.adapters.notify.message import Message


def a_message(**changes: Any) -> Message:
    values = {
        "kind": "person_needed", "cause": "c" * 64, "ref": "entry/7", "about": "version/wine/4", "model": "wine", "project": "wines",
        "env": "dev", "at": "2026-11-20T05:00:00.000+00:00", "what": "waits for you", "harm": "none", "done": "it waits",
        "command": "gyrostat approve version/wine/4", "id": "i" * 32,
    }  # fmt: skip
    return Message(**{**values, **changes})


class Inbox:
    def __init__(self) -> None:
        self.got: list[Any] = []
        self.answers: list[int] = []
        """Statuses of the next answers; then 200."""
        self.location = ""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def a_server(kind: type, handler: type, inbox: Inbox, tls: ssl.SSLContext | None = None):
    with kind(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # who does not trust us hangs up
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        inbox.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield inbox
        server.shutdown()


@contextmanager
def an_http_inbox(tls: ssl.SSLContext | None = None):
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = inbox.answers.pop(0) if inbox.answers else 200
            if status < 300:
                inbox.got.append((dict(self.headers), json.loads(body)))
            self.send_response(status)
            if inbox.location:
                self.send_header("Location", inbox.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with a_server(ThreadingHTTPServer, Handler, inbox, tls) as found:
        yield found


@contextmanager
def a_mail_inbox(tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None):
    """Under TLS from the start, or where STARTTLS asks for it."""
    inbox = Inbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            read, write = self.rfile, self.wfile

            def say(line: str) -> None:
                write.write(f"{line}\r\n".encode())

            say("220 here")
            while line := read.readline().decode().strip():
                word = line.split()[0].upper()
                if word == "EHLO":
                    say("250-here\r\n250 STARTTLS" if starttls else "250 here")
                elif word == "STARTTLS" and starttls:
                    say("220 go on")
                    link = starttls.wrap_socket(self.connection, server_side=True)
                    read, write = link.makefile("rb"), link.makefile("wb", buffering=0)
                elif word == "DATA":
                    say("354 go on")
                    lines = []
                    while (text := read.readline().decode().rstrip("\r\n")) != ".":
                        lines.append(text)
                    inbox.got.append("\n".join(lines))
                    say("250 taken")
                elif word == "QUIT":
                    say("221 bye")
                    return
                else:
                    say(f"{inbox.answers.pop(0) if inbox.answers else 250} well")

    with a_server(socketserver.ThreadingTCPServer, Handler, inbox, tls) as found:
        yield found
