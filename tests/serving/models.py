"""Small real models, and the directories they are served from."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from onrecord.serving.artifact import Model, load_model, read_model_file
from onrecord.serving.formats import types_to_trust
from onrecord.serving.trust import Trust

NUMBERS = ({"name": "a", "type": "numeric"}, {"name": "b", "type": "numeric"})
RANDOM = np.random.default_rng(3)
TABLE = pd.DataFrame(
    {
        "a": RANDOM.normal(size=240).round(3),
        "b": RANDOM.normal(size=240).round(3),
        "kind": RANDOM.choice(["red", "green", "blue"], 240),
        "size": RANDOM.choice([10, 20, 40], 240),
    }
)
X = TABLE[["a", "b"]].to_numpy()
Y = ((X[:, 0] + X[:, 1] > 0) ^ (TABLE["kind"] == "red").to_numpy()).astype(int)
Y3 = np.where(X[:, 0] < -0.4, 0, np.where(X[:, 1] > 0.2, 2, 1))
WORDS = np.array(["high", "low", "middle"])[Y3]
VALUES = 3 * X[:, 0] - X[:, 1] ** 2 + 10
BOTH = np.stack((VALUES, -VALUES), axis=1)


def schema_of(columns: Sequence[dict[str, Any]], **beside: Any) -> str:
    return json.dumps({"input_schema": {"columns": list(columns)}, **beside})


def write_schema(directory: Path, columns: Sequence[dict[str, Any]], **beside: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "input_schema.json").write_text(schema_of(columns, **beside), encoding="utf-8")
    return directory


def write_pickle(
    directory: Path, model: Any, columns: Sequence[dict[str, Any]] = NUMBERS, **beside: Any
) -> Path:
    write_schema(directory, columns, **beside)
    (directory / "model.pkl").write_bytes(pickle.dumps(model))
    return directory


def trust_in(directory: Path) -> Trust:
    file = read_model_file(directory)
    types = types_to_trust(file, Trust(None)) if file.format == "skops" else []
    return Trust(None, [file.sha256], types)


def load(directory: Path, *, compiled: bool = False) -> Model:
    return load_model(directory, trust=trust_in(directory), compile=compiled)


def rows_of(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    """The rows as the server makes them of JSON: plain Python values, None where one is missing."""
    columns = [[None if pd.isna(v) else v for v in table[name].tolist()] for name in table]
    return list(zip(*columns, strict=True))
