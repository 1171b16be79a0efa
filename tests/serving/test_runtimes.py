"""Every format and library: the served answers are the library's own."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from onrecord.serving.outputs import Outputs
from serving.models import (
    BOTH,
    NUMBERS,
    TABLE,
    VALUES,
    WORDS,
    Y3,
    X,
    Y,
    load,
    rows_of,
    write_pickle,
    write_schema,
)

ROWS = [tuple(row) for row in X[:40].tolist()]
KIND = {"name": "kind", "type": "categorical", "categories": ["blue", "green", "red"]}
SIZE = {"name": "size", "type": "categorical", "categories": [40, 10, 20]}


def trained(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def predictions(outputs: Outputs) -> list[Any]:
    return [outputs.row(i)["prediction"] for i in range(len(outputs))]


def chances(outputs: Outputs) -> Any:
    return np.array([list(outputs.row(i)["probabilities"].values()) for i in range(len(outputs))])


def same_classification(outputs: Outputs, labels: Any, probabilities: Any) -> None:
    assert predictions(outputs) == np.asarray(labels).ravel().tolist()
    np.testing.assert_allclose(chances(outputs), probabilities, atol=1e-6)


ESTIMATORS: dict[str, Any] = {
    "binary": lambda: LogisticRegression().fit(X, Y),
    "multi-class": lambda: RandomForestClassifier(8, random_state=0).fit(X, Y3),
    "string classes": lambda: LogisticRegression().fit(X, WORDS),
    "boolean classes": lambda: LogisticRegression().fit(X, Y.astype(bool)),
    "classes that are whole floats": lambda: LogisticRegression().fit(X, Y.astype(float)),
    "XGBClassifier": lambda: xgboost.XGBClassifier(n_estimators=4).fit(X, Y3),
    "XGBClassifier of two classes": lambda: xgboost.XGBClassifier(n_estimators=4).fit(X, Y),
    "XGBClassifier with a value for missing": lambda: xgboost.XGBClassifier(
        n_estimators=4, missing=0.0
    ).fit(X, Y),
    "XGBClassifier that stopped early": lambda: xgboost.XGBClassifier(
        n_estimators=60, learning_rate=1.0, early_stopping_rounds=10, verbosity=0
    ).fit(X[:150], Y3[:150], eval_set=[(X[150:], Y3[150:])], verbose=False),
    "LGBMClassifier": lambda: lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(X, WORDS),
    "CatBoostClassifier": lambda: catboost.CatBoostClassifier(
        iterations=4, verbose=0, allow_writing_files=False
    ).fit(X, WORDS),
    "CatBoostClassifier of two classes": lambda: catboost.CatBoostClassifier(
        iterations=4, verbose=0, allow_writing_files=False
    ).fit(X, Y.astype(bool)),
    "SVC with probabilities": lambda: SVC(probability=True, random_state=0).fit(X, WORDS),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y3),
    "HistGradientBoosting": lambda: HistGradientBoostingClassifier(max_iter=5).fit(X, WORDS),
}


@pytest.mark.parametrize("case", ESTIMATORS)
def test_a_pickled_classifier_answers_as_in_its_library(case: str, tmp_path: Path) -> None:
    model = trained(ESTIMATORS[case])

    outputs = load(write_pickle(tmp_path, model)).runtime.predict(ROWS)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_classification(outputs, model.predict(X[:40]), model.predict_proba(X[:40]))
    assert {type(value) for value in predictions(outputs)} <= {str, int, bool}
    assert list(outputs.row(0)["probabilities"]) == [
        str(label).lower() if isinstance(label, np.bool_) else str(label).removesuffix(".0")
        for label in model.classes_
    ]


def test_boolean_classes_are_answered_as_booleans(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y.astype(bool))

    answer = load(write_pickle(tmp_path, model)).runtime.predict(ROWS).row(0)

    assert answer["prediction"] is bool(model.predict(X[:1])[0])
    assert list(answer["probabilities"]) == ["false", "true"]


def test_a_schema_may_name_classes_that_the_model_only_counts(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y)
    directory = write_pickle(tmp_path, model, classes=["no", "yes"])

    outputs = load(directory).runtime.predict(ROWS)

    assert predictions(outputs) == [["no", "yes"][label] for label in model.predict(X[:40])]
    assert list(outputs.row(0)["probabilities"]) == ["no", "yes"]


def test_a_classifier_without_probabilities_gives_none(tmp_path: Path) -> None:
    model = LinearSVC().fit(X, WORDS)

    outputs = load(write_pickle(tmp_path, model)).runtime.predict(ROWS)

    assert predictions(outputs) == model.predict(X[:40]).tolist()
    assert "probabilities" not in outputs.row(0)


REGRESSORS: dict[str, Any] = {
    "linear": lambda: LinearRegression().fit(X, VALUES),
    "XGBRegressor": lambda: xgboost.XGBRegressor(n_estimators=4).fit(X, VALUES),
    "XGBRegressor of a linear booster": lambda: xgboost.XGBRegressor(
        n_estimators=4, booster="gblinear"
    ).fit(X, VALUES),
    "XGBRegressor of counts": lambda: xgboost.XGBRegressor(
        n_estimators=4, objective="count:poisson"
    ).fit(X, Y3),
    "LGBMRegressor": lambda: lightgbm.LGBMRegressor(n_estimators=4, verbose=-1).fit(X, VALUES),
    "CatBoostRegressor": lambda: catboost.CatBoostRegressor(
        iterations=4, verbose=0, allow_writing_files=False
    ).fit(X, VALUES),
    "CatBoostRegressor of counts": lambda: catboost.CatBoostRegressor(
        iterations=4, loss_function="Poisson", verbose=0, allow_writing_files=False
    ).fit(X, Y3),
}


@pytest.mark.parametrize("case", REGRESSORS)
def test_a_pickled_regressor_answers_as_in_its_library(case: str, tmp_path: Path) -> None:
    model = trained(REGRESSORS[case])

    outputs = load(write_pickle(tmp_path, model, task="regression")).runtime.predict(ROWS)

    expected = trained(lambda: model.predict(X[:40]))
    np.testing.assert_allclose(predictions(outputs), expected, rtol=1e-6)
    assert all(type(value) is float for value in predictions(outputs))


def test_several_regressions_are_answered_by_target(tmp_path: Path) -> None:
    model = RandomForestRegressor(5, random_state=0).fit(X, BOTH)
    directory = write_pickle(tmp_path, model, target=["up", "down"])

    outputs = load(directory).runtime.predict(ROWS)

    answers = predictions(outputs)
    np.testing.assert_allclose([a["up"] for a in answers], model.predict(X[:40])[:, 0])
    np.testing.assert_allclose([a["down"] for a in answers], model.predict(X[:40])[:, 1])


def test_targets_without_names_get_numbers(tmp_path: Path) -> None:
    outputs = load(write_pickle(tmp_path, LinearRegression().fit(X, BOTH))).runtime.predict(ROWS)

    assert list(outputs.row(0)["prediction"]) == ["target_0", "target_1"]


TWO_LABELS = np.stack((Y, Y3 == 1), axis=1).astype(int)
SEVERAL: dict[str, Any] = {
    "forest": lambda: RandomForestClassifier(5, random_state=0).fit(X, np.stack((Y, Y3), axis=1)),
    "multi-label network": lambda: MLPClassifier((4,), max_iter=20, random_state=0).fit(
        X, TWO_LABELS
    ),
    "multi-label XGBClassifier": lambda: xgboost.XGBClassifier(n_estimators=3).fit(X, TWO_LABELS),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_classifications_are_answered_by_target(case: str, tmp_path: Path) -> None:
    model = trained(SEVERAL[case])
    directory = write_pickle(tmp_path, model, target=["first", "second"])

    outputs = load(directory).runtime.predict(ROWS)

    labels, probabilities = model.predict(X[:40]), model.predict_proba(X[:40])
    for place, name in enumerate(("first", "second")):
        assert [a[name] for a in predictions(outputs)] == labels[:, place].tolist()
        for i in range(40):
            of_target = list(outputs.row(i)["probabilities"][name].values())
            expected = (
                probabilities[place][i]
                if isinstance(probabilities, list)
                else [1 - probabilities[i, place], probabilities[i, place]]
            )
            np.testing.assert_allclose(of_target, expected, atol=1e-6)


def test_each_target_may_have_names_for_its_classes(tmp_path: Path) -> None:
    model = RandomForestClassifier(5, random_state=0).fit(X, np.stack((Y, Y3), axis=1))
    classes = [["no", "yes"], ["low", "mid", "top"]]

    answer = load(write_pickle(tmp_path, model, classes=classes)).runtime.predict(ROWS).row(0)

    assert answer["prediction"]["target_0"] in classes[0]
    assert list(answer["probabilities"]["target_1"]) == classes[1]


def test_several_classifications_without_probabilities_are_labels(tmp_path: Path) -> None:
    model = MultiOutputClassifier(LinearSVC()).fit(X, np.stack((Y, Y3), axis=1))

    outputs = load(write_pickle(tmp_path, model), compiled=True).runtime.predict(ROWS)

    assert [list(a.values()) for a in predictions(outputs)] == model.predict(X[:40]).tolist()
    assert type(predictions(outputs)[0]["target_0"]) is int


def test_clusters_are_answered_as_integers_even_where_they_could_be_compiled(
    tmp_path: Path,
) -> None:
    model = KMeans(3, n_init=1, random_state=0).fit(X)

    outputs = load(write_pickle(tmp_path, model), compiled=True).runtime.predict(ROWS)

    assert predictions(outputs) == model.predict(X[:40]).tolist()
    assert type(predictions(outputs)[0]) is int


class Doubler:
    """Not scikit-learn's, yet with its predict."""

    def predict(self, rows: Any) -> Any:
        return np.asarray(rows, dtype=float)[:, 0] * 2


class Judge:
    """Has classes, and none of scikit-learn's tags."""

    classes_ = np.array(["high", "low"])

    def predict(self, rows: Any) -> Any:
        return self.classes_[(np.asarray(rows)[:, 0] < 0).astype(int)]


def test_anything_with_predict_is_served(tmp_path: Path) -> None:
    doubled = load(write_pickle(tmp_path / "number", Doubler())).runtime.predict([(1.5, 0.0)])
    judged = load(write_pickle(tmp_path / "class", Judge())).runtime.predict([(-1.0, 0.0)])

    assert doubled.row(0) == {"prediction": 3.0}
    assert judged.row(0) == {"prediction": "low"}


def mixed_pipeline() -> Any:
    table = TABLE.copy()
    table.loc[::7, "a"] = np.nan
    table.loc[::9, "kind"] = np.nan
    prepare = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["a", "b"]),
            (
                "kind",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
                ),
                ["kind"],
            ),
        ]
    )
    table["kind"] = table["kind"].astype(object)
    model = Pipeline([("prepare", prepare), ("model", LogisticRegression())])
    return model.fit(table[["a", "b", "kind"]], Y), table[["a", "b", "kind"]]


def test_a_pipeline_of_named_columns_gets_a_table_of_them(tmp_path: Path) -> None:
    model, table = mixed_pipeline()
    columns = [{**NUMBERS[0], "nullable": True}, NUMBERS[1], {**KIND, "nullable": True}]

    outputs = load(write_pickle(tmp_path, model, columns)).runtime.predict(rows_of(table))

    same_classification(outputs, model.predict(table), model.predict_proba(table))


def test_a_pipeline_that_hides_its_need_of_a_table_gets_one(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(first_of_table, validate=False), LinearRegression())
    model.fit(TABLE[["a", "b"]], VALUES)
    del model[0].n_features_in_, model[0].feature_names_in_

    outputs = load(write_pickle(tmp_path, model)).runtime.predict(ROWS)

    np.testing.assert_allclose(predictions(outputs), model.predict(TABLE[["a", "b"]][:40]))


def first_of_table(table: Any) -> Any:
    return table[["a"]].to_numpy()


def test_strings_in_an_unnamed_table_reach_the_model(tmp_path: Path) -> None:
    table = TABLE[["kind", "a"]].to_numpy(dtype=object)
    prepare = ColumnTransformer([("kind", OneHotEncoder(), [0])], remainder="passthrough")
    model = make_pipeline(prepare, LogisticRegression()).fit(table, Y)

    directory = write_pickle(tmp_path, model, [KIND, NUMBERS[0]])
    outputs = load(directory).runtime.predict(rows_of(TABLE[["kind", "a"]]))

    same_classification(outputs, model.predict(table), model.predict_proba(table))


def test_one_text_column_goes_into_a_vectorizer(tmp_path: Path) -> None:
    texts = ["good fine", "bad sad", "fine day", "sad day"] * 5
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 5)
    directory = write_pickle(tmp_path, model, [{"name": "said", "type": "text"}])

    outputs = load(directory, compiled=True).runtime.predict([(text,) for text in texts])

    same_classification(outputs, model.predict(texts), model.predict_proba(texts))


def categories(order: list[str] | None = None) -> pd.DataFrame:
    return TABLE.assign(
        kind=pd.Categorical(TABLE["kind"], categories=order), size=pd.Categorical(TABLE["size"])
    )[["a", "kind", "size"]]


FROM_CATEGORIES: dict[str, Any] = {
    "HistGradientBoosting": lambda: HistGradientBoostingClassifier(
        max_iter=5, categorical_features="from_dtype"
    ),
    "XGBClassifier": lambda: xgboost.XGBClassifier(n_estimators=5, enable_categorical=True),
    "LGBMClassifier": lambda: lightgbm.LGBMClassifier(
        n_estimators=5, verbose=-1, min_data_in_leaf=5, min_data_per_group=5
    ),
}


@pytest.mark.parametrize("case", FROM_CATEGORIES)
def test_pandas_categories_mean_what_they_meant_in_training(case: str, tmp_path: Path) -> None:
    table = categories(["red", "blue", "green"])  # the schema lists them in another order
    table.loc[::8, "kind"] = np.nan
    model = trained(lambda: FROM_CATEGORIES[case]().fit(table, Y))
    columns = [NUMBERS[0], {**KIND, "nullable": True}, SIZE]

    outputs = load(write_pickle(tmp_path, model, columns), compiled=True).runtime.predict(
        rows_of(table.astype({"kind": object, "size": int}))
    )

    same_classification(outputs, model.predict(table), model.predict_proba(table))


def test_catboost_gets_categories_and_their_absence_as_text(tmp_path: Path) -> None:
    table = TABLE[["a", "kind", "size"]].copy()
    table.loc[::8, "kind"] = "nan"
    model = catboost.CatBoostClassifier(
        iterations=5, verbose=0, cat_features=["kind", "size"], allow_writing_files=False
    ).fit(table, Y)
    write_schema(tmp_path, [NUMBERS[0], {**KIND, "nullable": True}, SIZE])
    model.save_model(tmp_path / "model.cbm")

    rows = [(a, None if kind == "nan" else kind, size) for a, kind, size in rows_of(table)]
    outputs = load(tmp_path).runtime.predict(rows)

    same_classification(outputs, model.predict(table), model.predict_proba(table))


def test_catboost_decides_at_the_threshold_it_was_given(tmp_path: Path) -> None:
    model = catboost.CatBoostClassifier(iterations=4, verbose=0, allow_writing_files=False)
    model.fit(X, Y).set_probability_threshold(0.7)
    write_schema(tmp_path, NUMBERS)
    model.save_model(tmp_path / "model.cbm")

    outputs = load(tmp_path).runtime.predict(ROWS)

    assert predictions(outputs) == model.predict(X[:40]).tolist()


@pytest.mark.parametrize("file", ["model.ubj", "model.json"])
@pytest.mark.parametrize("labels", [Y, Y3, None], ids=["two", "three", "number"])
def test_an_xgboost_file_answers_as_its_classifier(file: str, labels: Any, tmp_path: Path) -> None:
    model: Any = xgboost.XGBClassifier(n_estimators=4)
    if labels is None:
        model = xgboost.XGBRegressor(n_estimators=4)
    model.fit(X, VALUES if labels is None else labels)
    write_schema(tmp_path, NUMBERS)
    model.save_model(tmp_path / file)

    outputs = load(tmp_path).runtime.predict(ROWS)

    if labels is None:
        np.testing.assert_allclose(predictions(outputs), model.predict(X[:40]), rtol=1e-6)
    else:
        same_classification(outputs, model.predict(X[:40]), model.predict_proba(X[:40]))


def test_an_xgboost_file_with_categories_needs_no_order_of_them(tmp_path: Path) -> None:
    table = categories(["red", "blue", "green"])
    model = xgboost.XGBClassifier(n_estimators=5, enable_categorical=True).fit(table, Y)
    write_schema(tmp_path, [NUMBERS[0], KIND, SIZE])
    model.save_model(tmp_path / "model.ubj")

    outputs = load(tmp_path).runtime.predict(rows_of(TABLE[["a", "kind", "size"]]))

    same_classification(outputs, model.predict(table), model.predict_proba(table))


def test_integer_categories_are_numbers_to_an_xgboost_that_had_numbers(tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=5).fit(TABLE[["a", "size"]], Y)
    write_schema(tmp_path, [NUMBERS[0], SIZE])
    model.save_model(tmp_path / "model.ubj")

    outputs = load(tmp_path).runtime.predict(rows_of(TABLE[["a", "size"]]))

    same_classification(
        outputs, model.predict(TABLE[["a", "size"]]), model.predict_proba(TABLE[["a", "size"]])
    )


@pytest.mark.parametrize("labels", [Y, Y3], ids=["two", "three"])
def test_a_lightgbm_text_answers_as_its_classifier(labels: Any, tmp_path: Path) -> None:
    table = categories().rename(columns={"a": "the a"})
    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, min_data_per_group=5)
    trained(lambda: model.fit(table, labels))
    write_schema(tmp_path, [{"name": "the a", "type": "numeric"}, KIND, SIZE])
    model.booster_.save_model(tmp_path / "model.txt")

    outputs = load(tmp_path, compiled=True).runtime.predict(rows_of(TABLE[["a", "kind", "size"]]))

    same_classification(outputs, model.predict(table), model.predict_proba(table))


def test_integer_categories_are_numbers_to_a_lightgbm_that_had_numbers(tmp_path: Path) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1)
    model.fit(TABLE[["a", "size"]], Y)
    write_schema(tmp_path, [NUMBERS[0], SIZE])
    model.booster_.save_model(tmp_path / "model.txt")

    outputs = load(tmp_path).runtime.predict(rows_of(TABLE[["a", "size"]]))

    np.testing.assert_allclose(chances(outputs), model.predict_proba(TABLE[["a", "size"]]))


@pytest.mark.parametrize("kind", ["joblib", "skops"])
def test_a_pipeline_answers_alike_from_every_format(kind: str, tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, WORDS)
    write_schema(tmp_path, NUMBERS)
    dump = joblib.dump if kind == "joblib" else skops.io.dump
    dump(model, tmp_path / f"model.{kind}")

    loaded = load(tmp_path)

    assert loaded.format == kind
    same_classification(
        loaded.runtime.predict(ROWS), model.predict(X[:40]), model.predict_proba(X[:40])
    )
