"""Print the figures of the README as they are on this machine: `make bench`. Nothing is asserted; ratios matter most."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from gyrostat.gates.settings import GateSettings
from gyrostat.ledger import audit
from gyrostat.ledger.sqlite import SqliteLedger
from gyrostat.loop import reconcile, run
from gyrostat.retraining.settings import RetrainingSettings
from gyrostat.rollout.settings import RolloutSettings
from gyrostat.terms import Draft

TERMS = {
    "retraining": RetrainingSettings(cooldown_s=0, budget=64, budget_window_s=1e-9),
    "run": run.RunTerms(GateSettings()),
    "production": RolloutSettings(),
}


class Instantly:
    """A world in which every training fails at once: a run costs its entries and nothing else."""

    def look(self, stream: str, what: str, key: str) -> dict[str, object]:
        return (
            {"status": "failed", "cause": "a benchmark", "retryable": False}
            if what == "snapshot"
            else {}
        )

    def start(self, *_: object) -> None: ...
    def show(self, *_: object) -> None: ...


def line(what: str, value: str, wanted: str) -> None:
    print(f"{what:58}{value:>14}   {wanted}", flush=True)


def commands() -> None:
    for what, argv in (
        ("import gyrostat", [sys.executable, "-c", "import gyrostat"]),
        ("gyrostat --help", [sys.executable, "-m", "gyrostat.cli.main", "--help"]),
    ):
        times = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
        line(what, f"{statistics.median(times):.3f} s", "wanted: < 0.3 s")


def ledger() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteLedger(Path(folder) / "ledger.db")
        fresh = transitions(store, 20)
        status = times_of(lambda: [reconcile.facts_of(store, s) for s in store.streams()], 50)
        line(
            "one transition (decide, append, fsync), median",
            f"{1000 * fresh:.2f} ms",
            "wanted: <= 3 ms",
        )
        transitions(store, int(os.environ.get("BENCH_RUNS", "2000")))
        n = store.position()
        later = transitions(store, 20)
        status_later = times_of(lambda: [reconcile.facts_of(store, s) for s in store.streams()], 50)
        line(f"  the same behind {n:,} entries", f"x{later / fresh:.2f}", "wanted: <= x1.5")
        began = time.process_time()
        audit.verify(store.rows(), row_at=store.row, search=store.rows)
        per_s = n / (time.process_time() - began)
        line("audit verify, entries a second of one core", f"{per_s:,.0f}", "wanted: >= 50,000")
        line("  status behind them", f"x{status_later / status:.2f}", "wanted: <= x1.5")


def transitions(store: SqliteLedger, n_runs: int) -> float:
    """Median seconds of a step over whole runs."""
    times: list[float] = []
    for n in range(n_runs):
        key = f"bench-{store.position()}-{n}"
        store.append(
            "retraining/bench",
            Draft(
                "triggered",
                0.0,
                "bench",
                body={"by": "person", "why": "", "actor": "bench"},
                key=key,
            ),
            expect_seq=None,
            fence=None,
        )
        stream = "retraining/bench"
        for _ in range(40):
            before = store.position()
            loop = reconcile.keep(
                stream,
                name="bench",
                ledger=store,
                world=Instantly(),
                terms=lambda s, _d: (TERMS[s.split("/")[0]], "bench"),
            )  # type: ignore[arg-type]
            began = time.perf_counter()
            for pause in loop:
                if pause >= 1 or store.position() > before:
                    break
            if store.position() > before:
                times.append(time.perf_counter() - began)
                continue
            facts = reconcile.facts_of(store, "retraining/bench")
            child = f"run/bench/{facts.run}"
            if stream == child or facts.state == "idle":
                stream = "retraining/bench"
                if facts.state == "idle" and not facts.wanted:
                    break
            stream = (
                child
                if facts.state == "running" and stream != child and child in store.streams()
                else "retraining/bench"
            )
    return statistics.median(times)


def times_of(what: object, n: int) -> float:
    found = []
    for _ in range(n):
        began = time.perf_counter()
        what()  # type: ignore[operator]
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def memory(pids: list[int]) -> float:
    """Proportional set size of processes, MB."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 1e6


if __name__ == "__main__":
    commands()
    ledger()
    if len(sys.argv) > 1:  # a project with `up` running
        import gyrostat

        found = gyrostat.Project(sys.argv[1]).processes()
        line(
            "memory of all that `up` starts (PSS)",
            f"{memory([p.pid for p in found.values()]):.0f} MB",
            "wanted: <= 450 MB idle",
        )
