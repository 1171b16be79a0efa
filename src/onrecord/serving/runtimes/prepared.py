"""What a scikit-learn pipeline makes of its columns, and of which column each feature comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onrecord.errors import NotExplainable

__all__ = ["Prepared", "last_step", "prepare"]

_COLUMN_BY_COLUMN = {
    "MaxAbsScaler",
    "MinMaxScaler",
    "OrdinalEncoder",
    "PowerTransformer",
    "QuantileTransformer",
    "RobustScaler",
    "SimpleImputer",
    "StandardScaler",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the last step of a pipeline gets: numbers [rows, features].

    `sources` [features] has the place of the column of which each feature was made.
    """

    features: np.ndarray[Any, Any]
    sources: np.ndarray[Any, Any]

    def by_column(self, contributions: np.ndarray[Any, Any], columns: int) -> np.ndarray[Any, Any]:
        """Return contributions [..., features] added up by their columns: [..., columns]."""
        belongs = self.sources[:, None] == np.arange(columns)
        added: np.ndarray[Any, Any] = contributions @ belongs.astype(np.float64)
        return added


def last_step(estimator: Any) -> Any:
    """Return the model at the end of a pipeline, or the estimator itself."""
    steps = _steps(estimator)
    return steps[-1] if steps else estimator


def prepare(estimator: Any, data: Any, columns: int) -> Prepared:
    """Return what the last step of an estimator gets of `data`, which is what the estimator takes.

    What a column becomes by scaling, imputing or one-hot encoding counts for it. Raises
    NotExplainable where a step makes one feature of several columns.
    """
    prepared, sources = data, np.arange(columns)
    for step in _steps(estimator)[:-1]:
        prepared, sources = _transformed(step, prepared), sources[_sources(step, len(sources))]
    if hasattr(prepared, "toarray"):
        prepared = prepared.toarray()
    return Prepared(np.asarray(prepared, dtype=np.float64), sources)


def _steps(estimator: Any) -> Sequence[Any]:
    return [step for _, step in getattr(estimator, "steps", [])]


def _transformed(step: Any, data: Any) -> Any:
    return data if step == "passthrough" else step.transform(data)


def _sources(step: Any, columns: int) -> np.ndarray[Any, Any]:
    """Return of which of its columns each feature comes that a step makes."""
    name = type(step).__name__
    if step == "passthrough":
        return np.arange(columns)
    if name == "Pipeline":
        found = np.arange(columns)
        for _, part in step.steps:
            found = found[_sources(part, len(found))]
        return found
    if name == "OneHotEncoder":
        return np.repeat(np.arange(columns), step._n_features_outs)  # noqa: SLF001 - not told else
    if name == "ColumnTransformer":
        return _of_parts(step)
    # An imputer can leave columns out, or add some.
    if name in _COLUMN_BY_COLUMN and len(step.get_feature_names_out()) == columns:
        return np.arange(columns)
    raise NotExplainable(f"The model's step {name} does not keep its columns apart.")


def _of_parts(step: Any) -> np.ndarray[Any, Any]:
    ends = [part.stop for part in step.output_indices_.values()]
    found = np.zeros(max(ends), dtype=np.int64)
    for name, part, _ in step.transformers_:
        place = step.output_indices_[name]
        if place.stop > place.start:
            inputs = np.asarray(step._transformer_to_input_indices[name])  # noqa: SLF001 - as above
            found[place] = inputs[_sources(_plain(part), len(inputs))]
    return found


def _plain(part: Any) -> Any:
    """Return a part of a ColumnTransformer; a fitted one has a FunctionTransformer that passes."""
    passes = type(part).__name__ == "FunctionTransformer" and part.func is None
    return "passthrough" if passes else part
