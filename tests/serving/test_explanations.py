"""Contributions and base add up to the model's own margin, and that is what the answer comes of."""

import dataclasses
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
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from onrecord.errors import NotExplainable
from onrecord.serving.explanations import explain, why_not_explained
from onrecord.serving.input_schema import InputSchema, parse_input_schema
from onrecord.serving.runtimes import Runtime
from onrecord.serving.runtimes.catboost import CatboostRuntime
from onrecord.serving.runtimes.lightgbm import LightgbmRuntime
from onrecord.serving.runtimes.xgboost import XgboostRuntime
from serving.adding_up import add_up, rows_of_array
from serving.models import (
    NUMBERS,
    TABLE,
    VALUES,
    WORDS,
    X,
    Y,
    load,
    schema_of,
    write_pickle,
)

MISSING = X.copy()
MISSING[::7, 0] = np.nan
MIXED = (
    {"name": "a", "type": "numeric", "nullable": True},
    {"name": "kind", "type": "categorical", "categories": ["blue", "green", "red"]},
    {"name": "b", "type": "numeric"},
    {"name": "big", "type": "boolean"},
)
HALF = ({"name": "a", "type": "numeric", "nullable": True}, NUMBERS[1])
FRAME = pd.DataFrame(
    {"a": MISSING[:, 0], "kind": TABLE["kind"], "b": X[:, 1], "big": TABLE["size"] > 10}
)


def schema(*columns: dict[str, Any]) -> InputSchema:
    return parse_input_schema(schema_of(columns).encode(), "input_schema.json")


def mixed_pipeline(model: Any, target: Any) -> Any:
    prepare = ColumnTransformer(
        [
            ("kind", OneHotEncoder(), ["kind"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["b", "a"]),
            ("big", "passthrough", ["big"]),
        ]
    )
    return make_pipeline(prepare, model).fit(FRAME, target)


def mixed_rows() -> list[tuple[Any, ...]]:
    return [
        (None if np.isnan(a) else a, kind, b, bool(big))
        for a, kind, b, big in FRAME.itertuples(index=False)
    ]


@pytest.mark.parametrize(
    ("target", "space"), [(Y, "log-odds"), (WORDS, "margin"), (VALUES, "prediction")]
)
def test_boosters_of_xgboost(target: Any, space: str) -> None:
    kind = xgboost.XGBRegressor if space == "prediction" else xgboost.XGBClassifier
    codes = np.unique(target, return_inverse=True)[1] if space == "margin" else target
    model = kind(n_estimators=12, max_depth=3).fit(MISSING, codes)
    runtime = XgboostRuntime(model.get_booster(), schema(*HALF), "model.ubj")

    assert add_up(runtime, rows_of_array(MISSING)).space == space


@pytest.mark.parametrize(
    ("objective", "target", "space"),
    [
        ("binary", Y, "log-odds"),
        ("multiclass", np.unique(WORDS, return_inverse=True)[1], "margin"),
        ("regression", VALUES, "prediction"),
    ],
)
def test_boosters_of_lightgbm(objective: str, target: Any, space: str) -> None:
    more = {"num_class": 3} if objective == "multiclass" else {}
    settings = {"objective": objective, "verbose": -1, "num_leaves": 7, **more}
    booster = lightgbm.train(settings, lightgbm.Dataset(MISSING, target), 12)
    runtime = LightgbmRuntime(booster, schema(*HALF), "model.txt")

    assert add_up(runtime, rows_of_array(MISSING)).space == space


@pytest.mark.parametrize(
    ("target", "space"), [(Y, "log-odds"), (WORDS, "margin"), (VALUES, "prediction")]
)
def test_models_of_catboost_with_categories(target: Any, space: str) -> None:
    kind = catboost.CatBoostRegressor if space == "prediction" else catboost.CatBoostClassifier
    table = FRAME[["kind", "b"]]
    model = kind(iterations=10, depth=3, verbose=0, allow_writing_files=False, cat_features=[0])
    model.fit(table, target)
    runtime = CatboostRuntime(model, schema(MIXED[1], MIXED[2]), "model.cbm")

    assert add_up(runtime, list(table.itertuples(index=False, name=None))).space == space


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

    found = add_up(load(directory, compiled=compiled).runtime, mixed_rows())

    assert found.space == space
    assert found.contributions.shape[2] == len(MIXED)
    # Rows that differ in the kind only differ in what the kind contributes only.
    one, other = (0.5, "red", 0.1, True), (0.5, "blue", 0.1, True)
    two = explain(load(directory).runtime, [one, other]).contributions
    assert np.flatnonzero(np.abs(two[0] - two[1]).max(axis=0) > 1e-12).tolist() == [1]


CODES = np.unique(WORDS, return_inverse=True)[1]
POSITIVE = np.exp(VALUES / 8)
SHARE = POSITIVE / POSITIVE.max()


@pytest.mark.parametrize(
    ("settings", "target", "space"),
    [
        ({"objective": "binary", "sigmoid": 2.5}, Y, "log-odds"),
        ({"objective": "multiclassova", "num_class": 3}, CODES, "log-odds"),
        ({"objective": "multiclassova", "num_class": 3, "sigmoid": 0.4}, CODES, "log-odds"),
        ({"objective": "cross_entropy"}, SHARE, "log-odds"),
        ({"objective": "poisson"}, POSITIVE, "log-prediction"),
        ({"objective": "tweedie"}, POSITIVE, "log-prediction"),
        ({"objective": "lambdarank"}, CODES, "prediction"),
        ({"objective": "cross_entropy_lambda"}, SHARE, None),
        ({"objective": "regression", "reg_sqrt": True}, POSITIVE, None),
    ],
    ids=lambda it: it["objective"] if isinstance(it, dict) else None,
)
def test_each_link_of_lightgbm_is_told_as_it_is_or_not_at_all(
    settings: dict[str, Any], target: Any, space: str | None
) -> None:
    group = [len(X)] if settings["objective"] == "lambdarank" else None
    data = lightgbm.Dataset(X, target, group=group)
    booster = lightgbm.train(settings | {"verbose": -1, "num_leaves": 7}, data, 12)

    told_or_refused(LightgbmRuntime(booster, schema(*NUMBERS), "model.txt"), space)


@pytest.mark.parametrize(
    ("objective", "target", "space"),
    [
        ("count:poisson", POSITIVE, "log-prediction"),
        ("reg:gamma", POSITIVE, "log-prediction"),
        ("reg:logistic", SHARE, "log-odds"),
        ("binary:logitraw", Y, "prediction"),
        ("binary:hinge", Y, None),
    ],
)
def test_each_link_of_xgboost_is_told_as_it_is_or_not_at_all(
    objective: str, target: Any, space: str | None
) -> None:
    settings = {"objective": objective, "max_depth": 3}
    booster = xgboost.train(settings, xgboost.DMatrix(X, target), 12)

    told_or_refused(XgboostRuntime(booster, schema(*NUMBERS), "model.ubj"), space)


@pytest.mark.parametrize(
    ("loss", "target", "space"),
    [
        ("MultiClassOneVsAll", WORDS, "log-odds"),
        ("CrossEntropy", Y, "log-odds"),
        ("Poisson", POSITIVE, "log-prediction"),
        ("MAE", VALUES, "prediction"),
        ("RMSEWithUncertainty", VALUES, None),
    ],
)
def test_each_link_of_catboost_is_told_as_it_is_or_not_at_all(
    loss: str, target: Any, space: str | None
) -> None:
    settings = {"loss_function": loss, "iterations": 10, "depth": 3}
    model = catboost.CatBoost(settings | {"allow_writing_files": False})
    model.fit(X, target, verbose=0)

    told_or_refused(CatboostRuntime(model, schema(*NUMBERS), "model.cbm"), space)


def told_or_refused(runtime: Runtime, space: str | None) -> None:
    if space is None:
        assert why_not_explained(runtime, (0.1, 0.2))
        with pytest.raises(NotExplainable, match="not told"):
            explain(runtime, rows_of_array(X))
    else:
        assert add_up(runtime, rows_of_array(X)).space == space


def test_contributions_that_do_not_add_up_are_not_told(tmp_path: Path) -> None:
    runtime = load(write_pickle(tmp_path / "m", Ridge().fit(X, VALUES))).runtime
    told = explain(runtime, rows_of_array(X))
    (answers,) = runtime.predict(rows_of_array(X)).targets

    assert told.add_up_to(answers)
    off = told.contributions + np.array([0, 1e-4])
    assert not dataclasses.replace(told, contributions=off).add_up_to(answers)
    assert not dataclasses.replace(told, space="log-prediction").add_up_to(answers)

    runtime.estimator.predict = lambda data: VALUES[: len(data)]
    with pytest.raises(NotExplainable, match="do not add up"):
        explain(runtime, rows_of_array(X))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (SVC().fit(X, Y), "A SVC does not tell"),
        (make_pipeline(PCA(), LogisticRegression()).fit(X, Y), "step PCA does not keep"),
        (LinearRegression().fit(X, X), "several targets"),
    ],
    ids=["other model", "columns mixed", "targets"],
)
def test_what_cannot_be_explained_says_why(model: Any, why: str, tmp_path: Path) -> None:
    runtime = load(write_pickle(tmp_path / "m", model)).runtime

    assert why in why_not_explained(runtime, (0.1, 0.2))
