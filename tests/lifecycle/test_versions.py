"""Versions of a model: how they come onto the record, answer, and go, over HTTP and by command."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from calls import sign_up, wait_until
from conftest import DATABASES, empty_postgresql
from live import GOOD_ROW, converted, give_conversion, linear_model_dir
from onrecord.app import create_app
from onrecord.cli.main import _build
from onrecord.insight.baselines import Drifts, encoded
from onrecord.insight.sketch import Sketch
from onrecord.lifecycle.versions import Versions
from onrecord.record import baselines
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.model_versions import StoredVersion, files_of, find
from onrecord.record.tables import model_files
from onrecord.serving.artifact import load_model, read_model_directory
from onrecord.serving.trust import Trust
from onrecord.settings import Settings, load_settings
from postgres import Cluster


@dataclass
class Service:
    """A running application whose models the tests change, and the same record's commands."""

    client: TestClient
    database: Database
    url: str
    home: Path
    admin: dict[str, str]

    def command(self, *words: str) -> Result:
        return self.run("models", *words)

    def run(self, *words: str) -> Result:
        environment = {
            "ONRECORD_DATABASE": self.url,
            "ONRECORD_DATA_DIR": str(self.home / "data"),
        }
        return CliRunner().invoke(_build(), list(words), env=environment)

    def answer(self, path: str = "/predict", headers: dict[str, str] | None = None) -> Any:
        answer = self.client.post(path, json=GOOD_ROW, headers=headers or self.admin)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def live(self) -> int:
        return self.client.get("/models/risk", headers=self.admin).json()["number"]

    def post(self, action: str, **body: object) -> Any:
        return self.client.post(f"/models/risk/{action}", json=body, headers=self.admin)


def settings_of(model_dir: Path, home: Path, url: str) -> Settings:
    return load_settings(
        model_dir=model_dir, data_dir=home / "data", database=url, log_level="error"
    )


@pytest.fixture(params=DATABASES)
def service(
    request: pytest.FixtureRequest, model_dir: Path, second_dir: Path, tmp_path: Path
) -> Iterator[Service]:
    give_conversion(second_dir, tmp_path / "data")
    if request.param == "sqlite":
        yield from _service(model_dir, tmp_path, f"sqlite:///{tmp_path / 'record.db'}")
        return
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    with empty_postgresql(cluster) as url:
        yield from _service(model_dir, tmp_path, url)


def _service(model_dir: Path, home: Path, url: str) -> Iterator[Service]:
    settings = settings_of(model_dir, home, url)
    give_conversion(model_dir, settings.data_dir)
    with TestClient(create_app(settings)) as client:
        database = Database(settings.database_url)
        _, admin = sign_up(client, database, "root", "admin")
        yield Service(client, database, url, home, admin)
        database.close()


@pytest.fixture(scope="module")
def second_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model trained on other rows."""
    return converted(linear_model_dir(tmp_path_factory.mktemp("second") / "risk", seed=8))


def test_a_version_is_added_promoted_and_rolled_back_without_its_directory(
    service: Service, second_dir: Path, tmp_path: Path
) -> None:
    first = service.answer()
    doomed = shutil.copytree(second_dir, tmp_path / "doomed")
    added = service.command("add", str(doomed), "--name", "risk")
    shutil.rmtree(doomed)

    assert added.exit_code == 0, added.output
    assert "number 2" in added.output
    assert service.answer()["model"] == first["model"]
    promoted = service.command("promote", "risk", "--reason", "trained on this year's rows")
    assert promoted.exit_code == 0, promoted.output
    wait_until(lambda: service.live() == 2)
    second = service.answer()
    assert second["model"]["sha256"] != first["model"]["sha256"]
    assert second["probabilities"] != first["probabilities"]
    assert service.command("rollback", "risk").exit_code == 0
    wait_until(lambda: service.live() == 1)
    assert service.answer()["probabilities"] == first["probabilities"]
    listed = json.loads(service.command("show", "risk", "--json").output)
    assert [(it["number"], it["alias"]) for it in listed] == [(1, "live"), (2, "previous")]


def test_every_change_is_on_record_with_who_made_it_and_why(
    service: Service, second_dir: Path
) -> None:
    service.command("add", str(second_dir), "--name", "risk")
    service.post("shadow", share=0.5)
    service.post("stop")
    service.post("promote", reason="better on the new rows")
    service.post("rollback")
    service.post("retire", version="2")

    changes = service.client.get("/models/risk/changes", headers=service.admin).json()["changes"]

    actions = [it["action"] for it in changes]
    assert actions == ["retire", "rollback", "promote", "stop", "shadow", "add", "start"]
    me = service.client.get("/users/me", headers=service.admin).json()["id"]
    assert [it["by_user_id"] for it in changes] == [me] * 5 + [None] * 2
    assert all(it["operator"] for it in changes[5:])
    assert changes[2]["details"]["reason"] == "better on the new rows"
    assert changes[2]["details"]["gate"]["passed"] is True
    assert [it["seq"] for it in changes] == sorted((it["seq"] for it in changes), reverse=True)


def test_a_version_answers_calls_that_name_it_by_any_of_its_names(
    service: Service, second_dir: Path
) -> None:
    service.command("add", str(second_dir), "--name", "risk")
    wait_until(lambda: len(_versions(service)) == 2)
    second = _versions(service)[1]

    for name in ("2", "candidate", second["version"], second["sha256"], second["sha256"][:9]):
        answer = service.answer(f"/models/risk/versions/{name}/predict")
        assert answer["model"]["sha256"] == second["sha256"], name
        shown = service.client.get(f"/predictions/{answer['id']}", headers=service.admin).json()
        assert shown["model"]["sha256"] == second["sha256"]
    for name in ("3", "previous", "nothing", second["sha256"][:5]):
        path = f"/models/risk/versions/{name}/predict"
        refused = service.client.post(path, json=GOOD_ROW, headers=service.admin)
        assert refused.status_code == 404, name
        assert "it has: 1 (" in refused.json()["detail"]


def test_a_retired_version_answers_no_more_and_comes_back_when_it_is_promoted(
    service: Service, second_dir: Path
) -> None:
    service.command("add", str(second_dir), "--name", "risk")
    wait_until(lambda: len(_versions(service)) == 2)

    assert service.post("retire", version="2").status_code == 200
    wait_until(lambda: len(_versions(service)) == 1)
    path = "/models/risk/versions/2/predict"
    assert service.client.post(path, json=GOOD_ROW, headers=service.admin).status_code == 404
    assert service.post("retire", version="2").status_code == 409
    assert service.post("promote", version="2").status_code == 200
    wait_until(lambda: service.live() == 2)


def test_the_live_version_cannot_be_retired_promoted_or_shadowed(service: Service) -> None:
    for action in ("retire", "promote", "shadow", "canary"):
        refused = service.post(action, version="live")
        assert refused.status_code == 409, action
        assert "live" in refused.json()["detail"]
    assert service.post("rollback").status_code == 409
    assert service.post("stop").status_code == 409


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("promote", {"version": "7"}, 404),
        ("promote", {"max_changed": 2}, 400),
        ("canary", {"share": 0}, 400),
        ("canary", {"share": "much"}, 400),
        ("shadow", {"version": ""}, 400),
        ("rollback", {"version": "1"}, 400),
    ],
)
def test_an_order_that_cannot_be_followed_names_what_is_wrong(
    service: Service, action: str, body: dict[str, Any], status: int
) -> None:
    refused = service.post(action, **body)

    assert refused.status_code == status
    if status == 400:
        assert refused.json()["errors"][0]["pointer"] == f"/{next(iter(body))}"


def test_a_canary_answers_the_same_share_of_the_users_every_time(
    service: Service, second_dir: Path
) -> None:
    users = [sign_up(service.client, service.database, f"user{i}")[1] for i in range(12)]
    service.command("add", str(second_dir), "--name", "risk")
    seen = []
    for share in (0.3, 0.7, 1.0):
        assert service.post("canary", share=share).status_code == 200
        wait_until(lambda share=share: _canary_share(service) == share)
        got = [service.answer(headers=user)["model"] for user in users]
        assert got == [service.answer(headers=user)["model"] for user in users]
        seen.append({i for i, model in enumerate(got) if model["sha256"] == _sha(service, 2)})
    assert seen[0] <= seen[1] <= seen[2] == set(range(12))
    assert service.answer("/models/risk/versions/1/predict")["model"]["sha256"] == _sha(service, 1)
    assert service.post("stop").status_code == 200
    wait_until(lambda: _canary_share(service) == 0)
    assert service.answer(headers=users[0])["model"]["sha256"] == _sha(service, 1)


def test_who_is_no_admin_changes_nothing(service: Service) -> None:
    _, ada = sign_up(service.client, service.database, "ada")
    _, vera = sign_up(service.client, service.database, "vera", "auditor")
    for action in ("promote", "rollback", "shadow", "canary", "stop", "retire"):
        for headers in (ada, vera):
            refused = service.client.post(f"/models/risk/{action}", json={}, headers=headers)
            assert refused.status_code == 403
    assert service.client.get("/models/risk/changes", headers=vera).status_code == 200
    assert service.client.get("/models/risk/changes", headers=ada).status_code == 403
    beyond = service.client.get(f"/models/risk/changes?before={1 << 80}", headers=vera)
    assert beyond.status_code == 400


def test_a_restart_with_a_known_directory_keeps_what_was_promoted(
    service: Service, model_dir: Path, second_dir: Path
) -> None:
    service.command("add", str(second_dir), "--name", "risk")
    assert service.post("promote").status_code == 200
    settings = settings_of(model_dir, service.home, service.url)

    with TestClient(create_app(settings)) as again:
        assert again.get("/models/risk", headers=service.admin).json()["number"] == 2
    without = settings.model_copy(update={"model_dir": ()})
    with TestClient(create_app(without)) as again:
        assert again.get("/models/risk", headers=service.admin).json()["number"] == 2


def test_a_new_directory_answers_from_the_start_of_a_server_on_every_server(
    service: Service, second_dir: Path
) -> None:
    settings = settings_of(second_dir, service.home, service.url)

    with TestClient(create_app(settings)) as again:
        assert again.get("/models/risk", headers=service.admin).json()["number"] == 2
        wait_until(lambda: service.live() == 2)


def test_a_version_that_cannot_be_loaded_harms_no_other(service: Service, second_dir: Path) -> None:
    first = service.answer()
    service.command("add", str(second_dir), "--name", "risk")
    wait_until(lambda: len(_versions(service)) == 2)
    assert service.post("retire", version="2").status_code == 200
    wait_until(lambda: len(_versions(service)) == 1)
    mine = (model_files.c.model_version_id == 2) & (model_files.c.name == "model.skops")
    with service.database.write() as connection:
        whole = connection.execute(select(model_files.c.data).where(mine)).scalar_one()
        connection.execute(update(model_files).where(mine).values(data=whole[:-500]))

    assert service.post("shadow", version="2").status_code == 200
    wait_until(lambda: _ready(service)["not_loaded"])

    assert _ready(service)["status"] == "ok"
    assert "number 2" in next(iter(_ready(service)["not_loaded"]))
    assert service.post("promote", version="2").status_code == 409
    assert service.answer()["probabilities"] == first["probabilities"]
    with service.database.write() as connection:
        connection.execute(update(model_files).where(mine).values(data=whole))
    assert service.post("promote", version="2").status_code == 200
    wait_until(lambda: service.live() == 2)
    assert _ready(service)["not_loaded"] == {}


def test_a_version_that_kills_whoever_loads_it_is_not_loaded_by_the_server(
    service: Service, second_dir: Path, tmp_path: Path
) -> None:
    deadly = shutil.copytree(second_dir, tmp_path / "deadly")
    (deadly / "model.skops").unlink()
    (deadly / "model.pkl").write_bytes(pickle.dumps(Deadly()))
    service.run("trust", str(deadly), "--yes")
    files = read_model_directory(deadly)
    loaded = load_model(second_dir, trust=Trust(None), name="risk")
    sha256 = hashlib.sha256(files["model.pkl"]).hexdigest()

    Versions(service.database).add(
        files, replace(loaded, sha256=sha256, format="pickle"), By("", operator="an operator")
    )
    wait_until(lambda: _ready(service)["not_loaded"])

    assert "died, with exit code 9" in next(iter(_ready(service)["not_loaded"].values()))
    assert service.answer()["model"]["sha256"] == _sha(service, 1)


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (9,)


def _ready(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get("/readyz").json()
    return found


def _versions(service: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.client.get("/models/risk", headers=service.admin).json()[
        "versions"
    ]
    return found


def _canary_share(service: Service) -> float:
    return service.client.get("/models/risk", headers=service.admin).json()["canary_share"]


def _sha(service: Service, number: int) -> str:
    path = f"/models/risk/versions/{number}"
    return service.client.get(path, headers=service.admin).json()["sha256"]


def with_a_golden_row(service: Service, directory: Path, home: Path) -> Path:
    """Return a copy of a directory with a golden row, which the model answers, beside it."""
    copy = shutil.copytree(directory, home / "anew")
    golden = {"input": GOOD_ROW, "expected": {"prediction": service.answer()["prediction"]}}
    (copy / "golden.jsonl").write_text(json.dumps(golden) + "\n")
    return copy


def golden_rows_on_record(service: Service, number: int) -> bytes | None:
    with service.database.read() as connection:
        version = find(connection, "risk", str(number))
        return files_of(connection, version.id).get("golden.jsonl")


def test_files_beside_a_known_version_are_replaced_on_record_or_told(
    service: Service, second_dir: Path, tmp_path: Path
) -> None:
    assert service.command("add", str(second_dir), "--name", "risk").exit_code == 0
    anew = with_a_golden_row(service, second_dir, tmp_path)

    added = service.command("add", str(anew), "--name", "risk", "--reason", "more rows to check")

    assert added.exit_code == 0, added.output
    assert "replaced on record: golden.jsonl" in added.output
    raw = (anew / "golden.jsonl").read_bytes()
    assert golden_rows_on_record(service, 2) == raw
    changes = service.client.get("/models/risk/changes", headers=service.admin).json()["changes"]
    assert changes[0]["action"] == "add"
    assert changes[0]["details"]["files"] == {
        "golden.jsonl": {"before": None, "now": hashlib.sha256(raw).hexdigest()}
    }
    assert "files" not in changes[1]["details"]
    again = service.command("add", str(anew), "--name", "risk")
    assert again.exit_code == 0
    newest = service.client.get("/models/risk/changes", headers=service.admin).json()["changes"][0]
    assert "files" not in newest["details"]


def test_what_a_live_version_is_checked_by_is_not_replaced_beneath_it(
    service: Service, model_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    anew = with_a_golden_row(service, model_dir, tmp_path)

    refused = service.command("add", str(anew), "--name", "risk")

    assert refused.exit_code == 1
    assert "Not as on record: golden.jsonl" in str(refused.exception or refused.output)
    settings = settings_of(anew, service.home, service.url)
    with TestClient(create_app(settings.model_copy(update={"model_name": "risk"}))) as started:
        assert started.get("/models/risk", headers=service.admin).json()["number"] == 1
    told = capfd.readouterr().out
    assert "not as on record" in told
    assert "golden.jsonl" in told
    assert golden_rows_on_record(service, 1) is None


def test_another_baseline_file_comes_into_force_and_a_frozen_one_stays(
    service: Service, second_dir: Path, tmp_path: Path
) -> None:
    drifts = Drifts(service.database, lambda raw: raw)

    def add(rows: int) -> tuple[str, StoredVersion]:
        home = tmp_path / str(rows)
        copy = shutil.copytree(second_dir, home / "risk")
        sketch = Sketch(rows=rows, features={}, scores={})
        (copy / "baseline.json").write_bytes(encoded(sketch))
        assert service.command("add", str(copy), "--name", "risk").exit_code == 0
        with service.database.read() as connection:
            version = find(connection, "risk", "2")
        found = drifts.baseline(version)
        assert found is not None
        return found.source, version

    assert "7 rows" in add(7)[0]
    source, version = add(8)
    assert "8 rows" in source
    with service.database.write() as connection:
        baselines.add(connection, version.id, "frozen", encoded(Sketch(0, {}, {})).decode(), By(""))
    assert add(9)[0] == "frozen"
