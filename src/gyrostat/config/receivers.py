"""The grammar of `notify:` and of `audit.anchor:`: who outside is told, and who keeps heads of the chain."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gyrostat.adapters.anchors.settings import FileAnchor, GitAnchor, Place, WebAnchor
from gyrostat.adapters.notify.settings import WHEN, Command, Mail, Receiver, Webhook, identity
from gyrostat.config.fields import Mistake, nearest, refuse, shown
from gyrostat.config.secrets import ENV

KEYS = {
    "url": ("url", "token", "private", "when"),
    "command": ("command", "when"),
    "smtp": ("smtp", "from", "to", "user", "password", "tls", "private", "when"),
}
ALLOWED = "a list of {url: env:NAME}, {command: ./page.sh} or {smtp: HOST:PORT, from: A, to: [B]}, each with when: [...] where not all of it"
TLS = ("starttls", "tls", "none")
SECRET_LIKE = 20
"""A part of a URL's path that long is taken for a secret, and belongs into a variable."""
SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "url": {"type": "string"},
            "token": {"type": "string", "pattern": "^env:"},
            "command": {"type": "string", "minLength": 1},
            "smtp": {"type": "string", "pattern": ":[0-9]+$"},
            "from": {"type": "string"},
            "to": {"type": "array", "minItems": 1, "items": {"type": "string"}},
            "user": {"type": "string", "pattern": "^env:"},
            "password": {"type": "string", "pattern": "^env:"},
            "tls": {"enum": list(TLS)},
            "private": {"type": "boolean"},
            "when": {
                "anyOf": [
                    {"enum": list(WHEN)},
                    {"type": "array", "minItems": 1, "items": {"enum": list(WHEN)}},
                ]
            },
        },
    },
}


def receivers(value: Any) -> tuple[Receiver, ...]:
    """Read `notify:`."""
    if not isinstance(value, list):
        raise refuse(value, ALLOWED)
    found = tuple(_receiver(item) for item in value)
    if len({identity(r) for r in found}) < len(found):
        raise refuse(value, "each receiver once; its `when` may list several")
    return found


ANCHORS = {"file": ("file",), "git": ("git", "push"), "url": ("url", "token", "private")}
ANCHOR = "a list of {file: /mnt/other/heads.jsonl}, {git: ../heads} or {url: env:NAME}"
ANCHOR_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "file": {"type": "string", "minLength": 1},
            "git": {"type": "string", "minLength": 1},
            "push": {"type": "boolean"},
            "url": {"type": "string"},
            "token": {"type": "string", "pattern": "^env:"},
            "private": {"type": "boolean"},
        },
    },
}


def anchors(value: Any) -> tuple[Place, ...]:
    """Read `audit.anchor:`."""
    if not isinstance(value, list):
        raise refuse(value, ANCHOR)
    return tuple(_anchor(item) for item in value)


def _anchor(item: Any) -> Place:
    kind = _kind(item, ANCHORS, ANCHOR)
    if kind == "url":
        return WebAnchor(Webhook(_url(item["url"]), _name(item, "token"), _flag(item, "private")))
    if not isinstance(item[kind], str) or not item[kind] or "\0" in item[kind]:
        raise refuse(item[kind], "a path")
    return FileAnchor(item[kind]) if kind == "file" else GitAnchor(item[kind], _flag(item, "push"))


def _kind(item: Any, keys: Mapping[str, tuple[str, ...]], allowed: str) -> str:
    """The one key that says what an item is; the others must be those that go with it."""
    kinds = [kind for kind in keys if isinstance(item, dict) and kind in item]
    if len(kinds) != 1:
        raise refuse(item, allowed)
    (kind,) = kinds
    known = keys[kind]
    for key in item:
        if key not in known:
            raise Mistake(
                f"there is no key {shown(key)} beside {kind}.{nearest(key, known)} Keys there: {', '.join(known)}."
            )
    return kind


def _receiver(item: Any) -> Receiver:
    kind = _kind(item, KEYS, ALLOWED)
    when = _when(item.get("when", list(WHEN)))
    match kind:
        case "url":
            return Webhook(_url(item["url"]), _name(item, "token"), _flag(item, "private"), when)
        case "command":
            return Command(_command(item["command"]), when)
    return _mail(item, when)


def _when(value: Any) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not words:
        raise refuse(value, f"one or several of {', '.join(WHEN)}", options=WHEN)
    for word in words:
        if word not in WHEN:
            raise refuse(word, f"one or several of {', '.join(WHEN)}", options=WHEN)
    return tuple(word for word in WHEN if word in words)


def _url(value: Any) -> str:
    allowed = "env:NAME, or https://HOST/PATH without a secret in it"
    if not isinstance(value, str):
        raise refuse(value, allowed)
    if ENV.fullmatch(value):
        return value
    try:
        url = urlsplit(value)
        is_plain = url.scheme in ("http", "https") and bool(url.hostname)
        has_secret = bool(url.username or url.password or url.query or url.fragment) or any(
            len(part) >= SECRET_LIKE for part in url.path.split("/")
        )
        _ = url.port
    except ValueError:
        is_plain, has_secret = False, False
    if has_secret:
        raise Mistake(
            f"a URL with a secret is never written into a file. Allowed: {allowed}. Set a variable, and name it: url: env:CHAT_WEBHOOK"
        )
    if not is_plain:
        raise refuse(value, allowed)
    return value


def _command(value: Any) -> str:
    allowed = "a program with its arguments, run without a shell: ./page.sh, or ./page.sh --team ml"
    try:
        is_right = isinstance(value, str) and bool(shlex.split(value)) and "\0" not in value
    except ValueError:
        is_right = False
    if not is_right:
        raise refuse(value, allowed)
    return value


def _name(item: dict[str, Any], key: str) -> str:
    value = item.get(key, "")
    if value != "" and not (isinstance(value, str) and ENV.fullmatch(value)):
        # The value may be the secret itself, so it is not shown.
        raise Mistake(f"{key} is a secret and never written into a file. Allowed: env:NAME.")
    return value


def _flag(item: dict[str, Any], key: str) -> bool:
    value = item.get(key, False)
    if not isinstance(value, bool):
        raise refuse(value, "true or false")
    return value


def _mail(item: dict[str, Any], when: tuple[str, ...]) -> Mail:
    smtp, to, tls = item["smtp"], item.get("to"), item.get("tls", "starttls")
    port = re.fullmatch(r"[^\s:/]+:(\d{1,5})", smtp) if isinstance(smtp, str) else None
    if port is None or not 0 < int(port[1]) < 65536:
        raise refuse(smtp, "HOST:PORT of a mail server: smtp.example.org:587")
    to = [to] if isinstance(to, str) else to
    if not isinstance(to, list) or not to or not all(_is_address(a) for a in to):
        raise refuse(to, "to: [ops@example.org]")
    if not _is_address(item.get("from")):
        raise refuse(item.get("from"), "from: gyrostat@example.org")
    if tls not in TLS:
        raise refuse(tls, ", ".join(TLS), options=TLS)
    user, password, private = _name(item, "user"), _name(item, "password"), _flag(item, "private")
    if tls == "none" and not private:
        raise Mistake("tls: none is for a server of your own alone. Allowed with private: true.")
    if bool(user) != bool(password):
        raise Mistake("`user` and `password` go together: {user: env:NAME, password: env:NAME}.")
    return Mail(smtp, item["from"], tuple(to), user, password, tls, private, when)


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[^\s@,;<>]+@[^\s@,;<>]+", value))
