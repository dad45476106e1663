"""Staging: the packed bundle behind a real server, asked over HTTP as a stranger would, before anybody depends on it."""

from __future__ import annotations

import http.client
import json
import math
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gyrostat_runtime.files import write_atomic

START_S, CALL_S = 120.0, 10.0
"""How long a server may take until it is ready, on a busy machine too; and how long it may take for one answer."""
N_REQUESTS = 12


def stage(
    folder: Path,
    *,
    state: Path,
    model: str,
    bundle: str,
    rows: Sequence[dict[str, Any]],
    expected: Sequence[Any],
) -> dict[str, Any]:
    """Serve `bundle` alone from a state of its own in `folder`, ask it for `rows`, and compare with `expected`.

    Args:
        rows: records in the file's own spelling, JSON values; at most `N_REQUESTS` are sent, one a request.
        expected: what the gates saw the same bundle answer for them.

    Returns:
        `is_answering`, `n_requests`, `n_right`, `cause` (empty when all is well), JSON values.
    """
    served = _state_of_its_own(folder / "served", state, model, bundle)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    port = listener.getsockname()[1]
    with (folder / "server.log").open("ab") as output:
        server = subprocess.Popen(
            [
                sys.executable, "-m", "gyrostat.processes.server",
                "--state", str(served), "--worker", "staging", "--fd", str(listener.fileno()),
                "--settings", json.dumps({"server": {"port": port}, "models": {model: {}}}),
            ],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[listener.fileno()],
        )  # fmt: skip
    listener.close()
    try:
        return _ask(port, model, list(rows)[:N_REQUESTS], list(expected)[:N_REQUESTS], server)
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _state_of_its_own(served: Path, state: Path, model: str, bundle: str) -> Path:
    (served / "routes").mkdir(parents=True, exist_ok=True)
    for name in ("bundles", "keys"):
        link = served / name
        if not link.is_symlink():
            link.symlink_to(state / name, target_is_directory=True)
    arm = {"bundle": bundle, "version": 0, "role": "champion", "share": 1.0, "shadow": False}
    routes = {
        "model": model,
        "epoch": 1,
        "seq": 1,
        "salt": "",
        "slow_s": None,
        "arms": [arm],
        "since": 0.0,
    }
    write_atomic(served / "routes" / f"{model}.json", json.dumps(routes).encode())
    return served


def _ask(
    port: int,
    model: str,
    rows: list[dict[str, Any]],
    expected: list[Any],
    server: subprocess.Popen[bytes],
) -> dict[str, Any]:
    def report(n_right: int, cause: str) -> dict[str, Any]:
        return {
            "is_answering": not cause,
            "n_requests": len(rows) + 2,
            "n_right": n_right,
            "cause": cause,
        }

    deadline = time.monotonic() + START_S
    while (health := _call(port, "GET", "/ready", None, until=deadline)[0]) != 200:
        if server.poll() is not None:
            return report(0, f"the server ended with status {server.returncode} before it answered")
        if time.monotonic() > deadline:
            return report(0, f"not ready after {START_S:g} s (last answer: {health or 'none'})")
        time.sleep(0.05)
    n_right = 1
    for number, (row, wanted) in enumerate(zip(rows, expected, strict=True)):
        status, answer = _call(port, "POST", f"/invocations/{model}", {"dataframe_records": [row]})
        if status != 200:
            return report(n_right, f"request {number + 1} was answered {status}")
        (found,) = answer["predictions"]
        if not _same(found, wanted):
            return report(
                n_right, f"request {number + 1} was answered {found!r}, as trained it is {wanted!r}"
            )
        n_right += 1
    status, answer = _call(
        port, "POST", f"/invocations/{model}", {"dataframe_records": [{"no such column": 1}]}
    )
    if status != 400 or "error" not in answer or "at" not in answer["error"]:
        return report(
            n_right,
            f"a row of unknown columns was answered {status}, not 400 with the path of the fault",
        )
    return report(n_right + 1, "")


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) or isinstance(found, float):
        return math.isclose(float(found), float(wanted), rel_tol=1e-6, abs_tol=1e-9)
    return found == wanted


def _call(
    port: int, method: str, path: str, body: dict[str, Any] | None, *, until: float = math.inf
) -> tuple[int, Any]:
    patience_s = max(0.01, min(CALL_S, until - time.monotonic()))
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=patience_s)
    try:
        content = (
            None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        )
        link.request(method, path, content, {"Content-Type": "application/json"})
        answer = link.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text[:1] in b"{[" and text else None
    except (OSError, http.client.HTTPException, ValueError):
        return 0, None
    finally:
        link.close()
