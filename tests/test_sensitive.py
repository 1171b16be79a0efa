"""Sensitive columns: their values are in no row, no log line and no error text."""

from __future__ import annotations

import base64
import io
import json
import stat
from collections.abc import Iterator

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from live import GOOD_ROW, PASSWORD, linear_model_dir
from onrecord.app import create_app
from onrecord.cli.main import main
from onrecord.errors import ModelDirectoryError
from onrecord.record.payload_key import PayloadKey
from onrecord.serving.forms import ARROW, CSV
from onrecord.serving.input_schema import parse_input_schema
from onrecord.settings import Settings, load_settings

SECRET = "8675309.25"
ROW = GOOD_ROW | {"pressure": float(SECRET)}
COLUMN = {"name": "pressure", "datatype": "FP64", "shape": [1]}
HEADER = "age,pressure,smoker,visits\n"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("sensitive")
    model_dir = linear_model_dir(home / "risk")
    file = model_dir / "input_schema.json"
    schema = json.loads(file.read_text())
    schema["input_schema"]["columns"][1] |= {"sensitive": True, "subject": True}
    file.write_text(json.dumps(schema))
    return load_settings(model_dir=model_dir, data_dir=home / "data", log_level="debug")


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        answer = client.post("/users", json={"username": "ada", "password": PASSWORD})
        client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


def arrow() -> bytes:
    out = io.BytesIO()
    table = pa.table({name: [str(value)] for name, value in ROW.items()})
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


BODIES = {
    "good": (json.dumps(ROW), None, 200),
    "rows": (json.dumps({"rows": [ROW, ROW]}), None, 200),
    "columns": (json.dumps({"columns": {name: [v] for name, v in ROW.items()}}), None, 200),
    "csv": (f"{HEADER}61,{SECRET},true,3\n", CSV, 200),
    "bad value": (json.dumps(ROW | {"pressure": [SECRET]}), None, 400),
    "bad other value": (json.dumps(ROW | {"age": SECRET}), None, 400),
    "mistyped column": (json.dumps(GOOD_ROW | {"presure": SECRET}), None, 400),
    "value as a name": (json.dumps(GOOD_ROW | {SECRET: 1}), None, 400),
    "twice": (json.dumps(ROW)[:-1] + f', "{SECRET}": 1, "{SECRET}": 2}}', None, 400),
    "no JSON": (json.dumps(ROW)[:-1] + SECRET, None, 400),
    "csv without a header": (f"61,{SECRET},true,3\n", CSV, 400),
    "ragged csv": (f"{HEADER}61,{SECRET},true,3,4\n", CSV, 400),
    "broken csv": (f'{HEADER}61,"{SECRET},true,3\n', CSV, 400),
    "arrow of strings": (arrow(), ARROW, 400),
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/invocations", {"instances": [SECRET]}),
        ("/invocations", {"instances": [], SECRET: 1}),
        ("/invocations", {"dataframe_split": {"columns": [SECRET, SECRET], "data": []}}),
        ("/invocations", {"dataframe_records": [{SECRET: 1}]}),
        ("/v2/models/risk/infer", {"inputs": [{"name": SECRET, "shape": SECRET}]}),
        ("/v2/models/risk/infer", {"inputs": COLUMN | {"data": [[SECRET]]}}),
        ("/v2/models/risk/infer", {"inputs": [COLUMN | {"name": SECRET, "data": [1]}]}),
        ("/v2/models/risk/infer", {"inputs": [COLUMN | {"data": [SECRET]}]}),
    ],
    ids=str,
)
def test_a_refusal_in_another_protocol_tells_no_sensitive_value(
    client: TestClient, path: str, body: object
) -> None:
    refused = client.post(path, json=body)

    assert refused.status_code == 400, refused.text
    assert SECRET not in refused.text
    recorded = client.get(f"/predictions/{refused.headers['x-request-id']}").json()
    assert SECRET not in json.dumps(recorded["output"])


def test_contributions_would_tell_a_sensitive_value_and_are_refused(client: TestClient) -> None:
    refused = client.post("/predict?explain=true", json=ROW)
    shown = client.get("/models/risk").json()

    assert (refused.status_code, refused.json()["code"]) == (422, "not_explainable")
    assert "sensitive columns" in refused.json()["detail"]
    assert "contributions" not in refused.json()
    assert client.post("/predict", json=ROW).status_code == 200
    assert (shown["explainable"], shown["explainable_reason"]) == (False, refused.json()["detail"])


@pytest.mark.parametrize("name", BODIES)
def test_a_sensitive_value_is_nowhere_but_encrypted(
    client: TestClient, settings: Settings, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    body, content_type, status = BODIES[name]
    given = body.encode() if isinstance(body, str) else body
    headers = {"content-type": content_type or "application/json"}

    answer = client.post("/predict", content=given, headers=headers)

    assert answer.status_code == status, answer.text
    shown = client.get("/predictions?limit=1").json()["predictions"][0]
    concealed = shown["input"]
    if isinstance(concealed, dict):
        concealed = base64.b64decode(concealed["base64"]).decode()
    assert PayloadKey.from_file(settings.payload_key_file).reveal(concealed.encode()) == given
    told = answer.text + json.dumps(shown) + "".join(capfd.readouterr())
    assert SECRET not in told
    files = b"".join(file.read_bytes() for file in settings.data_dir.glob("record.db*"))
    assert SECRET.encode() not in files


def test_a_call_sent_again_is_known_by_what_was_encrypted_of_it(client: TestClient) -> None:
    headers = {"idempotency-key": "order-7"}
    first = client.post("/predict", json=ROW, headers=headers)

    again = client.post("/predict", json=ROW, headers=headers)
    other = client.post("/predict", json=ROW | {"pressure": 1}, headers=headers)

    assert (again.status_code, again.content) == (200, first.content)
    assert other.status_code == 422


def test_a_body_for_a_model_that_is_not_here_is_encrypted_too(
    client: TestClient, settings: Settings
) -> None:
    answer = client.post("/models/rusk/predict", json=ROW)

    assert answer.status_code == 404
    assert client.get("/predictions?limit=1").json()["predictions"][0]["input"].startswith("eyJ")


def test_the_operator_reveals_and_finds_a_subject(
    client: TestClient,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONRECORD_DATA_DIR", str(settings.data_dir))

    def command(*words: str) -> str:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["onrecord", *words])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        return capsys.readouterr().out

    prediction = client.post("/predict", json=ROW | {"pressure": 4711}).json()["id"]

    plain = json.loads(command("log", "--limit", "1", "--json"))
    revealed = json.loads(command("log", "--limit", "1", "--json", "--reveal"))
    assert plain["input"].startswith("eyJ")
    assert json.loads(revealed["input"])["pressure"] == 4711
    words = ("erase", "--subject", "pressure=4711", "--reason", "she asked", "--yes")
    assert command(*words).startswith("erased the payloads of 1 calls")
    assert client.get(f"/predictions/{prediction}").json()["input"] is None
    said = command("verify")
    assert '{"subject": "pressure"}' in said
    assert "4711" not in said


def test_the_schema_marks_the_column_and_shows_no_example(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    column = body["schema"]["oneOf"][0]["properties"]["pressure"]
    assert (column["writeOnly"], column["x-sensitive"]) == (True, True)
    assert "examples" not in column
    with pytest.raises(ModelDirectoryError, match="sensitive column shows no value"):
        parse_input_schema(
            b'{"input_schema": {"columns": [{"name": "a", "type": "text", "sensitive": true,'
            b' "example": "x"}]}}',
            "input_schema.json",
        )


def test_the_key_is_the_owners_alone(client: TestClient, settings: Settings) -> None:
    assert stat.S_IMODE(settings.payload_key_file.stat().st_mode) == 0o600
