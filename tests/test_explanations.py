"""`?explain=true`: the answer says what moved the model, and so does the record."""

import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from calls import Headers, recorded, register
from conftest import Application, started
from live import GOOD_ROW
from onrecord.record.database import Database
from onrecord.serving.artifact import read_model_file
from serving.models import VALUES, X, Y, write_pickle

EXPLAIN = "/predict?explain=true"


@pytest.fixture
def ada(client: TestClient) -> Headers:
    return register(client)


def ask(client: TestClient, headers: Headers, path: str = EXPLAIN, body: Any = GOOD_ROW) -> Any:
    return client.post(path, json=body, headers=headers)


def test_an_answer_says_what_moved_it_and_is_on_record_so(
    client: TestClient, ada: Headers, database: Database
) -> None:
    answer = ask(client, ada)

    assert answer.status_code == 200, answer.text
    told = answer.json()
    explanation = told["explanation"]
    assert explanation["space"] == "log-odds"
    assert list(explanation["contributions"]) == ["age", "pressure", "smoker", "visits"]
    plain = ask(client, ada, "/predict").json()
    assert "explanation" not in plain
    assert told["probabilities"] == plain["probabilities"]
    _, entry = recorded(database)
    assert entry.output == answer.content


def test_each_of_many_rows_has_its_own(client: TestClient, ada: Headers) -> None:
    rows = [GOOD_ROW, GOOD_ROW | {"age": 20}]

    told = ask(client, ada, "/models/risk/predict?explain=true", {"rows": rows}).json()

    first, second = (it["explanation"]["contributions"] for it in told["predictions"])
    assert first["age"] > second["age"]
    assert first["visits"] == second["visits"]
    pinned = ask(client, ada, "/models/risk/versions/1/predict?explain=true").json()
    assert pinned["explanation"]["contributions"] == first


@pytest.mark.parametrize("query", ["explain=yes", "explain=", "explain=true&explain=false"])
def test_what_is_no_answer_to_whether_is_refused(
    client: TestClient, ada: Headers, database: Database, query: str
) -> None:
    refused = ask(client, ada, f"/predict?{query}")

    assert refused.status_code == 400
    assert refused.json()["errors"][0]["pointer"] == "/explain"
    (entry,) = recorded(database)
    assert (entry.status, entry.error_fields) == (400, ("/explain",))


def test_explanations_go_with_json_only(client: TestClient, ada: Headers) -> None:
    headers = ada | {"content-type": "text/csv"}
    body = "age,pressure,smoker,visits\n61.5,130,true,3\n"

    refused = client.post(EXPLAIN, content=body, headers=headers)

    assert refused.status_code == 400
    assert "JSON" in refused.json()["errors"][0]["detail"]
    assert "explanation" not in ask(client, ada, "/predict?explain=false").json()


def test_more_rows_than_can_be_explained_are_refused(client: TestClient, ada: Headers) -> None:
    refused = ask(client, ada, EXPLAIN, {"rows": [GOOD_ROW] * 1001})

    assert (refused.status_code, refused.json()["code"]) == (422, "not_explainable")


def test_a_key_with_and_without_is_of_two_calls(client: TestClient, ada: Headers) -> None:
    with_key = ada | {"idempotency-key": '"once"'}

    first = ask(client, with_key)
    again = ask(client, with_key)
    without = ask(client, with_key, "/predict")

    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert (without.status_code, without.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("body", [{"rows": [GOOD_ROW] * 1001}, GOOD_ROW | {"age": "x"}])
@pytest.mark.parametrize("paths", [(EXPLAIN, "/predict"), ("/predict?explain=false", EXPLAIN)])
def test_a_refusal_is_not_replayed_to_a_call_that_asks_otherwise(
    client: TestClient, ada: Headers, database: Database, body: Any, paths: tuple[str, str]
) -> None:
    with_key = ada | {"idempotency-key": '"once"'}
    first, other = paths

    begun = ask(client, with_key, first, body)
    again = ask(client, with_key, first, body)
    otherwise = ask(client, with_key, other, body)

    assert (again.content, again.headers["idempotent-replayed"]) == (begun.content, "true")
    assert otherwise.json()["code"] == "idempotency_key_reused"
    (entry,) = (it for it in recorded(database) if it.idempotency_key == "once")
    assert entry.explain is (first == EXPLAIN)


def test_a_model_that_cannot_says_so(tmp_path: Path) -> None:
    from sklearn.naive_bayes import GaussianNB

    directory = write_pickle(tmp_path / "bayes", GaussianNB().fit(X, Y))
    trusted = {"trusted_models": [read_model_file(directory).sha256]}
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with started(directory, tmp_path, url, trusted) as running:
        assert isinstance(running, Application)
        headers = register(running.client)
        shown = running.client.get("/models/bayes", headers=headers).json()
        refused = ask(running.client, headers, EXPLAIN, {"a": 1, "b": 2})

    assert (refused.status_code, refused.json()["code"]) == (422, "not_explainable")
    assert "A GaussianNB does not tell" in refused.json()["detail"]
    for it in (shown, *shown["versions"]):
        assert (it["explainable"], it["explainable_reason"]) == (False, refused.json()["detail"])


def test_a_tree_is_explained_by_a_library_that_is_there_before_the_first_call(
    tmp_path: Path,
) -> None:
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(5, max_depth=3, random_state=1).fit(X, VALUES)
    directory = write_pickle(tmp_path / "forest", forest)
    trusted = {"trusted_models": [read_model_file(directory).sha256]}
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with started(directory, tmp_path, url, trusted) as running:
        assert "shap" in sys.modules
        headers = register(running.client)
        (shown,) = running.client.get("/models", headers=headers).json()["models"]
        told = ask(running.client, headers, EXPLAIN, {"a": 0.3, "b": -0.2}).json()

    assert (shown["explainable"], shown["explainable_reason"]) == (True, None)
    explanation = told["explanation"]
    assert explanation["space"] == "prediction"
    sums = explanation["base"] + sum(explanation["contributions"].values())
    assert sums == pytest.approx(told["prediction"], abs=1e-4)
