"""A state folder with one tiny model, and tables for it."""

from __future__ import annotations

from pathlib import Path

from gyrostat_runtime import bundle, keys
from gyrostat_runtime.schema import Schema
from serving.bench import WINE, graph

from gyrostat import batch
from gyrostat.data.settings import DataSettings, KeySettings, SourceSettings


def a_bundle(state: Path, schema: Schema = WINE, model: bytes | None = None, *, flavour: str = "onnx") -> str:  # fmt: skip
    """A signed bundle in `state`; by default it answers 1 + the sum of its numbers. Its digest."""
    if not (state / "keys").exists():
        keys.create_keys(state / "keys")
    folder = state / "packed"
    folder.mkdir()
    n_classes = len(schema.output.classes)
    model = model or graph(1.0, len(schema.features), classes=n_classes)
    (folder / ("model.onnx" if flavour == "onnx" else "model.pkl")).write_bytes(model)
    digest = bundle.write(folder, bundle.Manifest("wine", flavour, schema))
    bundle.sign(folder, keys.private_key(state / "keys"))
    (state / "bundles").mkdir(exist_ok=True)
    folder.rename(state / "bundles" / digest)
    return digest


def a_batch(state: Path, input: Path, output: Path, digest: str, *, version: int = 1, entity: str = "", **said):  # fmt: skip
    """What `gyrostat predict` would ask for."""
    data = DataSettings(SourceSettings("data/wine.csv"), "quality", "regression", keys=KeySettings(entity))  # fmt: skip
    return batch.Batch(state, "wine", version, digest, data, input, output, **said)


def a_table(path: Path, n_rows: int = 5000) -> Path:
    """Numbers whose answers are known: 1 + alcohol + pH."""
    lines = (f"{n / 2},{n % 7},w{n}" for n in range(n_rows))
    path.write_text("alcohol,pH,who\n" + "\n".join(lines) + "\n")
    return path
