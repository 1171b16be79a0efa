"""Models that take as long as is wanted, so that a server is overloaded on a small machine."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["SlowModel", "slow_model_dir"]


class SlowModel:
    """Answers each row with its first column, `seconds` after the row before, asleep or `busy`."""

    def __init__(self, seconds: float, *, busy: bool) -> None:
        self.seconds = seconds
        self.busy = busy

    def predict(self, rows: Any) -> np.ndarray[Any, Any]:
        """Return the answers to `rows`."""
        seconds = self.seconds * len(rows)
        if self.busy:
            end = time.thread_time() + seconds
            while time.thread_time() < end:
                pass
        else:
            time.sleep(seconds)
        return np.asarray(rows, dtype=float)[:, 0]


def slow_model_dir(directory: Path, like: Path, seconds: float, *, busy: bool) -> tuple[Path, str]:
    """Write a slow model with the schema of another; return its directory and SHA-256."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(like / "input_schema.json", directory)
    pickled = pickle.dumps(SlowModel(seconds, busy=busy))
    (directory / "model.pkl").write_bytes(pickled)
    return directory, hashlib.sha256(pickled).hexdigest()
