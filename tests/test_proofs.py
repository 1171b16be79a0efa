"""`GET /predictions/{id}/proof`, checked by the script that docs/ hands to strangers."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from calls import known, predict, sign_up
from live import GOOD_ROW
from onrecord.record.checkpoint import SigningKey
from onrecord.record.database import Database
from onrecord.record.heads_file import HeadsFile
from onrecord.record.seal import Sealer
from onrecord.settings import Settings

SCRIPT = Path(__file__).parents[1] / "docs" / "verify_proof.py"


@pytest.fixture
def headers(settings: Settings) -> dict[str, str]:
    return known(settings)


@pytest.fixture
def seal(database: Database, settings: Settings) -> Callable[[], object]:
    key = SigningKey.from_file(settings.seal_key_file)
    return Sealer(database, key, HeadsFile(settings.heads_path)).seal


@pytest.fixture
def check(settings: Settings, tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    """Return what runs the script on a proof: what it says, or why it is none."""

    def check(proof: dict[str, Any]) -> str:
        (tmp_path / "proof.json").write_text(json.dumps(proof))
        public = SigningKey.from_file(settings.seal_key_file).public
        (tmp_path / "key.pub").write_text(f"{public}\n")
        command = [sys.executable, str(SCRIPT), "proof.json", "key.pub"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return ran.stdout if ran.returncode == 0 else f"refused: {ran.stderr}"

    return check


def test_a_stranger_can_check_any_call_of_a_tree(
    client: TestClient,
    headers: dict[str, str],
    seal: Callable[[], object],
    check: Callable[[dict[str, Any]], str],
) -> None:
    ids = [predict(client, headers) for _ in range(7)]
    seal()

    for number, prediction in enumerate(ids):
        proof = client.get(f"/predictions/{prediction}/proof", headers=headers).json()

        assert (proof["leaf_index"], proof["tree_size"]) == (number, 7)
        assert json.loads(base64.b64decode(proof["input"])) == GOOD_ROW
        assert json.loads(base64.b64decode(proof["output"]))["id"] == prediction
        said = check(proof)
        assert said.startswith("proven: "), said
        assert f'"id":"{prediction}"' in said


def test_the_script_takes_no_proof_of_anything_else(
    client: TestClient,
    headers: dict[str, str],
    seal: Callable[[], object],
    check: Callable[[dict[str, Any]], str],
) -> None:
    ids = [predict(client, headers) for _ in range(5)]
    seal()
    proof = client.get(f"/predictions/{ids[2]}/proof", headers=headers).json()
    assert check(proof).startswith("proven: ")

    for change in (
        {"leaf": proof["leaf"].replace('"status":200', '"status":201')},
        {"leaf_index": 3},
        {"leaf_index": -1},
        {"audit_path": proof["audit_path"][:-1]},
        {"audit_path": [*proof["audit_path"], proof["audit_path"][0]]},
        {"audit_path": proof["audit_path"][::-1]},
        {"checkpoint": proof["checkpoint"].replace("\n5\n", "\n6\n")},
        {"salt": base64.b64encode(b"0" * 16).decode()},
        {"input": base64.b64encode(b"{}").decode()},
        {"output": base64.b64encode(b"{}").decode()},
    ):
        assert check(proof | change).startswith("refused: "), change


def test_a_proof_holds_without_salt_and_payload(
    client: TestClient,
    headers: dict[str, str],
    seal: Callable[[], object],
    check: Callable[[dict[str, Any]], str],
) -> None:
    prediction = predict(client, headers)
    seal()
    proof = client.get(f"/predictions/{prediction}/proof", headers=headers).json()

    assert check(proof | {"salt": None, "input": None, "output": None}).startswith("proven: ")


def test_a_row_of_a_call_has_the_proof_of_the_call(
    client: TestClient, headers: dict[str, str], seal: Callable[[], object]
) -> None:
    first = predict(client, headers, {"rows": [GOOD_ROW, GOOD_ROW]})
    seal()

    answer = client.get(f"/predictions/{first[:-1]}1/proof", headers=headers)

    assert answer.json() == client.get(f"/predictions/{first}/proof", headers=headers).json()
    assert client.get(f"/predictions/{first[:-1]}2/proof", headers=headers).status_code == 404


def test_a_call_that_is_not_sealed_yet_is_a_conflict(
    client: TestClient, headers: dict[str, str], seal: Callable[[], object]
) -> None:
    before = predict(client, headers)
    unsealed = client.get(f"/predictions/{before}/proof", headers=headers)
    seal()
    after = predict(client, headers)

    for answer in (unsealed, client.get(f"/predictions/{after}/proof", headers=headers)):
        assert answer.status_code == 409
        assert answer.json()["code"] == "conflict"
        assert "not sealed yet" in answer.json()["detail"]
    assert client.get(f"/predictions/{before}/proof", headers=headers).status_code == 200


def test_a_proof_is_its_callers_and_the_admins_only(
    client: TestClient,
    settings: Settings,
    headers: dict[str, str],
    seal: Callable[[], object],
    database: Database,
) -> None:
    prediction = predict(client, headers)
    seal()
    others = known(settings, "bob")
    path = f"/predictions/{prediction}/proof"

    assert client.get(path).status_code == 401
    assert client.get(path, headers=others).status_code == 404
    assert client.get("/predictions/nonsense/proof", headers=headers).status_code == 404
    _, admin = sign_up(client, database, "root", "admin")
    assert client.get(path, headers=admin).status_code == 200


def test_damaged_tables_of_the_seal_give_a_problem_and_no_proof(
    client: TestClient, headers: dict[str, str], seal: Callable[[], object], database: Database
) -> None:
    prediction = predict(client, headers)
    predict(client, headers)
    seal()
    with database.write() as connection:
        connection.execute(sa.text("DELETE FROM tree_tiles"))

    answer = client.get(f"/predictions/{prediction}/proof", headers=headers)

    assert answer.status_code == 409
    assert "damaged" in answer.json()["detail"]
