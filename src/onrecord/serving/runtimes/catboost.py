"""CatBoost models."""

from __future__ import annotations

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

__all__ = ["CatboostRuntime", "load_catboost"]

_REHEARSAL = """
import sys, catboost
model = catboost.CatBoost()
model.load_model(blob=sys.stdin.buffer.read())
texts = {*model.get_cat_feature_indices(), *model.get_text_feature_indices()}
width = len(model.feature_names_)
model.predict([["0" if i in texts else 0.0 for i in range(width)]], thread_count=1)
"""
_TWO_CLASSES = 2
_EVEN_CHANCE = 0.5
_THRESHOLD = "binclass_probability_threshold"
_KINDS = {
    "Poisson": "Exponent",
    "Tweedie": "Exponent",
    "LogLinQuantile": "Exponent",
    "RMSEWithUncertainty": "RMSEWithUncertainty",
}
"""What CatBoost's regressor makes of its sum of trees, where that is not the sum itself."""
_SPACES: dict[str, Space] = {"Exponent": "log-prediction", "RawFormulaVal": "prediction"}


def load_catboost(raw: bytes, file: str) -> Any:
    """Return the model in the bytes of a .cbm file.

    Raises ModelDirectoryError where reading it would crash, else whatever CatBoost does.
    """
    import catboost

    rehearse(_REHEARSAL, raw, file)
    model = catboost.CatBoost()
    model.load_model(blob=raw)
    return model


class CatboostRuntime:
    """A CatBoost classifier or regressor.

    A missing category is passed as "nan", the text that pandas' `astype(str)` makes of it. Raises
    ModelDirectoryError where the schema is not the model's.
    """

    name = "catboost"

    def __init__(self, model: Any, schema: InputSchema, file: str) -> None:
        names = [str(name) for name in model.feature_names_ or ()]
        unnamed = names == [str(i) for i in range(len(names))]
        check_features(file, schema, names=None if unnamed else names, count=len(names))
        self.model = model
        self._schema = schema
        categories = set(model.get_cat_feature_indices())
        self._textual = {*categories, *model.get_text_feature_indices()}
        _check_types(schema, categories, self._textual, file)
        self._categories = categories
        native = list(model.classes_) if model.classes_ is not None else []
        loss = str(model.get_all_params().get("loss_function", "")).partition(":")[0]
        if native and "Multi" in loss and "MultiClass" not in loss:
            raise ModelDirectoryError(
                file,
                None,
                "it predicts several labels at once, which is not supported for CatBoost",
                "Train one model for each label.",
            )
        self.labels = reconcile_classes(file, native, schema) if native else None
        self.native_labels = native
        self._loss = loss
        self._kind = _KINDS.get(loss, "RawFormulaVal") if self.labels is None else "Probability"
        self._threshold = _threshold(model) if len(native) == _TWO_CLASSES else None

    @property
    def converts(self) -> bool:
        """Whether the model is of a kind that may be converted to another format."""
        usual = self._kind in {"Probability", "RawFormulaVal"}
        return usual and not self._textual and self._threshold in {None, _EVEN_CHANCE}

    def predict(self, rows: Sequence[Row]) -> Outputs:
        """Return the model's answers."""
        numbers = self.model.predict(self._data(rows), prediction_type=self._kind, thread_count=1)
        if self.labels is None:
            return regression(numbers, self._schema)
        values = None
        if self._threshold is not None:
            above = (numbers[:, 1] > self._threshold).tolist()
            values = [self.labels[int(positive)] for positive in above]
        return Outputs([classification(self.labels, numbers, values=values)])

    def explain(self, rows: Sequence[Row]) -> Explanations:
        """Return CatBoost's own SHAP values."""
        import catboost

        pool = catboost.Pool(self._data(rows), cat_features=sorted(self._categories))
        values = self.model.get_feature_importance(pool, type="ShapValues", thread_count=1)
        space = _SPACES.get(self._kind)
        if self.labels is not None:
            space = "margin" if self._loss == "MultiClass" else "log-odds"
        return of_trees(values, len(self._schema.columns), self.labels, space)

    def _data(self, rows: Sequence[Row]) -> Any:
        if not self._textual:
            return to_array(rows)
        table = np.array(rows, dtype=object)
        for i in range(table.shape[1]):
            if i in self._textual:
                table[:, i] = ["nan" if value is None else str(value) for value in table[:, i]]
            else:
                table[:, i] = np.array(table[:, i], dtype=np.float64)
        return table


def _threshold(model: Any) -> float:
    """Return the chance above which the second of two classes is the answer."""
    metadata = model.get_metadata()
    return float(metadata[_THRESHOLD]) if _THRESHOLD in metadata.keys() else _EVEN_CHANCE  # noqa: SIM118


def _check_types(schema: InputSchema, categories: set[int], textual: set[int], file: str) -> None:
    for i, column in enumerate(schema.columns):
        if i in categories and column.type == "numeric":
            # CatBoost hashes a category's text, and 3 and 3.0 are two texts.
            problem, remedy = "a category", "Make it categorical or integer."
        elif i not in textual and column.textual:
            problem, remedy = "a number", "Make it numeric, integer or boolean."
        else:
            continue
        raise ModelDirectoryError(
            "input_schema.json",
            f"columns: {column.name}.type",
            f"it is {column.type}, but the column is {problem} for {file}",
            remedy,
        )
