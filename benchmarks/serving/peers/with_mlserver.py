# /// script
# requires-python = ">=3.11"
# dependencies = ["mlserver==1.7.1", "onnxruntime==1.32.0", "numpy<2.4"]
# ///
"""MLServer around the same graph, in its own process, which is its faster way: GRAPH and PORT in."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler
from mlserver.settings import ModelParameters
from starlette.requests import Request
from starlette.responses import Response


class Wine(MLModel):
    """One model."""

    async def load(self) -> bool:
        """Open the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["GRAPH"], options)
        double = self._session.get_inputs()[0].type == "tensor(double)"
        self._kind = np.float64 if double else np.float32
        return True

    @custom_handler(rest_path="/invocations")
    async def invocations(self, request: Request) -> Response:
        """One row list in, one list of numbers out."""
        from fastapi.responses import JSONResponse

        num = np.array((await request.json())["instances"], self._kind)
        found = self._session.run(["output"], {"num": num})[0][:, 0]
        return JSONResponse({"predictions": found.tolist()})


async def _serve(port: int) -> None:
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_port=port + 2,
        parallel_workers=0,
        debug=False,
    )
    server = MLServer(settings)
    model: Any = ModelSettings(
        name="wine", implementation=Wine, parameters=ModelParameters(version="1")
    )
    await server.start([model])


if __name__ == "__main__":
    os.environ["GRAPH"], port = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parent))
    asyncio.run(_serve(int(port)))
