"""ONNX graphs: what they answer, and which cannot be served."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skl2onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC

from live import linear_model_dir
from onrecord.errors import ModelDirectoryError
from onrecord.serving.outputs import Outputs
from onrecord.serving.runtimes import predict_table
from onrecord.serving.runtimes.onnx_bytes import declared_labels, external_tensors
from onrecord.serving.table import Table
from serving.models import BOTH, NUMBERS, TABLE, VALUES, WORDS, Y3, X, Y, load, write_schema

QUIET = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"}
FLOATS = X.astype(np.float32)
ROWS = [tuple(row) for row in X[:40].tolist()]
KIND = {"name": "kind", "type": "categorical", "categories": ["blue", "green", "red"]}


def graph_of(model: Any, *, zipmap: Any = False, width: int | None = 2) -> bytes:
    options = {id(model): {"zipmap": zipmap}} if hasattr(model, "predict_proba") else None
    types = [("X", FloatTensorType([None, width]))]
    converted = skl2onnx.convert_sklearn(model, initial_types=types, options=options)
    return bytes(converted.SerializeToString())


def write_graph(directory: Path, graph: bytes, columns: Any = NUMBERS, **beside: Any) -> Path:
    write_schema(directory, columns, **beside)
    (directory / "model.onnx").write_bytes(graph)
    return directory


def predictions(outputs: Outputs) -> list[Any]:
    return [outputs.row(i)["prediction"] for i in range(len(outputs))]


def chances(outputs: Outputs) -> Any:
    return np.array([list(outputs.row(i)["probabilities"].values()) for i in range(len(outputs))])


def refusal(directory: Path) -> ModelDirectoryError:
    with pytest.raises(ModelDirectoryError) as caught:
        load(directory)
    return caught.value


@pytest.mark.parametrize("zipmap", [True, False], ids=["maps", "tensor"])
@pytest.mark.parametrize("labels", [Y, Y3 + 5, WORDS], ids=["two", "integers", "strings"])
def test_a_classifier_answers_with_labels_and_probabilities(
    labels: Any, zipmap: bool, tmp_path: Path
) -> None:
    model = LogisticRegression().fit(X, labels)

    outputs = load(write_graph(tmp_path, graph_of(model, zipmap=zipmap))).runtime.predict(ROWS)

    assert predictions(outputs) == model.predict(FLOATS[:40]).tolist()
    assert list(outputs.row(0)["probabilities"]) == [str(label) for label in model.classes_]
    np.testing.assert_allclose(chances(outputs), model.predict_proba(FLOATS[:40]), atol=1e-5)


def test_a_graph_is_served_as_it_is(tmp_path: Path) -> None:
    model = load(write_graph(tmp_path, graph_of(LinearRegression().fit(X, VALUES))), compiled=True)

    assert (model.format, model.runtime.name) == ("onnx", "onnx")
    assert model.runtime_reason == "the model is an ONNX graph already"


def test_a_regressor_answers_with_numbers(tmp_path: Path) -> None:
    model = LinearRegression().fit(X, VALUES)

    outputs = load(write_graph(tmp_path, graph_of(model))).runtime.predict(ROWS)

    np.testing.assert_allclose(predictions(outputs), model.predict(X[:40]), rtol=1e-5)


def test_several_regressions_are_answered_by_target(tmp_path: Path) -> None:
    model = LinearRegression().fit(X, BOTH)
    directory = write_graph(tmp_path, graph_of(model), target=["up", "down"])

    outputs = load(directory).runtime.predict(ROWS)

    answers = [[answer["up"], answer["down"]] for answer in predictions(outputs)]
    np.testing.assert_allclose(answers, model.predict(X[:40]), rtol=1e-5)


def test_a_graph_may_take_one_input_a_column(tmp_path: Path) -> None:
    prepare = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])], remainder="passthrough")
    table = TABLE[["kind", "a"]]
    model = make_pipeline(prepare, LogisticRegression()).fit(table, WORDS)
    types = [("kind", StringTensorType([None, 1])), ("a", FloatTensorType([None, 1]))]
    converted = skl2onnx.convert_sklearn(
        model, initial_types=types, options={id(model): {"zipmap": False}}
    )
    graph = bytes(converted.SerializeToString())

    outputs = load(write_graph(tmp_path, graph, [NUMBERS[0], KIND])).runtime.predict(
        [(a, kind) for kind, a in table[:40].itertuples(index=False)]
    )

    assert predictions(outputs) == model.predict(table[:40]).tolist()
    np.testing.assert_allclose(chances(outputs), model.predict_proba(table[:40]), atol=1e-5)


def without_labels(graph: bytes) -> bytes:
    """Keep the output of probabilities only."""
    model = onnx.load_model_from_string(graph)
    labels = next(o for o in model.graph.output if "label" in o.name)
    model.graph.output.remove(labels)
    return bytes(model.SerializeToString())


def test_lone_probabilities_are_a_classification_where_the_schema_names_classes(
    tmp_path: Path,
) -> None:
    model = LogisticRegression().fit(X, Y3)
    names = ["low", "mid", "top"]
    directory = write_graph(tmp_path, without_labels(graph_of(model)), classes=names)

    outputs = load(directory).runtime.predict(ROWS)

    assert predictions(outputs) == [names[i] for i in model.predict(FLOATS[:40])]
    np.testing.assert_allclose(chances(outputs), model.predict_proba(FLOATS[:40]), atol=1e-5)


def sigmoid_graph() -> bytes:
    """A graph as from a neural network: one number a row, the chance of the second class."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2, 1], [1.0, -1.0])
    nodes = [
        helper.make_node("MatMul", ["X", "w"], ["m"]),
        helper.make_node("Sigmoid", ["m"], ["p"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_a_lone_column_is_the_chance_of_the_second_class(tmp_path: Path) -> None:
    directory = write_graph(tmp_path, sigmoid_graph(), classes=[False, True])

    outputs = load(directory).runtime.predict([(3.0, 1.0), (1.0, 3.0)])

    assert predictions(outputs) == [True, False]
    assert outputs.row(0)["probabilities"] == pytest.approx(
        {"false": 0.1192, "true": 0.8808}, abs=1e-4
    )


def test_a_graph_of_one_column_may_call_its_input_anything(tmp_path: Path) -> None:
    model = LinearRegression().fit(X[:, :1], VALUES)

    directory = write_graph(tmp_path, graph_of(model, width=1), NUMBERS[:1])
    outputs = load(directory).runtime.predict([row[:1] for row in ROWS])

    np.testing.assert_allclose(predictions(outputs), model.predict(X[:40, :1]), rtol=1e-5)


def test_integer_labels_get_the_names_of_the_schema(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y)
    directory = write_graph(tmp_path, graph_of(model), classes=[False, True])

    outputs = load(directory).runtime.predict(ROWS)

    assert all(
        a is b
        for a, b in zip(
            predictions(outputs), model.predict(X[:40]).astype(bool).tolist(), strict=True
        )
    )


def test_a_classifier_without_probabilities_gives_labels(tmp_path: Path) -> None:
    model = LinearSVC().fit(X, WORDS)
    whole = onnx.load_model_from_string(graph_of(model))
    del whole.graph.output[1]

    graph = bytes(whole.SerializeToString())
    outputs = load(write_graph(tmp_path, graph)).runtime.predict(ROWS)

    assert predictions(outputs) == model.predict(FLOATS[:40]).tolist()
    assert "probabilities" not in outputs.row(0)


def voting() -> Any:
    parts = [("a", LogisticRegression()), ("b", RandomForestClassifier(3, random_state=0))]
    return VotingClassifier(parts, voting="soft", flatten_transform=False).fit(X, WORDS)


def test_a_graph_that_does_not_say_whose_the_probabilities_are_needs_classes(
    tmp_path: Path,
) -> None:
    model = voting()
    graph = graph_of(model)

    error = refusal(write_graph(tmp_path / "without", graph))
    with_them = write_graph(tmp_path / "with", graph, classes=["high", "low", "middle"])
    outputs = load(with_them).runtime.predict(ROWS)

    assert (error.file, error.field) == ("input_schema.json", "classes")
    assert predictions(outputs) == model.predict(FLOATS[:40]).tolist()
    np.testing.assert_allclose(chances(outputs), model.predict_proba(FLOATS[:40]), atol=1e-5)


def test_a_graph_with_values_in_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_schema(tmp_path, NUMBERS)
    model = onnx.load_model_from_string(graph_of(LinearRegression().fit(X, VALUES)))
    weights = numpy_helper.from_array(np.ones(300, np.float32), "unused")
    model.graph.initializer.append(weights)
    onnx.save_model(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin"
    )
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look for the other file

    error = refusal(tmp_path)

    assert (error.file, error.field) == ("model.onnx", "unused")
    assert "another file" in error.problem
    assert "one file" in error.remedy


def test_values_in_another_file_are_found_inside_attributes_too() -> None:
    hidden = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [1.0])
    hidden.data_location = TensorProto.EXTERNAL
    node = helper.make_node("Constant", [], ["c"], value=hidden)
    model = helper.make_model(helper.make_graph([node], "g", [], []))

    assert external_tensors(model.SerializeToString()) == ["hidden"]


@pytest.mark.parametrize("labels", [[-3, 2, 300], ["a", "ß"]], ids=["integers", "strings"])
def test_the_labels_of_a_classifier_are_read_from_the_bytes(labels: list[Any]) -> None:
    name = "classlabels_ints" if isinstance(labels[0], int) else "classlabels_strings"
    node = helper.make_node("LinearClassifier", ["X"], ["l", "p"], domain="ai.onnx.ml")
    node.attribute.append(helper.make_attribute(name, labels))
    model = helper.make_model(helper.make_graph([node], "g", [], []))

    assert declared_labels(model.SerializeToString()) == labels


def test_every_cut_of_a_graph_is_refused_in_words(tmp_path: Path) -> None:
    graph = graph_of(LogisticRegression().fit(X, Y))
    write_schema(tmp_path, NUMBERS)

    for length in range(1, len(graph), 41):
        (tmp_path / "model.onnx").write_bytes(graph[:length])
        assert refusal(tmp_path).remedy


WRONG_INPUTS: dict[str, Any] = {
    "another number of columns": (NUMBERS[:1], "columns", "takes 2 features"),
    "strings": ([KIND, NUMBERS[0]], "columns: kind", "strings"),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_a_graph_that_does_not_take_the_columns_is_refused(case: str, tmp_path: Path) -> None:
    columns, field, problem = WRONG_INPUTS[case]

    error = refusal(write_graph(tmp_path, graph_of(LogisticRegression().fit(X, Y)), columns))

    assert (error.file, error.field) == ("input_schema.json", field)
    assert problem in error.problem
    assert error.remedy


def identity_graph(kind: int, **inputs: list[Any]) -> bytes:
    """A graph that casts its first input to float and hands it back."""
    entries = [helper.make_tensor_value_info(n, kind, shape) for n, shape in inputs.items()]
    node = helper.make_node("Cast", [next(iter(inputs))], ["y"], to=TensorProto.FLOAT)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])
    made = helper.make_graph([node], "g", entries, [output])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "column", "field"),
    [
        (TensorProto.INT64, {"name": "a", "type": "numeric"}, "columns: a"),
        (
            TensorProto.INT64,
            {"name": "a", "type": "integer", "nullable": True},
            "columns: a.nullable",
        ),
        (TensorProto.BOOL, {"name": "a", "type": "integer"}, "columns: a"),
        (TensorProto.STRING, {"name": "a", "type": "numeric"}, "columns: a"),
    ],
)
def test_an_input_type_that_would_change_the_values_is_refused(
    kind: int, column: dict[str, Any], field: str, tmp_path: Path
) -> None:
    error = refusal(write_graph(tmp_path, identity_graph(kind, a=[None, 1]), [column]))

    assert (error.file, error.field) == ("input_schema.json", field)


def test_inputs_of_other_names_are_refused(tmp_path: Path) -> None:
    graph = identity_graph(TensorProto.FLOAT, a=[None, 1], c=[None, 1])

    error = refusal(write_graph(tmp_path, graph))

    assert (error.file, error.field) == ("input_schema.json", "columns")
    assert "lacks c" in error.problem
    assert "does not know b" in error.problem


def test_an_input_that_is_no_column_is_refused(tmp_path: Path) -> None:
    error = refusal(write_graph(tmp_path, identity_graph(TensorProto.COMPLEX64, a=[None, 2])))

    assert error.file == "model.onnx"
    assert error.remedy


@pytest.mark.parametrize("zipmap", [True, False], ids=["maps", "tensor"])
def test_a_table_gets_the_answers_of_its_rows(zipmap: bool, tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, WORDS)
    served = load(write_graph(tmp_path, graph_of(model, zipmap=zipmap)))
    table = Table(served.schema.columns, [X[:40, 0], X[:40, 1]])

    outputs = predict_table(served.runtime, table)

    expected = served.runtime.predict(ROWS)
    assert predictions(outputs) == predictions(expected)
    np.testing.assert_allclose(chances(outputs), chances(expected), atol=1e-7)


def test_a_table_with_strings_feeds_one_input_a_column(tmp_path: Path) -> None:
    types = [("kind", StringTensorType([None, 1])), ("a", FloatTensorType([None, 1]))]
    prepare = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])], remainder="passthrough")
    frame = TABLE[["kind", "a"]]
    model = make_pipeline(prepare, LogisticRegression()).fit(frame, WORDS)
    graph = skl2onnx.convert_sklearn(model, initial_types=types).SerializeToString()
    served = load(write_graph(tmp_path, bytes(graph), [NUMBERS[0], KIND]))
    arrays = [frame["a"].to_numpy(), frame["kind"].to_numpy(dtype=object)]

    outputs = predict_table(served.runtime, Table(served.schema.columns, arrays))

    assert predictions(outputs) == model.predict(frame).tolist()


def test_nobody_else_is_told_of_the_models_that_are_run(tmp_path: Path) -> None:
    """ONNX Runtime keeps what it is to send in the home directory, with an id of the machine."""
    home = tmp_path / "home"
    home.mkdir()
    directory = linear_model_dir(tmp_path / "risk")
    code = """
import sys
from pathlib import Path
from onrecord.serving.artifact import load_model
from onrecord.serving.trust import Trust
model = load_model(Path(sys.argv[1]), trust=Trust(None))
assert model.runtime.name == "onnx", model.runtime_reason
"""
    # It stays silent by itself where these say that it is being tested.
    loud = {name: value for name, value in os.environ.items() if name not in QUIET}
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)], env=loud | {"HOME": str(home)}, check=False
    )

    assert done.returncode == 0
    assert list(home.rglob("*onnxruntime*")) == []
