# /// script
# requires-python = ">=3.11"
# dependencies = []  # all of it comes with our own set-up, through mlflow
# ///
"""A hand-written FastAPI app around the same session, as most people begin: GRAPH and PORT in, two workers."""

from __future__ import annotations

import os
import sys
from typing import Any


def make_app() -> Any:
    """The app of one worker."""
    import numpy as np
    import onnxruntime
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Asked(BaseModel):
        instances: list[list[float]]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ["GRAPH"], options)
    is_double = session.get_inputs()[0].type == "tensor(double)"
    app = FastAPI()

    def predict(asked: Any) -> dict[str, list[float]]:
        num = np.array(asked.instances, np.float64 if is_double else np.float32)
        return {"predictions": session.run(["output"], {"num": num})[0][:, 0].tolist()}

    predict.__annotations__["asked"] = Asked
    app.post("/invocations", response_model=None)(predict)
    return app


if __name__ == "__main__":
    import uvicorn

    os.environ["GRAPH"], port = sys.argv[1:]
    uvicorn.run(
        "benchmarks.serving.peers.with_fastapi:make_app",
        factory=True,
        port=int(port),
        workers=2,
        log_level="error",
        timeout_worker_healthcheck=60,  # of a worker that still imports on a busy machine
        access_log=False,
    )
