"""Ray Serve: one replica, dynamic batching, no access log."""

import os
import sys

import joblib
import numpy as np
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=1000)
class Model:
    def __init__(self, path: str) -> None:
        self.model = joblib.load(path)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def predict(self, rows: list[list[float]]) -> list[list[float]]:
        return self.model.predict_proba(np.asarray(rows)).tolist()

    async def __call__(self, request: Request) -> dict:
        return {"probabilities": await self.predict((await request.json())["row"])}


if __name__ == "__main__":
    # A short folder: the sockets in it may have names of 107 bytes.
    folder = f"{os.environ['BENCH_HOME']}/ray"
    ray.init(include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[1])},
        logging_config={"enable_access_log": False},
    )
    serve.run(Model.bind(os.environ["BENCH_MODEL"]), blocking=True)
