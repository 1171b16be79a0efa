"""From a loaded model to the bytes of an ONNX graph, by the converters that others wrote."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onrecord.serving.columns import Column
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.runtimes import Runtime
from onrecord.serving.runtimes.catboost import CatboostRuntime
from onrecord.serving.runtimes.lightgbm import LightgbmRuntime
from onrecord.serving.runtimes.sklearn import SklearnRuntime
from onrecord.serving.runtimes.xgboost import XgboostRuntime

__all__ = ["NotCompiled", "convert", "edges"]

_OPSETS = {"": 18, "ai.onnx.ml": 3}
"""The newest versions that all of the converters know."""

_ARITHMETIC = {"Scaler", "Normalizer", "Add", "Sub", "Mul", "Div", "MatMul", "Gemm", "Pow", "Log"}
_SINGLE_PRECISION = ("xgboost", "sklearn.tree", "sklearn.ensemble._forest", "sklearn.ensemble._gb")
"""Where the trees live that compare 32-bit floats themselves, as the graph does."""


class NotCompiled(Exception):
    """The original must serve; the text says why."""


def convert(original: Runtime, schema: InputSchema, layout: str) -> bytes | None:
    """Return the model as an ONNX graph, None where there is no converter for it.

    `layout` is "table" for one input of numbers or "columns" for one input a column. Raises
    whatever the converter does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(original, SklearnRuntime):
            return _convert_sklearn(original, schema, layout)
        if layout != "table":
            return None
        if isinstance(original, XgboostRuntime) and original.converts:
            return _convert_xgboost(original, schema)
        if isinstance(original, LightgbmRuntime):
            return _convert_lightgbm(original, schema)
        if isinstance(original, CatboostRuntime) and original.converts:
            return _convert_catboost(original)
    return None


def edges(raw: bytes, original: Runtime) -> frozenset[float]:
    """Return the numbers at which the graph's trees may turn another way than the original's.

    The graph compares 32-bit floats. Where the original compares 64-bit ones, a number that is a
    threshold once both are rounded may lie on either side of it. Raises NotCompiled where numbers
    are computed before they are compared, since then no number of a row tells.
    """
    import onnx

    graph = onnx.load_model_from_string(raw).graph
    makers = {name: node for node in graph.node for name in node.output}
    trees = [node for node in graph.node if node.op_type.startswith("TreeEnsemble")]
    for tree in trees:
        before = [makers[name] for name in tree.input if name in makers]
        while before:
            node = before.pop()
            if node.op_type in _ARITHMETIC:
                raise NotCompiled("its trees compare numbers that are computed first")
            before += [makers[name] for name in node.input if name in makers]
    if not trees or _compares_singles(original):
        return frozenset()
    values = [
        np.array(attribute.floats, np.float32)
        for tree in trees
        for attribute in tree.attribute
        if attribute.name == "nodes_values"
    ]
    found = np.unique(np.concatenate(values))
    # The converters round in ways of their own, so the neighbours count as well.
    below, above = np.nextafter(found, np.float32(-np.inf)), np.nextafter(found, np.float32(np.inf))
    return frozenset(np.concatenate([below, found, above]).tolist())


def _compares_singles(original: Runtime) -> bool:
    if not isinstance(original, SklearnRuntime):
        return isinstance(original, XgboostRuntime | CatboostRuntime)
    last = original.estimator
    while hasattr(last, "steps"):
        last = last.steps[-1][1]
    return type(last).__module__.startswith(_SINGLE_PRECISION)


def _convert_sklearn(original: SklearnRuntime, schema: InputSchema, layout: str) -> bytes:
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    _register_boosters()
    _mend_hist_gradient_boosting()
    if layout == "table":
        types: list[tuple[str, Any]] = [("X", FloatTensorType([None, len(schema.columns)]))]
    else:
        types = [
            (column.name, _tensor(column, StringTensorType, FloatTensorType))
            for column in schema.columns
        ]
    maps = original.labels is not None and hasattr(original.estimator, "predict_proba")
    graph = skl2onnx.convert_sklearn(
        original.estimator,
        initial_types=types,
        options={id(original.estimator): {"zipmap": False}} if maps else None,
        target_opset=_OPSETS,
    )
    return bytes(graph.SerializeToString())


def _tensor(column: Column, string: Any, number: Any) -> Any:
    return string([None, 1]) if column.textual else number([None, 1])


def _register_boosters() -> None:
    """Teach skl2onnx the boosters that may stand at the end of a pipeline, where one is loaded."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    classes = calculate_linear_classifier_output_shapes
    numbers = calculate_linear_regressor_output_shapes
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    if "xgboost" in sys.modules:
        import xgboost
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as make

        for kind, shape, given in (
            (xgboost.XGBClassifier, classes, options),
            (xgboost.XGBRegressor, numbers, None),
        ):
            update_registered_converter(kind, f"Xgb{kind.__name__}", shape, make, options=given)
    if "lightgbm" in sys.modules:
        import lightgbm
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import (
            convert_lightgbm as build,
        )

        for kind, shape, given in (
            (lightgbm.LGBMClassifier, classes, options),
            (lightgbm.LGBMRegressor, numbers, None),
        ):
            update_registered_converter(kind, f"Lgb{kind.__name__}", shape, build, options=given)


def _mend_hist_gradient_boosting() -> None:
    """Let skl2onnx convert it: onnx 1.23 takes no booleans where skl2onnx 1.20 writes them."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )
    from skl2onnx.operator_converters.random_forest import (
        convert_sklearn_random_forest_classifier,
        convert_sklearn_random_forest_regressor_converter,
    )
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    options = {"zipmap": [True, False, "columns"], "raw_scores": [True, False]}
    options |= {"nocl": [True, False], "output_class_labels": [False, True]}
    for kind, shape, convert_one, given in (
        (
            HistGradientBoostingClassifier,
            calculate_linear_classifier_output_shapes,
            convert_sklearn_random_forest_classifier,
            options,
        ),
        (
            HistGradientBoostingRegressor,
            calculate_linear_regressor_output_shapes,
            convert_sklearn_random_forest_regressor_converter,
            None,
        ),
    ):
        update_registered_converter(
            kind, f"Sklearn{kind.__name__}", shape, _in_integers(convert_one), options=given
        )


def _in_integers(convert_one: Callable[..., None]) -> Callable[..., None]:
    """Return a converter whose nodes have integers where they had booleans."""

    def mended(scope: Any, operator: Any, container: Any) -> None:
        add = container.add_node

        def add_node(*args: Any, **attributes: Any) -> Any:
            for name, value in attributes.items():
                if isinstance(value, list) and any(isinstance(v, bool | np.bool_) for v in value):
                    attributes[name] = [int(v) for v in value]
            return add(*args, **attributes)

        container.add_node = add_node
        try:
            convert_one(scope, operator, container)
        finally:
            del container.add_node

    return mended


def _convert_xgboost(original: XgboostRuntime, schema: InputSchema) -> bytes:
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    booster = original.booster.copy()
    if original.iterations != (0, 0):
        booster = booster[slice(*original.iterations)]
    # The dump that the converter reads leaves out the threshold of a column of booleans and rounds
    # that of integers; the trees themselves compare plain numbers.
    booster.feature_names = booster.feature_types = None
    types = [("X", FloatTensorType([None, len(schema.columns)]))]
    return bytes(onnxmltools.convert_xgboost(booster, initial_types=types).SerializeToString())


def _convert_lightgbm(original: LightgbmRuntime, schema: InputSchema) -> bytes:
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [("X", FloatTensorType([None, len(schema.columns)]))]
    graph = onnxmltools.convert_lightgbm(original.booster, initial_types=types, zipmap=False)
    return bytes(graph.SerializeToString())


def _convert_catboost(original: CatboostRuntime) -> bytes:
    """Return CatBoost's own graph, with probabilities in a table instead of one map a row."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="onrecord-") as private:
        file = Path(private) / "model.onnx"
        original.model.save_model(str(file), format="onnx")
        model = onnx.load(str(file))
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "ZipMap"]:
        graph.node.remove(node)
        (mapped,) = (output for output in graph.output if output.name == node.output[0])
        shape = [None, len(original.native_labels)]
        table = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, shape)
        mapped.CopyFrom(table)
    return bytes(model.SerializeToString())
