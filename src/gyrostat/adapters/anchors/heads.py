"""A head of the chain, signed: what is kept elsewhere, and how it is read again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from gyrostat_runtime import keys

from gyrostat.ledger.audit import Anchor


def sign(project: str, env: str, position: int, digest: str, at: float, private: str) -> dict[str, Any]:  # fmt: skip
    """One line."""
    line = {
        "project": project, "env": env, "position": position, "hash": digest, "at": at,
        "key": keys.key_id(keys.public_key(private)),
    }  # fmt: skip
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private))
    return {**line, "signature": key.sign(_signed(line)).hex()}


def _signed(line: Mapping[str, Any]) -> bytes:
    plain = {name: value for name, value in line.items() if name != "signature"}
    return b"gyrostat anchor 1\n" + json.dumps(plain, sort_keys=True, allow_nan=False).encode()


def read(
    text: str, *, project: str, env: str, ring: Mapping[str, str], where: str
) -> tuple[list[Anchor], list[str]]:
    """Heads of one project that a trusted key signed, and what is odd about the others.

    Args:
        ring: Key id to public key; keys that were rotated out stay in it.
    """
    found, odd = [], []
    lines = text.split("\n")
    for n, raw in enumerate(lines[:-1], 1):  # what stands after the last newline is a torn append
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
            if (line["project"], line["env"]) != (project, env):
                continue
            public = ring[line["key"]]
            signature = bytes.fromhex(line["signature"])
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(
                signature, _signed(line)
            )
            found.append(Anchor(int(line["position"]), str(line["hash"]), float(line["at"]), where))
        except (InvalidSignature, KeyError, ValueError, TypeError):
            odd.append(f"line {n} of {where} is no head that a key trusted here signed")
    return found, odd


def going_back(found: Iterable[Anchor]) -> list[str]:
    """Heads only grow; a place in which they do not was rearranged. Leave out those that a restore explains."""
    last: dict[str, int] = {}
    odd: dict[str, str] = {}
    for anchor in found:
        before = last.get(anchor.where, 0)
        if anchor.position < before:
            odd.setdefault(
                anchor.where,
                f"{anchor.where} goes back from entry/{before} to entry/{anchor.position}",
            )
        last[anchor.where] = anchor.position
    return list(odd.values())
