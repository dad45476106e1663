# /// script
# requires-python = ">=3.11"
# dependencies = ["ray[serve]==2.60.0", "onnxruntime==1.32.0", "numpy==2.4.6"]
# ///
"""Ray Serve around the same graph, with its batching: GRAPH and PORT in, two replicas."""

import os
import signal
import sys
from typing import Any

from ray import serve


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=100)
class Wine:
    """One replica."""

    def __init__(self, graph: str) -> None:
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options)
        double = self._session.get_inputs()[0].type == "tensor(double)"
        self._kind = np.float64 if double else np.float32

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.001)
    async def predict(self, rows: list[Any]) -> list[Any]:
        """Several requests at once."""
        import numpy as np

        found = self._session.run(["output"], {"num": np.concatenate(rows)})[0][:, 0]
        return np.split(found, np.cumsum([len(one) for one in rows])[:-1])

    async def __call__(self, request: Any) -> dict[str, list[float]]:
        """One row list in, one list of numbers out."""
        import numpy as np

        num = np.array((await request.json())["instances"], self._kind)
        return {"predictions": (await self.predict(num)).tolist()}


if __name__ == "__main__":
    graph, port = sys.argv[1:]
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(Wine.bind(graph), route_prefix="/invocations")
    signal.pause()
