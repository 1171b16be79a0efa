"""Erasing as an admin does it over HTTP, and an operator by the command."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from live import GOOD_ROW, PASSWORD
from onrecord.app import create_app
from onrecord.cli.main import main
from onrecord.errors import SettingsError
from onrecord.record import users
from onrecord.record.checkpoint import SigningKey
from onrecord.record.database import Database
from onrecord.record.heads_file import HeadsFile
from onrecord.record.ids import first_id_at
from onrecord.record.seal import Sealer
from onrecord.record.tables import requests, responses
from onrecord.settings import Settings, load_settings

SCRIPT = Path(__file__).parents[1] / "docs" / "verify_proof.py"

Headers = dict[str, str]
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def settings(model_dir: Path, tmp_path: Path, database_url: str) -> Settings:
    return load_settings(
        model_dir=model_dir, data_dir=tmp_path / "data", database=database_url, log_level="error"
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Return what runs `onrecord` with words: its exit code, and what it said."""
    monkeypatch.setenv("ONRECORD_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("ONRECORD_DATABASE", settings.database_url)

    def command(*words: str) -> tuple[int, str]:
        capsys.readouterr()  # what the server has logged so far
        monkeypatch.setattr(sys, "argv", ["onrecord", *words])
        try:
            main()
            code: Any = 0
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        text = said.out + said.err + (code if isinstance(code, str) else "")
        return (code if isinstance(code, int) else 1), text

    return command


def sign_up(client: TestClient, database: Database, name: str, role: str) -> tuple[str, Headers]:
    answer = client.post("/users", json={"username": name, "password": PASSWORD}).json()
    with database.write() as connection:
        users.set_role(connection, answer["user"]["id"], role)
    return answer["user"]["id"], {"authorization": f"Bearer {answer['access_token']}"}


def predict(client: TestClient, headers: Headers, body: object = GOOD_ROW) -> str:
    answer = client.post("/predict", json=body, headers=headers).json()
    return str(answer["id"])


def proven(proof: dict[str, Any], settings: Settings, place: Path) -> bool:
    """Tell whether the script of docs/ takes a proof."""
    (place / "proof.json").write_text(json.dumps(proof))
    (place / "key.pub").write_text(f"{SigningKey.from_file(settings.seal_key_file).public}\n")
    ran = [sys.executable, str(SCRIPT), "proof.json", "key.pub"]
    return subprocess.run(ran, cwd=place, capture_output=True, check=False).returncode == 0


def test_an_erased_call_says_so_and_is_proven_as_before(
    client: TestClient, database: Database, settings: Settings, tmp_path: Path, command: Command
) -> None:
    root_id, root = sign_up(client, database, "root", "admin")
    ada_id, ada = sign_up(client, database, "ada", "user")
    many = predict(client, ada, {"rows": [GOOD_ROW, GOOD_ROW]})
    others = predict(client, root)
    Sealer(
        database, SigningKey.from_file(settings.seal_key_file), HeadsFile(settings.heads_path)
    ).seal()
    before = client.get(f"/predictions/{many}/proof", headers=ada).json()
    assert before["input"] is not None

    order = {"user_id": ada_id, "reason": "she asked"}
    made = client.post("/erasures", json=order, headers=root)

    assert made.status_code == 201, made.text
    erasure = made.json()
    assert (erasure["by_user_id"], erasure["calls"], erasure["what"]) == (root_id, 1, "payloads")
    assert erasure["selection"] == {"user_id": ada_id}
    assert client.get("/erasures", headers=root).json() == {"erasures": [erasure], "next": None}
    shown = client.get(f"/predictions/{many[:-1]}1", headers=ada).json()
    assert (shown["input"], shown["output"], shown["status"]) == (None, None, 200)
    assert (shown["erasure_id"], shown["erased_at"]) == (erasure["id"], erasure["erased_at"])
    kept = client.get(f"/predictions/{others}", headers=root).json()
    assert (kept["input"], kept["erasure_id"]) == (GOOD_ROW, None)
    after = client.get(f"/predictions/{many}/proof", headers=ada).json()
    assert (after["leaf"], after["input"], after["salt"]) == (before["leaf"], None, None)
    assert proven(before, settings, tmp_path)
    assert proven(after, settings, tmp_path)
    code, said = command("verify")
    assert code == 0, said
    assert f"erased: the payloads of 1 calls at {erasure['erased_at']} by user {root_id}" in said
    assert "'she asked'" in said
    again = client.post("/erasures", json=order, headers=root)
    assert again.status_code == 404
    code, said = command("export", "--user", "ada")
    assert json.loads(said.splitlines()[0])["erasure_id"] == erasure["id"]


def test_only_an_admin_erases_and_an_auditor_sees_it(
    client: TestClient, database: Database
) -> None:
    ada_id, ada = sign_up(client, database, "ada", "user")
    _, vera = sign_up(client, database, "vera", "auditor")
    _, root = sign_up(client, database, "root", "admin")
    predict(client, ada)
    order = {"user_id": ada_id, "reason": "x"}

    for headers in (ada, vera):
        assert client.post("/erasures", json=order, headers=headers).status_code == 403
    assert client.get("/erasures", headers=ada).status_code == 403
    assert client.get("/erasures", headers=vera).json() == {"erasures": [], "next": None}
    for wrong in ({"user_id": "ada", "reason": "x"}, {"user_id": ada_id, "reason": ""}, {}):
        assert client.post("/erasures", json=wrong, headers=root).status_code == 400
    assert client.get("/erasures?before=x", headers=vera).status_code == 400


def test_the_command_counts_asks_and_erases(
    client: TestClient, database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ada = sign_up(client, database, "ada", "user")
    made = predict(client, ada)
    words = ("erase", "--user", "ada", "--reason", "she asked")

    assert command(*words, "--dry-run") == (0, "1 calls have a payload to erase\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert command(*words)[0] == 1
    assert client.get(f"/predictions/{made}", headers=ada).json()["input"] == GOOD_ROW
    code, said = command(*words, "--yes")

    assert code == 0, said
    assert said.startswith("erased the payloads of 1 calls: erasure ")
    assert client.get(f"/predictions/{made}", headers=ada).json()["input"] is None
    assert "by " in command("verify")[1]
    assert command("db", "vacuum")[0] == 0
    assert command("verify")[0] == 0
    assert command("erase", "--user", "eve", "--reason", "x")[0] == 1


def test_what_was_kept_long_enough_goes_model_by_model(
    client: TestClient,
    database: Database,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, ada = sign_up(client, database, "ada", "user")
    kept = predict(client, ada)
    old = {model: put_old_call(database, kept, model, days=40) for model in ("a", "b", "c")}
    assert command("retention", "run")[0] == 1

    monkeypatch.setenv("ONRECORD_RETAIN_PAYLOAD_DAYS", "30,b=50")
    monkeypatch.setenv("ONRECORD_RETAIN_ROW_DAYS", "c=39")
    assert "the rows of 1 calls" in command("retention", "run", "--dry-run")[1]
    code, said = command("retention", "run")

    assert code == 0, said
    assert said.count("erased: ") == 2
    found = {name: client.get(f"/predictions/{i}", headers=ada) for name, i in old.items()}
    assert found["a"].json()["input"] is None
    assert found["b"].json()["input"] == GOOD_ROW
    assert found["c"].status_code == 404
    assert client.get(f"/predictions/{kept}", headers=ada).json()["input"] == GOOD_ROW
    code, said = command("verify")
    assert code == 0, said
    assert "the rows of 1 calls" in said
    assert "'retention: payloads after 30 days'" in said
    assert "erased" not in command("retention", "run")[1]


@pytest.mark.parametrize("days", ["0", "a=x", "1,2", "a=1,a=2", "-3"])
def test_days_that_are_none_are_refused(days: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONRECORD_RETAIN_ROW_DAYS", days)

    with pytest.raises(SettingsError, match="retain_row_days"):
        load_settings()


def put_old_call(database: Database, like: str, model: str, days: int) -> str:
    """Put a copy of a call on record as of some days ago, of another model; return its id."""
    moment = datetime.now(UTC) - timedelta(days=days)
    identifier = first_id_at(moment)[:-5] + "00000"
    identifier = identifier[:-6] + f"{ord(model) % 16:x}" + identifier[-5:]
    with database.write() as connection:
        for table, key in ((requests, "id"), (responses, "request_id")):
            names = [c.name for c in table.c if c.name not in {"seq", key, "model"}]
            values: list[sa.ColumnElement[Any]] = [table.c[name] for name in names]
            given = [key] + (["model"] if key == "id" else [])
            new = [sa.literal(identifier, table.c[key].type)] + (
                [sa.literal(model)] if key == "id" else []
            )
            query = sa.select(*new, *values).where(table.c[key] == like)
            connection.execute(table.insert().from_select([*given, *names], query))
    return identifier
