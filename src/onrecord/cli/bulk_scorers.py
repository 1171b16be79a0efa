"""Who answers the chunks of a file: a model in this process, or a server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import unquote, urlsplit

from onrecord.accounts.caller import Caller, role_of
from onrecord.client import AsyncClient, Retries
from onrecord.client import errors as client_errors
from onrecord.client import results as client_results
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
_RETRIES = Retries(attempts=20, longest_wait=60.0)
_TIMEOUT = 600.0
_PATIENCE = 24 * 3600.0
"""Nobody waits for a chunk at the other end of a connection, so a slow model may take its time."""


class Scorer(Protocol):
    """Answers chunks. `at_once` is how many it is well given at a time."""

    at_once: int

    def identity(self) -> dict[str, object]:
        """Return what names the model: hashes of it and of its schema."""
        ...

    async def score(self, body: bytes, content_type: str, key: str) -> bytes:
        """Return the answer to one chunk as a Parquet file, which is on record.

        A server that answered a chunk with this idempotency key before gives the same answer again.
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

    async def score(self, body: bytes, content_type: str, key: str) -> bytes:  # noqa: ARG002 - nobody else answers here
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
    """A server, or one of its models."""

    at_once = 2

    def __init__(self, client: AsyncClient, model: client_results.Model, schema: str) -> None:
        self._client = client
        self._model = model
        self._schema = schema

    @classmethod
    @asynccontextmanager
    async def opened(cls, address: str, token: str) -> AsyncIterator[Remote]:
        """Find the model that answers at an address: the server's own, or of a model's predictions.

        Raises StartupError where it cannot be reached or serves no such model, and CallError where
        the token is not good for it.
        """
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"}:
            raise StartupError(f"{address} is no http address")
        base = parts.path.rstrip("/").removesuffix("/predict")
        name: str | None = None
        if "/models/" in base:
            base, _, segment = base.rpartition("/models/")
            name = unquote(segment)
        root = f"{parts.scheme}://{parts.netloc}{base}"
        # Whoever has just typed a wrong address is told at once; a restart later is waited for.
        async with AsyncClient(root, token=token, retries=Retries(attempts=2)) as client:
            with _told():
                served = await client.models()
                found = [it for it in served if (it.name == name if name else it.default)]
                if not found:
                    raise StartupError(f"{root} serves no model {name or ''!r}")
                schema = json.dumps(await client.schema(found[0].name), sort_keys=True)
        async with AsyncClient(root, token=token, timeout=_TIMEOUT, retries=_RETRIES) as client:
            yield cls(client, found[0], hashlib.sha256(schema.encode()).hexdigest())

    def identity(self) -> dict[str, object]:
        """Return the SHA-256 of the model's file and of the schema as the server shows it."""
        return {"model": self._model.sha256, "schema": self._schema}

    async def score(self, body: bytes, content_type: str, key: str) -> bytes:
        """Return the answer to one chunk, as `Scorer` says.

        Raises StartupError where the server has another model by now.
        """
        with _told():
            answer = await self._client.predict_body(
                body,
                content_type,
                accept=PARQUET,
                model=self._model.name,
                idempotency_key=key,
            )
        import pyarrow as pa
        from pyarrow import parquet

        schema = parquet.read_schema(pa.BufferReader(answer.content))
        said = (schema.metadata or {}).get(MODEL_KEY)
        if said is None or json.loads(said)["sha256"] != self._model.sha256:
            raise StartupError("The server serves another model than when this began.")
        return answer.content


@contextmanager
def _told() -> Iterator[None]:
    """Raise what a server refuses as the commands tell of it."""
    try:
        yield
    except client_errors.InvalidInput as refused:
        faults = tuple(
            Fault(it.pointer, it.code, it.detail, it.expected, it.received) for it in refused.errors
        )
        raise InvalidInput(refused.detail, faults=faults) from None
    except client_errors.Problem as refused:
        detail = f"The server answered with status {refused.status}: {refused.detail}"
        raise CallError(detail) from None
    except client_errors.Unreachable as error:
        raise StartupError(f"The server cannot be reached: {error}") from error
    except client_errors.ClientError as error:
        raise StartupError(str(error)) from error
