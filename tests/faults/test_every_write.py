"""A disk that is full from the n-th write of the loop on, until space returns: the release comes to its end by itself, as if nothing had been."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHIM = Path(__file__).with_name("full.c")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that lets writes fail."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        why = "needs Linux and a C compiler: no write was made to fail"
        pytest.fail(why) if os.environ.get("GYROSTAT_REQUIRE_SERVERS") else pytest.skip(why)
    built = tmp_path_factory.mktemp("shim") / "full.so"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(built), str(SHIM), "-ldl"], check=True
    )
    return built


def tried(shim: Path, folder: Path, *, step: int, journal: str) -> list[dict[str, Any]]:
    """A release for each n, `step` apart; the first is undisturbed."""
    # Python's own SQLite may be too old for the write-ahead log; then the rollback journal is used.
    hide = "sys.modules['pysqlite3'] = None; " if journal == "rollback" else ""
    run = f"import runpy, sys; {hide}runpy.run_module('tests.faults.every_write', run_name='__main__')"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", run, str(folder), str(step)],
        cwd=ROOT, env=os.environ | {"LD_PRELOAD": str(shim), "PYTHONPATH": path}, text=True,
        capture_output=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def holds(found: list[dict[str, Any]], *, step: int) -> None:
    wanted, *disturbed = found
    assert wanted["seen"] > 200
    assert len(disturbed) >= wanted["seen"] // step
    assert all(one["failed"] for one in disturbed[:-1])
    assert not disturbed[-1]["failed"]
    for one in disturbed:
        where = (one["n"], one["what"])
        assert one["kinds"] == wanted["kinds"], where
        assert one["begun"].keys() == wanted["begun"].keys(), where
        assert set(one["begun"].values()) == {1}, where
        assert (one["left"], one["torn"], one["routed"]) == ([], [], True), where


@pytest.mark.parametrize("journal", ["wal", "rollback"])
def test_a_disk_that_fills_up_at_any_write_of_a_release_changes_nothing_of_its_record(
    shim: Path, tmp_path: Path, journal: str
) -> None:
    holds(tried(shim, tmp_path, step=41, journal=journal), step=41)


@pytest.mark.slow
@pytest.mark.parametrize(("journal", "step"), [("wal", 1), ("rollback", 9)])
def test_a_disk_that_fills_up_at_each_write_of_a_release_changes_nothing_of_its_record(
    shim: Path, tmp_path: Path, journal: str, step: int
) -> None:
    holds(tried(shim, tmp_path, step=step, journal=journal), step=step)
