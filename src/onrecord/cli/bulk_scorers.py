"""Who answers the chunks of a file: a model in this process, or a server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from onrecord.accounts.caller import Caller, role_of
from onrecord.errors import CallError, Fault, InvalidInput, NotFound, StartupError
from onrecord.http.predict import refusal
from onrecord.parts import load_served_model, payload_key_for, register_model
from onrecord.record import users
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.ids import new_id, new_request_id
from onrecord.record.writer import Writer
from onrecord.record.writer_order import WriterOrder
from onrecord.record.writer_process import WriterProcess
from onrecord.serving.answers import MODEL_KEY
from onrecord.serving.artifact import Model
from onrecord.serving.forms import ARROW, CSV, PARQUET, Form
from onrecord.serving.prediction import Call, Predictor, Recorder
from onrecord.serving.runner import Runner
from onrecord.serving.validation import Validator
from onrecord.settings import Settings

__all__ = ["Local", "Remote", "Scorer"]

_FORMS = {CSV: Form("csv", "parquet"), ARROW: Form("arrow", "parquet")}
_ATTEMPTS = 20
_LONGEST_WAIT = 60
_TOO_MANY, _UNAVAILABLE = 429, 503
_BAD_REQUEST = 400
_PATIENCE = 24 * 3600.0
"""Nobody waits for a chunk at the other end of a connection, so a slow model may take its time."""


class Scorer(Protocol):
    """Answers chunks. `at_once` is how many it is well given at a time."""

    at_once: int

    def identity(self) -> dict[str, object]:
        """Return what names the model: hashes of it and of its schema."""
        ...

    async def score(self, body: bytes, content_type: str) -> bytes:
        """Return the answer to one chunk as a Parquet file, which is on record.

        Raises InvalidInput with faults that point at the chunk's rows, and other errors.
        """
        ...


class _Nowhere:
    """Where calls go that shall not be on record."""

    async def write(self, call: RecordedCall) -> None:
        """Keep nothing."""


class Local:
    """A model in this process, which writes to the record as a server would."""

    at_once = 4

    def __init__(self, model: Model, predictor: Predictor, user_id: str) -> None:
        self._model = model
        self._predictor = predictor
        self._user_id = user_id

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, settings: Settings, username: str | None, chunk_rows: int
    ) -> AsyncIterator[Local]:
        """Load the settings' model and open the record; with no username nothing is recorded.

        Raises NotFound where there is no such user, Forbidden where it may not predict, and
        StartupError.
        """
        model = await asyncio.to_thread(load_served_model, settings)
        runner = Runner(
            model,
            max_waiting_rows=1 << 40,
            max_wait_seconds=_PATIENCE,
            deadline_seconds=_PATIENCE,
        )
        validator = Validator(model.schema, max_rows=chunk_rows)
        try:
            if username is None:
                recorder = Recorder(_Nowhere(), refusal)
                yield cls(model, Predictor(model, 0, validator, runner, recorder), new_id())
                return
            database = Database(settings.database_url)
            try:
                database.upgrade()
                user_id = _user(database, username, model.name)
                version = register_model(database, model)
                with WriterProcess(WriterOrder(settings.database_url)) as process:
                    writer = Writer()
                    await writer.start(process.address)
                    recorder = Recorder(writer, refusal)
                    key = payload_key_for(settings, model)
                    conceal = None if key is None else key.conceal
                    predictor = Predictor(model, version, validator, runner, recorder, conceal)
                    try:
                        yield cls(model, predictor, user_id)
                    finally:
                        await writer.close()
            finally:
                database.close()
        finally:
            runner.close()

    def identity(self) -> dict[str, object]:
        """Return the SHA-256 of the model's file and of its schema's."""
        return {"model": self._model.sha256, "schema": self._model.schema_sha256}

    async def score(self, body: bytes, content_type: str) -> bytes:
        """Return the answer to one chunk, as `Scorer` says."""
        call = Call(
            id=new_request_id(),
            user_id=self._user_id,
            model=self._model.name,
            x_request_id=None,
            content_type=content_type,
            body=body,
            received_at=datetime.now(UTC),
            started=time.perf_counter(),
            form=_FORMS[content_type],
            conceal=self._predictor.conceal,
        )
        answer = await self._predictor.predict(call)
        if answer.error is not None:
            raise answer.error
        return answer.body


def _user(database: Database, username: str, model: str) -> str:
    with database.read() as connection:
        user = users.by_username(connection, username)
    if user is None:
        raise NotFound(f"There is no user {username!r}; make one with `onrecord users create`.")
    if user.disabled_at is not None:
        raise NotFound(f"The user {username!r} is disabled.")
    Caller(user.id, user.username, role_of(user.role)).check_may_predict(model)
    return user.id


class Remote:
    """A server; `address` is its own, or that of one of its models' predictions.

    Raises StartupError where it cannot be reached, or does not know the token.
    """

    at_once = 2

    def __init__(self, address: str, token: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"}:
            raise StartupError(f"{address} is no http address")
        self._token = token
        path = parts.path.rstrip("/")
        base = path.removesuffix("/predict") if path.endswith("/predict") else path
        name: str | None = None
        if "/models/" in base and path.endswith("/predict"):
            base, _, name = base.rpartition("/models/")
        root = f"{parts.scheme}://{parts.netloc}{base}"
        self._address = f"{root}/models/{name}/predict" if name else f"{root}/predict"
        served = json.loads(self._ask(f"{root}/models"))["models"]
        found = [m for m in served if (m["name"] == unquote(name) if name else m["default"])]
        if not found:
            raise StartupError(f"{root} serves no model {unquote(name or '')!r}")
        schema = self._ask(f"{root}/models/{found[0]['name']}/schema")
        self._model: str = found[0]["sha256"]
        self._schema = hashlib.sha256(schema).hexdigest()

    def identity(self) -> dict[str, object]:
        """Return the SHA-256 of the model's file and of the schema as the server shows it."""
        return {"model": self._model, "schema": self._schema}

    async def score(self, body: bytes, content_type: str) -> bytes:
        """Return the answer to one chunk, as `Scorer` says.

        Raises StartupError where the server has another model by now.
        """
        answer = await asyncio.to_thread(self._ask, self._address, body, content_type)
        import pyarrow as pa
        from pyarrow import parquet

        said = (parquet.read_schema(pa.BufferReader(answer)).metadata or {}).get(MODEL_KEY)
        if said is None or json.loads(said)["sha256"] != self._model:
            raise StartupError("The server serves another model than when this began.")
        return answer

    def _ask(
        self, address: str, body: bytes | None = None, content_type: str | None = None
    ) -> bytes:
        headers = {"authorization": f"Bearer {self._token}"}
        if content_type is not None:
            headers |= {"content-type": content_type, "accept": PARQUET}
        request = urllib.request.Request(address, body, headers)  # noqa: S310 - it is http
        for attempt in range(_ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310 - as above
                    content: bytes = answer.read()
                    return content
            except urllib.error.HTTPError as error:
                with error:
                    busy = error.code in {_TOO_MANY, _UNAVAILABLE} and attempt < _ATTEMPTS - 1
                    if not busy:
                        raise _refusal(error.code, error.read()) from None
                    told = error.headers.get("retry-after", "")
                time.sleep(min(int(told) if told.isdigit() else 1, _LONGEST_WAIT))
            except (OSError, urllib.error.URLError) as error:
                raise StartupError(f"{address} cannot be reached: {error}") from error
        raise AssertionError("unreachable: the last attempt returns or raises")


def _refusal(status: int, body: bytes) -> Exception:
    """Return the error that a server's refusal tells of."""
    try:
        problem: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
        detail = str(problem["detail"])
        listed = problem.get("errors", [])
        faults = tuple(Fault(e["pointer"], e["code"], e["detail"]) for e in listed)
    except (ValueError, KeyError, TypeError):
        return StartupError(f"The server answered with status {status}.")
    if status == _BAD_REQUEST:
        return InvalidInput(detail, faults=faults)
    return CallError(f"The server answered with status {status}: {detail}")
