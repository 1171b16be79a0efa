"""What moves a scikit-learn model that is linear, whatever prepares its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onrecord.errors import NotExplainable
from onrecord.serving.explanations import Explanations, Space
from onrecord.serving.outputs import class_key

__all__ = ["explain_linear"]

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
_LOGISTIC = {"LogisticRegression", "LogisticRegressionCV"}
_IDENTITY = {
    "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lasso",
    "LassoCV", "LinearRegression", "LinearSVR", "Ridge", "RidgeCV", "SGDRegressor",
}  # fmt: skip
_TWO = 2


def explain_linear(
    estimator: Any, data: Any, columns: Sequence[str], labels: Sequence[Any] | None
) -> Explanations:
    """Return the explanations of a linear model, or of a pipeline that ends in one.

    `data` is what the estimator takes. What a column became by scaling, imputing or one-hot
    encoding counts for it. Raises NotExplainable where the model is not linear, or a step makes one
    feature of several columns.
    """
    steps = [step for _, step in getattr(estimator, "steps", [])]
    model = steps[-1] if steps else estimator
    name = type(model).__name__
    if not hasattr(model, "coef_") or name not in _LOGISTIC | _IDENTITY:
        raise NotExplainable(
            f"A {name} does not tell what moved it; linear models and the boosters of XGBoost, "
            "LightGBM and CatBoost do."
        )
    prepared, sources = data, np.arange(len(columns))
    for step in steps[:-1]:
        prepared, sources = _transformed(step, prepared), sources[_sources(step, len(sources))]
    if hasattr(prepared, "toarray"):
        prepared = prepared.toarray()
    weights = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    single = np.asarray(prepared, dtype=np.float64)[:, None, :] * weights[None, :, :]
    belongs = sources[:, None] == np.arange(len(columns))
    contributions = single @ belongs.astype(np.float64)
    base = np.broadcast_to(np.atleast_1d(model.intercept_), contributions.shape[:2])
    if name in _IDENTITY:
        return Explanations("prediction", base, contributions)
    space: Space = "log-odds" if labels is not None and len(labels) == _TWO else "margin"
    classes = None if space == "log-odds" else [class_key(label) for label in labels or ()]
    return Explanations(space, base, contributions, classes)


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
