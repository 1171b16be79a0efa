"""What scikit-learn's trees are explained by: SHAP values that add up to the model's answers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from onrecord.errors import NotExplainable
from onrecord.serving.artifact import load_model
from onrecord.serving.compile import CompiledRuntime, DeferredRuntime
from onrecord.serving.explanations import explain, why_not_explained
from onrecord.serving.runtimes import trees
from serving.adding_up import add_up, rows_of_array
from serving.models import (
    BOTH,
    NUMBERS,
    TABLE,
    VALUES,
    WORDS,
    X,
    Y,
    load,
    trust_in,
    write_pickle,
)
from serving.test_explanations import MIXED, mixed_pipeline, mixed_rows

ROW = (0.1, 0.2)
POSITIVE = np.exp(VALUES / 8)
FEW: dict[str, Any] = {"n_estimators": 5, "max_depth": 4, "random_state": 1}


@pytest.mark.parametrize(
    ("model", "target", "space"),
    [
        (DecisionTreeClassifier(max_depth=4), Y, "probability"),
        (DecisionTreeClassifier(max_depth=4), WORDS, "probability"),
        (RandomForestClassifier(**FEW), Y, "probability"),
        (RandomForestClassifier(**FEW, class_weight="balanced"), WORDS, "probability"),
        (ExtraTreesClassifier(**FEW), WORDS, "probability"),
        (GradientBoostingClassifier(**FEW), Y, "log-odds"),
        (HistGradientBoostingClassifier(max_iter=5), Y, "log-odds"),
        (HistGradientBoostingClassifier(max_iter=5), WORDS, "margin"),
        (DecisionTreeRegressor(max_depth=4), VALUES, "prediction"),
        (RandomForestRegressor(**FEW), VALUES, "prediction"),
        (ExtraTreesRegressor(**FEW), VALUES, "prediction"),
        (GradientBoostingRegressor(**FEW, loss="huber"), VALUES, "prediction"),
        (HistGradientBoostingRegressor(max_iter=5), VALUES, "prediction"),
        (HistGradientBoostingRegressor(max_iter=5, loss="poisson"), POSITIVE, "log-prediction"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_trees_add_up_to_the_answers(model: Any, target: Any, space: str, tmp_path: Path) -> None:
    directory = write_pickle(tmp_path / "m", model.fit(X, target))

    assert add_up(load(directory).runtime, rows_of_array(X)).space == space


@pytest.mark.parametrize(
    "model",
    [RandomForestRegressor(**FEW), HistGradientBoostingRegressor(max_iter=5)],
    ids=lambda it: type(it).__name__,
)
def test_missing_values_go_the_way_the_model_sends_them(model: Any, tmp_path: Path) -> None:
    table = X.copy()
    table[::3, 0] = np.nan
    columns = [NUMBERS[0] | {"nullable": True}, NUMBERS[1]]
    directory = write_pickle(tmp_path / "m", model.fit(table, VALUES), columns)

    add_up(load(directory).runtime, rows_of_array(table))


@pytest.mark.parametrize("compiled", [False, True])
def test_what_a_column_became_counts_for_it(compiled: bool, tmp_path: Path) -> None:
    pipeline = mixed_pipeline(RandomForestClassifier(**FEW), WORDS)
    directory = write_pickle(tmp_path / "m", pipeline, MIXED)

    found = add_up(load(directory, compiled=compiled).runtime, mixed_rows())

    assert found.contributions.shape == (len(TABLE), 3, len(MIXED))
    assert (np.abs(found.contributions).max(axis=(0, 1)) > 1e-3).all()


def test_contributions_are_the_shares_of_all_orders_of_the_columns(tmp_path: Path) -> None:
    """Of one split on `a`, and one on `b` below it, they can be told by hand."""
    a, b = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    tree = DecisionTreeRegressor().fit(np.stack((a, b), axis=1), a + a * b * 2)
    runtime = load(write_pickle(tmp_path / "m", tree)).runtime

    found = explain(runtime, [(1.0, 1.0)])

    # Known a first: 2 of a mean of 1, then b brings 3; b first: 1.5, then a.
    assert found.base.tolist() == [[1.0]]
    assert found.contributions[0, 0].tolist() == pytest.approx([1.25, 0.75])


def exponential() -> Any:
    return GradientBoostingClassifier(**FEW, loss="exponential").fit(X, Y)


def categorical() -> Any:
    codes = np.stack((np.arange(240) % 4, X[:, 1]), axis=1)
    model = HistGradientBoostingRegressor(max_iter=5, categorical_features=[0])
    return model.fit(codes, np.sin(codes[:, 0] * 7))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (GradientBoostingClassifier(**FEW).fit(X, WORDS), "only supported for binary"),
        (categorical(), "with categorical features is not explained"),
        (exponential(), "do not add up to its answer"),
        (RandomForestRegressor(**FEW).fit(X, BOTH), "several targets"),
        (make_pipeline(PCA(), DecisionTreeClassifier()).fit(X, Y), "step PCA does not keep"),
    ],
    ids=["classes", "categories", "link", "targets", "columns mixed"],
)
def test_what_would_be_wrong_is_refused(model: Any, why: str, tmp_path: Path) -> None:
    runtime = load(write_pickle(tmp_path / "m", model)).runtime

    assert why in why_not_explained(runtime, ROW)
    with pytest.raises(NotExplainable):
        explain(runtime, rows_of_array(X))


def test_categories_that_the_library_takes_for_amounts_would_be_told_wrong() -> None:
    """Why the refusal is needed: its own sum of the same trees is not the model's answer."""
    model = categorical()
    import shap

    codes = np.stack((np.arange(8) % 4, np.zeros(8)), axis=1)
    told = shap.TreeExplainer(model)
    sums = told.shap_values(codes, check_additivity=False).sum(axis=1) + told.expected_value

    assert np.abs(sums - model.predict(codes)).max() > 0.1


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = DecisionTreeClassifier(max_depth=2).fit(X, Y)
    runtime = load(write_pickle(tmp_path / "m", tree)).runtime
    monkeypatch.setattr(trees, "find_spec", lambda name: None)

    why = why_not_explained(runtime, ROW)

    assert "pip install 'onrecord[explain]'" in why


@pytest.mark.parametrize(
    ("model", "loaded", "why"),
    [
        (RandomForestClassifier(10, max_depth=4, random_state=1), True, ""),
        (LogisticRegression(), False, ""),
        (GaussianNB(), False, "A GaussianNB does not tell"),
    ],
    ids=["trees", "linear", "neither"],
)
def test_of_a_kept_conversion_only_trees_are_loaded_to_be_explained(
    model: Any, loaded: bool, why: str, tmp_path: Path
) -> None:
    columns = [column | {"minimum": -9, "maximum": 9} for column in NUMBERS]
    directory = write_pickle(tmp_path / "m", model.fit(X, Y), columns)
    cache = tmp_path / "conversions"

    load_model(directory, trust=trust_in(directory), cache=cache)
    again = load_model(directory, trust=trust_in(directory), cache=cache)

    assert isinstance(again.runtime, CompiledRuntime)
    original = again.runtime._original
    assert isinstance(original, DeferredRuntime)
    assert again.why_not_explained().startswith(why)
    assert (original._loaded is not None) is loaded


def test_a_command_that_explains_nothing_does_not_import_the_library(tmp_path: Path) -> None:
    directory = write_pickle(tmp_path / "m", DecisionTreeClassifier(max_depth=2).fit(X, Y))
    program = (
        "import sys; from pathlib import Path; from serving.models import load;"
        "model = load(Path(sys.argv[1])); assert 'shap' not in sys.modules;"
        "assert model.why_not_explained() == ''; assert 'shap' in sys.modules"
    )

    found = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True, env=found)
