"""The compiled model gives the original's answers, or it does not serve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from onrecord.demo.train import train
from onrecord.errors import ModelDirectoryError
from onrecord.serving.columns import Column
from onrecord.serving.compile import CompiledRuntime, _difference, compile_runtime
from onrecord.serving.conversion import NotCompiled
from onrecord.serving.generated_rows import generated_rows
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import Outputs, TargetOutput
from onrecord.serving.runtimes import Row, Runtime
from onrecord.serving.table import Table, array_of
from serving.models import NUMBERS, TABLE, VALUES, WORDS, Y3, X, Y, load, write_pickle, write_schema

KIND = {"name": "kind", "type": "categorical", "categories": ["blue", "green", "red"]}
NULLABLE = tuple({**column, "nullable": True} for column in NUMBERS)
BOUNDED = tuple({**column, "minimum": -4, "maximum": 4} for column in NUMBERS)


@dataclass(frozen=True)
class Pair:
    """A model's two runtimes, and the schema of both."""

    original: Runtime
    compiled: CompiledRuntime
    schema: InputSchema


def holes(table: Any) -> Any:
    table = np.array(table, dtype=float)
    table[::5, 0] = np.nan
    table[::7, 1] = np.nan
    return table


def mixed(directory: Path) -> Path:
    prepare = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["a", "b"]),
            ("kind", OneHotEncoder(handle_unknown="ignore"), ["kind"]),
        ]
    )
    table = TABLE[["a", "b", "kind"]].astype({"kind": object})
    model = make_pipeline(prepare, LogisticRegression()).fit(table, WORDS)
    return write_pickle(directory, model, [*NULLABLE, KIND])


def booster(directory: Path, file: str, save: Callable[[Path], Any]) -> Path:
    write_schema(directory, NULLABLE)
    save(directory / file)
    return directory


def xgboost_file(directory: Path, labels: Any) -> Path:
    kind = xgboost.XGBRegressor if labels is VALUES else xgboost.XGBClassifier
    model = kind(n_estimators=20).fit(holes(X), labels)
    return booster(directory, "model.ubj", model.save_model)


def lightgbm_file(directory: Path, labels: Any) -> Path:
    kind = lightgbm.LGBMRegressor if labels is VALUES else lightgbm.LGBMClassifier
    model = kind(n_estimators=20, verbose=-1).fit(holes(X), labels)
    return booster(directory, "model.txt", model.booster_.save_model)


def catboost_file(directory: Path, labels: Any) -> Path:
    kind = catboost.CatBoostRegressor if labels is VALUES else catboost.CatBoostClassifier
    model = kind(iterations=20, verbose=0, allow_writing_files=False, thread_count=1)
    model.fit(holes(X), labels)
    return booster(directory, "model.cbm", model.save_model)


MODELS: dict[str, Callable[[Path], Path]] = {
    "logistic": lambda d: write_pickle(
        d, make_pipeline(StandardScaler(), LogisticRegression()).fit(X, WORDS)
    ),
    "linear": lambda d: write_pickle(d, LinearRegression().fit(X, VALUES), BOUNDED),
    "without probabilities": lambda d: write_pickle(d, LinearSVC().fit(X, WORDS), BOUNDED),
    "mixed columns": mixed,
    "forest": lambda d: write_pickle(d, RandomForestClassifier(20, random_state=0).fit(X, Y)),
    "forest of numbers": lambda d: write_pickle(
        d, RandomForestRegressor(20, random_state=0).fit(X, VALUES)
    ),
    "boosting": lambda d: write_pickle(
        d, HistGradientBoostingClassifier(max_iter=20).fit(holes(X), Y3), NULLABLE
    ),
    "boosting of numbers": lambda d: write_pickle(
        d, HistGradientBoostingRegressor(max_iter=20).fit(holes(X), VALUES), NULLABLE
    ),
    "penguins": train,
    "xgboost, two classes": lambda d: xgboost_file(d, Y),
    "xgboost, three classes": lambda d: xgboost_file(d, Y3),
    "xgboost, a number": lambda d: xgboost_file(d, VALUES),
    "lightgbm, two classes": lambda d: lightgbm_file(d, Y),
    "lightgbm, three classes": lambda d: lightgbm_file(d, Y3),
    "lightgbm, a number": lambda d: lightgbm_file(d, VALUES),
    "catboost, two classes": lambda d: catboost_file(d, Y),
    "catboost, three classes": lambda d: catboost_file(d, Y3),
    "catboost, classes of text": lambda d: catboost_file(d, WORDS),
    "catboost, a number": lambda d: catboost_file(d, VALUES),
    "xgboost in a pipeline": lambda d: write_pickle(
        d,
        make_pipeline(SimpleImputer(), xgboost.XGBClassifier(n_estimators=9)).fit(holes(X), Y3),
        NULLABLE,
    ),
    "lightgbm in a pipeline": lambda d: write_pickle(
        d,
        make_pipeline(
            FunctionTransformer(), lightgbm.LGBMClassifier(n_estimators=9, verbose=-1)
        ).fit(X, WORDS),
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    model = load(MODELS[request.param](tmp_path_factory.mktemp("models") / "m"))
    return Pair(model.runtime, compile_runtime(model.runtime, model.schema), model.schema)


def same(left: Outputs, right: Outputs, tolerance: float) -> None:
    assert len(left) == len(right)
    for ours, theirs in zip(left.targets, right.targets, strict=True):
        assert (ours.name, ours.classes) == (theirs.name, theirs.classes)
        if isinstance(ours.values[0], float):
            np.testing.assert_allclose(theirs.values, ours.values, rtol=tolerance, atol=tolerance)
            continue
        assert theirs.values == ours.values
        assert list(map(type, theirs.values)) == list(map(type, ours.values))
        assert (ours.probabilities is None) == (theirs.probabilities is None)
        if ours.probabilities is not None:
            np.testing.assert_allclose(
                np.array(theirs.probabilities), np.array(ours.probabilities), atol=tolerance
            )


def values_of(column: Column) -> st.SearchStrategy[Any]:
    """Values that the schema takes: those a caller may send, the extreme ones among them."""
    match column.type:
        case "boolean":
            values: st.SearchStrategy[Any] = st.booleans()
        case "categorical":
            values = st.sampled_from(column.categories)
        case _:
            values = st.floats(column.low, column.high, width=64)
    return st.none() | values if column.nullable else values


def test_other_generated_rows_get_the_originals_answers(pair: Pair) -> None:
    rows = generated_rows(pair.schema, 2000, seed=99)

    same(pair.original.predict(rows), pair.compiled.predict(rows), 1e-5)


# scikit-learn sums a table to see whether it is finite; numbers near the largest overflow there.
EXTREMES = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered in reduce")


@EXTREMES
def test_any_row_that_validates_gets_the_originals_answer(pair: Pair) -> None:
    row = st.tuples(*map(values_of, pair.schema.columns))

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(st.lists(row, min_size=1, max_size=8))
    def check(rows: list[Row]) -> None:
        same(pair.original.predict(rows), pair.compiled.predict(rows), 1e-5)

    check()


@EXTREMES
def test_an_answer_does_not_depend_on_the_batch(pair: Pair) -> None:
    rows = generated_rows(pair.schema, 70, seed=5)
    # Those of a graph are the same to the last bit, so that a call can be asked again.
    for runtime, tolerance in ((pair.compiled, 0.0), (pair.original, 1e-6)):
        together = runtime.predict(rows)
        alone = Outputs.join([runtime.predict([row]) for row in rows])
        same(alone, together, tolerance)
        parted = Outputs.join([runtime.predict(rows[:33]), runtime.predict(rows[33:])])
        same(alone, parted, tolerance)


def table_of(schema: InputSchema, rows: Sequence[Row]) -> Table:
    columns = zip(schema.columns, zip(*rows, strict=True), strict=True)
    return Table(schema.columns, [array_of(column, values) for column, values in columns])


@EXTREMES
def test_a_table_gets_the_answers_of_its_rows(pair: Pair) -> None:
    row = st.tuples(*map(values_of, pair.schema.columns))
    usual = st.sampled_from(generated_rows(pair.schema, 300, seed=3))

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(st.lists(row | usual, min_size=1, max_size=40))
    def check(rows: list[Row]) -> None:
        table = table_of(pair.schema, rows)
        assert [repr(row) for row in table] == [repr(tuple(row)) for row in rows]
        found = pair.compiled.predict_table(table)
        same(pair.compiled.predict(rows), found.in_lists(), 1e-9)

    check()


def compiled(directory: Path) -> Pair:
    model = load(directory)
    return Pair(model.runtime, compile_runtime(model.runtime, model.schema), model.schema)


def refused(directory: Path) -> str:
    model = load(directory)
    with pytest.raises(NotCompiled) as caught:
        compile_runtime(model.runtime, model.schema)
    return str(caught.value)


def test_a_model_that_is_faster_compiled_is_served_so(tmp_path: Path) -> None:
    model = load(train(tmp_path), compiled=True)

    assert (model.name, model.format, model.runtime.name) == ("penguins", "skops", "onnx")
    assert model.runtime_reason.startswith("compiled: it agrees")


def test_compilation_can_be_switched_off(tmp_path: Path) -> None:
    model = load(train(tmp_path), compiled=False)

    assert model.runtime.name == "scikit-learn"
    assert model.runtime_reason == "compilation is switched off"


def test_a_model_that_disagrees_once_compiled_is_served_as_it_is(tmp_path: Path) -> None:
    start = 1_700_000_000  # seconds: more digits than a 32-bit float has
    times = start + np.arange(0, 500.0)
    model = LinearRegression().fit(times[:, None], times - start)
    column = {"name": "at", "type": "numeric", "minimum": start, "maximum": start + 500}
    directory = write_pickle(tmp_path, model, [column])

    served = load(directory, compiled=True)

    assert served.runtime.name == "scikit-learn"
    assert served.runtime_reason.startswith("not compiled: values differ by up to ")
    assert served.runtime.predict([(start + 7.0,)]).row(0)["prediction"] == pytest.approx(7)


def test_trees_behind_scaled_numbers_are_not_compiled(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(X, Y)

    assert "computed first" in refused(write_pickle(tmp_path, model))


def test_what_has_no_conversion_is_served_as_it_is(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(np.cbrt), LinearRegression()).fit(X, VALUES)

    served = load(write_pickle(tmp_path, model, BOUNDED), compiled=True)

    assert served.runtime.name == "scikit-learn"
    assert "the conversion failed" in served.runtime_reason


def test_a_model_that_cannot_answer_all_that_the_schema_takes_is_not_compiled(
    tmp_path: Path,
) -> None:
    model = make_pipeline(FunctionTransformer(small, validate=False), LinearRegression())

    assert "fails on compared rows" in refused(write_pickle(tmp_path, model.fit(X, VALUES)))


def test_a_graph_that_disagrees_on_a_sample_row_only_does_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(MODELS["linear"](tmp_path))
    predict, sample = model.runtime.predict, (0.125, 0.25)

    def otherwise(rows: Sequence[Row]) -> Outputs:
        outputs = predict(rows)
        values = [
            v + (tuple(r) == sample) for v, r in zip(outputs.targets[0].values, rows, strict=True)
        ]
        return Outputs([TargetOutput(None, values)])

    monkeypatch.setattr(model.runtime, "predict", otherwise)

    assert compile_runtime(model.runtime, model.schema)
    with pytest.raises(NotCompiled, match="differ by up to"):
        compile_runtime(model.runtime, model.schema, [sample])


def test_a_directory_says_that_its_sample_rows_were_compared(tmp_path: Path) -> None:
    directory = MODELS["logistic"](tmp_path)
    (directory / "sample_rows.json").write_text('{"rows": [{"a": 1, "b": 2}, {"a": 0.5, "b": 0}]}')

    served = load(directory, compiled=True)

    assert served.runtime_reason.endswith("on generated rows and 2 sample rows")


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ('{"rows": [{"a": 1, "b": "two"}]}', "/rows/0/b", "number"),
        ('{"rows": [', None, "JSON"),
    ],
)
def test_sample_rows_that_do_not_fit_the_schema_are_refused(
    tmp_path: Path, text: str, field: str | None, problem: str
) -> None:
    directory = MODELS["logistic"](tmp_path)
    (directory / "sample_rows.json").write_text(text)

    with pytest.raises(ModelDirectoryError) as caught:
        load(directory, compiled=True)

    assert caught.value.field == field
    assert problem in str(caught.value)
    assert "sample_rows.json" in str(caught.value)


def small(table: Any) -> Any:
    if np.abs(table).max() > 100:
        raise ValueError("too large")
    return table


def decimals_at_thresholds(model: Any) -> list[Row]:
    """Rows of such numbers as people send, each of which is a threshold once rounded."""
    thresholds = np.unique(
        [
            node["num_threshold"]
            for trees in model._predictors
            for tree in trees
            for node in tree.nodes
            if not node["is_leaf"]
        ]
    )
    sent = np.unique(thresholds.round(6))
    close = np.concatenate([sent, np.nextafter(thresholds, 9), np.nextafter(thresholds, -9)])
    return [(a, b) for a, b in zip(close.tolist(), close[::-1].tolist(), strict=True)]


def test_a_number_on_the_edge_of_a_branch_is_answered_by_the_original(tmp_path: Path) -> None:
    model = HistGradientBoostingRegressor(max_iter=30).fit(X, VALUES)
    pair = compiled(write_pickle(tmp_path, model))
    rows = decimals_at_thresholds(model)

    same(pair.original.predict(rows), pair.compiled.predict(rows), 1e-5)


def test_lightgbm_turns_at_an_edge_as_lightgbm_does(tmp_path: Path) -> None:
    model = lightgbm.LGBMRegressor(n_estimators=30, verbose=-1).fit(X, VALUES)
    write_schema(tmp_path, NUMBERS)
    model.booster_.save_model(tmp_path / "model.txt")
    pair = compiled(tmp_path)
    edges = model.booster_.trees_to_dataframe()["threshold"].dropna().unique()
    close = np.concatenate([edges.round(6), edges, np.nextafter(edges, 9)]).tolist()
    rows = list(zip(close, reversed(close), strict=True))

    same(pair.original.predict(rows), pair.compiled.predict(rows), 1e-5)


@dataclass
class Counting:
    """The original, counting the rows it is asked for."""

    inner: Any
    name: str = "counting"
    rows: int = 0

    def predict(self, rows: list[Row]) -> Outputs:
        self.rows += len(rows)
        return self.inner.predict(rows)


def counted(pair: Pair) -> Counting:
    counting = Counting(pair.original)
    pair.compiled._original = counting
    return counting


def test_rows_outside_the_compared_range_go_to_the_original(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, WORDS)
    pair = compiled(write_pickle(tmp_path, model))
    counting = counted(pair)
    rows = [(0.1, 0.2), (3e38, 0.0), (-0.3, 0.4), (0.0, -2e7), (1e6, -1e6)]

    same(pair.original.predict(rows), pair.compiled.predict(rows), 1e-5)
    assert counting.rows == 2
    found = pair.compiled.predict_table(table_of(pair.schema, rows))
    same(pair.original.predict(rows), found.in_lists(), 1e-5)
    assert counting.rows == 4
    same(pair.original.predict(rows[1:2]), pair.compiled.predict(rows[1:2]), 1e-5)
    assert counting.rows == 5


def test_rows_inside_bounds_never_leave_the_graph(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, WORDS)
    pair = compiled(write_pickle(tmp_path, model, BOUNDED))
    counting = counted(pair)

    pair.compiled.predict([(-4.0, 4.0), (0.0, 0.0)])

    assert counting.rows == 0


def test_a_tie_of_two_classes_is_decided_by_the_original(tmp_path: Path) -> None:
    forest = RandomForestClassifier(20, random_state=0).fit(X, Y)
    pair = compiled(write_pickle(tmp_path, forest))
    rows = generated_rows(pair.schema, 1500, seed=8)
    tied = [row for row in rows if abs(forest.predict_proba([row])[0][0] - 0.5) < 1e-9][:12]
    counting = counted(pair)

    mixture = [*tied, *rows[:30]]

    assert len(tied) == 12
    same(pair.original.predict(mixture), pair.compiled.predict(mixture), 1e-5)
    assert 12 <= counting.rows < len(mixture)
    asked, counting.rows = counting.rows, 0
    found = pair.compiled.predict_table(table_of(pair.schema, mixture))
    same(pair.original.predict(mixture), found.in_lists(), 1e-5)
    assert counting.rows == asked


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (TargetOutput(None, ["x"], ("x", "y"), [[0.9, 0.1]]), None),
        (TargetOutput(None, ["x"], ("x", "y"), [[0.90002, 0.09998]]), "probabilities differ"),
        (TargetOutput(None, ["x"], ("x", "y"), [[np.nan, 0.1]]), "probabilities differ"),
        (TargetOutput(None, ["x"], ("x", "y"), None), "probabilities differ"),
        (TargetOutput(None, ["x"], ("x", "z"), [[0.9, 0.1]]), "other classes"),
        (TargetOutput(None, ["y"], ("x", "y"), [[0.9, 0.1]]), "another class"),
        (TargetOutput(None, [0.9]), "another type"),
    ],
)
def test_what_counts_as_another_answer(found: TargetOutput, reason: str | None) -> None:
    expected = Outputs([TargetOutput(None, ["x"], ("x", "y"), [[0.9, 0.1]])])

    said = _difference(expected, Outputs([found]))

    assert (said is None) == (reason is None)
    assert (reason or "") in (said or "")
