"""A project at rest, made in milliseconds: what tools that look after a project need to see."""

from __future__ import annotations

import importlib.metadata
import json
import socket

from config.builders import DECLARATION
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.bundle import Manifest
from loop.records import Records
from monitoring.builders import a_schema

from gyrostat import config
from gyrostat.ledger.sqlite import SqliteLedger, sqlite3


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class AtRest:
    """A ledger with some entries, keys, and a bundle in traffic."""

    def __init__(self, root):
        self.root = root
        self.port, self.control = free_port(), free_port()
        (root / "config").mkdir()
        text = DECLARATION.replace("8080", str(self.port)).replace("7007", str(self.control))
        (root / "config" / "config.yaml").write_text(text.replace("notify: []", "notify: [{url: env:TEST_HOOK}]"))  # fmt: skip
        self.loaded = config.load(root, {})
        self.state = self.loaded.state
        ledger = SqliteLedger(self.state / "ledger.db")
        Records(ledger).crown()
        ledger.close()
        keys.create_keys(self.state / "keys")
        packed = self.state / "packed"
        packed.mkdir()
        (packed / "model.onnx").write_bytes(b"model")
        (packed / "environment.txt").write_text(f"numpy=={importlib.metadata.version('numpy')}\n")
        digest = bundle.write(packed, Manifest("wine", "onnx", a_schema(), environment={"file": "environment.txt"}))  # fmt: skip
        bundle.sign(packed, keys.private_key(self.state / "keys"))
        self.bundle = self.state / "bundles" / digest
        self.bundle.parent.mkdir()
        packed.rename(self.bundle)
        (self.state / "routes").mkdir()
        (self.state / "routes" / "wine.json").write_text(json.dumps({"arms": [{"bundle": digest}]}))
        self.state.chmod(0o755)

    def plant(self, sql, *values):
        """Past the ledger, as an attacker or a bad disk would."""
        with sqlite3.connect(self.state / "ledger.db") as db:
            db.executescript("DROP TRIGGER IF EXISTS no_update; DROP TRIGGER IF EXISTS no_delete;")
            db.execute(sql, values)
        db.close()
