# /// script
# requires-python = ">=3.11"
# dependencies = ["bentoml==1.4.40", "onnxruntime==1.32.0", "numpy==2.4.6"]
# ///
"""BentoML around the same graph, with its adaptive batching: GRAPH and PORT in, two workers."""

# Annotations as values: BentoML reads them.
import os
import sys
from pathlib import Path

import bentoml


@bentoml.service(workers=2, traffic={"timeout": 60})
class Wine:
    """One service."""

    def __init__(self) -> None:
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["GRAPH"], options)
        double = self._session.get_inputs()[0].type == "tensor(double)"
        self._kind = np.float64 if double else np.float32

    @bentoml.api(
        route="/invocations", batchable=True, batch_dim=0, max_batch_size=32, max_latency_ms=1000
    )
    def predict(self, instances: list[list[float]]) -> list[float]:
        """One row list in, one list of numbers out."""
        import numpy as np

        found = self._session.run(["output"], {"num": np.array(instances, self._kind)})
        return found[0][:, 0].tolist()


if __name__ == "__main__":
    os.environ["GRAPH"], port = sys.argv[1:]
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    folder, name = Path(__file__).parent, Path(__file__).stem
    serve = ["-m", "bentoml", "serve", f"{name}:Wine", "--working-dir", str(folder)]
    os.execv(sys.executable, [sys.executable, *serve, "--port", port, "--host", "127.0.0.1"])
