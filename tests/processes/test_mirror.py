"""Who starts the mirror: again when something is new, and when something is owed though nothing is."""

import time
from types import SimpleNamespace

import pytest

from gyrostat.processes import loop


@pytest.fixture
def a_mirror(tmp_path, monkeypatch):
    """A mirror whose process ends with the status that stands in `status`, and notes that it ran."""
    monkeypatch.setattr(loop, "MIRROR_S", 0.0)
    monkeypatch.setattr(loop, "OWED_S", (0.05, 0.1))
    (tmp_path / "run").mkdir()
    (tmp_path / "mirror_double.py").write_text(
        "import pathlib, sys\n"
        "state = pathlib.Path(sys.argv[2])\n"
        "(state / 'runs').open('a').write('x')\n"
        "raise SystemExit(int((state / 'status').read_text()))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return loop.Mirror(tmp_path, "mirror_double")


def runs(mirror, position, wanted):
    """Tend until it ran so often; how often it ran in the end."""
    deadline = time.monotonic() + 30
    ledger = SimpleNamespace(position=lambda: position)
    count = 0
    while count < wanted and time.monotonic() < deadline:
        mirror.tend(ledger)
        if mirror.process is not None:
            mirror.process.wait()
        path = mirror.state / "runs"
        count = len(path.read_text()) if path.exists() else 0
    return count


def test_what_is_owed_is_tried_again_though_nothing_is_new(a_mirror):
    (a_mirror.state / "status").write_text("1")
    assert runs(a_mirror, position=5, wanted=3) == 3


def test_what_is_shown_is_not_shown_again(a_mirror):
    (a_mirror.state / "status").write_text("0")
    assert runs(a_mirror, position=5, wanted=1) == 1
    for _ in range(20):
        a_mirror.tend(SimpleNamespace(position=lambda: 5))
    assert a_mirror.process is None
    assert runs(a_mirror, position=6, wanted=2) == 2
