"""Scoring a file in the console: its columns, its rows on record, and what comes back."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from starlette.testclient import TestClient

from calls import known, recorded
from onrecord.record.database import Database
from onrecord.settings import Settings

pytestmark = pytest.mark.parametrize("application", ["sqlite"], indirect=True)

PATH = "/console/try/risk/file"
HEADER = "age,pressure,smoker,visits"
PLAIN = f"{HEADER}\n61.5,130,true,3\n20,100,false,0\n"


@pytest.fixture(scope="module")
def more_settings() -> dict[str, Any]:
    return {"max_rows": 50, "max_body_bytes": 200_000}


@pytest.fixture
def person(client: TestClient, settings: Settings) -> TestClient:
    """A client that holds the cookie of a person who is signed in."""
    token = known(settings)["authorization"].removeprefix("Bearer ")
    client.cookies.set("onrecord_session", token)
    return client


def csrf_of(person: TestClient) -> str:
    (secret, *_) = re.findall(r'name="csrf" value="(\w+)"', person.get(PATH).text)
    return secret


def score(person: TestClient, content: str | bytes, name: str = "a file.csv", **more: str) -> Any:
    secret = csrf_of(person)
    return person.post(PATH, data={"csrf": secret, **more}, files={"file": (name, content)})


def rows(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def faults(answer: Any) -> list[tuple[str, ...]]:
    """Return what the page says of bad fields: row, column, what is wrong, what was found."""
    assert answer.headers["content-type"].startswith("text/html")
    text = re.sub(r"</?code>", "", answer.text[answer.text.index('id="answer"') :])
    return re.findall(r'<tr><td class="number">(.*?)<td>(.*?)<td>(.*?)<td>(.*?)</tr>', text)


def test_a_file_whose_names_fit_is_asked_as_it_is_and_comes_back_with_answers(
    person: TestClient, database: Database
) -> None:
    answer = score(person, PLAIN)

    (entry,) = recorded(database)
    assert entry.input == PLAIN.encode()
    assert (entry.status, entry.username, entry.content_type) == (
        200,
        "ada",
        "text/csv; charset=utf-8",
    )
    told = list(csv.DictReader(io.StringIO((entry.output or b"").decode(), newline="")))
    assert answer.headers["content-disposition"] == 'attachment; filename="a-file-scored.csv"'
    found = rows(answer)
    assert [it["age"] for it in found] == ["61.5", "20"]
    assert [it["prediction_id"] for it in found] == [it["id"] for it in told]
    for name in ("prediction", "probability_0", "probability_1"):
        assert [it[name] for it in found] == [it[name] for it in told]


def test_other_columns_stay_here_and_names_are_mapped(
    person: TestClient, database: Database
) -> None:
    content = (
        "id,Age (y),prediction,pressure,smoker,visits,note\r\n"
        '7,61.5,"was, said",130,true,3,"two\nlines"\r\n'
        '8,20,,100,false,0,""\r\n'
    )

    answer = score(person, content, **{"c.age": "Age (y)"})

    assert recorded(database)[0].input == (
        b"age,pressure,smoker,visits\r\n61.5,130,true,3\r\n20,100,false,0\r\n"
    )
    found = rows(answer)
    assert [(it["id"], it["note"], it["prediction"]) for it in found] == [
        ("7", "two\nlines", "was, said"),
        ("8", "", ""),
    ]
    assert {it["onrecord_prediction"] for it in found} <= {"0", "1"}


def test_a_parquet_file_comes_back_as_one(person: TestClient, database: Database) -> None:
    table = pa.table(
        {
            "Age": [61.5, 20.0],
            "seen": pa.array([0, 1], pa.timestamp("ms")),
            "pressure": [130.0, 100.0],
            "smoker": [True, False],
            "visits": [3, 0],
            "tags": [["a"], []],
        }
    )
    sink = io.BytesIO()
    parquet.write_table(table, sink)

    answer = score(person, sink.getvalue(), "x.parquet", **{"c.age": "Age"})

    assert answer.status_code == 200, answer.text
    found = parquet.read_table(io.BytesIO(answer.content))
    assert found.column("seen").equals(table.column("seen"))
    assert "tags" not in found.column_names
    asked = parquet.read_table(io.BytesIO(recorded(database)[0].input or b""))
    assert asked.column_names == HEADER.split(",")
    plain = rows(score(person, PLAIN))
    assert found.column("prediction").to_pylist() == [int(it["prediction"]) for it in plain]


def test_every_bad_value_is_named_by_its_row_and_the_files_own_column(
    person: TestClient, database: Database
) -> None:
    content = f"{HEADER.replace('age', 'Age')}\n61.5,130,true,3\nold,130,true,2.5\n"

    answer = score(person, content, **{"c.age": "Age", "first": "1000"})

    assert answer.status_code == 400
    assert [it[:2] + it[3:] for it in faults(answer)] == [
        ("1,002", "Age", "&#34;old&#34;"),
        ("1,002", "visits", "2.5"),
    ]
    (entry,) = recorded(database)
    assert (entry.status, entry.error_code) == (400, "invalid_input")


def test_a_column_that_is_not_there_is_told_with_one_that_it_may_be(
    person: TestClient, database: Database
) -> None:
    answer = score(person, PLAIN.replace("pressure", "PRESSURE"))

    assert answer.status_code == 400
    assert [it[:2] for it in faults(answer)] == [("", "pressure")]
    assert 'name="c.pressure" value="PRESSURE"' in answer.text
    assert "<details open>" in answer.text
    assert recorded(database) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Choose a CSV or Parquet file"),
        (b"\xff\xfe\x00", "starts no character of UTF-8"),
        (b"PAR1 no more of it PAR1", "not a Parquet file"),
        (f"{HEADER}\n1,2\n".encode(), "It has 2 cells"),
        (f"{HEADER}\n".encode(), "no row"),
        (f"{HEADER}\n{'61.5,130,true,3' * 1}\n".encode() + b"61.5,130,true,3\n" * 50, "at most 50"),
    ],
    ids=["empty", "no text", "no parquet", "ragged", "no row", "too many rows"],
)
def test_a_file_that_cannot_be_scored_says_why(
    person: TestClient, content: bytes, told: str
) -> None:
    answer = score(person, content)

    assert answer.status_code == 400
    assert told in answer.text
    assert "<details open>" not in answer.text


def test_a_file_may_be_as_large_as_a_call(person: TestClient) -> None:
    note = "x" * 3000

    answer = score(person, f"{HEADER},note\n" + f"61.5,130,true,3,{note}\n" * 50)

    assert len(rows(answer)) == 50


def test_a_file_beyond_what_a_call_takes_is_refused(person: TestClient) -> None:
    answer = score(person, PLAIN + "61.5,130,true,3\n" * 20_000)

    assert answer.status_code == 413


def test_a_later_part_has_no_header_of_its_own(person: TestClient) -> None:
    first, later = score(person, PLAIN), score(person, PLAIN, first="2")

    names, *lines = first.text.split("\r\n")
    assert names.startswith(HEADER)
    assert [line.split(",")[:4] for line in later.text.split("\r\n")] == [
        line.split(",")[:4] for line in lines
    ]


@pytest.mark.parametrize("csrf", ["guessed", ""])
def test_a_file_from_elsewhere_is_not_scored(
    person: TestClient, database: Database, csrf: str
) -> None:
    other = person.post(PATH, data={"csrf": csrf}, files={"file": ("x.csv", PLAIN)})
    sent = {"csrf": csrf_of(person)}
    headers = {"sec-fetch-site": "cross-site"}
    origin = person.post(PATH, data=sent, files={"file": PLAIN}, headers=headers)

    assert (other.status_code, origin.status_code) == (403, 403)
    assert recorded(database) == []


def test_who_is_not_signed_in_is_led_to_sign_in_before_a_file_is_read(client: TestClient) -> None:
    answer = client.post(PATH, files={"file": PLAIN}, follow_redirects=False)

    assert answer.status_code == 303


def test_a_form_without_a_file_or_of_another_kind_is_refused(person: TestClient) -> None:
    assert person.post(PATH, data={"csrf": "x"}).status_code == 415
    broken = {"content-type": "multipart/form-data"}
    assert person.post(PATH, content=b"x", headers=broken).status_code == 400
    for kind, body in (
        ("multipart/form-data; boundary=a", b"x"),
        ("multipart/form-data; boundary=a", b"--a\r\nno header\r\n\r\nx\r\n--a--\r\n"),
        ("multipart/form-data; charset=none; boundary=a", b"--a"),
    ):
        answer = person.post(PATH, content=body, headers={"content-type": kind})
        assert answer.status_code in {400, 403}, answer.text
