"""`AsyncClient`: calls that are awaited, on asyncio or trio."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import anyio
import httpx2

from onrecord.client.calls import Body, Calls, Page, Row
from onrecord.client.errors import ClientError
from onrecord.client.results import (
    InclusionProof,
    Model,
    Outcome,
    PredictedTable,
    Prediction,
    Predictions,
    RecordedCall,
    ToldOutcome,
)
from onrecord.client.retries import Retries
from onrecord.client.session import Session
from onrecord.client.steps import Alone, Flow, Pause
from onrecord.client.tables import Frame, table_of_calls
from onrecord.client.transport import options, request_of

__all__ = ["AsyncClient", "AsyncRecordedCalls"]

T = TypeVar("T")


class AsyncRecordedCalls(AsyncIterable[RecordedCall]):
    """Calls on record, newest first; each iteration asks for them page by page."""

    def __init__(self, page: Callable[[str | None], Awaitable[Page]]) -> None:
        self._page = page

    async def __aiter__(self) -> AsyncIterator[RecordedCall]:
        before = None
        while True:
            page = await self._page(before)
            for call in page.calls:
                yield call
            if (before := page.next) is None:
                return

    async def to_arrow(self) -> Any:
        """Return all of them as a pyarrow table, a row a call, with payloads as JSON text."""
        return table_of_calls([call async for call in self])


class AsyncClient:
    """Calls an onrecord server at `url`; one for all tasks of an event loop.

    `token` is an API key or an access token. With `username` and `password` the client signs in
    when that is first needed, refreshes its token, and ends the session on `close`. `timeout` is in
    seconds, for each wait on a connection. `http` is an httpx2 client of your own, for proxies,
    certificates or tests; then its timeouts hold, and closing it is yours.

    Every call raises Unreachable, UnexpectedAnswer, SignInRefused, or the Problem that the server
    tells of.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        username: str | None = None,
        password: str | None = None,
        timeout: float = 60.0,
        retries: Retries | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        session = Session(token, username, password)
        self._calls = Calls(session, retries or Retries())
        self._base = url.rstrip("/")
        self._own = http is None
        self._http = http or httpx2.AsyncClient(**options(timeout))
        self._lock = anyio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session that the client began, and close its connections."""
        # It ends by itself where nobody can be told.
        with contextlib.suppress(ClientError):
            await self._run(self._calls.session.end())
        if self._own:
            await self._http.aclose()

    @overload
    async def predict(
        self,
        rows: Row,
        *,
        model: str | None = None,
        version: str | None = None,
        explain: bool = False,
        idempotency_key: str | None = None,
    ) -> Prediction: ...
    @overload
    async def predict(
        self,
        rows: Sequence[Row],
        *,
        model: str | None = None,
        version: str | None = None,
        explain: bool = False,
        idempotency_key: str | None = None,
    ) -> Predictions: ...
    @overload
    async def predict(
        self,
        rows: Frame,
        *,
        model: str | None = None,
        version: str | None = None,
        idempotency_key: str | None = None,
    ) -> PredictedTable[Frame]: ...
    async def predict(
        self,
        rows: Any,
        *,
        model: str | None = None,
        version: str | None = None,
        explain: bool = False,
        idempotency_key: str | None = None,
    ) -> Prediction | Predictions | PredictedTable[Any]:
        """Ask for the answers to a row, a list of rows or a table, in one call, which is on record.

        A table is a pandas or polars frame, a numpy array [rows, columns] whose columns are the
        model's in their order, a pyarrow table, or anything else with `__arrow_c_stream__`.
        `version` pins an alias, label, number or hash. `explain` asks what moved the model, of rows
        only. The call is sent again where no answer comes, and is on record once all the same; give
        an `idempotency_key` of your own where your program may ask again.
        """
        return await self._run(
            self._calls.predict(
                rows,
                model=model,
                version=version,
                explain=explain,
                idempotency_key=idempotency_key,
            )
        )

    async def predict_body(
        self,
        body: bytes,
        content_type: str,
        *,
        accept: str,
        model: str | None = None,
        version: str | None = None,
        explain: bool = False,
        idempotency_key: str | None = None,
    ) -> Body:
        """Ask for the answers to rows that are encoded already, such as a Parquet file.

        `accept` is the media type of the answer. The rest is as `predict` has it.
        """
        return await self._run(
            self._calls.predict_body(
                body,
                content_type,
                accept=accept,
                model=model,
                version=version,
                explain=explain,
                idempotency_key=idempotency_key,
            )
        )

    async def models(self) -> list[Model]:
        """List the served models that the caller may see."""
        return await self._run(self._calls.models())

    async def model(self, name: str | None = None) -> Model:
        """Show a model, or the default one."""
        return await self._run(self._calls.model(name))

    async def schema(self, name: str) -> dict[str, Any]:
        """Show the JSON Schema (2020-12) of a row of a model."""
        return await self._run(self._calls.schema(name))

    def predictions(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        model: str | None = None,
        version: str | None = None,
        status: int | None = None,
        user: str | None = None,
        api_key: str | None = None,
        test: bool | None = None,
        x_request_id: str | None = None,
        page_size: int = 200,
    ) -> AsyncRecordedCalls:
        """Return the calls on record that fit, newest first: one's own, to an auditor everyone's.

        `user` and `api_key` are ids. Nothing is asked for until one iterates over them.
        """
        filters = {
            "since": since,
            "until": until,
            "model": model,
            "version": version,
            "status": status,
            "user": user,
            "api_key": api_key,
            "test": test,
            "x_request_id": x_request_id,
            "limit": page_size,
        }
        return AsyncRecordedCalls(
            lambda before: self._run(self._calls.recorded_page(filters, before))
        )

    async def prediction(self, prediction_id: str) -> RecordedCall:
        """Show the call that a prediction belongs to."""
        return await self._run(self._calls.recorded(prediction_id))

    async def proof(self, prediction_id: str) -> InclusionProof:
        """Prove that a call is on record; raises Conflict where it is not sealed yet."""
        return await self._run(self._calls.proof(prediction_id))

    async def outcomes(self, prediction_id: str) -> list[Outcome]:
        """List all that was said to have happened to a prediction, newest first."""
        return await self._run(self._calls.outcomes(prediction_id))

    async def tell_outcome(
        self, prediction_id: str, outcome: Any, *, observed_at: datetime | None = None
    ) -> Outcome:
        """Say what happened to a prediction: a class, a number, or an object by target."""
        return await self._run(self._calls.tell_outcome(prediction_id, outcome, observed_at))

    async def tell_outcomes(
        self, model: str, rows: Any, *, key_column: str | None = None
    ) -> list[ToldOutcome]:
        """Say what happened to many predictions of a model, all or none of it.

        `rows` is a list of objects or a table, with `prediction_id` (or the `key_column` that tells
        whom a row is about), `outcome` and, where that is known, `observed_at`.
        """
        return await self._run(self._calls.tell_outcomes(model, rows, key_column))

    async def _run(self, flow: Flow[T]) -> T:
        """Take a flow's steps."""
        result: Any = None
        error: httpx2.TransportError | None = None
        while True:
            try:
                step = flow.send(result) if error is None else flow.throw(error)
            except StopIteration as end:
                value: T = end.value
                return value
            result, error = None, None
            if isinstance(step, Pause):
                await anyio.sleep(step.seconds)
            elif isinstance(step, Alone):
                async with self._lock:
                    result = await self._run(step.flow)
            else:
                try:
                    result = await self._http.request(**request_of(step, self._base))
                except httpx2.TransportError as failed:
                    error = failed
