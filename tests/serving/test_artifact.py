"""Loading a model directory: what is read, and each reason for which it is refused."""

import hashlib
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pytest
import skops.io
import xgboost
from sklearn.linear_model import LinearRegression, LogisticRegression
from structlog.testing import capture_logs

from onrecord.errors import ModelDirectoryError
from onrecord.serving.artifact import load_model, read_model_file
from onrecord.serving.runtimes.rehearsal import rehearse
from onrecord.serving.trust import Trust
from serving.models import BOTH, NUMBERS, VALUES, WORDS, X, Y, load, write_pickle, write_schema

LINEAR = LogisticRegression().fit(X, WORDS)
RED = {"name": "red", "type": "categorical", "categories": ["yes", "no"]}


def refusal(directory: Path) -> ModelDirectoryError:
    with pytest.raises(ModelDirectoryError) as caught:
        load(directory)
    assert caught.value.problem
    assert caught.value.remedy
    assert "\n" not in caught.value.problem
    return caught.value


def write_skops(directory: Path, columns: Any = NUMBERS, **beside: Any) -> Path:
    write_schema(directory, columns, **beside)
    skops.io.dump(LINEAR, directory / "model.skops")
    return directory


def test_a_loaded_model_tells_what_it_is(tmp_path: Path) -> None:
    directory = write_skops(tmp_path / "credit")

    model = load(directory)

    raw = (directory / "model.skops").read_bytes()
    schema = (directory / "input_schema.json").read_bytes()
    assert model.sha256 == hashlib.sha256(raw).hexdigest()
    assert model.schema_sha256 == hashlib.sha256(schema).hexdigest()
    assert model.input_schema_bytes == schema
    assert (model.name, model.version) == ("credit", model.sha256[:12])
    assert (model.format, model.runtime.name) == ("skops", "scikit-learn")
    assert 0 < model.seconds_per_row < 5


def test_a_name_given_at_the_start_stands_before_the_schemas_and_the_directorys(
    tmp_path: Path,
) -> None:
    directory = write_skops(tmp_path / "directory", name="schema", version="7")

    assert (load(directory).name, load(directory).version) == ("schema", "7")
    named = load_model(directory, trust=Trust(None), name="given", compile=False)
    assert named.name == "given"


def test_predictions_go_on_when_the_directory_is_gone(tmp_path: Path) -> None:
    directory = write_skops(tmp_path / "m")
    model = load(directory, compiled=True)
    shutil.rmtree(directory)

    outputs = model.runtime.predict([tuple(row) for row in X[:40].tolist()])

    assert outputs.targets[0].values == LINEAR.predict(X[:40]).tolist()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere")

    assert error.file == str(tmp_path / "nowhere")
    assert "no such directory" in error.problem


def test_a_directory_without_a_model_file_is_refused(tmp_path: Path) -> None:
    error = refusal(write_schema(tmp_path, NUMBERS))

    assert (error.file, error.field) == (str(tmp_path), "model file")
    assert "missing" in error.problem
    assert "model.skops" in error.remedy


def test_several_model_files_are_refused_by_name(tmp_path: Path) -> None:
    (write_skops(tmp_path) / "model.txt").write_text("tree")

    error = refusal(tmp_path)

    assert error.problem == "there are several: model.skops, model.txt"


def test_an_empty_model_file_is_refused(tmp_path: Path) -> None:
    (write_schema(tmp_path, NUMBERS) / "model.onnx").touch()

    error = refusal(tmp_path)

    assert (error.file, error.problem) == ("model.onnx", "it is empty")


def test_a_missing_schema_is_named(tmp_path: Path) -> None:
    (write_skops(tmp_path) / "input_schema.json").unlink()

    error = refusal(tmp_path)

    assert error.file == "input_schema.json"
    assert "onrecord init" in error.remedy


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (write_schema(tmp_path, NUMBERS) / "model.onnx").write_bytes(b"x")
    (tmp_path / "input_schema.json").unlink()
    (tmp_path / "input_schema.json").mkdir()

    error = refusal(tmp_path)

    assert error.file == "input_schema.json"
    assert "cannot be read" in error.problem


def test_a_name_that_cannot_stand_in_an_address_is_refused(tmp_path: Path) -> None:
    error = refusal(write_skops(tmp_path / "my models"))

    assert (error.file, error.field) == ("input_schema.json", "name")
    assert "--name" in error.remedy


@pytest.mark.parametrize(
    "file",
    [
        "model.pkl",
        "model.joblib",
        "model.skops",
        "model.onnx",
        "model.ubj",
        "model.json",
        "model.txt",
        "model.cbm",
    ],
)
def test_a_file_that_is_not_its_format_is_refused(file: str, tmp_path: Path) -> None:
    write_schema(tmp_path, NUMBERS)
    (tmp_path / file).write_bytes(b"this is no model at all, whatever its name says")

    assert refusal(tmp_path).file == file


WRONG_SCHEMAS: dict[str, Any] = {
    "a column too few": (NUMBERS[:1], {}, "columns", "there are 1, but model.skops takes 2"),
    "a category for a number": (
        [NUMBERS[0], {**RED, "name": "b"}],
        {},
        "columns",
        "cannot answer a probe row",
    ),
    "a null that the model does not take": (
        [NUMBERS[0], {**NUMBERS[1], "nullable": True}],
        {},
        "columns: b.nullable",
        "a row in which b is null",
    ),
    "classes of another model": (NUMBERS, {"classes": ["x", "y", "z"]}, "classes", "high"),
    "a class too few": (NUMBERS, {"classes": ["high", "low"]}, "classes", "has 3"),
    "classes per target": (NUMBERS, {"classes": [["high"], ["low"]]}, "classes", "has 3"),
    "another task": (NUMBERS, {"task": "regression"}, "task", "a class"),
    "a target too many": (NUMBERS, {"target": ["x", "y"]}, "target", "but model.skops has 1"),
}


@pytest.mark.parametrize("case", WRONG_SCHEMAS)
def test_a_schema_that_is_not_the_models_is_refused_at_the_field(case: str, tmp_path: Path) -> None:
    columns, beside, field, problem = WRONG_SCHEMAS[case]

    error = refusal(write_skops(tmp_path, columns, **beside))

    assert (error.file, error.field) == ("input_schema.json", field)
    assert problem in error.problem


def test_classes_of_a_regression_are_refused(tmp_path: Path) -> None:
    model = LinearRegression().fit(X, VALUES)

    error = refusal(write_pickle(tmp_path / "a", model, classes=[0, 1]))
    other = refusal(write_pickle(tmp_path / "b", model, task="classification"))

    assert (error.field, other.field) == ("classes", "task")


def test_targets_are_counted(tmp_path: Path) -> None:
    model = LinearRegression().fit(X, BOTH)

    error = refusal(write_pickle(tmp_path, model, target=["a", "b", "c"]))

    assert (error.file, error.field) == ("input_schema.json", "target")


def named(columns: list[str]) -> Any:
    import pandas as pd

    return LogisticRegression().fit(pd.DataFrame(X, columns=columns), Y)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (["a", "z"], "the schema lacks z; the model does not know b"),
        (["b", "a"], "the order differs: the model's is b, a"),
    ],
)
def test_feature_names_must_be_the_schemas(
    columns: list[str], problem: str, tmp_path: Path
) -> None:
    error = refusal(write_pickle(tmp_path, named(columns)))

    assert (error.file, error.field) == ("input_schema.json", "columns")
    assert problem in error.problem


BOOSTERS: dict[str, Any] = {
    "model.ubj": lambda path, x, y: (
        xgboost.XGBClassifier(n_estimators=2).fit(x, y).save_model(path)
    ),
    "model.txt": lambda path, x, y: (
        lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(x, y).booster_.save_model(path)
    ),
    "model.cbm": lambda path, x, y: (
        catboost.CatBoostClassifier(iterations=2, verbose=0, allow_writing_files=False)
        .fit(x, y)
        .save_model(str(path))
    ),
}


@pytest.mark.parametrize("file", BOOSTERS)
def test_a_boosters_features_must_be_the_schemas(file: str, tmp_path: Path) -> None:
    import pandas as pd

    write_schema(tmp_path, [NUMBERS[0], {**NUMBERS[1], "name": "z"}])
    BOOSTERS[file](tmp_path / file, pd.DataFrame(X, columns=["a", "b"]), Y)

    by_name = refusal(tmp_path)
    BOOSTERS[file](tmp_path / file, np.hstack([X, X]), Y)
    by_count = refusal(tmp_path)

    assert "lacks b" in by_name.problem
    assert (by_count.file, by_count.field) == ("input_schema.json", "columns")
    assert "takes 4 features" in by_count.problem


@pytest.mark.parametrize("file", BOOSTERS)
def test_a_category_that_a_booster_had_as_a_number_is_refused(file: str, tmp_path: Path) -> None:
    write_schema(tmp_path, [NUMBERS[0], RED])
    BOOSTERS[file](tmp_path / file, X, Y)

    error = refusal(tmp_path)

    assert error.file == "input_schema.json"
    assert error.field is not None
    assert error.field.startswith("columns")


def test_a_number_that_catboost_had_as_a_category_is_refused(tmp_path: Path) -> None:
    import pandas as pd

    table = pd.DataFrame({"a": X[:, 0], "b": (X[:, 1] > 0).astype(int)})
    model = catboost.CatBoostClassifier(
        iterations=2, verbose=0, cat_features=["b"], allow_writing_files=False
    )
    model.fit(table, Y).save_model(str(write_schema(tmp_path, NUMBERS) / "model.cbm"))

    error = refusal(tmp_path)

    assert error.field == "columns: b.type"


def test_a_file_without_predict_is_refused(tmp_path: Path) -> None:
    error = refusal(write_pickle(tmp_path, {"coefficients": [1, 2]}))

    assert (error.file, error.field) == ("model.pkl", None)
    assert "holds a dict, which has no predict" in error.problem


class Gone:
    """Pickled by name, then not there."""

    def predict(self, rows: Any) -> Any:
        return rows


class Sums:
    """Answers a whole table with one number."""

    def predict(self, rows: Any) -> Any:
        return np.array([np.sum(rows)] * 2)


class Infinite:
    """Has no finite answer."""

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), np.inf)


def test_a_model_that_does_not_answer_row_by_row_is_refused(tmp_path: Path) -> None:
    assert "2 answers to one row" in refusal(write_pickle(tmp_path, Sums())).problem


def test_a_model_that_answers_its_probe_with_infinity_is_refused(tmp_path: Path) -> None:
    assert "not a finite number" in refusal(write_pickle(tmp_path, Infinite())).problem


def pickle_of_module(tmp_path: Path, module: str, code: str) -> bytes:
    """Pickle an object of a module that will then not be there."""
    (tmp_path / f"{module}.py").write_text(code)
    sys.path.insert(0, str(tmp_path))
    try:
        made = __import__(module)
        return pickle.dumps(made.Thing())
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop(module)


def test_a_pickle_that_needs_an_absent_module_names_it(tmp_path: Path) -> None:
    raw = pickle_of_module(tmp_path, "absent_thing", "class Thing:\n    def predict(self): ...\n")
    (write_schema(tmp_path / "m", NUMBERS) / "model.pkl").write_bytes(raw)

    error = refusal(tmp_path / "m")

    assert error.file == "model.pkl"
    assert "absent_thing" in error.problem
    assert "absent_thing" in error.remedy
    assert "onrecord[" not in error.remedy


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"LogisticRegression", b"LogisticRegressiom"),
        (b"sklearn.linear_model._logistic", b"sklearn.linear_model._logistik"),
    ],
    ids=["attribute", "module"],
)
def test_a_pickle_of_another_version_of_the_library_says_so(
    old: bytes, new: bytes, tmp_path: Path
) -> None:
    raw = pickle.dumps(LINEAR)
    assert old in raw
    (write_schema(tmp_path, NUMBERS) / "model.pkl").write_bytes(raw.replace(old, new))

    error = refusal(tmp_path)

    assert error.file == "model.pkl"
    assert "another version" in error.problem
    assert "Install the version" in error.remedy


def test_a_pickle_of_another_version_that_loads_is_served_with_a_warning(tmp_path: Path) -> None:
    version = sys.modules["sklearn"].__version__.encode()
    raw = pickle.dumps(LINEAR).replace(version, b"0" + version[1:])
    (write_schema(tmp_path, NUMBERS) / "model.pkl").write_bytes(raw)

    with capture_logs() as logs:
        load(tmp_path)

    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "another version" in logs[0]["event"]


def test_an_old_pickle_of_xgboost_says_what_to_do_and_not_xgboosts_error(tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=2).fit(X, Y)
    raw = pickle.dumps(model)
    assert b"learner" in raw
    damaged = raw.replace(b"learner", b"LEARNER", 1)
    (write_schema(tmp_path, NUMBERS) / "model.pkl").write_bytes(damaged)

    error = refusal(tmp_path)

    assert error.file == "model.pkl"
    assert "this version of XGBoost cannot read it" in error.problem
    assert "save_model('model.ubj')" in error.remedy


def cuts(raw: bytes) -> list[bytes]:
    """Cut a file at the end, near it, and in the middle."""
    return [raw[: len(raw) // 3], raw[: len(raw) * 2 // 3], raw[:-60]]


def test_a_truncated_lightgbm_text_does_not_end_the_process(tmp_path: Path) -> None:
    write_schema(tmp_path, NUMBERS)
    BOOSTERS["model.txt"](tmp_path / "model.txt", X, Y)
    raw = (tmp_path / "model.txt").read_bytes()
    parameters = raw.index(b"\nparameters:")

    for length in (parameters // 2, parameters + 40, raw.index(b"end of parameters")):
        (tmp_path / "model.txt").write_bytes(raw[:length])
        assert "truncated" in refusal(tmp_path).problem


def test_a_lightgbm_text_with_a_hole_does_not_end_the_process(tmp_path: Path) -> None:
    write_schema(tmp_path, NUMBERS)
    BOOSTERS["model.txt"](tmp_path / "model.txt", X, Y)
    raw = (tmp_path / "model.txt").read_bytes()
    trees = raw.index(b"Tree=0")
    (tmp_path / "model.txt").write_bytes(raw[: trees + 30] + raw[trees + 300 :])

    assert refusal(tmp_path).file == "model.txt"


def test_truncated_boosters_do_not_end_the_process(tmp_path: Path) -> None:
    write_schema(tmp_path, NUMBERS)
    BOOSTERS["model.ubj"](tmp_path / "model.ubj", X, Y)

    for cut in cuts((tmp_path / "model.ubj").read_bytes()):
        (tmp_path / "model.ubj").write_bytes(cut)
        assert refusal(tmp_path).file == "model.ubj"


def test_a_file_that_would_crash_its_library_is_refused() -> None:
    crash = "import os, signal, sys; sys.stdin.read(); os.kill(os.getpid(), signal.SIGSEGV)"

    with pytest.raises(ModelDirectoryError, match="crashes its library"):
        rehearse(crash, b"x", "model.txt")


def test_a_file_that_would_keep_its_library_busy_for_ever_is_refused() -> None:
    with pytest.raises(ModelDirectoryError, match="busy"):
        rehearse("while True: pass", b"x", "model.txt", seconds=0.2)


def test_an_error_in_the_rehearsal_is_left_to_the_performance() -> None:
    rehearse("raise ValueError", b"x", "model.txt")


def test_a_skops_file_cut_short_is_refused(tmp_path: Path) -> None:
    file = write_skops(tmp_path) / "model.skops"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(ModelDirectoryError) as caught:
        load_model(tmp_path, trust=Trust(None), compile=False)

    assert caught.value.file == "model.skops"


def test_the_model_file_is_read_once_and_hashed(tmp_path: Path) -> None:
    file = read_model_file(write_skops(tmp_path))

    assert file.format == "skops"
    assert file.sha256 == hashlib.sha256(file.raw).hexdigest()
    assert file.raw == (tmp_path / "model.skops").read_bytes()


def test_a_schema_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (write_skops(tmp_path) / "input_schema.json").write_text(json.dumps(["a"]))

    assert refusal(tmp_path).file == "input_schema.json"
