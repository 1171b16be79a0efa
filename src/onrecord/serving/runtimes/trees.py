"""What moves scikit-learn's trees, forests and gradient boosting: SHAP values, by the library shap.

Source: Lundberg et al., "From local explanations to global understanding with explainable AI for
trees", Nature Machine Intelligence 2 (2020), algorithm 2 (path-dependent TreeSHAP).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from onrecord.errors import NotExplainable
from onrecord.serving.explanations import Explanations, Space
from onrecord.serving.outputs import class_key
from onrecord.serving.runtimes import first_line
from onrecord.serving.runtimes.prepared import Prepared

__all__ = ["TreeShap", "has_shap", "is_trees"]

_TREES = {"DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier",
          "ExtraTreeRegressor"}  # fmt: skip
_FORESTS = {"ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier",
            "RandomForestRegressor"}  # fmt: skip
_BOOSTING = {"GradientBoostingClassifier", "GradientBoostingRegressor",
             "HistGradientBoostingClassifier", "HistGradientBoostingRegressor"}  # fmt: skip
_LOG_LINKS = {"gamma", "poisson"}
_TWO = 2


def is_trees(model: Any) -> bool:
    """Tell whether a model is a tree, or a sum or an average of trees, of scikit-learn's own."""
    kind = type(model)
    own = kind.__module__.startswith("sklearn.")
    return own and kind.__name__ in _TREES | _FORESTS | _BOOSTING


def has_shap() -> bool:
    """Tell whether the library is installed, without importing it."""
    return find_spec("shap") is not None


class TreeShap:
    """The explanations of one model.

    Making one imports the library, which takes seconds. Raises NotExplainable where it is not
    installed, or does not know the model or would be wrong about it.
    """

    def __init__(self, model: Any) -> None:
        name = type(model).__name__
        if not has_shap():
            raise NotExplainable(
                f"Explaining a {name} takes the extra `explain`, which the server does not have: "
                "pip install 'onrecord[explain]'."
            )
        if np.any(getattr(model, "is_categorical_", None)):
            # The library takes a category's number for an amount.
            raise NotExplainable(f"A {name} with categorical features is not explained.")
        import shap

        # The library holds the interpreter while it works: of a forest it gets one tree at a time.
        parts = list(model.estimators_) if name in _FORESTS else [model]
        try:
            self._explainers = [
                shap.TreeExplainer(part, feature_perturbation="tree_path_dependent")
                for part in parts
            ]
        except Exception as error:
            raise NotExplainable(
                f"The library shap does not explain this {name} ({first_line(error)})"
            ) from error
        self._averages = name in _TREES | _FORESTS
        self._space_of_numbers: Space = (
            "log-prediction" if getattr(model, "loss", None) in _LOG_LINKS else "prediction"
        )

    def explain(
        self, prepared: Prepared, columns: int, labels: Sequence[Any] | None
    ) -> Explanations:
        """Return the explanations of what the model gets of some rows."""
        parts = [self._part(explainer, prepared.features) for explainer in self._explainers]
        values = np.mean([part for part, _ in parts], axis=0)
        base = np.mean([part for _, part in parts], axis=0)
        if labels is not None and values.shape[2] == _TWO:
            values, base = values[:, :, 1:], base[1:]
        contributions = prepared.by_column(values.transpose(0, 2, 1), columns)
        many = labels is not None and contributions.shape[1] > 1
        return Explanations(
            self._space(labels, many=many),
            np.broadcast_to(base, contributions.shape[:2]),
            contributions,
            [class_key(label) for label in labels or ()] if many else None,
        )

    def _space(self, labels: Sequence[Any] | None, *, many: bool) -> Space:
        if labels is None:
            return self._space_of_numbers
        if self._averages:
            return "probability"
        return "margin" if many else "log-odds"

    @staticmethod
    def _part(
        explainer: Any, features: np.ndarray[Any, Any]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return a part's values [rows, features, outputs] and its base [outputs]."""
        # Its own check would be against its own copy of the trees, not the model's answers.
        values = explainer.shap_values(features, check_additivity=False)
        base = np.atleast_1d(np.asarray(explainer.expected_value, dtype=np.float64)).ravel()
        return values.reshape(len(features), features.shape[1], -1), base
