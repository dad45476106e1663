# /// script
# requires-python = ">=3.11"
# dependencies = ["litserve==0.2.19", "onnxruntime==1.32.0", "numpy==2.4.6"]
# ///
"""LitServe around the same graph, with its batching: GRAPH and PORT in, two workers."""

# Annotations as values: LitServe gives them to FastAPI, which takes a text for a query parameter.
import sys
from typing import Any

import litserve


class Api(litserve.LitAPI):
    """One row list in, one list of numbers out."""

    def __init__(self, graph: str) -> None:
        super().__init__(max_batch_size=32, batch_timeout=0.001, api_path="/invocations")
        self._graph = graph

    def setup(self, device: Any) -> None:
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self._graph, options)
        double = self._session.get_inputs()[0].type == "tensor(double)"
        self._kind = np.float64 if double else np.float32

    def decode_request(self, request: dict[str, Any]) -> Any:
        import numpy as np

        return np.array(request["instances"], self._kind)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: list[Any]) -> list[Any]:
        import numpy as np

        found = self._session.run(["output"], {"num": np.concatenate(x)})[0][:, 0]
        return np.split(found, np.cumsum([len(one) for one in x])[:-1])

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    litserve.LitServer(Api(sys.argv[1]), accelerator="cpu", workers_per_device=2).run(
        port=int(sys.argv[2]), generate_client_file=False, log_level="error"
    )
