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
        pytest.skip("needs Linux and a C compiler: no write was made to fail")
    built = tmp_path_factory.mktemp("shim") / "full.so"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(built), str(SHIM), "-ldl"], check=True
    )
    return built


def tried(shim: Path, folder: Path, *, step: int) -> list[dict[str, Any]]:
    """A release for each n, `step` apart; the first is undisturbed."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.every_write", str(folder), str(step)],
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


def test_a_disk_that_fills_up_at_any_write_of_a_release_changes_nothing_of_its_record(
    shim: Path, tmp_path: Path
) -> None:
    holds(tried(shim, tmp_path, step=23), step=23)


@pytest.mark.slow
def test_a_disk_that_fills_up_at_each_write_of_a_release_changes_nothing_of_its_record(
    shim: Path, tmp_path: Path
) -> None:
    holds(tried(shim, tmp_path, step=1), step=1)
