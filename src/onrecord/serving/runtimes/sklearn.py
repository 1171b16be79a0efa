"""scikit-learn estimators, and whatever else has their `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onrecord.errors import ModelDirectoryError, NotExplainable
from onrecord.serving.explanations import Explanations
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import Outputs, TargetOutput, class_key
from onrecord.serving.runtimes import (
    Row,
    check_features,
    classification,
    python_label,
    reconcile_classes,
    reconcile_several,
    regression,
    target_names,
)
from onrecord.serving.runtimes.lightgbm import known_names
from onrecord.serving.runtimes.linear import explain_linear, is_linear
from onrecord.serving.runtimes.matrix import to_array, to_frame, to_object_array
from onrecord.serving.runtimes.prepared import last_step, prepare
from onrecord.serving.runtimes.trees import TreeShap, has_shap, is_trees

__all__ = ["SklearnRuntime"]


class SklearnRuntime:
    """An estimator with `predict` and, for a classifier, maybe `predict_proba`.

    One that was trained on a DataFrame gets a DataFrame, with the categories of the schema where it
    asks for pandas' own. Several targets are answered by name. Raises ModelDirectoryError where
    the schema is not the estimator's.
    """

    name = "scikit-learn"

    def __init__(self, estimator: Any, schema: InputSchema, file: str) -> None:
        if not hasattr(estimator, "predict"):
            raise ModelDirectoryError(
                file,
                None,
                f"it holds a {type(estimator).__name__}, which has no predict method",
                "Save the fitted model itself.",
            )
        names = getattr(estimator, "feature_names_in_", None)
        if names is not None and type(estimator).__module__.startswith("lightgbm"):
            names = known_names(list(names), schema)
        check_features(
            file,
            schema,
            names=None if names is None else list(names),
            count=getattr(estimator, "n_features_in_", None),
        )
        self.estimator = estimator
        self.labels: list[Any] | None = None
        self.native_labels: list[Any] = []
        self._frame = names is not None
        self._schema = schema
        self._trees: TreeShap | None = None
        self._categories: frozenset[str] = frozenset()
        # A text pipeline starts with a vectorizer, which takes strings and counts no features.
        self._takes_texts = [column.type for column in schema.columns] == ["text"] and not hasattr(
            estimator, "n_features_in_"
        )
        probe = self._probe()
        natives = _native_classes(estimator, probe)
        self._several: list[list[Any]] = []
        if natives is not None and probe.ndim == 1:
            self.labels = reconcile_classes(file, natives[0], schema)
            self.native_labels = natives[0]
        elif natives is not None:
            self._several = reconcile_several(file, natives, schema)
        self._named = [_naming(*pair) for pair in zip(natives or [], self._answered, strict=True)]
        self._proba = natives is not None and hasattr(estimator, "predict_proba")
        self._number = natives is None and (probe.dtype.kind == "f" or _is_regressor(estimator))

    @property
    def one_answer(self) -> bool:
        """Whether the estimator gives one class of known ones, or numbers."""
        return self.labels is not None or self._number

    @property
    def _answered(self) -> list[list[Any]]:
        """The classes to answer with, of each target."""
        return self._several if self.labels is None else [self.labels]

    def _probe(self) -> np.ndarray[Any, Any]:
        """Return the answer to the schema's probe row, finding out what kind of table is wanted.

        A pipeline may need a DataFrame and not say so, and only a failure tells that pandas' own
        categories are asked for.
        """
        rows = [self._schema.probe_row()]
        columns = self._schema.columns
        categories = frozenset(c.name for c in columns if c.type == "categorical")
        told = (self._frame, frozenset[str]())
        attempts = [told]
        if not self._takes_texts:
            frames = [(True, frozenset[str]()), (True, categories)]
            attempts += [frame for frame in frames if frame != told]
        first: Exception | None = None
        for self._frame, self._categories in attempts:
            try:
                return np.asarray(self.estimator.predict(self._data(rows)))
            except Exception as error:  # noqa: BLE001 - an estimator may raise anything
                first = first or error
        raise first or ValueError("it gives no answer")

    def predict(self, rows: Sequence[Row]) -> Outputs:
        """Return the estimator's answers."""
        data = self._data(rows)
        answers = np.asarray(self.estimator.predict(data))
        if self._number:
            return regression(answers, self._schema)
        if not self._named:
            return Outputs([TargetOutput(None, [python_label(v) for v in answers.ravel()])])
        chances = self.estimator.predict_proba(data) if self._proba else None
        if self.labels is not None:
            values = self._values(answers, 0)
            if chances is None:
                return Outputs([TargetOutput(None, values)])
            return Outputs([classification(self.labels, chances, values=values)])
        return self._by_target(answers, chances)

    @property
    def explained_by_shap(self) -> bool:
        """Whether explaining the estimator imports a library that takes seconds to."""
        return is_trees(last_step(self.estimator)) and has_shap()

    def explain(self, rows: Sequence[Row]) -> Explanations:
        """Return what moved a linear model or trees; raises NotExplainable of any other."""
        model, columns = last_step(self.estimator), len(self._schema.columns)
        if is_trees(model):
            self._trees = self._trees or TreeShap(model)
        elif not is_linear(model):
            raise NotExplainable(
                f"A {type(model).__name__} does not tell what moved it; linear models, trees of "
                "scikit-learn and the boosters of XGBoost, LightGBM and CatBoost do."
            )
        prepared = prepare(self.estimator, self._data(rows), columns)
        if self._trees is None:
            return explain_linear(model, prepared, columns, self.labels)
        return self._trees.explain(prepared, columns, self.labels)

    def _values(self, answers: np.ndarray[Any, Any], target: int) -> list[Any]:
        """Return one target's labels as the schema names them."""
        named = self._named[target]
        return [named[class_key(python_label(label))] for label in answers.ravel().tolist()]

    def _by_target(self, answers: np.ndarray[Any, Any], chances: Any) -> Outputs:
        """Return several targets: answers [rows, targets], probabilities a list or a table."""
        targets = []
        for i, name in enumerate(target_names(answers.shape[1], self._schema)):
            values = self._values(answers[:, i], i)
            if chances is None:
                targets.append(TargetOutput(name, values))
                continue
            if isinstance(chances, list):
                table = chances[i]
            else:  # a multi-label classifier gives the chance of each label alone
                table = np.stack((1 - chances[:, i], chances[:, i]), axis=1)
            targets.append(classification(self._several[i], table, values=values, name=name))
        return Outputs(targets)

    def _data(self, rows: Sequence[Row]) -> Any:
        if self._frame:
            return to_frame(rows, self._schema.columns, categorical=self._categories)
        if self._takes_texts:
            return [row[0] for row in rows]
        return to_array(rows) if self._schema.numeric_only else to_object_array(rows)


def _naming(native: list[Any], labels: list[Any]) -> dict[str, Any]:
    """Return the label to answer with, by the key of the estimator's own."""
    keys = [class_key(python_label(label)) for label in native]
    return dict(zip(keys, labels, strict=True))


def _native_classes(estimator: Any, probe: np.ndarray[Any, Any]) -> list[list[Any]] | None:
    """Return the classes of each target, None for what is no classifier."""
    classes = getattr(estimator, "classes_", None)
    if classes is None or not _is(estimator, "classifier"):
        return None
    if probe.ndim == 1:
        return [list(classes)]
    if np.ndim(classes[0]) > 0:
        return [list(entry) for entry in classes]
    return [[0, 1] for _ in range(probe.shape[1])]


def _is_regressor(estimator: Any) -> bool:
    return _is(estimator, "regressor")


def _is(estimator: Any, kind: str) -> bool:
    """Tell whether an estimator is of a kind; what has no tags is what its attributes say."""
    from sklearn.base import is_classifier, is_regressor

    try:
        return bool(is_classifier(estimator) if kind == "classifier" else is_regressor(estimator))
    except (AttributeError, TypeError):
        return (kind == "classifier") == hasattr(estimator, "classes_")
