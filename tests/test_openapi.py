"""The OpenAPI document is what is committed, and true. Run this file to renew docs/openapi.json."""

import difflib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from calls import Headers, sign_up
from conftest import started
from live import linear_model_dir
from onrecord.http.inference import is_inference_path
from onrecord.http.problems import STATUS
from onrecord.record.database import Database

COMMITTED = Path(__file__).parents[1] / "docs" / "openapi.json"
# RFC 6749 says how these are told, and the others tell what is not ready.
NO_PROBLEMS = {("/token", "400"), ("/revoke", "400"), ("/readyz", "503"), ("/ping", "503")}
METHODS = ("get", "post", "patch", "delete")


@pytest.fixture(scope="module", params=["sqlite"])
def application(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("openapi")
    with started(model_dir, home, f"sqlite:///{home / 'record.db'}", {}) as running:
        yield running


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def written(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_every_change_of_the_document_is_deliberate(document: dict[str, Any]) -> None:
    committed = COMMITTED.read_text(encoding="utf-8")
    lines = difflib.unified_diff(
        committed.splitlines(), written(document).splitlines(), "committed", "now", lineterm="", n=6
    )
    changes = "\n".join(lines)

    assert not changes, (
        f"The API's document changed:\n{changes[:8000]}\n"
        "If that is meant, run `python tests/test_openapi.py`, commit docs/openapi.json and tell "
        "of it in CHANGELOG.md."
    )


def test_every_status_and_code_of_a_problem_is_documented(document: dict[str, Any]) -> None:
    problem = document["components"]["schemas"]["Problem"]
    anywhere = document["info"]["description"]

    assert set(problem["properties"]["code"]["enum"]) == {error.code for error in STATUS}
    documented: dict[str, set[str]] = {}
    for _, path, operation in operations(document):
        for status, given in operation["responses"].items():
            if status < "400" or (path, status) in NO_PROBLEMS:
                continue
            name = given.get("$ref", "").rpartition("/")[2]
            response = document["components"]["responses"][name] if name else given
            (kind,) = response["content"]
            if is_inference_path(path):
                assert kind == "application/json", (path, status)
                continue
            assert kind == "application/problem+json", (path, status)
            _, own = response["content"][kind]["schema"]["allOf"]
            assert own["properties"]["status"]["const"] == int(status)
            documented.setdefault(status, set()).update(own["properties"]["code"]["enum"])
    for error, status in STATUS.items():
        told = (
            error.code in documented.get(str(status), ()) or f"{status} `{error.code}`" in anywhere
        )
        assert told, f"{status} {error.code}"


def test_every_operation_that_needs_a_caller_documents_that_it_refuses_others(
    document: dict[str, Any],
) -> None:
    for method, path, operation in operations(document):
        if operation.get("security"):
            assert {"401", "403", "503"} <= set(operation["responses"]), (method, path)


def body_examples(document: dict[str, Any], content: dict[str, Any]) -> Iterator[Any]:
    """Yield the examples of a media type: its own, and those of the schema that it refers to."""
    if "example" in content:
        yield content["example"]
    for example in content.get("examples", {}).values():
        yield example["value"]
    name = content["schema"].get("$ref", "").rpartition("/")[2]
    yield from document["components"]["schemas"].get(name, {}).get("examples", ())


def test_every_example_of_the_document_succeeds(
    client: TestClient, database: Database, document: dict[str, Any]
) -> None:
    user, ada = sign_up(client, database, "grace")
    _, admin = sign_up(client, database, "root", "admin")
    client.post("/predict", headers=ada, json=_first_example(document))
    sent = 0

    for method, path, operation in operations(document):
        caller: Headers = admin if path == "/erasures" else ada
        query, headers = (
            _parameter_examples(operation, "query"),
            _parameter_examples(operation, "header"),
        )
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            for example in body_examples(document, content):
                address = path.format(**_parameter_examples(operation, "path"))
                body = _encoded(kind, example | ({"user_id": user} if "user_id" in example else {}))
                answer = client.request(
                    method,
                    address,
                    params=query,
                    content=body,
                    headers={**caller, **headers, "content-type": kind},
                )
                assert answer.is_success, (method, path, example, answer.text)
                assert str(answer.status_code) in operation["responses"], (method, path)
                sent += 1

    assert sent >= 9 + 5  # of predictions at three addresses; of accounts, keys and erasures


def _first_example(document: dict[str, Any]) -> Any:
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    return next(body_examples(document, content))


def _parameter_examples(operation: dict[str, Any], where: str) -> dict[str, Any]:
    return {
        it["name"]: it["example"]
        for it in operation.get("parameters", ())
        if it["in"] == where and "example" in it
    }


def _encoded(kind: str, example: dict[str, Any]) -> bytes:
    if kind == "application/x-www-form-urlencoded":
        return urlencode(example).encode()
    return json.dumps(example).encode()


def renew() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        model_dir = linear_model_dir(home / "model" / "risk")
        with started(model_dir, home, f"sqlite:///{home / 'record.db'}", {}) as running:
            document = running.client.get("/openapi.json").json()
    COMMITTED.write_text(written(document), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(renew())
