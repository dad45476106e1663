"""One turn of load on one server: by wrk where it is installed, else by our own generator; at a rate always by our own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.servers import ROOT, Server, environment

WRK = shutil.which("wrk")
_SCRIPT = """\
local file = io.open("{body}", "rb")
wrk.method, wrk.path, wrk.body = "POST", "{path}", file:read("*a")
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format("\\nseen %d %d %d %d %d\\n", summary.requests, summary.duration, bad,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Turn:
    """What was seen in one turn."""

    n: int
    """Answers, right or not."""
    per_s: float
    p50_ms: float
    p99_ms: float
    n_wrong: int
    cpu_us: float
    """Processor time of the server's processes for one request; hardly moved by who else is on the machine."""


def turn(
    server: Server, body: bytes, *, connections: int = 64, seconds: float = 2.0, per_s: float = 0.0, by_own: bool = False
) -> Turn:  # fmt: skip
    """Load a server. With `per_s` requests are sent at this rate, else as fast as answers come (by our generator: `by_own`)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "body.json"
        file.write_bytes(body)
        before = server.cpu_s()
        if WRK is not None and not per_s and not by_own:
            found = _by_wrk(server, file, connections, seconds)
        else:
            found = _by_own(server, file, connections, seconds, per_s)
        used = server.cpu_s() - before
    return Turn(**found, cpu_us=1e6 * used / max(found["n"], 1))  # type: ignore[arg-type]


def _by_wrk(server: Server, body: Path, connections: int, seconds: float) -> dict[str, float]:
    script = body.with_name("post.lua")
    script.write_text(_SCRIPT.format(body=body, path=server.path))
    # wrk takes whole seconds.
    lasts = f"{max(round(seconds), 1)}s"
    done = subprocess.run(
        [
            *(WRK or "", "-t1", f"-c{connections}", f"-d{lasts}", "--timeout", "10s"),
            *("-s", str(script), f"http://127.0.0.1:{server.port}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = re.search(r"^seen (\d+) (\d+) (\d+) (\d+) (\d+)$", done.stdout, re.MULTILINE)
    assert seen is not None, done.stdout
    n, us, wrong, p50, p99 = map(int, seen.groups())
    return {
        "n": n,
        "per_s": 1e6 * n / us,
        "p50_ms": p50 / 1000,
        "p99_ms": p99 / 1000,
        "n_wrong": wrong,
    }


def _by_own(
    server: Server, body: Path, connections: int, seconds: float, per_s: float
) -> dict[str, float]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.serving.generator"),
            *(str(server.port), server.path, str(body)),
            *("--connections", str(connections)),
            *("--seconds", str(seconds), "--per-s", str(per_s)),
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
