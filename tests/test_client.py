"""`onrecord.Client` and `AsyncClient` against a live server."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from calls import wait_until
from live import GOOD_ROW, PASSWORD, Server, live_server
from onrecord import AsyncClient, Client
from onrecord.client import (
    Conflict,
    IdempotencyKeyReused,
    InsufficientScope,
    InvalidInput,
    NotFound,
    Problem,
    Retries,
    SignInRefused,
    TooManyRequests,
    Unauthenticated,
    UnexpectedAnswer,
    Unreachable,
)
from onrecord.client.errors import BY_CODE
from onrecord.http.problems import STATUS

ROWS = [GOOD_ROW, GOOD_ROW | {"age": 25.0, "smoker": False}, GOOD_ROW | {"visits": 9}]
NAMES = ["id", "prediction", "probability_0", "probability_1"]
FAST = Retries(attempts=3, longest_wait=0.01)


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("client")
    with live_server(model_dir, home / "data") as running:
        yield running


@pytest.fixture(scope="module")
def ada(server: Server) -> str:
    """The access token of a user of that name."""
    return server.register("ada")


@pytest.fixture
def client(server: Server, ada: str) -> Iterator[Client]:
    with Client(server.base, token=ada) as client:
        yield client


class Lossy(httpx2.BaseTransport):
    """Passes requests on, and loses the first answers to those of a path on their way back."""

    def __init__(self, path: str, losses: int) -> None:
        self._path, self._losses = path, losses
        self._inner = httpx2.HTTPTransport()
        self.sent: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._inner.handle_request(request)
        if request.url.path != self._path:
            return response
        self.sent.append(request)
        if len(self.sent) <= self._losses:
            response.read()
            raise httpx2.ReadError("the connection was reset", request=request)
        return response

    def close(self) -> None:
        self._inner.close()


def answering(*answers: httpx2.Response) -> httpx2.Client:
    """A network whose other end gives these answers, one after the other."""
    left = list(answers)
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: left.pop(0)))


def key(server: Server, token: str, **order: Any) -> str:
    answer = httpx2.post(
        f"{server.base}/keys",
        json={"name": "a program", **order},
        headers={"authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["key"]


def test_importing_the_client_imports_nothing_of_the_server() -> None:
    script = (
        "import sys, anyio, httpx2; before = set(sys.modules)\n"
        "import onrecord; assert 'onrecord.client' not in sys.modules\n"
        "from onrecord import AsyncClient, Client\n"
        "print('\\n'.join(set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    loaded = set(ran.stdout.split())
    ours = {name for name in loaded if name.partition(".")[0] == "onrecord"} - {"onrecord"}
    assert "onrecord.client" in ours
    assert all(name.startswith("onrecord.client") for name in ours), ours
    theirs = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert theirs == {"onrecord"}


def test_a_row_is_answered_with_all_that_the_server_tells(client: Client) -> None:
    answer = client.predict(GOOD_ROW)

    assert answer.prediction == 1
    assert answer.probabilities is not None
    assert set(answer.probabilities) == {"0", "1"}
    assert answer.explanation is None
    assert answer.model.name == "risk"
    call = client.prediction(answer.id)
    assert (call.model, call.input, call.status) == (answer.model, GOOD_ROW, 200)
    assert call.received_at.tzinfo is not None


def test_rows_are_answered_in_their_order_in_one_call(client: Client) -> None:
    answers = client.predict(ROWS)

    assert [it.prediction for it in answers] == [client.predict(row).prediction for row in ROWS]
    assert answers.id == answers[0].id
    assert client.prediction(answers[2].id).output["predictions"][1]["id"] == answers[1].id


def test_an_explanation_comes_where_it_is_asked_for(client: Client) -> None:
    answer = client.predict(GOOD_ROW, explain=True)

    assert answer.explanation is not None
    assert answer.explanation.space == "log-odds"
    assert set(answer.explanation.contributions or ()) == set(GOOD_ROW)
    with pytest.raises(ValueError, match="a row or a list of rows"):
        client._run(
            client._calls.predict(
                pa.table({"age": [1.0]}),
                model=None,
                version=None,
                explain=True,
                idempotency_key=None,
            )
        )


@pytest.mark.parametrize("version", ["live", "1"])
def test_a_version_can_be_pinned_with_and_without_a_model(client: Client, version: str) -> None:
    (model,) = client.models()

    for name in (None, "risk"):
        assert client.predict(GOOD_ROW, model=name, version=version).model.sha256 == model.sha256
    with pytest.raises(NotFound, match="no such version"):
        client.predict(GOOD_ROW, version="7")


def test_a_pandas_frame_is_answered_by_one_with_its_index(client: Client) -> None:
    frame = pd.DataFrame(ROWS, index=["x", "y", "z"]).astype({"visits": "Int64"})

    answer = client.predict(frame)

    assert isinstance(answer.frame, pd.DataFrame)
    assert list(answer.frame.columns) == NAMES
    assert list(answer.frame.index) == ["x", "y", "z"]
    assert answer.frame["prediction"].tolist() == [it.prediction for it in client.predict(ROWS)]
    assert answer.id == answer.frame["id"].iloc[0]
    assert answer.model.name == "risk"


def test_a_polars_frame_is_answered_by_one(client: Client) -> None:
    answer = client.predict(pl.DataFrame(ROWS))

    assert isinstance(answer.frame, pl.DataFrame)
    assert answer.frame.columns == NAMES
    assert answer.frame["prediction"].to_list() == [it.prediction for it in client.predict(ROWS)]


def test_an_arrow_table_is_answered_by_one(client: Client) -> None:
    answer = client.predict(pa.Table.from_pylist(ROWS))

    assert isinstance(answer.frame, pa.Table)
    assert answer.frame.column_names == NAMES
    assert client.prediction(answer.id).content_type == "application/vnd.apache.arrow.stream"


def test_an_array_has_the_models_columns_in_their_order(client: Client) -> None:
    array = np.array([list(row.values()) for row in ROWS], dtype=object)

    answer = client.predict(array)

    assert answer.frame.dtype.names == tuple(NAMES)
    assert answer.frame["prediction"].tolist() == [it.prediction for it in client.predict(ROWS)]
    with pytest.raises(ValueError, match="age, pressure, smoker, visits"):
        client.predict(array[:, :3])


def test_every_bad_field_is_told(client: Client) -> None:
    with pytest.raises(InvalidInput) as refused:
        client.predict([GOOD_ROW, {"age": "old", "pressure": 1, "smoker": True}])

    problem = refused.value
    assert (problem.status, problem.type) == (400, "urn:onrecord:problem:invalid_input")
    assert [error.pointer for error in problem.errors] == ["/rows/1/age", "/rows/1/visits"]
    assert problem.errors[0].received == '"old"'
    assert problem.request_id is not None
    assert client.prediction(problem.request_id).status == 400
    assert "/rows/1/age: It is a string" in str(problem)


def test_nan_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        client.predict(GOOD_ROW | {"age": float("nan")})


def test_every_error_of_the_client_is_one_of_the_server() -> None:
    named = {error.code: error.__name__ for error in STATUS if "code" in vars(error)}

    assert {code: named[code] for code in BY_CODE} == {
        code: kind.__name__ for code, kind in BY_CODE.items()
    }


def test_an_unknown_problem_is_a_problem_all_the_same(server: Server) -> None:
    told = httpx2.Response(418, json={"code": "teapot", "detail": "No coffee.", "request_id": "1"})

    with pytest.raises(Problem) as refused:
        Client(server.base, token="t", http=answering(told)).models()

    assert (type(refused.value), refused.value.code) == (Problem, "teapot")


def test_what_is_no_onrecord_server_is_told(server: Server) -> None:
    page = httpx2.Response(302, text="<html>elsewhere</html>")

    with pytest.raises(UnexpectedAnswer, match="302") as refused:
        Client(server.base, token="t", http=answering(page)).models()

    assert refused.value.status == 302


@pytest.mark.parametrize("rows", [GOOD_ROW, pa.Table.from_pylist(ROWS)], ids=["row", "table"])
def test_a_call_whose_answers_are_lost_is_sent_again_and_on_record_once(
    server: Server, ada: str, client: Client, rows: Any
) -> None:
    before = len(list(client.predictions()))
    transport = Lossy("/predict", losses=2)
    with httpx2.Client(transport=transport) as http:
        answer = Client(server.base, token=ada, http=http, retries=FAST).predict(rows)

    assert len(transport.sent) == 3
    assert len({request.headers["idempotency-key"] for request in transport.sent}) == 1
    assert len(list(client.predictions())) == before + 1
    assert client.prediction(answer.id).status == 200


def test_a_server_that_does_not_answer_is_given_up(server: Server, ada: str) -> None:
    transport = Lossy("/predict", losses=9)

    with httpx2.Client(transport=transport) as http, pytest.raises(Unreachable, match="reset"):
        Client(server.base, token=ada, http=http, retries=FAST).predict(GOOD_ROW)

    assert len(transport.sent) == FAST.attempts


def refusal(status: int, code: str, after: int | None) -> httpx2.Response:
    headers = {} if after is None else {"retry-after": str(after)}
    return httpx2.Response(status, json={"code": code, "detail": "Not now."}, headers=headers)


def test_a_busy_server_is_asked_again_after_what_it_says(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    http = answering(
        refusal(503, "unavailable", 2),
        refusal(429, "too_many_requests", 7),
        httpx2.Response(504, text="a proxy's page"),
        httpx2.Response(200, json={"models": []}),
    )

    assert Client(server.base, token="t", http=http).models() == []

    assert waited[:2] == [2, 7]
    assert 0 <= waited[2] <= 1


def test_a_quota_that_is_used_up_for_long_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits"))
    http = answering(refusal(429, "too_many_requests", 41_200))

    with pytest.raises(TooManyRequests) as refused:
        Client(server.base, token="t", http=http).models()

    assert refused.value.retry_after == 41_200


def test_a_key_of_ones_own_gives_the_same_answer_again(client: Client) -> None:
    first = client.predict(GOOD_ROW, idempotency_key='order "7"\\')

    assert client.predict(GOOD_ROW, idempotency_key='order "7"\\') == first
    assert client.prediction(first.id).idempotency_key == 'order "7"\\'
    with pytest.raises(IdempotencyKeyReused):
        client.predict(ROWS, idempotency_key='order "7"\\')


def test_a_user_signs_in_by_password_and_the_session_ends_with_the_client(server: Server) -> None:
    server.register("grace")

    with Client(server.base, username="grace", password=PASSWORD) as client:
        answer = client.predict(GOOD_ROW)
        token = client._calls.session.token

    with Client(server.base, token=token) as later:
        wait_until(lambda: is_refused(later))
    with Client(server.base, username="grace", password=PASSWORD) as client:
        assert client.prediction(answer.id).username == "grace"


def is_refused(client: Client) -> bool:
    try:
        client.models()
    except Unauthenticated:
        return True
    return False


def test_a_wrong_password_is_told_and_not_sent_again(server: Server) -> None:
    transport = Lossy("/token", losses=0)
    with httpx2.Client(transport=transport) as http, pytest.raises(SignInRefused) as refused:
        Client(server.base, username="nobody", password="wrong wrong", http=http).models()

    assert refused.value.code == "invalid_grant"
    assert refused.value.request_id is not None
    assert len(transport.sent) == 1


def test_a_token_that_ends_is_refreshed_and_a_lost_refresh_signs_in_again(server: Server) -> None:
    server.register("hedy")
    transport = Lossy("/token", losses=0)
    with httpx2.Client(transport=transport) as http:
        client = Client(server.base, username="hedy", password=PASSWORD, http=http, retries=FAST)
        client.models()
        session = client._calls.session
        session._good_until = 0.0
        client.models()
        grants = [request.content.split(b"&")[0] for request in transport.sent]
        assert grants == [b"username=hedy", b"grant_type=refresh_token"]

        session._good_until = 0.0
        transport._losses = 3
        client.models()

    assert [request.content.split(b"&")[0] for request in transport.sent[2:]] == [
        b"grant_type=refresh_token",
        b"username=hedy",
    ]


def test_a_token_that_was_revoked_is_replaced(server: Server) -> None:
    server.register("joan")
    with Client(server.base, username="joan", password=PASSWORD) as client:
        client.models()
        spent = client._calls.session.token
        httpx2.post(f"{server.base}/revoke", data={"token": spent})
        with Client(server.base, token=spent) as other:
            wait_until(lambda: is_refused(other))

        client.models()

        assert client._calls.session.token != spent


def test_an_api_key_that_lacks_a_scope_is_told_so(server: Server, ada: str) -> None:
    with Client(server.base, token=key(server, ada, scopes=["predict"])) as client:
        client.predict(GOOD_ROW)
        with pytest.raises(InsufficientScope, match="'read'"):
            list(client.predictions())


def test_the_record_is_read_page_by_page_as_rows_and_as_a_table(server: Server) -> None:
    with Client(server.base, token=server.register("mary")) as client:
        began = datetime.now(UTC) - timedelta(seconds=1)
        ids = [client.predict(GOOD_ROW).id for _ in range(5)]
        with pytest.raises(InvalidInput):
            client.predict({})

        answered = client.predictions(status=200, model="risk", since=began, page_size=2)
        table = client.predictions(page_size=4).to_arrow()

        assert [call.id for call in answered] == ids[::-1]
        assert [call.id for call in answered] == ids[::-1]
        assert table.num_rows == 6
        assert table["model_version"][0].as_py() == client.model().version
        assert table["error_fields"][0].as_py() == ["/age", "/pressure", "/smoker", "/visits"]
        assert pl.from_arrow(table).height == len(table.to_pandas()) == 6
        assert client.predictions(until=began).to_arrow().num_rows == 0


def test_a_call_is_proven_once_it_is_sealed(client: Client) -> None:
    answer = client.predict(GOOD_ROW)

    def proof() -> object:
        try:
            return client.proof(answer.id)
        except Conflict:
            return None

    wait_until(proof)
    assert answer.id in client.proof(answer.id).leaf


def test_outcomes_are_told_one_by_one_and_in_bulk(client: Client) -> None:
    answers = client.predict(ROWS)
    seen = datetime.now(UTC)

    first = client.tell_outcome(answers[0].id, 1, observed_at=seen)
    told = client.tell_outcomes(
        "risk", [{"prediction_id": it.id, "outcome": 0, "observed_at": seen} for it in answers[1:]]
    )
    frame = pl.DataFrame({"prediction_id": [answers[1].id], "outcome": [0]})

    assert first.observed_at == seen
    assert [it.new for it in told] == [True, True]
    assert [it.outcome for it in client.outcomes(answers[1].id)] == [0]
    assert client.tell_outcomes("risk", frame)[0].prediction_id == answers[1].id
    with pytest.raises(InvalidInput) as refused:
        client.tell_outcome(answers[0].id, 7)
    assert refused.value.errors[0].pointer == "/outcome"


def test_the_schema_of_a_model_is_shown(client: Client) -> None:
    assert list(client.schema("risk")["properties"]) == list(client.model("risk").columns)


def test_connections_are_used_again(server: Server, ada: str) -> None:
    opened: set[object] = set()

    def note(request: httpx2.Request) -> None:
        request.extensions["trace"] = lambda event, _: (
            opened.add(object()) if event == "connection.connect_tcp.complete" else None
        )

    with httpx2.Client(event_hooks={"request": [note]}) as http:
        client = Client(server.base, token=ada, http=http)
        for _ in range(5):
            client.predict(GOOD_ROW)

    assert len(opened) == 1


def test_a_client_needs_a_token_or_a_password_and_does_not_show_it() -> None:
    both = {"token": "t", "username": "ada", "password": "p"}
    for given in ({}, {"username": "ada"}, {"token": "t", "username": "ada"}, both):
        with pytest.raises(ValueError, match="API key"):
            Client("http://localhost:8000", **given)

    session = Client("http://localhost", username="ada", password="sesame")._calls.session
    assert "sesame" not in repr(session)


def test_the_awaited_client_does_all_that_the_blocking_one_does(server: Server) -> None:
    assert {name for name in vars(Client) if name[0] != "_"} == {
        name for name in vars(AsyncClient) if name[0] != "_"
    }
    server.register("lin")

    asked: list[str] = []

    async def note(request: httpx2.Request) -> None:
        asked.append(request.url.path)

    async def use() -> None:
        async with (
            httpx2.AsyncClient(event_hooks={"request": [note]}) as http,
            AsyncClient(server.base, username="lin", password=PASSWORD, http=http) as client,
        ):
            # All need the token at once, and one of them gets it.
            answers = await asyncio.gather(*(client.predict(row) for row in ROWS))
            table = await client.predict(pl.DataFrame(ROWS))
            assert table.frame["prediction"].to_list() == [it.prediction for it in answers]
            assert (await client.model()).name == "risk"
            assert (await client.prediction(answers[0].id)).input == ROWS[0]
            calls = client.predictions(page_size=3)
            assert {call.id async for call in calls} == {*(it.id for it in answers), table.id}
            assert (await calls.to_arrow()).num_rows == 4
            await client.tell_outcome(answers[0].id, 1)
            assert [it.outcome for it in await client.outcomes(answers[0].id)] == [1]
            with pytest.raises(InvalidInput):
                await client.predict({})

    asyncio.run(use())
    assert asked.count("/token") == 1
    assert asked[-1] == "/revoke"


def test_the_awaited_client_sends_again_and_is_on_record_once(server: Server) -> None:
    token = server.register("rosalind")

    class AsyncLossy(httpx2.AsyncHTTPTransport):
        lost = 0

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response = await super().handle_async_request(request)
            if self.lost < 2:
                self.lost += 1
                await response.aread()
                await response.aclose()
                raise httpx2.ReadError("the connection was reset", request=request)
            return response

    async def use() -> None:
        async with httpx2.AsyncClient(transport=AsyncLossy()) as http:
            client = AsyncClient(server.base, token=token, http=http, retries=FAST)
            answer = await client.predict(GOOD_ROW)
            assert [call.id async for call in client.predictions()] == [answer.id]

    asyncio.run(use())


def test_the_examples_of_the_docs_work(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "client.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setenv("ONRECORD_TOKEN", server.register("reader"))
    names: dict[str, Any] = {}

    for block in blocks:
        text = block.replace("http://localhost:8000", server.base).replace('"ada"', '"reader"')
        exec(compile(text, "docs/client.md", "exec"), names)

    names["client"].close()
    names["patient"].close()
    assert "/visits missing" in capsys.readouterr().out
