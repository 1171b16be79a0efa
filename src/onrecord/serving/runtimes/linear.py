"""What moves a scikit-learn model that is linear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onrecord.serving.explanations import Explanations, Space
from onrecord.serving.outputs import class_key
from onrecord.serving.runtimes.prepared import Prepared

__all__ = ["explain_linear", "is_linear"]

_LOGISTIC = {"LogisticRegression", "LogisticRegressionCV"}
_IDENTITY = {
    "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lasso",
    "LassoCV", "LinearRegression", "LinearSVR", "Ridge", "RidgeCV", "SGDRegressor",
}  # fmt: skip
_TWO = 2


def is_linear(model: Any) -> bool:
    """Tell whether a model's answers come of weights times values."""
    return hasattr(model, "coef_") and type(model).__name__ in _LOGISTIC | _IDENTITY


def explain_linear(
    model: Any, prepared: Prepared, columns: int, labels: Sequence[Any] | None
) -> Explanations:
    """Return the explanations of a linear model: weight times value, and the intercept as base."""
    weights = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    single = prepared.features[:, None, :] * weights[None, :, :]
    contributions = prepared.by_column(single, columns)
    base = np.broadcast_to(np.atleast_1d(model.intercept_), contributions.shape[:2])
    if type(model).__name__ in _IDENTITY:
        return Explanations("prediction", base, contributions)
    space: Space = "log-odds" if labels is not None and len(labels) == _TWO else "margin"
    classes = None if space == "log-odds" else [class_key(label) for label in labels or ()]
    return Explanations(space, base, contributions, classes)
