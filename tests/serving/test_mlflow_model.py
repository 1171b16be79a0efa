"""MLflow model directories, laid out as MLflow 2.22 and 3.17 do, and what is made of them."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from typer.testing import CliRunner
from xgboost import XGBClassifier

from onrecord.cli.main import _build
from onrecord.errors import ModelDirectoryError, OnrecordError
from onrecord.lifecycle.directories import model_sources
from onrecord.serving.mlflow_model import read_mlflow_model
from serving.models import load

RANDOM = np.random.default_rng(5)
TABLE = pd.DataFrame(
    {
        "bill length (mm)": RANDOM.normal(40, 5, 80),
        "flipper": RANDOM.integers(170, 230, 80),
        "île": RANDOM.choice(["Biscoe", "Dream"], 80),
        "wet": RANDOM.random(80) < 0.5,
    }
)
BIG = TABLE["flipper"] > 200
SKLEARN_2 = """\
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict
    python_version: 3.11.7
  sklearn:
    code: null
    pickled_model: model.pkl
    serialization_format: cloudpickle
    sklearn_version: 1.9.1
"""
SKLEARN_3 = """\
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
    model_path: model.skops
    predict_fn: predict
    python_version: 3.11.7
  sklearn:
    code: null
    pickled_model: model.skops
    serialization_format: skops
    sklearn_version: 1.9.1
    skops_trusted_types: null
"""
XGBOOST_2 = """\
flavors:
  python_function:
    data: model.xgb
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.xgboost
    python_version: 3.11.7
  xgboost:
    code: null
    data: model.xgb
    model_class: xgboost.sklearn.XGBClassifier
    model_format: xgb
    xgb_version: 3.2.0
"""
REST_2 = """\
is_signature_from_type_hint: false
mlflow_version: 2.22.5
model_size_bytes: 3218
model_uuid: bb7601e87b51451c9aa8b0f36e0b6cb6
prompts: null
type_hint_from_example: false
utc_time_created: '2026-11-27 09:18:18.966048'
"""
REST_3 = REST_2.replace("2.22.5", "3.17.2") + "model_id: null\n"
EXAMPLE = """\
saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
  serving_input_path: serving_input_example.json
  type: dataframe
"""
SIGNATURE = r"""signature:
  inputs: '[{"type": "double", "name": "bill length (mm)", "required": true}, {"type":
    "long", "name": "flipper", "required": true}, {"type": "string", "name": "\u00eele",
    "required": true}, {"type": "boolean", "name": "wet", "required": true}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "bool", "shape": [-1]}}]'
  params: null
"""
COLUMNS = [
    {"name": "bill length (mm)", "type": "numeric", "example": 40.5},
    {"name": "flipper", "type": "integer", "example": 195},
    {"name": "île", "type": "text", "example": "Dream"},
    {"name": "wet", "type": "boolean", "example": True},
]


def signature(*inputs: dict[str, Any]) -> str:
    return f"signature:\n  inputs: '{json.dumps(inputs)}'\n  outputs: null\n  params: null\n"


def written(directory: Path, mlmodel: str, **files: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "MLmodel").write_text(mlmodel, encoding="utf-8")
    for name, raw in files.items():
        (directory / name.replace("_", ".", 1)).write_bytes(raw)
    example = {"columns": list(TABLE), "data": [[40.5, 195, "Dream", True]]}
    (directory / "input_example.json").write_text(json.dumps(example))
    return directory


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return make_pipeline(
        make_column_transformer(
            (StandardScaler(), ["bill length (mm)", "flipper"]),
            (OneHotEncoder(), ["île"]),
            ("passthrough", ["wet"]),
        ),
        LogisticRegression(),
    ).fit(TABLE, BIG)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ONRECORD_DATA_DIR", str(tmp_path / "data"))

    def run(*words: object) -> str:
        done = CliRunner().invoke(_build(), [str(word) for word in words], catch_exceptions=True)
        if isinstance(done.exception, OnrecordError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run


def test_a_pipeline_of_mlflow_3_answers_as_it_did_there(
    cli: Any, pipeline: Any, tmp_path: Path
) -> None:
    logged = written(
        tmp_path / "logged",
        SKLEARN_3 + REST_3 + EXAMPLE + SIGNATURE,
        model_skops=skops.io.dumps(pipeline),
    )

    cli("init", logged, "-o", tmp_path / "penguins")

    schema = json.loads((tmp_path / "penguins" / "input_schema.json").read_text("utf-8"))
    assert schema == {"input_schema": {"columns": COLUMNS}}
    rows = TABLE.head(5)
    answers = load(tmp_path / "penguins").runtime.predict(
        list(rows.itertuples(index=False, name=None))
    )
    assert list(answers.targets[0].values) == pipeline.predict(rows).tolist()
    cli("check", tmp_path / "penguins")


def test_a_pickle_of_mlflow_2_is_loaded_only_after_it_was_pinned(
    cli: Any, pipeline: Any, tmp_path: Path
) -> None:
    logged = written(
        tmp_path / "logged",
        SKLEARN_2 + REST_2 + EXAMPLE + SIGNATURE,
        model_pkl=pickle.dumps(pipeline),
    )

    said = cli("init", logged, "-o", tmp_path / "penguins")

    assert f"`onrecord trust {tmp_path / 'penguins'}` first" in " ".join(said.split())
    with pytest.raises(ModelDirectoryError, match=r"not pinned(?s:.)*onrecord trust"):
        cli("check", tmp_path / "penguins")
    cli("trust", "--yes", tmp_path / "penguins")
    assert "pickle, 4 columns" in cli("check", tmp_path / "penguins")


def test_the_xgb_file_of_mlflow_2_is_served_as_ubj(cli: Any, tmp_path: Path) -> None:
    numbers = TABLE[["bill length (mm)", "flipper"]].rename(columns={"bill length (mm)": "bill"})
    booster = XGBClassifier(n_estimators=2).fit(numbers, BIG).get_booster()
    inputs = ({"type": "double", "name": "bill"}, {"type": "long", "name": "flipper"})
    logged = written(
        tmp_path / "logged",
        XGBOOST_2 + REST_2 + signature(*inputs),
        model_xgb=bytes(booster.save_raw("ubj")),
    )

    cli("init", logged, "-o", tmp_path / "penguins")

    assert "xgboost, 2 columns" in cli("check", "--no-compile", tmp_path / "penguins")


def test_a_model_without_a_signature_takes_its_schema_from_the_data(
    cli: Any, pipeline: Any, tmp_path: Path
) -> None:
    logged = written(tmp_path / "logged", SKLEARN_3 + REST_3, model_skops=skops.io.dumps(pipeline))
    TABLE.assign(big=BIG).to_csv(tmp_path / "data.csv", index=False)
    with pytest.raises(ModelDirectoryError, match=f"onrecord init {logged} DATA -o OUT"):
        cli("init", logged, "-o", tmp_path / "penguins")
    assert not (tmp_path / "penguins").exists()

    words = ("--target", "big", "-o", tmp_path / "penguins")
    said = cli("init", logged, tmp_path / "data.csv", *words)

    assert "baseline.json" in said
    assert "4 columns" in cli("check", tmp_path / "penguins")


@pytest.mark.parametrize(
    ("entry", "column"),
    [
        ({"type": "integer"}, {"type": "integer"}),
        ({"type": "float", "required": False}, {"type": "numeric", "nullable": True}),
        ({"type": "string", "optional": True}, {"type": "text", "nullable": True}),
        ({"type": "boolean", "required": True}, {"type": "boolean"}),
    ],
)
def test_a_type_of_a_signature_becomes_one_of_a_schema(
    entry: dict[str, Any], column: dict[str, Any], tmp_path: Path
) -> None:
    logged = written(tmp_path, SKLEARN_2 + signature({"name": "x y", **entry}))

    assert read_mlflow_model(logged).columns == [{"name": "x y", **column}]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}, "a tensor"),
        ({"name": "when", "type": "datetime"}, "column 'when' is of type datetime"),
        ({"name": "raw", "type": "binary"}, "of type binary"),
        ({"name": "l", "type": "array", "items": {"type": "long"}}, "of type array"),
        ({"name": "l", "type": ["long"]}, "of type unknown"),
        ({"type": "double"}, "without a name"),
    ],
)
def test_what_no_schema_has_is_refused_by_its_name(
    entry: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    logged = written(tmp_path, SKLEARN_2 + signature({"name": "a", "type": "long"}, entry))

    with pytest.raises(ModelDirectoryError, match=problem) as raised:
        read_mlflow_model(logged)

    assert raised.value.field == "signature.inputs[1]"
    assert "onrecord init" in raised.value.remedy
    assert read_mlflow_model(logged, signature=False).columns is None


BAD = {
    "broken": ("flavors: [", "it is not YAML (line 1)"),
    "an object": ("!!python/object/apply:os.system ['touch pwned']", "there are none"),
    "nested too deep": ("[" * 5000, "it is not YAML"),
    "recursive": ("flavors: &a {sklearn: *a}", "it is not YAML"),
    "a merge bomb": (
        "a: &a {x: 1}\n"
        + "".join(
            f"{c}: &{c} {{<<: [{p}]}}\n"
            for c, p in zip("bcdefgh", (", ".join([f"*{c}"] * 9) for c in "abcdefg"), strict=True)
        ),
        "there are none",
    ),
    "a list": ("- sklearn", "there are none"),
    "no text": ("\x00\x01", "it is not YAML"),
    "too large": ("#" * (1024 * 1024 + 1), "at most 1048576"),
    "a pyfunc of its own": (
        "flavors: {python_function: {python_model: python_model.pkl}}",
        "none of them can be served: python_function",
    ),
    "torch": ("flavors: {pytorch: {model_data: data}}", "none of them can be served: pytorch"),
    "a file elsewhere": (
        "flavors: {sklearn: {pickled_model: ../../secret.pkl}}",
        "flavors.sklearn.pickled_model: it does not name a file of the directory",
    ),
    "no file": ("flavors: {xgboost: {}}", "flavors.xgboost.data: it does not name a file"),
    "another format": ("flavors: {catboost: {data: model.py}}", "'model.py' is in a format"),
    "a signature that is no JSON": (SKLEARN_2 + "signature: {inputs: '[{'}", "signature.inputs"),
    "a signature that is a list": (SKLEARN_2 + "signature: {inputs: [1]}", "signature.inputs"),
    "a signature of numbers": (SKLEARN_2 + "signature: {inputs: '[1]'}", "signature.inputs"),
    "an example elsewhere": (
        SKLEARN_2 + EXAMPLE.replace("path: ", "path: ../") + SIGNATURE,
        "saved_input_example_info.artifact_path",
    ),
    "an example that is no table": (
        SKLEARN_2 + EXAMPLE.replace("path: input_example.json", "path: MLmodel") + SIGNATURE,
        "MLmodel: it is not the table",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_mlmodel_is_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    mlmodel, problem = BAD[case]
    logged = written(tmp_path / "logged", mlmodel)

    with pytest.raises(ModelDirectoryError) as raised:
        read_mlflow_model(logged)

    assert problem in str(raised.value)


def test_a_model_file_that_is_a_link_out_of_the_directory_is_refused(
    cli: Any, tmp_path: Path
) -> None:
    logged = written(tmp_path / "logged", SKLEARN_2 + SIGNATURE)
    (tmp_path / "secret").write_text("secret")
    (logged / "model.pkl").symlink_to(tmp_path / "secret")

    with pytest.raises(ModelDirectoryError, match="leads out of its directory"):
        cli("init", logged, "-o", tmp_path / "penguins")

    assert not (tmp_path / "penguins").exists()


def test_a_column_that_no_schema_can_have_stops_before_anything_is_written(
    cli: Any, tmp_path: Path
) -> None:
    inputs = ({"name": "a", "type": "long"}, {"name": "a", "type": "long"})
    logged = written(tmp_path / "logged", SKLEARN_2 + signature(*inputs), model_pkl=b"pickle")

    with pytest.raises(ModelDirectoryError, match="also the name of"):
        cli("init", logged, "-o", tmp_path / "penguins")

    assert not (tmp_path / "penguins").exists()


@pytest.mark.parametrize("flavor", [SKLEARN_2, XGBOOST_2])
def test_serving_an_mlflow_directory_itself_names_the_command(flavor: str, tmp_path: Path) -> None:
    logged = written(tmp_path, flavor + SIGNATURE, model_pkl=b"x", model_xgb=b"x")

    with pytest.raises(ModelDirectoryError, match=f"onrecord init {tmp_path} -o DIR"):
        model_sources([logged])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["init", "logged"], "--output"),
        (["init", ".", "-o", "out"], "without MLmodel"),
        (["init", "logged", "-o", "out", "--target", "y"], "--target"),
        (["init", "logged/model.pkl"], "give DATA"),
        (["init", "gone.pkl"], "not a file"),
    ],
)
def test_init_says_what_it_lacks(
    words: list[str], problem: str, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "logged", SKLEARN_2 + SIGNATURE, model_pkl=b"x")

    with pytest.raises(OnrecordError, match=problem):
        cli(*words)
