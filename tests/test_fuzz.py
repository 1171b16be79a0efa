"""schemathesis on the live server: no server error, no undocumented status, whatever the order.

`make fuzz` runs more cases than CI does, other ones every time; FUZZ_CASES says how many at most.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import FlakyStrategyDefinition, Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from live import PASSWORD, Server, live_server

CASES = int(os.environ.get("FUZZ_CASES", "0"))
FEW_EXAMPLES, FEW_WALKS, STEPS = 12, 8, 12
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("fuzz")
    with live_server(model_dir, home / "data") as running:
        yield running


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    made = server.command("users", "create", "root", "--admin", ONRECORD_NEW_PASSWORD=PASSWORD)
    assert made.returncode == 0, made.stderr
    answer = httpx2.post(f"{server.base}/token", data={"username": "root", "password": PASSWORD})
    return answer.json()["access_token"]


@pytest.fixture(scope="module")
def statuses() -> Iterator[Counter[int]]:
    """How many answers of each status there were."""
    counted: Counter[int] = Counter()
    yield counted
    print(f"\nfuzz: {counted.total()} cases, answered with {dict(sorted(counted.items()))}")  # noqa: T201


def budget(cases: int, otherwise: int) -> settings:
    return settings(
        max_examples=max(1, cases) if CASES else otherwise,
        deadline=None,
        derandomize=not CASES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def test_no_call_makes_the_server_fail_or_answer_undocumented(
    server: Server, token: str, statuses: Counter[int], subtests: pytest.Subtests
) -> None:
    api = schemathesis.openapi.from_url(f"{server.base}/openapi.json")
    operations = [result.ok() for result in api.get_all_operations()]
    assert len(operations) > 10
    # After it the token is good for nothing, and every later answer would be a 401.
    operations.sort(key=lambda operation: operation.path == "/logout")
    examples = budget(CASES * 4 // 5 // len(operations) // 2, FEW_EXAMPLES)

    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with subtests.test(operation.label, mode=mode.value):
                _fuzz(operation, mode, token, examples, statuses)


def _fuzz(
    operation: schemathesis.APIOperation,
    mode: GenerationMode,
    token: str,
    examples: settings,
    statuses: Counter[int],
) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @examples
    def call(case: schemathesis.Case) -> None:
        response = case.call(headers={"authorization": f"Bearer {token}"})
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    # An operation without parameters has nothing that could be wrong.
    with contextlib.suppress(Unsatisfiable):
        call()


def test_no_walk_along_the_links_makes_the_server_fail(
    server: Server, statuses: Counter[int]
) -> None:
    """A walk goes where an answer leads: to the user, the key or the call that it has just made."""
    signed_in = httpx2.post(f"{server.base}/token", data={"username": "root", "password": PASSWORD})
    token = signed_in.json()["access_token"]
    api = schemathesis.openapi.from_url(f"{server.base}/openapi.json").exclude(path="/logout")
    followed: Counter[str] = Counter()
    failures: list[str] = []

    class Walk(api.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"headers": {"authorization": f"Bearer {token}"}}

        def after_call(self, response: Any, case: schemathesis.Case) -> None:
            super().after_call(response, case)
            statuses[response.status_code] += 1
            followed[f"{case.operation.label} {response.status_code}"] += 1

        def validate_response(self, response: Any, case: schemathesis.Case, **more: Any) -> None:
            try:
                case.validate_response(response, checks=CHECKS)
            except schemathesis.errors.FailureGroup as error:
                failures.append(str(error))

    for _ in range(max(1, CASES // 5 // STEPS // FEW_WALKS)):
        # The server's ids are new every time, so that a walk cannot be walked again.
        with contextlib.suppress(FlakyStrategyDefinition):
            Walk.run(
                settings=settings(
                    budget(FEW_WALKS, FEW_WALKS),
                    stateful_step_count=STEPS,
                    phases=(Phase.generate,),
                )
            )

    assert failures == []
    reached = [
        label
        for label in followed
        if "{" in label and label.endswith(("200", "204")) and "{name}" not in label
    ]
    assert reached, followed
