"""Trying a model in the console: the form of its schema, and calls that are on record."""

import json
import re
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from calls import known, recorded
from live import GOOD_ROW
from onrecord.record.database import Database
from onrecord.settings import Settings

PATH = "/console/try/risk"


@pytest.fixture
def person(client: TestClient, settings: Settings) -> TestClient:
    """A client that holds the cookie of a person who is signed in."""
    token = known(settings)["authorization"].removeprefix("Bearer ")
    client.cookies.set("onrecord_session", token)
    return client


def fields(page: str) -> dict[str, str]:
    """Return what the form of a page would send, as it is filled."""
    form = page[page.index('<form class="stack"') : page.index("</section>")]
    found = dict(re.findall(r'<input [^>]*name="([^"]+)" value="([^"]*)"', form))
    for name, options in re.findall(
        r'<select [^>]*name="([^"]+)"[^>]*>(.*?)</select>', form, re.DOTALL
    ):
        chosen = re.findall(r'value="([^"]*)" selected', options)
        found[name] = chosen[0] if chosen else re.findall(r'value="([^"]*)"', options)[:1]
    return {name: unescape(value) for name, value in found.items() if isinstance(value, str)}


def ask(person: TestClient, page: str, **more: str) -> Any:
    return person.post(PATH, data={**fields(page), "ask": "predict", **more})


def test_the_form_is_filled_so_that_the_first_click_is_answered_and_on_record(
    person: TestClient, database: Database
) -> None:
    answer = ask(person, person.get("/console/try").text)

    assert answer.status_code == 200, answer.text
    (entry,) = recorded(database)
    assert entry.status == 200
    assert (entry.username, entry.model) == ("ada", "risk")
    assert f'/console/record/{entry.id}"' in answer.text
    told = json.loads(entry.output or b"")
    assert f'<p class="prediction">{told["prediction"]}</p>' in answer.text
    for share in told["probabilities"].values():
        assert f"{share:.4g}" in answer.text


def test_the_row_that_is_asked_is_what_was_filled_in(
    person: TestClient, database: Database
) -> None:
    filled = {"v.age": " 61.5 ", "v.pressure": "130", "v.smoker": "true", "v.visits": "3"}

    answer = ask(person, person.get(PATH).text, **filled)

    assert answer.status_code == 200
    assert json.loads(recorded(database)[0].input or b"") == GOOD_ROW


def test_every_bad_field_is_told_beside_it_and_keeps_what_was_filled_in(
    person: TestClient, database: Database
) -> None:
    bad = {"v.age": "old", "v.visits": "2.5", "v.pressure": ""}

    answer = ask(person, person.get(PATH).text, **bad)

    assert answer.status_code == 400
    for name in ("age", "pressure", "visits"):
        field = answer.text[answer.text.index(f'name="v.{name}"') :]
        field = field[: field.index("</div>")]
        assert 'aria-invalid="true"' in field, name
        assert f'value="{bad["v." + name]}"' in field
        assert 'class="fault"' in field
    assert recorded(database)[0].error_code == "invalid_input"


def test_what_moved_the_model_adds_up(person: TestClient, database: Database) -> None:
    answer = ask(person, person.get(PATH).text, explain="yes")

    told = json.loads(recorded(database)[0].output or b"")["explanation"]
    shown = dict(
        re.findall(r'<tr><th scope="row">(\w+)<td class="number">([-+][\d.e-]+)', answer.text)
    )
    assert shown.keys() == told["contributions"].keys()
    assert float(shown["age"]) == pytest.approx(told["contributions"]["age"], rel=1e-3)


def test_a_curve_over_a_feature_is_one_call_on_record(
    person: TestClient, database: Database
) -> None:
    answer = ask(person, person.get(PATH).text, ask="what if", feature="age")

    (entry,) = recorded(database)
    told = json.loads(entry.output or b"")["predictions"]
    asked = json.loads(entry.input or b"")["rows"]
    assert len(told) == len(asked) == 42
    assert len({row["age"] for row in asked}) == 41
    assert len({row["pressure"] for row in asked}) == 1
    (line,) = re.findall(r'<polyline points="([^"]+)"', answer.text)
    name = str(told[0]["prediction"])
    heights = [float(pair.split(",")[1]) for pair in line.split()]
    expected = [160 * (1 - it["probabilities"][name]) for it in told[1:]]
    assert heights == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("feature", ["smoker", "no such feature"])
def test_a_feature_without_a_line_has_a_table_and_an_unknown_one_no_curve(
    person: TestClient, database: Database, feature: str
) -> None:
    answer = ask(person, person.get(PATH).text, ask="what if", feature=feature)

    assert answer.status_code == 200
    assert "<polyline" not in answer.text
    assert ("What if smoker" in answer.text) == (feature == "smoker")


def test_a_link_opens_the_form_as_it_was_filled(person: TestClient) -> None:
    filled = {"v.age": "33.25", "v.pressure": "99", "v.smoker": "false", "v.visits": "7"}
    answer = ask(person, person.get(PATH).text, **filled)
    (link,) = re.findall(r'href="([^"]+)">A link to this form', answer.text)

    again = fields(person.get(unescape(link)).text)

    assert {name: again[name] for name in filled} == filled


@pytest.mark.parametrize("sent", [{"csrf": "guessed"}, {"csrf": ""}])
def test_a_form_of_another_session_is_refused_and_nothing_is_on_record(
    person: TestClient, database: Database, sent: dict[str, str]
) -> None:
    answer = ask(person, person.get(PATH).text, **sent)

    assert answer.status_code == 403
    assert recorded(database) == []


def test_a_form_of_another_server_is_refused(person: TestClient, database: Database) -> None:
    headers = {"origin": "https://elsewhere.example"}

    answer = person.post(PATH, data=fields(person.get(PATH).text), headers=headers)

    assert answer.status_code == 403
    assert recorded(database) == []


def test_who_is_not_signed_in_is_led_to_sign_in_and_back(client: TestClient) -> None:
    answer = client.get(f"{PATH}?v.age=3", follow_redirects=False)

    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/sign-in?next=/console/try/risk%3Fv.age%3D3"


def test_an_unknown_model_or_version_is_a_page_that_says_so(person: TestClient) -> None:
    for path in ("/console/try/no-such", f"{PATH}?version=99"):
        answer = person.get(path)

        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")


def test_what_is_filled_in_is_never_markup(person: TestClient) -> None:
    evil = '"><script>alert(1)</script>'

    answer = ask(person, person.get(PATH).text, **{"v.age": evil})

    assert answer.status_code == 400
    assert "<script>alert" not in answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_the_code_of_the_page_is_the_call_that_was_made(
    person: TestClient, database: Database
) -> None:
    page = ask(person, person.get(PATH).text, **{"v.age": "44"}).text
    (curl,) = re.findall(r'<pre id="code1"[^>]*>(.*?)</pre>', page, re.DOTALL)

    assert json.loads(re.findall(r"--data-raw '(.*)'", unescape(curl))[0]) == json.loads(
        recorded(database)[0].input or b""
    )
    assert "http://testserver/models/risk/predict" in curl
