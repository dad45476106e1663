"""A real server process, and tiny signed bundles for it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.files import write_atomic
from gyrostat_runtime.schema import Column, Feature, Output, Schema

WINE = Schema(
    inputs=(
        Column("alcohol", "number"),
        Column("pH", "number", nullable=True),
        Column("who", "category"),
    ),
    features=(Feature("alcohol", "alcohol"), Feature("pH", "pH")),
    output=Output("regression", "quality"),
    personal=("who",),
)
STRICT = Schema(
    inputs=(Column("alcohol", "number"), Column("pH", "number"), Column("who", "category")),
    features=WINE.features,
    output=WINE.output,
    personal=("who",),
)
KINDS = Schema(
    inputs=(Column("x", "number"),),
    features=(Feature("x", "x"),),
    output=Output("binary", "ripe", classes=("0", "1"), class_kind="integer", positive="1"),
)


def until(claim: Callable[[], Any], *, seconds: float = 15.0) -> Any:
    """Wait until `claim` gives something true; AssertionError when it does not."""
    deadline = time.monotonic() + seconds
    while not (found := claim()):
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.01)
    return found


def graph(constant: float, n: int, *, classes: int = 0, fails_above: float | None = None) -> bytes:
    """A graph that answers `constant` + the sum of the inputs (missing ones count 0).

    With `fails_above` it cannot answer rows whose first number is larger: it looks up a row that does not exist.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("IsNaN", ["num"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "num"], ["filled"]),
        helper.make_node("ReduceSum", ["filled", "axis"], ["sum"], keepdims=1),
    ]
    constants = {
        "zero": np.zeros(1, np.float32),
        "axis": np.array([1], np.int64),
        "c": np.array([constant], np.float32),
    }
    if classes:
        nodes += [
            helper.make_node("Add", ["sum", "c"], ["shifted"]),
            helper.make_node("Sigmoid", ["shifted"], ["p"]),
            helper.make_node("Sub", ["one", "p"], ["q"]),
            helper.make_node("Concat", ["q", "p"], ["output"], axis=1),
        ]
        constants["one"] = np.ones(1, np.float32)
    elif fails_above is None:
        nodes.append(helper.make_node("Add", ["sum", "c"], ["output"]))
    else:
        nodes += [
            helper.make_node("Slice", ["num", "start", "end", "axis"], ["first"]),
            helper.make_node("Greater", ["first", "limit"], ["is_above"]),
            helper.make_node("Cast", ["is_above"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["c", "place"], ["found"], axis=0),
            helper.make_node("Add", ["sum", "found"], ["output"]),
        ]
        constants |= {
            "start": np.array([0]),
            "end": np.array([1]),
            "limit": np.array([fails_above], np.float32),
        }
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("num", TensorProto.FLOAT, [None, n])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, classes or 1])],
            [numpy_helper.from_array(v, k) for k, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    return model.SerializeToString()


def by_value(estimator: Any) -> bytes:
    """A pickle of an object whose class stands in a test: no code travels with the bundle."""
    import cloudpickle

    home = sys.modules[type(estimator).__module__]
    cloudpickle.register_pickle_by_value(home)
    try:
        return cloudpickle.dumps(estimator)
    finally:
        cloudpickle.unregister_pickle_by_value(home)


class Bench:
    """A state folder with keys, bundles and routes, and servers on it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.seq = 0
        self.route_bundle = ""
        """The champion that the `served` fixture starts with."""
        keys.create_keys(state / "keys")
        (state / "routes").mkdir()
        (state / "bundles").mkdir()
        self.servers: list[Server] = []

    def bundle(
        self,
        constant: float,
        *,
        schema: Schema = WINE,
        model: str = "wine",
        fails_above: float | None = None,
        estimator: Any = None,
        onnx: bytes | None = None,
    ) -> str:
        """Make and sign a bundle; its digest."""
        folder = self.state / "bundles" / f"making-{constant}"
        folder.mkdir()
        if estimator is None:
            data = onnx or graph(
                constant,
                len(schema.features),
                classes=len(schema.output.classes),
                fails_above=fails_above,
            )
            (folder / "model.onnx").write_bytes(data)
        else:
            (folder / "model.pkl").write_bytes(by_value(estimator))
        flavour = "onnx" if estimator is None else "native"
        digest = bundle.write(folder, bundle.Manifest(model=model, flavour=flavour, schema=schema))
        bundle.sign(folder, keys.private_key(self.state / "keys"))
        folder.rename(self.state / "bundles" / digest)
        return digest

    def route(
        self, *arms: dict[str, Any], model: str = "wine", seq: int | None = None, epoch: int = 1
    ) -> int:
        """Write a routes file; its seq."""
        self.seq = self.seq + 1 if seq is None else seq
        value = {
            "model": model,
            "epoch": epoch,
            "seq": self.seq,
            "salt": "s",
            "slow_s": None,
            "arms": list(arms),
            "since": time.time(),
        }
        write_atomic(self.state / "routes" / f"{model}.json", json.dumps(value).encode())
        return self.seq

    def applied(self, worker: str = "w0", model: str = "wine") -> dict[str, Any]:
        """What a worker says it has applied."""
        path = self.state / "routes" / f"{model}.applied" / f"{worker}.json"
        return json.loads(path.read_bytes()) if path.exists() else {}

    def wait_for(self, seq: int, **where: str) -> None:
        """Until the worker has applied `seq`."""
        until(
            lambda: (
                self.applied(**where).get("seq") == seq and "refused" not in self.applied(**where)
            )
        )

    def serve(self, *models: str, serving: dict[str, Any] | None = None, **settings: Any) -> Server:
        """Start a server process and wait until it answers; `serving` is said of each model."""
        server = Server(self.state, models or ("wine",), settings, serving or {})
        self.servers.append(server)
        until(lambda: server.ask("GET", "/health")[0] == 200, seconds=60.0)
        return server


def arm(
    bundle: str,
    version: int = 1,
    *,
    role: str = "champion",
    share: float = 1.0,
    shadow: bool = False,
) -> dict:
    """One arm of a routes file."""
    return {"bundle": bundle, "version": version, "role": role, "share": share, "shadow": shadow}


class Server:
    """One server process."""

    def __init__(
        self,
        state: Path,
        models: Sequence[str],
        settings: dict[str, Any],
        serving: dict[str, Any],
    ) -> None:
        self.errors = (state / "server.err").open("ab")
        value = {
            "server": {"log_sync_s": 0.05} | settings,
            "models": {m: serving for m in models},
        }
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gyrostat.processes.server"),
                *(
                    "--state",
                    str(state),
                    "--worker",
                    "w0",
                    "--port",
                    "0",
                    "--settings",
                    json.dumps(value),
                ),
            ],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().strip()
        assert line.startswith("http://"), Path(self.errors.name).read_text()
        self.port = int(line.rpartition(":")[2])

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def ask(
        self,
        method: str,
        path: str,
        value: Any = None,
        *,
        headers: dict[str, str] | None = None,
        link: Any = None,
    ) -> tuple[int, Any]:
        """One request; status and JSON. Over `link` (a connection to keep) where it is given."""
        mine = link or http.client.HTTPConnection(*self.address, timeout=10)
        try:
            body = (
                value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
            )
            mine.request(
                method, path, body, {"Content-Type": "application/json", **(headers or {})}
            )
            answer = mine.getresponse()
            text = answer.read()
            assert answer.headers["Content-Type"] == "application/json"
            return answer.status, json.loads(text)
        except (ConnectionError, http.client.HTTPException, TimeoutError):
            # Over a kept connection nothing may go wrong; a fresh one may find nobody there yet.
            if link is not None:
                raise
            return 0, None
        finally:
            if link is None:
                mine.close()

    def predict(self, *rows: list, path: str = "/invocations", **how: Any) -> tuple[int, Any]:
        """Ask for rows in the order of the schema."""
        return self.ask("POST", path, {"instances": list(rows)}, **how)

    def connect(self) -> http.client.HTTPConnection:
        """A connection to keep."""
        return http.client.HTTPConnection(*self.address, timeout=10)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def kill(self) -> None:
        """SIGKILL, and nothing is left of it."""
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()
