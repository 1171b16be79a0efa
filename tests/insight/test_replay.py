"""Replay: which answers another model would have given to the calls on record."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sqlalchemy import select
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from calls import register
from onrecord.app import create_app
from onrecord.cli.main import _build
from onrecord.record.database import Database
from onrecord.record.tables import responses
from onrecord.settings import Settings, load_settings
from serving.models import write_pickle

COLUMNS = (
    {"name": "age", "type": "numeric", "nullable": True},
    {"name": "smoker", "type": "boolean"},
    {"name": "visits", "type": "integer", "minimum": 0},
)
RANDOM = np.random.default_rng(11)
X = np.column_stack(
    (RANDOM.uniform(20, 90, 300), RANDOM.integers(0, 2, 300), RANDOM.integers(0, 9, 300))
).astype(np.float32)
X[::17, 0] = np.nan
RISK = np.nan_to_num(X[:, 0], nan=50) / 90 + X[:, 1] / 2 + RANDOM.normal(0, 0.2, 300)


def rows_of(table: Any) -> list[dict[str, Any]]:
    return [
        {"age": None if np.isnan(age) else float(age), "smoker": bool(smoker), "visits": int(n)}
        for age, smoker, n in table
    ]


@dataclass
class Recorded:
    """A server whose record has calls of one model, and commands on the same record."""

    settings: Settings
    client: TestClient
    headers: dict[str, str]
    home: Path
    model: Any

    def ask(self, rows: list[dict[str, Any]]) -> list[str]:
        return [
            self.client.post("/predict", json=row, headers=self.headers).json()["id"]
            for row in rows
        ]

    def replay(self, *words: str, **environment: str) -> Result:
        settings = {
            "ONRECORD_DATABASE": self.settings.database_url,
            "ONRECORD_DATA_DIR": str(self.settings.data_dir),
            "ONRECORD_TRUSTED_MODELS": ",".join(self.settings.trusted_models),
        }
        command = ["replay", "--model", "risk", *words]
        return CliRunner().invoke(_build(), command, env=settings | environment)

    def report(self, *words: str) -> dict[str, Any]:
        done = self.replay(*words, "--format", "json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


def forest() -> RandomForestClassifier:
    labels = np.where(RISK > 0.8, "high", "low")
    return RandomForestClassifier(12, random_state=1).fit(X, labels)


def with_one_tree_swapped(model: RandomForestClassifier) -> RandomForestClassifier:
    other = copy.deepcopy(model)
    labels = np.where(RISK[::-1] > 0.8, "high", "low")
    stranger = RandomForestClassifier(1, random_state=5).fit(X, labels)
    other.estimators_[0] = stranger.estimators_[0]
    return other


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("trees")
    first = forest()
    second = with_one_tree_swapped(first)
    return {
        "first": first,
        "second": second,
        "first_dir": write_pickle(home / "first" / "risk", first, COLUMNS),
        "second_dir": write_pickle(home / "second" / "risk", second, COLUMNS),
    }


def hashes(*directories: Path) -> list[str]:
    from onrecord.serving.artifact import read_model_file

    return [read_model_file(directory).sha256 for directory in directories]


def settings_of(database_url: str, home: Path, first_dir: Path, second_dir: Path) -> Settings:
    """Return the settings of a server of the first model, which trusts the second, too."""
    return load_settings(
        model_dir=first_dir,
        data_dir=home / "data",
        database=database_url,
        log_level="error",
        trusted_models=hashes(first_dir, second_dir),
    )


@pytest.fixture
def record(database_url: str, trees: dict[str, Any], tmp_path: Path) -> Iterator[Recorded]:
    settings = settings_of(database_url, tmp_path, trees["first_dir"], trees["second_dir"])
    with TestClient(create_app(settings)) as client:
        headers = register(client)
        yield Recorded(settings, client, headers, tmp_path, trees["first"])


def test_a_swapped_tree_changes_exactly_the_rows_that_the_models_answer_otherwise(
    record: Recorded, trees: dict[str, Any]
) -> None:
    asked = X[:120]
    ids = record.ask(rows_of(asked))
    before, after = trees["first"].predict(asked), trees["second"].predict(asked)
    wanted = {name for name, a, b in zip(ids, before, after, strict=True) if a != b}
    assert wanted
    listed = record.home / "changed.jsonl"

    report = record.report("--against", str(trees["second_dir"]), "--rows", str(listed))

    changes = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {it["prediction_id"] for it in changes} == wanted
    assert report["changed"] == len(wanted)
    assert report["rows"] == report["calls"] == 120
    scores = np.abs(trees["first"].predict_proba(asked) - trees["second"].predict_proba(asked))
    assert report["differences"]["max"] == pytest.approx(scores.max(), abs=1e-5)
    assert report["moved"] == np.count_nonzero(scores.max(axis=1) > 1e-6)
    assert sum(it["rows"] for it in report["transitions"]) == len(wanted)
    by_smoker = {it["segment"]: it["changed"] for it in report["segments"]["smoker"]}
    changed = before != after
    assert by_smoker == {
        "True": np.count_nonzero(changed & (asked[:, 1] == 1)),
        "False": np.count_nonzero(changed & (asked[:, 1] == 0)),
    }
    missing = {it["segment"]: it["rows"] for it in report["segments"]["age"]}["missing"]
    assert missing == np.count_nonzero(np.isnan(asked[:, 0]))


def test_the_live_version_says_again_what_it_said(record: Recorded) -> None:
    record.ask(rows_of(X[:50]))
    many = {"rows": rows_of(X[50:90])}
    assert record.client.post("/predict", json=many, headers=record.headers).status_code == 200

    report = record.report("--against", "live")

    assert (report["rows"], report["changed"], report["moved"]) == (90, 0, 0)
    assert report["differences"]["max"] == 0


def test_a_record_that_was_altered_is_told_by_its_first_row(record: Recorded) -> None:
    ids = record.ask(rows_of(X[:20]))
    database = Database(record.settings.database_url)
    with database.write() as connection:
        outputs = select(responses.c.request_id, responses.c.output)
        for name, output in connection.execute(outputs).all():
            if name in {ids[7], ids[12]}:
                other = bytes(output).replace(b'"prediction":"', b'"prediction":"very ')
                row = responses.c.request_id == name
                connection.execute(responses.update().where(row).values(output=other))
    database.close()

    done = record.replay("--against", "live")

    assert done.exit_code == 1
    assert f"do not agree, first on {ids[7]}" in done.output


def test_a_gate_in_ci_fails_above_what_may_change(record: Recorded, trees: dict[str, Any]) -> None:
    record.ask(rows_of(X[:120]))
    candidate = ["--against", str(trees["second_dir"])]
    share = record.report(*candidate)["share_changed"]
    assert 0 < share < 0.5

    assert record.replay(*candidate, "--max-changed", "50%").exit_code == 0
    refused = record.replay(*candidate, "--max-changed", str(share / 2))
    assert refused.exit_code == 1
    assert "are answered otherwise" in refused.output


def test_only_rows_that_fit_the_conditions_are_replayed(
    record: Recorded, trees: dict[str, Any]
) -> None:
    record.ask(rows_of(X[:60]))
    candidate = ["--against", str(trees["second_dir"])]
    age = X[:60, 0]
    for condition, count in (
        ("age>=50", np.count_nonzero(age >= 50)),
        ("age=null", np.count_nonzero(np.isnan(age))),
        ("smoker=true", np.count_nonzero(X[:60, 1] == 1)),
        ("visits!=3", np.count_nonzero(X[:60, 2] != 3)),
    ):
        assert record.report(*candidate, "--where", condition)["rows"] == count, condition
    assert record.report(*candidate, "--limit", "10")["rows"] == 10
    assert record.report(*candidate, "--since", "1h")["rows"] == 60
    assert record.report(*candidate, "--until", "1h")["rows"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--against", "nothing"],
        ["--against", "live", "--where", "height=3"],
        ["--against", "live", "--where", "age=old"],
        ["--against", "live", "--where", "age>null"],
        ["--against", "live", "--since", "yesterday"],
        ["--against", "live", "--max-changed", "much"],
    ],
)
def test_what_cannot_be_replayed_is_said(record: Recorded, words: list[str]) -> None:
    done = record.replay(*words)

    assert done.exit_code == 1
    assert done.exception is not None


def test_rows_that_the_candidate_refuses_are_new_errors_and_erased_calls_are_left_out(
    record: Recorded, tmp_path: Path
) -> None:
    ids = record.ask(rows_of(X[:40]))
    narrow = [dict(COLUMNS[0]) | {"nullable": False}, *COLUMNS[1:]]
    candidate = write_pickle(tmp_path / "narrow" / "risk", forest(), narrow)
    database = Database(record.settings.database_url)
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE requests SET input = NULL WHERE id = '{ids[3]}'")
    database.close()

    report = record.report("--against", str(candidate))

    missing = int(np.count_nonzero(np.isnan(X[:40, 0])))
    assert report["new_errors"] == missing
    assert report["rows"] == 39 - missing
    assert report["left_out"] == {"erased": 1}
    assert report["error_examples"][0]["error"].startswith("/age")


def test_the_page_stands_alone_and_escapes_what_callers_sent(
    record: Recorded, trees: dict[str, Any]
) -> None:
    record.ask(rows_of(X[:60]))
    page = record.home / "report.html"

    record.report("--against", str(trees["second_dir"]), "--html", str(page))

    text = page.read_text(encoding="utf-8")
    assert "The rows changed most" in text
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text


def test_numbers_are_compared_within_the_tolerance(database_url: str, tmp_path: Path) -> None:
    table = np.nan_to_num(X, nan=40)
    columns = [dict(COLUMNS[0]) | {"nullable": False}, *COLUMNS[1:]]
    first = RandomForestRegressor(8, random_state=2).fit(table, RISK)
    second = RandomForestRegressor(8, random_state=3).fit(table, RISK)
    first_dir = write_pickle(tmp_path / "first" / "risk", first, columns, task="regression")
    second_dir = write_pickle(tmp_path / "second" / "risk", second, columns, task="regression")
    settings = settings_of(database_url, tmp_path, first_dir, second_dir)
    with TestClient(create_app(settings)) as client:
        record = Recorded(settings, client, register(client), tmp_path, first)
        record.ask(rows_of(table[:80]))
        distance = np.abs(first.predict(table[:80]) - second.predict(table[:80]))
        for tolerance in (0.01, 0.1):
            report = record.report("--against", str(second_dir), "--tolerance", str(tolerance))
            assert report["changed"] == np.count_nonzero(distance > tolerance)
            assert report["differences"]["max"] == pytest.approx(distance.max(), rel=1e-4)
        assert record.report("--against", "live")["differences"]["max"] == 0


def test_a_swapped_tree_of_a_regression_over_categories_changes_exactly_its_rows(
    database_url: str, tmp_path: Path
) -> None:
    wards = ["north", "south", "west"]
    columns = [
        {"name": "age", "type": "numeric"},
        {"name": "ward", "type": "categorical", "categories": wards},
    ]
    table = pd.DataFrame(
        {"age": np.nan_to_num(X[:, 0], nan=40), "ward": RANDOM.choice(wards, len(X))}
    )
    prepare = ColumnTransformer([("ward", OneHotEncoder(), ["ward"])], remainder="passthrough")
    trees = RandomForestRegressor(6, bootstrap=False, max_features=2, random_state=2)
    first = make_pipeline(prepare, trees).fit(table, RISK.round(1))
    # Grown to its last row, a tree gives back its own targets: only those of one ward are others.
    others = np.where(table["ward"] == "south", RISK.round(1) + 0.5, RISK.round(1))
    stranger = RandomForestRegressor(1, bootstrap=False, random_state=5)
    stranger.fit(first[0].transform(table), others)
    second = copy.deepcopy(first)
    second[-1].estimators_[0] = stranger.estimators_[0]
    first_dir = write_pickle(tmp_path / "first" / "risk", first, columns, task="regression")
    second_dir = write_pickle(tmp_path / "second" / "risk", second, columns, task="regression")
    settings = settings_of(database_url, tmp_path, first_dir, second_dir)
    asked = table[:60]
    moved = np.abs(first.predict(asked) - second.predict(asked)) > 1e-6
    assert 0 < np.count_nonzero(moved) < 60
    listed = tmp_path / "changed.jsonl"
    with TestClient(create_app(settings)) as client:
        record = Recorded(settings, client, register(client), tmp_path, first)
        rows = asked.to_dict("records")
        ids = record.ask(rows[:40])
        body = {"rows": rows[40:]}
        many = client.post("/predict", json=body, headers=record.headers).json()["predictions"]
        ids += [it["id"] for it in many]

        report = record.report("--against", str(second_dir), "--rows", str(listed))
        south = record.report("--against", str(second_dir), "--where", "ward=south")

    changes = [json.loads(line)["prediction_id"] for line in listed.read_text().splitlines()]
    assert changes == [name for name, other in zip(ids, moved, strict=True) if other]
    assert (report["rows"], report["changed"]) == (60, len(changes))
    assert {it["segment"]: it["changed"] for it in report["segments"]["ward"]} == {
        ward: np.count_nonzero(moved & (asked["ward"] == ward)) for ward in wards
    }
    assert south["rows"] == np.count_nonzero(asked["ward"] == "south")


def test_categories_are_segments_and_of_several_targets_one_is_enough(
    database_url: str, tmp_path: Path
) -> None:
    columns = [
        {"name": "age", "type": "numeric"},
        {"name": "ward", "type": "categorical", "categories": [1, 2, 3]},
    ]
    table = np.column_stack((np.nan_to_num(X[:, 0], nan=40), RANDOM.integers(1, 4, 300)))
    targets = np.column_stack((RISK, -RISK))
    others = np.column_stack((RISK, np.where(table[:, 1] == 2, RISK, -RISK)))
    first = RandomForestRegressor(1, bootstrap=False, random_state=2).fit(table, targets)
    second = RandomForestRegressor(1, bootstrap=False, random_state=2).fit(table, others)
    named = {"task": "regression", "target": ["risk", "relief"]}
    first_dir = write_pickle(tmp_path / "first" / "risk", first, columns, **named)
    second_dir = write_pickle(tmp_path / "second" / "risk", second, columns, **named)
    settings = settings_of(database_url, tmp_path, first_dir, second_dir)
    rows = [{"age": float(age), "ward": int(ward)} for age, ward in table[:60]]
    before, after = (model.predict(table[:60]) for model in (first, second))
    changed = np.abs(before - after).max(axis=1) > 1e-4
    assert 0 < np.count_nonzero(changed) < 60
    with TestClient(create_app(settings)) as client:
        record = Recorded(settings, client, register(client), tmp_path, first)
        record.ask(rows)

        report = record.report("--against", str(second_dir), "--tolerance", "1e-4")

        assert report["changed"] == np.count_nonzero(changed)
        assert {it["segment"]: it["changed"] for it in report["segments"]["ward"]} == {
            str(ward): np.count_nonzero(changed & (table[:60, 1] == ward)) for ward in (1, 2, 3)
        }
        assert record.report("--against", "live")["differences"]["max"] == 0
        assert record.report("--against", str(second_dir), "--where", "ward=2")["rows"] == (
            np.count_nonzero(table[:60, 1] == 2)
        )
