"""A model at a glance, for the overview: drift and live quality with effect sizes and numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from calls import Headers, known, predict, wait_until
from live import GOOD_ROW
from onrecord.insight.baselines import Drifts
from onrecord.record import users
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.model_versions import find
from onrecord.settings import Settings

pytestmark = pytest.mark.parametrize("application", ["sqlite"], indirect=True)

PATH = "/console/models/risk/tiles"


@pytest.fixture(scope="module")
def more_settings() -> dict[str, Any]:
    return {"drift_rows": 30}


@pytest.fixture
def auditor(client: TestClient, settings: Settings, database: Database) -> Headers:
    """Sign an auditor in who was a user, and return what it sends."""
    headers = known(settings)
    client.cookies.set("onrecord_session", headers["authorization"].removeprefix("Bearer "))
    return headers


def make_auditor(client: TestClient, database: Database) -> None:
    with database.write() as connection:
        user = users.by_username(connection, "ada")
        assert user is not None
        users.set_role(connection, user.id, "auditor")
    wait_until(lambda: client.get(PATH).status_code == 200)


def ask(client: TestClient, headers: Headers, ages: range) -> str:
    rows = [GOOD_ROW | {"age": float(age)} for age in ages]
    return predict(client, headers, {"rows": rows})


def tiles(client: TestClient) -> dict[str, str]:
    """Return what each tile says, by its title; each must lead to a page of the model."""
    page = client.get(PATH)
    assert page.status_code == 200
    found = re.findall(
        r'<li><a href="([^"]+)"><span>(.*?)</span> (.*?)</a></li>', page.text, re.DOTALL
    )
    for href, _, _ in found:
        assert client.get(href).status_code == 200
    return {title: re.sub(r"<[^>]+>", "", told) for _, title, told in found}


def test_what_is_not_known_yet_is_said(
    client: TestClient, database: Database, auditor: Headers
) -> None:
    make_auditor(client, database)

    found = tiles(client)

    assert "has no baseline" in found["Drift"]
    assert "No outcome of the live version" in found["Live quality"]


def test_drift_and_quality_have_an_effect_size_and_a_number(
    client: TestClient, database: Database, auditor: Headers
) -> None:
    ask(client, auditor, range(20, 90))
    with database.read() as connection:
        live = find(connection, "risk", "live")
    Drifts(database, lambda raw: raw).freeze(live, None, None, By("", operator="tests"))
    call = ask(client, auditor, range(60, 100))
    client.post(f"/predictions/{call}/outcome", json={"outcome": 1}, headers=auditor)
    make_auditor(client, database)

    found = tiles(client)

    assert found["Drift"] == "drift 40 rows"
    assert re.fullmatch(r"PSI \d\.\d+ drift, effect 0\.\d+, n 40", found["age"])
    assert re.fullmatch(r"1 0\.2\d+ to 1, n 1: too few", found["Live accuracy"])
    page = client.get(PATH).text
    assert "Promote" not in page
    drift = client.get("/console/models/risk/drift?span=24h").text
    assert "population stability index" in drift
    assert "How to read this" in client.get("/console/models/risk/quality?span=24h").text


def test_a_model_at_a_glance_is_for_admins_and_auditors(
    client: TestClient, auditor: Headers
) -> None:
    assert client.get(PATH).status_code == 403
