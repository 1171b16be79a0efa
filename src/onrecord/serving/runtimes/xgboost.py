"""XGBoost boosters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from onrecord.errors import ModelDirectoryError
from onrecord.serving.explanations import Explanations, Space, of_trees
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import Outputs, TargetOutput
from onrecord.serving.runtimes import (
    Row,
    check_features,
    classification,
    reconcile_classes,
    reconcile_several,
    regression,
    target_names,
)
from onrecord.serving.runtimes.matrix import to_array, to_frame
from onrecord.serving.runtimes.rehearsal import rehearse

__all__ = ["XgboostRuntime", "load_booster"]

_REHEARSAL = """
import sys, xgboost
booster = xgboost.Booster({"nthread": 1})
booster.load_model(bytearray(sys.stdin.buffer.read()))
booster.save_config()
names, types, width = booster.feature_names, booster.feature_types, booster.num_features()
row = [[0.0] * width]
booster.predict(xgboost.DMatrix(row, feature_names=names, feature_types=types))
"""


def load_booster(raw: bytes, file: str) -> Any:
    """Return the booster in the bytes of a .ubj or .json file.

    Raises ModelDirectoryError where reading it would crash, else whatever XGBoost does.
    """
    import xgboost

    rehearse(_REHEARSAL, raw, file)
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(raw))
    return booster


_SPACES: dict[str, Space] = {
    "binary:logistic": "log-odds",
    "binary:logitraw": "prediction",
    "count:poisson": "log-prediction",
    "multi:softmax": "margin",
    "multi:softprob": "margin",
    "rank:map": "prediction",
    "rank:ndcg": "prediction",
    "rank:pairwise": "prediction",
    "reg:absoluteerror": "prediction",
    "reg:gamma": "log-prediction",
    "reg:logistic": "log-odds",
    "reg:pseudohubererror": "prediction",
    "reg:quantileerror": "prediction",
    "reg:squarederror": "prediction",
    "reg:squaredlogerror": "prediction",
    "reg:tweedie": "log-prediction",
    "survival:aft": "log-prediction",
    "survival:cox": "log-prediction",
}
"""What the sum of trees is, by the objective."""


class XgboostRuntime:
    """A booster; probabilities for logistic and multi-class objectives, else a regression.

    `scikit_learn` tells that it came out of one of XGBoost's own scikit-learn classes, which stop
    at the best iteration. Raises ModelDirectoryError where the schema is not the booster's.
    """

    name = "xgboost"

    def __init__(
        self, booster: Any, schema: InputSchema, file: str, *, scikit_learn: bool = False
    ) -> None:
        names = list(booster.feature_names) if booster.feature_names else None
        check_features(file, schema, names=names, count=booster.num_features())
        booster.set_param({"nthread": 1})
        self.booster = booster
        self._schema = schema
        learner = json.loads(booster.save_config())["learner"]
        self._objective = str(learner["objective"]["name"])
        # XGBoost cannot predict in place with a linear booster.
        self._in_place = learner["gradient_booster"]["name"] != "gblinear"
        self._categories = _categories(booster, schema, file)
        self.labels: list[Any] | None = None
        self._several: list[list[Any]] = []
        parameters = learner["learner_model_param"]
        targets = int(parameters.get("num_target", 1))
        if self._objective == "binary:logistic" and targets > 1:
            self._several = reconcile_several(file, [(0, 1)] * targets, schema)
        elif self._objective == "binary:logistic":
            self.labels = reconcile_classes(file, (0, 1), schema)
        elif self._objective in {"multi:softprob", "multi:softmax"}:
            self.labels = reconcile_classes(file, range(int(parameters["num_class"])), schema)
        self.iterations = _iterations(booster, scikit_learn=scikit_learn)

    @property
    def converts(self) -> bool:
        """Whether the booster is of a kind that may be converted to another format."""
        return self._in_place and not self._several and not self._categories

    def predict(self, rows: Sequence[Row]) -> Outputs:
        """Return the booster's answers."""
        margin = self._objective == "multi:softmax"
        numbers = self._numbers(rows, margin=margin)
        if self._several:
            names = target_names(len(self._several), self._schema)
            return Outputs(
                [
                    _binary(labels, numbers[:, i], name)
                    for i, (labels, name) in enumerate(zip(self._several, names, strict=True))
                ]
            )
        if self.labels is None:
            return regression(numbers, self._schema)
        if numbers.ndim == 1:
            return Outputs([_binary(self.labels, numbers, None)])
        if margin:
            numbers = np.exp(numbers - numbers.max(axis=1, keepdims=True))
            numbers /= numbers.sum(axis=1, keepdims=True)
        return Outputs([classification(self.labels, numbers)])

    def explain(self, rows: Sequence[Row]) -> Explanations:
        """Return the booster's own SHAP values (`pred_contribs`)."""
        import xgboost

        data = self._data(rows)
        table = xgboost.DMatrix(
            data, missing=np.nan, nthread=1, enable_categorical=bool(self._categories)
        )
        values = self.booster.predict(
            table, pred_contribs=True, iteration_range=self.iterations, validate_features=False
        )
        space = _SPACES.get(self._objective)
        return of_trees(values, len(self._schema.columns), self.labels, space)

    def _data(self, rows: Sequence[Row]) -> Any:
        if self._categories:
            return to_frame(rows, self._schema.columns, categorical=self._categories)
        return to_array(rows, np.float32)

    def _numbers(self, rows: Sequence[Row], *, margin: bool) -> Any:
        data = self._data(rows)
        if self._in_place:
            return self.booster.inplace_predict(
                data,
                iteration_range=self.iterations,
                predict_type="margin" if margin else "value",
                missing=np.nan,
                validate_features=False,
            )
        import xgboost

        table = xgboost.DMatrix(data, missing=np.nan, nthread=1)
        return self.booster.predict(table, output_margin=margin, validate_features=False)


def _binary(labels: list[Any], positive: Any, name: str | None) -> TargetOutput:
    return classification(labels, np.stack((1 - positive, positive), axis=1), name=name)


def _categories(booster: Any, schema: InputSchema, file: str) -> frozenset[str]:
    """Return the columns that the booster takes as pandas categories.

    Without the training table's categories a booster knows codes only, which are integers.
    """
    types = booster.feature_types or ["float"] * len(schema.columns)
    # Only the boosters that have categories can tell them, and only XGBoost 3.1 asks them.
    asked = "c" in types and hasattr(booster, "get_categories")
    kept = asked and not booster.get_categories().empty()
    found = []
    for column, kind in zip(schema.columns, types, strict=True):
        if kind == "c" and kept and column.type == "categorical":
            found.append(column.name)
            continue
        if kind == "c" and kept:
            problem, remedy = "a category", "Make it categorical."
        elif column.textual and kind == "c":
            problem = "a category of which only the code is known"
            remedy = "Train and save it with XGBoost 3.1 or newer, or give the codes as integers."
        elif column.textual:
            problem, remedy = "a number", "Make it numeric, integer or boolean."
        else:
            continue
        raise ModelDirectoryError(
            "input_schema.json",
            f"columns: {column.name}.type",
            f"it is {column.type}, but the column is {problem} for {file}",
            remedy,
        )
    return frozenset(found)


def _iterations(booster: Any, *, scikit_learn: bool) -> tuple[int, int]:
    """Return the trees to use: those that XGBoost's own scikit-learn classes would."""
    best = booster.attr("best_iteration")
    if best is not None and (scikit_learn or booster.attr("scikit_learn") is not None):
        return 0, int(best) + 1
    return 0, 0
