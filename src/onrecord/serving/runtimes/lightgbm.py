"""LightGBM boosters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from onrecord.errors import ModelDirectoryError
from onrecord.serving.explanations import Explanations, Space, of_trees
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import Outputs
from onrecord.serving.runtimes import (
    Row,
    check_features,
    classification,
    reconcile_classes,
    regression,
)
from onrecord.serving.runtimes.matrix import to_array
from onrecord.serving.runtimes.rehearsal import rehearse

__all__ = ["LightgbmRuntime", "known_names", "load_booster"]

_REHEARSAL = """
import sys, lightgbm
booster = lightgbm.Booster(model_str=sys.stdin.buffer.read().decode())
booster.dump_model()
booster.predict([[0.0] * booster.num_feature()])
"""
_SPACES: dict[str, Space] = {
    "binary": "log-odds",
    "cross_entropy": "log-odds",
    "fair": "prediction",
    "gamma": "log-prediction",
    "huber": "prediction",
    "lambdarank": "prediction",
    "mape": "prediction",
    "multiclass": "margin",
    "multiclassova": "log-odds",
    "poisson": "log-prediction",
    "quantile": "prediction",
    "rank_xendcg": "prediction",
    "regression": "prediction",
    "regression_l1": "prediction",
    "tweedie": "log-prediction",
}
"""What the sum of trees is, by the objective; log-odds are still to be multiplied by `sigmoid`."""
_UNNAMED = re.compile(r"Column_\d+")


def load_booster(raw: bytes, file: str) -> Any:
    """Return the booster in the bytes of a .txt file; raises ModelDirectoryError if cut short."""
    import lightgbm

    text = raw.decode("utf-8")
    if "\nend of trees" not in text or (
        "\nparameters:" in text and "\nend of parameters" not in text
    ):
        raise ModelDirectoryError(
            file,
            None,
            "it is truncated, or not a LightGBM text model",
            "Save it again with booster.save_model('model.txt').",
        )
    rehearse(_REHEARSAL, raw, file)
    return lightgbm.Booster(model_str=text)


def known_names(names: Sequence[str], schema: InputSchema) -> list[str] | None:
    """Return the features' names as the schema has them, None where LightGBM made them up.

    LightGBM writes names with their spaces replaced.
    """
    if all(_UNNAMED.fullmatch(name) for name in names):
        return None
    ours = {name.replace(" ", "_"): name for name in schema.names}
    return [ours.get(name, name) for name in names]


class LightgbmRuntime:
    """A booster; probabilities for binary and multi-class objectives, else a regression.

    Raises ModelDirectoryError where the schema is not the booster's.
    """

    name = "lightgbm"

    def __init__(self, booster: Any, schema: InputSchema, file: str) -> None:
        names = known_names(booster.feature_name(), schema)
        check_features(file, schema, names=names, count=booster.num_feature())
        objective = str(booster.dump_model(num_iteration=1).get("objective", "")).split(" ")
        self.booster = booster
        self._schema = schema
        self.labels: list[Any] | None = None
        if objective[0] == "binary":
            self.labels = reconcile_classes(file, (0, 1), schema)
        elif objective[0] in {"multiclass", "multiclassova"}:
            count = booster.num_model_per_iteration()
            self.labels = reconcile_classes(file, range(count), schema)
        # With `sqrt` the trees sum up to the prediction's root.
        self._space = None if "sqrt" in objective else _SPACES.get(objective[0])
        given = [part for part in objective if part.startswith("sigmoid:")]
        self._sigmoid = float(given[0].partition(":")[2]) if given else 1.0
        self._codes = _codes(booster, schema, file)

    def predict(self, rows: Sequence[Row]) -> Outputs:
        """Return the booster's answers."""
        numbers = self.booster.predict(to_array(self._coded(rows)), num_threads=1)
        if self.labels is None:
            return regression(numbers, self._schema)
        if numbers.ndim == 1:
            numbers = np.stack((1 - numbers, numbers), axis=1)
        return Outputs([classification(self.labels, numbers)])

    def explain(self, rows: Sequence[Row]) -> Explanations:
        """Return the booster's own SHAP values (`pred_contrib`)."""
        data = to_array(self._coded(rows))
        values = self._sigmoid * self.booster.predict(data, num_threads=1, pred_contrib=True)
        return of_trees(values, len(self._schema.columns), self.labels, self._space)

    def _coded(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows with every category as its number, as in the training table."""
        if not self._codes:
            return rows
        coded = []
        for row in rows:
            values = list(row)
            for i, codes in self._codes.items():
                values[i] = codes.get(values[i])
            coded.append(tuple(values))
        return coded


def _codes(booster: Any, schema: InputSchema, file: str) -> dict[int, dict[Any, int]]:
    known = booster.pandas_categorical or []
    places = [i for i, column in enumerate(schema.columns) if column.type == "categorical"]
    if len(places) != len(known):  # a category that is an integer may have been a plain number
        places = [i for i in places if schema.columns[i].textual]
    if len(places) != len(known):
        raise ModelDirectoryError(
            "input_schema.json",
            "columns",
            f"{len(places)} are categorical, but {file} was trained with {len(known)} such",
            "Make categorical exactly the columns that had pandas' category type in training.",
        )
    codes = {}
    for place, values in zip(places, known, strict=True):
        column = schema.columns[place]
        codes[place] = {value: code for code, value in enumerate(values)}
        if not codes[place].keys() & set(column.categories):
            raise ModelDirectoryError(
                "input_schema.json",
                f"columns: {column.name}.categories",
                f"{file} knows none of them: its own are {values}",
                "List the categories of the training data.",
            )
    return codes
