"""What a training may touch: it is tried from inside, by a process that has entered."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from training.test_harness import trained

from gyrostat.errors import JobError
from gyrostat.training import sandbox

pytestmark = pytest.mark.skipif(not sandbox.version(), reason="this kernel has no Landlock")

INSIDE = """
import importlib.util, json, os, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("sandbox", sys.argv[1])
sandbox = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sandbox)
root = Path(sys.argv[2])
sandbox.enter(writable=[root / "own"], hidden=[root / "keys" / "signing.key"])

def told(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "done"

print(json.dumps({
    "write its own": told(lambda: (root / "own" / "a").write_text("a")),
    "write elsewhere": told(lambda: (root / "ledger").write_text("a")),
    "make elsewhere": told(lambda: (root / "new").write_text("a")),
    "remove elsewhere": told(lambda: (root / "ledger").unlink()),
    "move elsewhere": told(lambda: (root / "own" / "a").rename(root / "b")),
    "shorten elsewhere": told(lambda: os.truncate(root / "ledger", 0)),
    "read elsewhere": told(lambda: (root / "ledger").read_text()),
    "read the ring": told(lambda: (root / "keys" / "ring").read_text()),
    "read the key": told(lambda: (root / "keys" / "signing.key").read_text()),
    "read the key by another process": str(os.system(f"cat {root}/keys/signing.key 2>/dev/null") != 0),
    "list": told(lambda: os.listdir("/")),
}))
"""


@pytest.fixture
def inside(tmp_path: Path) -> dict[str, str]:
    for name in ("own", "keys"):
        (tmp_path / name).mkdir()
    for name in ("ledger", "keys/ring", "keys/signing.key"):
        (tmp_path / name).write_text("what was there")
    (tmp_path.parent / f"{tmp_path.name}-link").symlink_to(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", INSIDE, str(Path(sandbox.__file__)), str(tmp_path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert (tmp_path / "ledger").read_text() == "what was there"
    return json.loads(done.stdout)


def test_it_writes_nowhere_but_in_its_own_folder(inside: dict[str, str]) -> None:
    assert inside["write its own"] == "done"
    elsewhere = {act: told for act, told in inside.items() if act.endswith("elsewhere")}
    assert elsewhere.pop("read elsewhere") == "done"
    assert set(elsewhere.values()) == {"PermissionError"}


def test_it_reads_all_but_the_key_also_by_what_it_starts(inside: dict[str, str]) -> None:
    assert (inside["read the ring"], inside["list"]) == ("done", "done")
    assert inside["read the key"] == "PermissionError"
    assert inside["read the key by another process"] == "True"


HARMFUL = """
import os
from pathlib import Path


def writes(frame, params):
    (Path(params["state"]) / "ledger.db").write_text("mine now")


def reads(frame, params):
    return (Path(params["state"]) / "keys" / "signing.key").read_text()


def kills(frame, params):
    os.kill(os.getppid(), 9)
"""


@pytest.mark.parametrize("what", ["writes", "reads", "kills"])
def test_a_training_that_reaches_for_more_ends_with_the_place_in_its_code(
    tmp_path: Path, what: str
) -> None:
    if what == "kills" and sandbox.version() < 6:
        pytest.skip("this kernel's Landlock does not hold signals")
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "train.py").write_text(HARMFUL)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "signing.key").write_text("a secret")
    (tmp_path / "ledger.db").write_text("the truth")
    with pytest.raises(JobError, match=r"PermissionError: .* \(src/train.py:\d+\)"):
        trained(project, f"src.train:{what}", state=str(tmp_path))
    assert (tmp_path / "ledger.db").read_text() == "the truth"
