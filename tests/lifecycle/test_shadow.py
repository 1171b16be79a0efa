"""A shadow: each call of its share gets one answer of the candidate, and nobody else notices."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import func, select

from calls import sign_up, wait_until
from conftest import DATABASES, empty_postgresql
from live import GOOD_ROW, Server, converted, linear_model_dir, live_server
from onrecord.lifecycle.shadowing import ShadowOver
from onrecord.lifecycle.versions import Versions
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.deployments import deployment_of
from onrecord.record.shadow_lock import ShadowLock
from onrecord.record.shadows import (
    ShadowAnswer,
    put_on_record,
    running,
)
from onrecord.record.tables import model_files, shadow_answers
from onrecord.serving.served import share_of
from onrecord.settings import load_settings
from postgres import Cluster
from shadows import Service, add, give_conversions, shadow_service, work


@pytest.fixture(scope="module")
def second_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model trained on other rows."""
    return converted(linear_model_dir(tmp_path_factory.mktemp("second") / "risk", seed=8))


@pytest.fixture(scope="module", params=DATABASES)
def running_service(
    request: pytest.FixtureRequest,
    model_dir: Path,
    second_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("shadow")
    if request.param == "sqlite":
        url = f"sqlite:///{home / 'record.db'}"
        with shadow_service(model_dir, second_dir, home, url) as service:
            yield service
        return
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    with (
        empty_postgresql(cluster) as url,
        shadow_service(model_dir, second_dir, home, url) as service,
    ):
        yield service


@pytest.fixture
def service(running_service: Service) -> Iterator[Service]:
    """The module's service, with no shadow and no answers of one."""
    with running_service.database.write() as connection:
        connection.execute(shadow_answers.delete())
    yield running_service
    with running_service.database.read() as connection:
        shadowed = deployment_of(connection, "risk").shadow_share
    if shadowed:
        running_service.stop()


def test_each_call_of_the_share_has_one_answer_that_is_what_the_candidate_says_itself(
    service: Service,
) -> None:
    before = service.ask(3)
    shadowing = service.shadow(0.4)
    asked = service.ask(60)
    rows = {"rows": [GOOD_ROW | {"age": 30.0 + i} for i in range(5)]}
    many = [service.client.post("/predict", json=rows, headers=service.admin) for _ in range(10)]
    own = service.ask(5, "/models/risk/versions/candidate/predict")

    work(shadowing)

    found = service.answers()
    calls = [it["id"] for it in asked] + [it.json()["predictions"][0]["id"] for it in many]
    assert set(found) == {name for name in calls if share_of("risk", name) < 0.4}
    assert not set(found) & {it["id"] for it in [*before, *own]}
    says = service.ask(60, "/models/risk/versions/candidate/predict")
    for call, answer in zip(asked, says, strict=True):
        if call["id"] in found:
            told = {name: answer[name] for name in ("prediction", "probabilities")}
            assert json.loads(found[call["id"]].output) == told
            assert told["probabilities"] != call["probabilities"]
    path = "/models/risk/versions/candidate/predict"
    says_many = service.client.post(path, json=rows, headers=service.admin).json()["predictions"]
    without_id = [{k: v for k, v in it.items() if k != "id"} for it in says_many]
    told_many = [found[name] for name in calls[60:] if name in found]
    assert told_many
    assert all(json.loads(it.output)["predictions"] == without_id for it in told_many)


def test_rows_in_other_forms_are_answered_too(service: Service) -> None:
    shadowing = service.shadow()
    body = "age,pressure,smoker,visits\n61.5,130,true,3\n30,120,false,1\n"
    headers = service.admin | {"content-type": "text/csv", "accept": "application/json"}
    asked = service.client.post("/predict", content=body, headers=headers)
    assert asked.status_code == 200, asked.text

    work(shadowing)

    (answer,) = service.answers().values()
    assert len(json.loads(answer.output)["predictions"]) == 2


def test_a_shadow_that_is_cut_short_goes_on_where_it_was(service: Service) -> None:
    first = service.shadow()
    asked = service.ask(8)
    work(first)
    at = service.progress()
    asked += service.ask(8)

    again, beside = service.shadowing(), service.shadowing()
    work(again)
    work(beside)

    assert set(service.answers()) == {it["id"] for it in asked}
    assert service.progress().done_up_to > at.done_up_to
    answers = service.answers()
    work(service.shadowing())
    assert service.answers() == answers


def test_metrics_tell_how_far_a_shadow_is(service: Service) -> None:
    def told() -> dict[str, float]:
        lines = service.client.get("/metrics").text.splitlines()
        found = (line.rpartition(" ") for line in lines if line.startswith("onrecord_shadow_"))
        return {name: float(value) for name, _, value in found}

    assert told() == {}
    service.shadow()
    service.ask(8)
    labels = '{model="risk",number="2"}'
    behind, skipped = (f"onrecord_shadow_{it}_calls{labels}" for it in ("behind", "skipped"))

    assert told() == {behind: 8, skipped: 0}
    work(service.shadowing(most_behind=5))
    assert told() == {behind: 0, skipped: 3}


def test_nothing_is_put_on_record_after_the_shadow_was_stopped(service: Service) -> None:
    shadowing = service.shadow()
    service.ask(3)
    work(shadowing)
    service.ask(3)
    service.stop()

    with pytest.raises(ShadowOver):
        work(shadowing)

    assert len(service.answers()) == 3
    again = service.shadow()
    asked = service.ask(2)
    work(again)
    assert set(service.answers()) >= {it["id"] for it in asked}
    assert len(service.answers()) == 5


def test_a_shadow_too_far_behind_skips_the_oldest_calls_and_counts_them(service: Service) -> None:
    service.shadow()
    asked = service.ask(20)

    work(service.shadowing(most_behind=5))

    assert set(service.answers()) == {it["id"] for it in asked[15:]}
    assert service.progress().skipped == 15


def test_an_erasure_takes_the_shadow_answers_along_and_lets_none_come_later(
    service: Service,
) -> None:
    shadowing = service.shadow()
    user_id, ada = sign_up(service.client, service.database, "ada")
    asked = service.client.post("/predict", json=GOOD_ROW, headers=ada).json()
    others = service.ask(2)
    work(shadowing)
    assert asked["id"] in service.answers()

    order = {"user_id": user_id, "reason": "asked for"}
    erased = service.client.post("/erasures", json=order, headers=service.admin)

    assert erased.status_code == 201, erased.text
    assert set(service.answers()) == {it["id"] for it in others}
    late = ShadowAnswer(asked["id"], b'{"prediction":1}', None, 1.0)
    with service.database.write() as connection:
        (shadow,) = running(connection)
        put_on_record(connection, shadow, [late], service.progress())
    assert set(service.answers()) == {it["id"] for it in others}
    work(service.shadowing())


def test_what_the_candidate_cannot_answer_is_on_record_with_why(
    service: Service, second_dir: Path, tmp_path: Path
) -> None:
    narrow = shutil.copytree(second_dir, tmp_path / "narrow")
    schema = json.loads((narrow / "input_schema.json").read_text())
    schema["input_schema"]["columns"][0]["minimum"] = 25
    (narrow / "input_schema.json").write_text(json.dumps(schema))
    add(service.settings, service.database, narrow)
    shadowing = service.shadow()
    asked = service.ask(10)

    work(shadowing)

    found = [service.answers()[it["id"]] for it in asked]
    assert [it.error is not None for it in found] == [True] * 5 + [False] * 5
    assert all(it.error.startswith("/age: ") for it in found[:5])
    assert all((it.output is None) == (it.error is not None) for it in found)


def test_of_a_sensitive_input_no_value_is_in_what_a_shadow_leaves(
    model_dir: Path, second_dir: Path, tmp_path: Path
) -> None:
    directories = []
    for folder, least in ((model_dir, None), (second_dir, 25)):
        directory = shutil.copytree(folder, tmp_path / folder.parent.name / "risk")
        schema = json.loads((directory / "input_schema.json").read_text())
        column = schema["input_schema"]["columns"][0] | {"sensitive": True, "minimum": least}
        schema["input_schema"]["columns"][0] = {k: v for k, v in column.items() if v is not None}
        (directory / "input_schema.json").write_text(json.dumps(schema))
        directories.append(converted(directory))
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with shadow_service(*directories, tmp_path, url) as service:
        shadowing = service.shadow()
        asked = service.ask(10)

        work(shadowing)

        found = [service.answers()[it["id"]] for it in asked]
        assert [it.output is None for it in found] == [True] * 5 + [False] * 5
        assert {it.error for it in found[:5]} == {"/age: It is less than 25."}


def test_one_process_of_a_database_has_the_lock(service: Service) -> None:
    url = service.settings.database_url
    one, other = ShadowLock(service.database, url), ShadowLock(service.database, url)

    assert one.take()
    assert one.take()
    assert not other.take()
    one.close()
    wait_until(other.take)  # PostgreSQL takes a moment to see that a session has ended
    assert not one.take()
    one.close()
    other.close()


def shadow_pids(server: Server) -> list[int]:
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").parent.parent
    found = [
        int(child)
        for thread in children.iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return [it for it in found if "shadow_worker" in Path(f"/proc/{it}/cmdline").read_text()]


def ask(server: Server, token: str, count: int) -> set[str]:
    headers = {"authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=server.base, headers=headers, timeout=30) as client:
        return {client.post("/predict", json=GOOD_ROW).json()["id"] for _ in range(count)}


def answered(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.execute(select(shadow_answers.c.request_id)).scalars())


def test_a_server_runs_its_shadows_and_a_broken_one_harms_nobody(
    model_dir: Path, second_dir: Path, tmp_path: Path
) -> None:
    data, log = tmp_path / "data", tmp_path / "data.log"
    give_conversions(data, model_dir, second_dir)
    settings = load_settings(model_dir=model_dir, data_dir=data)
    database, by = Database(settings.database_url), By("test", operator="tests")
    change = Versions(database)
    with live_server(model_dir, data, workers=2) as server:
        token = server.register("ada")
        add(settings, database, second_dir)
        assert shadow_pids(server) == []
        change.share("risk", "candidate", "shadow", 1.0, by)
        asked = ask(server, token, 20)
        wait_until(lambda: answered(database) == asked)
        (pid,) = shadow_pids(server)
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19

        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "a shadow ended" in log.read_text())
        asked |= ask(server, token, 5)
        change.share("risk", "candidate", "canary", 1e-9, by)
        wait_until(lambda: answered(database) == asked)
        change.stop("risk", by)
        wait_until(lambda: shadow_pids(server) == [])
        with database.write() as connection:
            newest = select(func.max(model_files.c.model_version_id)).scalar_subquery()
            rows = model_files.c.model_version_id == newest
            connection.execute(model_files.update().where(rows).values(data=b"{}"))
        change.share("risk", "candidate", "shadow", 1.0, by)
        wait_until(lambda: "a shadow cannot go on" in log.read_text())
        assert len(ask(server, token, 5)) == 5
    assert answered(database) == asked
    database.close()
    assert log.read_text().count("a shadow ended") == 1
    assert log.read_text().count("a shadow cannot go on") == 1
