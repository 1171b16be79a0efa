"""Contributions and base add up to the model's own margin, and that is what the answer comes of."""

from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from onrecord.errors import NotExplainable
from onrecord.serving.explanations import explain
from serving.models import NUMBERS, TABLE, VALUES, WORDS, X, Y, load, write_pickle, write_schema

MISSING = X.copy()
MISSING[::7, 0] = np.nan
MIXED = (
    {"name": "a", "type": "numeric", "nullable": True},
    {"name": "kind", "type": "categorical", "categories": ["blue", "green", "red"]},
    {"name": "b", "type": "numeric"},
    {"name": "big", "type": "boolean"},
)
FRAME = pd.DataFrame(
    {"a": MISSING[:, 0], "kind": TABLE["kind"], "b": X[:, 1], "big": TABLE["size"] > 10}
)


def mixed_pipeline(model: Any, target: Any) -> Any:
    prepare = ColumnTransformer(
        [
            ("kind", OneHotEncoder(), ["kind"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["b", "a"]),
            ("big", "passthrough", ["big"]),
        ]
    )
    return make_pipeline(prepare, model).fit(FRAME, target)


def rows_of(table: Any) -> list[tuple[Any, ...]]:
    return [
        tuple(None if isinstance(it, float) and np.isnan(it) else it for it in row)
        for row in table.tolist()
    ]


def mixed_rows() -> list[tuple[Any, ...]]:
    return [
        (None if np.isnan(a) else a, kind, b, bool(big))
        for a, kind, b, big in FRAME.itertuples(index=False)
    ]


def logistic(margin: Any) -> Any:
    return 1 / (1 + np.exp(-margin))


def softmax(margins: Any) -> Any:
    raised = np.exp(margins - margins.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def check(directory: Path, rows: list[tuple[Any, ...]], *, compiled: bool = False) -> Any:
    """Compare what adds up with the answers; return the explanations."""
    runtime = load(directory, compiled=compiled).runtime
    found = explain(runtime, rows)
    (answers,) = runtime.predict(rows).targets
    margins = found.base + found.contributions.sum(axis=2)
    if found.space == "log-odds":
        chances = np.array(answers.probabilities)[:, 1]
        assert logistic(margins[:, 0]) == pytest.approx(chances, abs=1e-4)
    elif found.space == "margin":
        assert softmax(margins) == pytest.approx(np.array(answers.probabilities), abs=1e-4)
        assert tuple(found.classes or ()) == answers.classes
    else:
        assert margins[:, 0] == pytest.approx(np.array(answers.values), rel=1e-4, abs=1e-4)
    return found


@pytest.mark.parametrize(
    ("target", "space"), [(Y, "log-odds"), (WORDS, "margin"), (VALUES, "prediction")]
)
def test_boosters_of_xgboost(target: Any, space: str, tmp_path: Path) -> None:
    kind = xgboost.XGBRegressor if space == "prediction" else xgboost.XGBClassifier
    codes = np.unique(target, return_inverse=True)[1] if space == "margin" else target
    model = kind(n_estimators=12, max_depth=3).fit(MISSING, codes)
    directory = write_schema(tmp_path / "m", [NUMBERS[0] | {"nullable": True}, NUMBERS[1]])
    model.get_booster().save_model(directory / "model.ubj")

    assert check(directory, rows_of(MISSING)).space == space


@pytest.mark.parametrize(
    ("objective", "target", "space"),
    [
        ("binary", Y, "log-odds"),
        ("multiclass", np.unique(WORDS, return_inverse=True)[1], "margin"),
        ("regression", VALUES, "prediction"),
    ],
)
def test_boosters_of_lightgbm(objective: str, target: Any, space: str, tmp_path: Path) -> None:
    more = {"num_class": 3} if objective == "multiclass" else {}
    settings = {"objective": objective, "verbose": -1, "num_leaves": 7, **more}
    booster = lightgbm.train(settings, lightgbm.Dataset(MISSING, target), 12)
    directory = write_schema(tmp_path / "m", [NUMBERS[0] | {"nullable": True}, NUMBERS[1]])
    booster.save_model(directory / "model.txt")

    assert check(directory, rows_of(MISSING)).space == space


@pytest.mark.parametrize(
    ("target", "space"), [(Y, "log-odds"), (WORDS, "margin"), (VALUES, "prediction")]
)
def test_models_of_catboost_with_categories(target: Any, space: str, tmp_path: Path) -> None:
    kind = catboost.CatBoostRegressor if space == "prediction" else catboost.CatBoostClassifier
    columns = [MIXED[1], MIXED[2]]
    table = FRAME[["kind", "b"]]
    model = kind(iterations=10, depth=3, verbose=0, allow_writing_files=False, cat_features=[0])
    model.fit(table, target)
    directory = write_schema(tmp_path / "m", columns)
    model.save_model(str(directory / "model.cbm"))

    assert check(directory, [(k, b) for k, b in table.itertuples(index=False)]).space == space


@pytest.mark.parametrize(
    ("model", "target", "space"),
    [
        (LogisticRegression(), Y, "log-odds"),
        (LogisticRegression(), WORDS, "margin"),
        (Ridge(), VALUES, "prediction"),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_linear_models_count_for_a_column_what_it_became(
    model: Any, target: Any, space: str, compiled: bool, tmp_path: Path
) -> None:
    directory = write_pickle(tmp_path / "m", mixed_pipeline(model, target), MIXED)

    found = check(directory, mixed_rows(), compiled=compiled)

    assert found.space == space
    assert found.contributions.shape[2] == len(MIXED)
    # Rows that differ in the kind only differ in what the kind contributes only.
    one, other = (0.5, "red", 0.1, True), (0.5, "blue", 0.1, True)
    two = explain(load(directory).runtime, [one, other]).contributions
    assert np.flatnonzero(np.abs(two[0] - two[1]).max(axis=0) > 1e-12).tolist() == [1]


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(5, random_state=1).fit(X, Y),
        make_pipeline(PCA(), LogisticRegression()).fit(X, Y),
    ],
    ids=["forest", "columns mixed"],
)
def test_what_cannot_be_explained_says_why(model: Any, tmp_path: Path) -> None:
    runtime = load(write_pickle(tmp_path / "m", model)).runtime

    with pytest.raises(NotExplainable, match="does not"):
        explain(runtime, [(0.1, 0.2)])
