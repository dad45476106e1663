"""The first half of the loop with a user's own LightGBM model, from `init` to the offer, in real processes."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from gyrostat_runtime import bundle

import gyrostat

from .conftest import GYROSTAT, table

TRAIN = """
from lightgbm import LGBMRegressor
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


def train(frame, params):
    X, y = frame.drop(columns=params["target"]), frame[params["target"]]
    texts = ColumnTransformer(
        [("texts", OneHotEncoder(handle_unknown="ignore"), ["city"])], remainder="passthrough"
    )
    return make_pipeline(texts, LGBMRegressor(n_estimators=60, verbose=-1, n_jobs=1)).fit(X, y)
"""


def typed(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*GYROSTAT, *arguments], cwd=folder, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow  # four processes that import all there is, one after the other
def test_a_lightgbm_model_is_trained_packed_judged_and_offered(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    table(tmp_path / "homes.csv")
    typed(tmp_path, "init", "homes", "--data", "homes.csv", "--target", "price")
    root = tmp_path / "homes"
    (root / "src" / "train.py").write_text(TRAIN)
    typed(root, "run")
    project = gyrostat.Project(root)
    bodies = {e.kind: e for e in project.ledger.entries() if e.stream == "run/homes/1"}
    assert {"snapshotted", "trained", "packed", "gate_passed", "offered"} <= bodies.keys()
    (made,) = (project.state / "bundles").iterdir()
    manifest = bundle.read_manifest(made)
    assert (manifest.flavour, manifest.notes["reason"]) == ("onnx", "exact")
    assert (
        f"\nlightgbm=={version('lightgbm')}\n" in (made / manifest.environment["file"]).read_text()
    )
    assert "As ONNX" in (made / "card.md").read_text()
    assert sum(f.stat().st_size for f in made.rglob("*")) < 2_000_000
    # What serves it needs neither LightGBM nor scikit-learn.
    code = (
        "import sys, json; sys.modules['lightgbm'] = sys.modules['sklearn'] = None\n"
        "from pathlib import Path\n"
        "from gyrostat_runtime.session import Session\n"
        "from gyrostat_runtime.rows import read_records\n"
        "from gyrostat_runtime import keys\n"
        f"session = Session.open(Path({str(made)!r}), keys.keyring(Path({str(project.state / 'keys')!r})))\n"
        'row = b\'{"rooms": 3, "humidity": null, "city": "seoul"}\'\n'
        "print(json.dumps(session.predict(read_records(row, session.schema)).values))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0] == pytest.approx(100 + 55 * 3 - 20 + 300, abs=60)
