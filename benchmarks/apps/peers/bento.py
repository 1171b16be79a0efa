"""BentoML, with adaptive batching and without; no access log."""

import os

import bentoml
import joblib
import numpy as np

SETTINGS = {"workers": 1, "logging": {"access": {"enabled": False}}}


@bentoml.service(traffic={"concurrency": 64}, **SETTINGS)
class Batching:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=64)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(rows)


@bentoml.service(**SETTINGS)
class Single:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(rows)
