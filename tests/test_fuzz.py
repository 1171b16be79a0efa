"""schemathesis on the live server: no server error, no undocumented status."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from live import PASSWORD, Server, live_server


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("fuzz")
    with live_server(model_dir, home / "data") as running:
        yield running


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    import httpx2

    made = server.command("users", "create", "root", "--admin", ONRECORD_NEW_PASSWORD=PASSWORD)
    assert made.returncode == 0, made.stderr
    answer = httpx2.post(f"{server.base}/token", data={"username": "root", "password": PASSWORD})
    return answer.json()["access_token"]


def test_no_call_makes_the_server_fail_or_answer_undocumented(
    server: Server, token: str, subtests: pytest.Subtests
) -> None:
    api = schemathesis.openapi.from_url(f"{server.base}/openapi.json")
    operations = [result.ok() for result in api.get_all_operations()]
    assert len(operations) > 10
    # After it the token is good for nothing, and every later answer would be a 401.
    operations.sort(key=lambda operation: operation.path == "/logout")

    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with subtests.test(operation.label, mode=mode.value):
                _fuzz(operation, mode, token)


def _fuzz(operation: schemathesis.APIOperation, mode: GenerationMode, token: str) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def call(case: schemathesis.Case) -> None:
        response = case.call(headers={"authorization": f"Bearer {token}"})
        case.validate_response(
            response,
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_schema_conformance,
            ],
        )

    # An operation without parameters has nothing that could be wrong.
    with contextlib.suppress(Unsatisfiable):
        call()
