"""How fast a table is answered and what memory that takes, beside the bare minimum on the same file: `make bench-batch`.

The bare minimum is pyarrow and onnxruntime and nothing else: it reads no text, checks nothing, keeps no part, and writes
the prediction alone. Each side runs in a process of its own, in turn; nothing is asserted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_COLUMNS = 10
SEED = 7


def a_forest(folder: Path) -> str:
    """A signed bundle of 100 trees of depth 6, the forest that `init` declares; its digest."""
    from gyrostat_runtime import bundle, keys
    from gyrostat_runtime.bundle import Manifest
    from gyrostat_runtime.schema import Column, Feature, Output, Schema
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import RandomForestRegressor

    rng = np.random.default_rng(SEED)
    X = rng.normal(size=(4000, N_COLUMNS))
    y = 2 * X[:, 0] + X[:, 1] ** 2 + rng.normal(size=len(X))
    forest = RandomForestRegressor(100, max_depth=6, random_state=SEED).fit(X, y)
    graph = to_onnx(forest, initial_types=[("num", FloatTensorType([None, N_COLUMNS]))])
    node, output = graph.graph.node[-1], graph.graph.output[0]
    node.output[0] = output.name = "output"
    keys.create_keys(folder / "keys")
    packed = folder / "packed"
    packed.mkdir()
    (packed / "model.onnx").write_bytes(graph.SerializeToString())
    names = [f"x{j}" for j in range(N_COLUMNS)]
    schema = Schema(
        tuple(Column(name, "number") for name in names),
        tuple(Feature(name, name) for name in names),
        Output("regression", "y"),
    )
    digest = bundle.write(packed, Manifest("bench", "onnx", schema))
    bundle.sign(packed, keys.private_key(folder / "keys"))
    (folder / "bundles").mkdir()
    packed.rename(folder / "bundles" / digest)
    return digest


def a_table(path: Path, n_rows: int) -> None:
    """Measurements, a million rows a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(SEED)
    schema = pa.schema([(f"x{j}", pa.float32()) for j in range(N_COLUMNS)])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start in range(0, n_rows, 1_000_000):
            n = min(1_000_000, n_rows - start)
            X = rng.normal(size=(N_COLUMNS, n)).astype(np.float32)
            writer.write_table(pa.table(list(X), schema=schema))


def ours(folder: Path, digest: str, table: Path) -> None:
    """As `gyrostat predict` does it, without a project."""
    from gyrostat import batch
    from gyrostat.data.settings import DataSettings, SourceSettings

    data = DataSettings(SourceSettings("table.parquet"), "y", "regression")
    wanted = batch.Batch(folder, "bench", 1, digest, data, table, folder / "ours.parquet")
    batch.score(wanted, record=lambda scored: None, say=lambda line: None)


def bare(folder: Path, digest: str, table: Path) -> None:
    """What any script would do that cares for speed."""
    import onnxruntime as rt
    import pyarrow as pa
    import pyarrow.parquet as pq

    options = rt.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = rt.InferenceSession(str(folder / "bundles" / digest / "model.onnx"), options)
    schema = pa.schema([("prediction", pa.float32())])
    file = pq.ParquetFile(table, pre_buffer=False, buffer_size=2**20)
    with pq.ParquetWriter(folder / "bare.parquet", schema) as writer:
        for rows in file.iter_batches(2**17):
            X = np.column_stack([column.to_numpy() for column in rows.columns])
            (made,) = session.run(["output"], {"num": X})
            writer.write_table(pa.table([made[:, 0]], schema=schema))


def measured(side: str, folder: Path, digest: str, table: Path) -> tuple[float, float, float]:
    """`(seconds, seconds of processor, peak memory in MB)` of one side in a process of its own."""
    argv = [sys.executable, __file__, side, str(folder), digest, str(table)]
    told = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
    return told["seconds"], told["cpu_s"], told["peak_mb"]


def peak_mb() -> float:
    """Of this process; what `getrusage` says may be the parent's, from before the exec."""
    text = Path("/proc/self/status").read_text()
    return (
        next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")) / 1e3
    )


def main(n_rows: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        digest, table = a_forest(folder), folder / "table.parquet"
        a_table(table, n_rows)
        size = table.stat().st_size / 1e6
        print(f"{n_rows:,} rows of {N_COLUMNS} numbers ({size:,.0f} MB of Parquet), 100 trees of depth 6")  # fmt: skip
        for side in ("bare", "ours"):
            seconds, cpu, peak = measured(side, folder, digest, table)
            a_minute = 60 * n_rows / seconds / 1e6
            wanted = "   wanted: >= 15 M rows/min, <= 1,000 MB" if side == "ours" else ""
            print(f"{side:5}{seconds:8.1f} s{a_minute:8.1f} M rows/min{cpu:8.1f} s of processor{peak:8,.0f} MB at most{wanted}", flush=True)  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("ours", "bare"):
        side, where, bundle_digest, path = sys.argv[1:]
        began = time.perf_counter()
        {"ours": ours, "bare": bare}[side](Path(where), bundle_digest, Path(path))
        took = time.perf_counter() - began
        print(json.dumps({"seconds": took, "cpu_s": time.process_time(), "peak_mb": peak_mb()}))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 20_000_000)
