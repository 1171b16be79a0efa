"""The console's pages of the record: whose calls they show, and what their forms do."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html import unescape

import pytest
from starlette.testclient import TestClient

from calls import Headers, known, predict, recorded
from live import GOOD_ROW
from onrecord.insight.baselines import Drifts
from onrecord.record import users
from onrecord.record.by import By
from onrecord.record.checkpoint import SigningKey
from onrecord.record.database import Database
from onrecord.record.heads_file import HeadsFile
from onrecord.record.ids import prediction_id
from onrecord.record.model_versions import find
from onrecord.record.seal import Sealer
from onrecord.settings import Settings

Person = Callable[..., Headers]


@pytest.fixture
def person(client: TestClient, settings: Settings, database: Database) -> Person:
    """What signs somebody of a role in, and returns what a call of theirs sends."""

    def sign_in(name: str, role: str = "user") -> Headers:
        with database.read() as connection:
            there = users.by_username(connection, name)
        if there is not None:
            headers = tokens[name]
        else:
            headers = tokens[name] = known(settings, name)
            with database.write() as connection:
                user = users.by_username(connection, name)
                assert user is not None
                users.set_role(connection, user.id, role)
        client.cookies.set("onrecord_session", headers["authorization"].removeprefix("Bearer "))
        return headers

    tokens: dict[str, Headers] = {}
    return sign_in


def send(client: TestClient, page: str, action: str, **fields: str) -> object:
    """Send a form of a page as a browser does, and return the answer."""
    csrf = re.search(r'name="csrf" value="([0-9a-f]{64})"', client.get(page).text)
    assert csrf is not None
    return client.post(f"{page}/{action}", data={"csrf": csrf[1], **fields}, follow_redirects=False)


def listed(page: str) -> list[str]:
    return re.findall(r'<tr data-id="([^"]+)"', page)


def test_users_see_their_own_calls_and_an_auditor_all_of_them_on_every_page(
    client: TestClient, person: Person
) -> None:
    ada, bob = predict(client, person("ada")), predict(client, person("bob"))

    person("ada")
    assert listed(client.get("/console/record").text) == [ada]
    assert listed(client.get("/console/record?user=bob").text) == [ada]
    assert [it["id"] for it in client.get("/console/record.json").json()["calls"]] == [ada]
    for page in (bob, f"{bob}.json", f"{bob}.csv", f"{bob}/proof.json"):
        assert client.get(f"/console/record/{page}").status_code == 404, page
    for page in ("overview", "overview.json", "overview.csv", "models/risk", "models/risk/drift"):
        assert client.get(f"/console/{page}").status_code == 403, page
    person("eve", "auditor")
    assert listed(client.get("/console/record").text) == [bob, ada]
    assert listed(client.get("/console/record?user=bob").text) == [bob]
    assert client.get(f"/console/record/{bob}").status_code == 200
    assert client.get("/console/overview").status_code == 200


def test_who_is_not_signed_in_is_led_to_do_so_and_back(client: TestClient) -> None:
    answer = client.get("/console/record?status=400", follow_redirects=False)

    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/sign-in?next=/console/record%3Fstatus%3D400"
    assert client.get("/console/record.json").status_code == 401
    assert 'value="/console"' in client.get("/console/sign-in?next=https://evil.example/").text


def test_filters_narrow_the_list_and_say_how_many_calls_fit(
    client: TestClient, person: Person
) -> None:
    headers = person("ada", "admin")
    old = predict(client, headers, {**GOOD_ROW, "age": 89.0})
    young = predict(client, headers, {**GOOD_ROW, "age": 21.0})
    refused = client.post("/predict", json={**GOOD_ROW, "age": "old"}, headers=headers)
    named = client.post("/predict", json=GOOD_ROW, headers={**headers, "x-request-id": "mine"})

    def found(query: str) -> list[str]:
        return listed(client.get(f"/console/record?{query}").text)

    page = client.get("/console/record").text
    assert "4 calls fit." in page
    assert re.search(r'href="/console/record\?status=400"><span>400</span> <span[^>]*>1<', page)
    assert found("status=400") == [refused.json()["request_id"]]
    assert found("where=age>=80") == [old]
    assert found("where=age>20&where=age<30") == [young]
    assert found("score_to=0.5") == [young]
    assert found("q=mine") == [named.json()["id"]]
    assert found("user=nobody") == []
    assert found("until=2026-01-01") == []
    led = client.get(f"/console/record?q={old}", follow_redirects=False)
    assert led.headers["location"] == f"/console/record/{old}"


def test_pages_json_and_csv_go_through_the_same_calls(client: TestClient, person: Person) -> None:
    headers = person("ada")
    ids = [predict(client, headers) for _ in range(5)][::-1]

    first = client.get("/console/record.json?limit=2").json()
    rest = client.get(f"/console/record.csv?limit=3&before={first['next']}")

    assert [it["id"] for it in first["calls"]] == ids[:2]
    assert [it["id"] for it in csv.DictReader(io.StringIO(rest.text))] == ids[2:]
    older = client.get(f"/console/record?limit=2&before={first['next']}").text
    assert listed(older) == ids[2:4]
    assert 'rel="next"' in older


@pytest.mark.parametrize(
    "field", ["status=many", "since=then", "score_from=nan", "where=age", "limit=0", "before=x"]
)
def test_a_filter_that_cannot_be_read_is_named(
    client: TestClient, person: Person, field: str
) -> None:
    person("ada")

    page = client.get(f"/console/record?{field}")
    data = client.get(f"/console/record.json?{field}")

    assert (page.status_code, data.status_code) == (400, 400)
    assert [it["pointer"] for it in data.json()["errors"]] == [f"/{field.partition('=')[0]}"]
    assert unescape(page.text).count(data.json()["errors"][0]["detail"]) == 1


def test_what_callers_send_is_shown_as_text(client: TestClient, person: Person) -> None:
    evil = "<script>alert(1)</script>"
    headers = person("ada")
    client.post("/predict", json={**GOOD_ROW, evil: evil}, headers=headers)
    (call,) = client.get("/console/record.json").json()["calls"]

    for page in ("/console/record", f"/console/record/{call['id']}", f"/console/record?q={evil}"):
        answer = client.get(page)
        assert evil not in answer.text, page
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


def test_an_outcome_told_on_the_page_is_on_record(client: TestClient, person: Person) -> None:
    call = prediction_id(predict(client, person("ada"), {"rows": [GOOD_ROW, GOOD_ROW]}), 1)
    page = f"/console/record/{call}"

    wrong = send(client, page, "outcome", outcome="maybe")
    right = send(client, page, "outcome", outcome="1")

    assert wrong.status_code == 400
    assert "one of the model&#39;s classes: 0, 1" in wrong.text
    assert right.status_code == 303
    said = client.get(f"/predictions/{call}/outcomes", headers=person("ada")).json()["outcomes"]
    assert [it["outcome"] for it in said] == [1]
    assert "Outcome of row 1" in client.get(page).text


def test_an_auditor_changes_nothing(client: TestClient, person: Person) -> None:
    call = predict(client, person("ada"))
    person("eve", "auditor")
    page = f"/console/record/{call}"
    text = client.get(page).text

    assert "Put on record" not in text
    assert "/erase" not in text
    assert send(client, page, "outcome", outcome="1").status_code == 403
    assert send(client, page, "erase", reason="r", sure="yes").status_code == 403
    assert send(client, "/console/models/risk", "promote", version="1").status_code == 403
    assert send(client, "/console/models/risk", "rollback").status_code == 403


def test_a_form_is_taken_from_a_page_of_this_session_only(
    client: TestClient, person: Person, database: Database
) -> None:
    call = predict(client, person("ada", "admin"))
    page = f"/console/record/{call}"
    secret = re.search(r'name="csrf" value="([^"]+)"', client.get(page).text)
    assert secret is not None
    form = {"reason": "r", "sure": "yes", "outcome": "1"}

    for action in ("outcome", "erase"):
        for sent, headers in (
            ({}, {}),
            ({"csrf": "0" * 64}, {}),
            ({"csrf": secret[1]}, {"origin": "https://evil.example"}),
            ({"csrf": secret[1]}, {"sec-fetch-site": "cross-site"}),
        ):
            answer = client.post(f"{page}/{action}", data={**form, **sent}, headers=headers)
            assert answer.status_code == 403, (action, sent, headers)
    (entry,) = recorded(database)
    assert entry.erased_at is None


def test_an_admin_erases_one_call_with_a_reason(
    client: TestClient, person: Person, database: Database, settings: Settings
) -> None:
    headers = person("ada", "admin")
    call, other = predict(client, headers), predict(client, headers)
    key = SigningKey.from_file(settings.seal_key_file)
    Sealer(database, key, HeadsFile(settings.heads_path)).seal()
    page = f"/console/record/{call}"

    unsure = send(client, page, "erase", reason="case 4711")
    sure = send(client, page, "erase", reason="case 4711", sure="yes")

    assert (unsure.status_code, sure.status_code) == (400, 303)
    assert {it.id for it in recorded(database) if it.erased_at is not None} == {call}
    assert "were erased on" in client.get(page).text
    (act,) = client.get("/erasures", headers=headers).json()["erasures"]
    assert (act["selection"], act["reason"], act["calls"]) == ({"call": call}, "case 4711", 1)
    assert "were erased on" not in client.get(f"/console/record/{other}").text
    both = {"user_id": call, "prediction_id": call, "reason": "r"}
    assert client.post("/erasures", json=both, headers=headers).status_code == 400


def test_a_call_is_replayed_beside_what_was_answered(client: TestClient, person: Person) -> None:
    headers = person("ada")
    call = predict(client, headers, {"rows": [GOOD_ROW, {**GOOD_ROW, "age": 20.0}]})
    refused = client.post("/predict", json={}, headers=headers).json()["request_id"]

    told = client.get(f"/predictions/{call}/replay?version=1", headers=headers).json()
    page = client.get(f"/console/record/{call}?replay=1")

    assert (told["number"], told["changed"], told["error"]) == (1, 0, None)
    assert [it["before"] == it["after"] for it in told["rows"]] == [True, True]
    assert "Version 1 gives the same answers" in page.text
    assert client.get(f"/predictions/{call}/replay?version=7", headers=headers).status_code == 404
    assert client.get(f"/predictions/{refused}/replay", headers=headers).status_code == 409
    assert "No version" in client.get(f"/console/record/{call}?replay=7").text


def test_the_overview_counts_what_came_and_why_it_was_refused(
    client: TestClient, person: Person
) -> None:
    headers = person("ada", "admin")
    for age in (40.0, "old", 60.0):
        client.post("/predict", json={**GOOD_ROW, "age": age}, headers=headers)

    told = client.get("/console/overview.json?span=3h").json()
    page = client.get("/console/overview?span=3h").text

    assert (told["whole"], told["calls"], told["refused"]) == (True, 3, 1)
    assert told["fields"] == [{"name": "/age", "calls": 1}]
    assert '<a href="/console/record?status=400">400</a>' in page
    assert len(client.get("/console/overview.csv?span=3h").text.splitlines()) == 1 + 18


def test_a_promotion_that_cannot_be_is_refused_on_its_page(
    client: TestClient, person: Person
) -> None:
    person("ada", "admin")
    page = "/console/models/risk"
    ask = client.get(f"{page}/promote?version=1").text
    csrf = re.search(r'name="csrf" value="([^"]+)"', ask)
    assert csrf is not None
    form = {"csrf": csrf[1], "version": "1"}

    live = client.post(f"{page}/promote", data=form)
    wrong = client.post(f"{page}/promote", data={**form, "max_changed": "much"})

    assert "Promote version 1 of risk?" in ask
    assert live.status_code == 409
    assert "is live already. Nothing was promoted." in " ".join(live.text.split())
    assert wrong.status_code == 400
    assert "Write a percentage from 0 to 100" in wrong.text
    assert client.get(f"{page}/rollback").status_code == 404


def test_a_models_page_has_its_drift_its_scores_over_time_and_its_quality(
    client: TestClient, person: Person, database: Database
) -> None:
    headers = person("ada", "admin")
    model = "/console/models/risk"
    none_yet = client.get(f"{model}/drift")
    predict(client, headers)
    with database.read() as connection:
        live = find(connection, "risk", "live")
    Drifts(database, lambda raw: raw).freeze(live, None, None, By("", operator="tests"))
    call = predict(client, headers, {**GOOD_ROW, "age": 30.0})
    client.post(f"/predictions/{call}/outcome", json={"outcome": 0}, headers=headers)

    drift, quality = client.get(f"{model}/drift").text, client.get(f"{model}/quality").text

    assert "has no baseline" in none_yet.text
    assert "Score over time: probability of 1" in drift
    assert 'data-chart="' in drift
    assert re.search(r"<strong>age</strong><span>PSI none</span>.*<span>n 1</span>", drift)
    assert "Of 2 answered calls the outcome of 1 rows is known" in quality
    assert "accuracy" in quality
    versions = client.get(f"{model}/versions.json").json()["versions"]
    assert [it["alias"] for it in versions] == ["live"]
    assert "has no candidate" in client.get(f"{model}/compare").text
