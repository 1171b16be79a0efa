"""Prediction calls to a model, or to a version of one: the hot path, plain ASGI before FastAPI.

In this order: authenticate, see what the caller may, read the body, validate, predict, record,
answer. A refusal of a known caller is on record too. Calls of a foreign protocol come the same
way: a `Translation` makes a call of `POST /predict` of them, and the other answer of its answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote

import anyio.to_thread
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from onrecord.accounts.call_limits import CallLimits
from onrecord.accounts.caller import Caller
from onrecord.accounts.standing import Gate
from onrecord.errors import (
    BodyTimeout,
    BodyTooLarge,
    CallError,
    Fault,
    Forbidden,
    IdempotencyKeyReused,
    InvalidIdempotencyKey,
    InvalidInput,
    MalformedJson,
    MethodNotAllowed,
    ModelFailed,
    NotAcceptable,
    NotFound,
    TooManyRequests,
    Unanswerable,
    UnsupportedMediaType,
)
from onrecord.http.body import BodyRoom, ClientGone, read_body
from onrecord.http.context import header, request_id
from onrecord.http.idempotency import IdempotentAnswers, idempotency_key
from onrecord.http.inference import InferenceCall
from onrecord.http.invocations import Invocation
from onrecord.http.negotiate import check_coding, form_of
from onrecord.http.problems import PROBLEM_TYPE, STATUS, problem_body, problem_headers
from onrecord.http.rate_limits import limit_headers
from onrecord.http.translation import Asked, Translation
from onrecord.serving.admission import Admission, overloaded
from onrecord.serving.faults import discreet
from onrecord.serving.forms import PLAIN, Form
from onrecord.serving.prediction import Answer, Call, Predictor, Recorder
from onrecord.serving.served import ServedModels

__all__ = ["PredictEndpoint", "headers_of", "no_such_model", "predict_logged", "refusal"]

_T = TypeVar("_T")
_INLINE_BYTES = 64 * 1024
"""Bodies above this are translated in a thread, so that one large call delays no other."""

_ADDRESSES: tuple[tuple[str, str, type[Translation] | None], ...] = (
    ("/models/", "/predict", None),
    ("/models/", "/invocations", Invocation),
    ("/v2/models/", "/infer", InferenceCall),
)
"""How the paths of calls begin and end that name a model, and who translates those calls."""


def refusal(error: CallError, shown_id: str) -> Answer:
    """Return the answer to a call that is refused, and that its caller knows by `shown_id`."""
    return Answer(STATUS[type(error)], problem_body(error, shown_id), error)


def no_such_model(served: ServedModels, name: str) -> NotFound:
    """Return what a caller is told who asks for a model, or a version, that does not answer."""
    model = served.models.get(name)
    if model is None:
        return NotFound(f"There is no model {name[:100]!r}; GET /models lists them.")
    there = ", ".join(f"{it.number} ({it.model.version})" for it in model.versions)
    return NotFound(f"The model {name!r} has no such version in use; it has: {there}.")


async def predict_logged(predictor: Predictor, call: Call) -> Answer:
    """Return the predictor's answer; the log has why a model gave none."""
    answer = await predictor.predict(call)
    error = answer.error
    if isinstance(error, (ModelFailed, Unanswerable)) and error.__cause__ is not None:
        cause = error.__cause__ if call.conceal is None else None
        structlog.get_logger("onrecord.predict").warning(
            "model did not answer", prediction_id=call.id, exc_info=cause
        )
    return answer


class PredictEndpoint:
    """Answers prediction calls itself and hands every other request to `app`."""

    def __init__(  # noqa: PLR0913 - everything it needs is handed in
        self,
        app: ASGIApp,
        *,
        gate: Gate,
        served: ServedModels,
        recorder: Recorder,
        idempotent: IdempotentAnswers,
        call_limits: CallLimits,
        admission: Admission,
        room: BodyRoom,
        max_body_bytes: int,
        body_seconds: float,
    ) -> None:
        self._app = app
        self._gate = gate
        self._served = served
        self._recorder = recorder
        self._idempotent = idempotent
        self._call_limits = call_limits
        self._admission = admission
        self._room = room
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        asked = self._asked_for(scope["path"]) if scope["type"] == "http" else None
        if asked is None:
            await self._app(scope, receive, send)
            return
        name, version, translate = asked
        translation = translate() if translate else None
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed("Predictions are asked for with POST.")
            answer = await self.answer(name, version, scope, receive, translation)
        except CallError as error:
            answer = refusal(error, request_id(scope))
        except ClientGone:
            return
        more = scope.get("onrecord.limit_headers", ())
        if translation is not None:
            try:
                answer, own = await _off_loop(translation.answer, answer, size=len(answer.body))
            except IdempotencyKeyReused as error:
                answer, own = translation.answer(refusal(error, request_id(scope)))
            more = (*own, *more)
        await _send(answer, more, send)

    def _asked_for(self, path: str) -> tuple[str, str | None, type[Translation] | None] | None:
        """Return the model, version and protocol that a path names, None where it is no call."""
        if path == "/predict":
            return self._served.default, None, None
        if path == "/invocations":
            return self._served.default, None, Invocation
        for begin, end, translate in _ADDRESSES:
            if path.startswith(begin) and path.endswith(end):
                name, *version = path[len(begin) : -len(end)].split("/versions/", 1)
                texts = [unquote(text) for text in (name, *version)]
                if any(not text or "/" in text for text in texts):
                    return None
                return texts[0], texts[1] if version else None, translate
        return None

    def _find(self, name: str, version: str | None, caller: Caller) -> Predictor | None:
        model = self._served.models.get(name)
        if model is None:
            return None
        if version is not None:
            return model.find(version)
        return model.route.predictor_for(caller.user_id)

    async def answer(
        self,
        name: str,
        asked_version: str | None,
        scope: Scope,
        receive: Receive,
        translation: Translation | None = None,
    ) -> Answer:
        """Return the answer to a call of a model, or of a version of it, once it is on record.

        Of the scope it reads the headers, the query and what `RequestContext` put there. It is the
        answer of `POST /predict`, also to a body that `translation` made one of its own. Raises
        CallError where the call cannot go on record, ClientGone where its body ends too early.
        """
        if self._admission.full(time.perf_counter()):
            raise overloaded()
        headers = scope["headers"]
        caller = await self._authenticate(headers)
        scope["onrecord.user"] = caller.username
        content_type = header(headers, b"content-type")
        call = Call(
            id=scope["onrecord.id"],
            user_id=caller.user_id,
            model=name,
            x_request_id=scope["onrecord.x_request_id"],
            content_type=content_type.decode("latin-1") if content_type else None,
            body=None,
            received_at=datetime.now(UTC),
            started=scope["onrecord.started"],
            api_key_id=caller.api_key_id,
        )
        predictor = self._find(name, asked_version, caller)
        # A body for a model that is not here may have been meant for one that is.
        call.conceal = self._served.conceal if predictor is None else predictor.conceal
        version = predictor.model_version_id if predictor else None
        try:
            await self._admit(caller, scope)
            caller.check_may_predict(name)
            call.body = await read_body(
                headers,
                receive,
                self._room,
                max_bytes=self._max_body_bytes,
                seconds=self._body_seconds,
            )
        except (BodyTooLarge, BodyTimeout, Forbidden, TooManyRequests) as error:
            return await self._recorder.refuse(call, error, version)
        size = len(call.body)
        # Only now: a client that sends slowly keeps nobody waiting.
        began = time.perf_counter()
        number = self._admission.enter()
        try:
            return await self._predict(call, scope, caller, predictor, translation)
        finally:
            self._admission.leave(number, began, time.perf_counter())
            self._room.give_back(size)

    async def _predict(
        self,
        call: Call,
        scope: Scope,
        caller: Caller,
        predictor: Predictor | None,
        translation: Translation | None,
    ) -> Answer:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        try:
            if predictor is None:
                raise no_such_model(self._served, call.model)
            check_coding(headers)
            accept = header(headers, b"accept")
            if translation is not None:
                await _translate(call, headers, predictor, translation)
                accept = None
            call.form = form_of(call.content_type, accept)
            call.explain = _asks_to_explain(scope["query_string"], call.form, translation)
            predict = partial(predict_logged, predictor)
            key = idempotency_key(headers)
            if key is None:
                return await predict(call)
            test = caller.grant is not None and caller.grant.test
            return await self._idempotent.answer(call, key, test=test, predict=predict)
        except (
            IdempotencyKeyReused,
            InvalidIdempotencyKey,
            InvalidInput,
            MalformedJson,
            ModelFailed,
            NotAcceptable,
            NotFound,
            Unanswerable,
            UnsupportedMediaType,
        ) as error:
            version = predictor.model_version_id if predictor else None
            return await self._recorder.refuse(call, error, version)

    async def _admit(self, caller: Caller, scope: Scope) -> None:
        limits = self._call_limits.of(caller)
        if limits is not None:
            admission = await self._call_limits.admit(limits)
            scope["onrecord.limit_headers"] = limit_headers(admission)
            if admission.error is not None:
                raise admission.error

    async def _authenticate(self, headers: list[tuple[bytes, bytes]]) -> Caller:
        raw = header(headers, b"authorization")
        token = raw.decode("latin-1") if raw is not None else None
        return self._gate.authenticate_cached(token) or await self._gate.authenticate(token)


async def _off_loop(work: Callable[..., _T], *given: Any, size: int) -> _T:
    """Return what some work returns, done in a thread where that many bytes take long."""
    if size <= _INLINE_BYTES:
        return work(*given)
    return await anyio.to_thread.run_sync(work, *given)


async def _translate(
    call: Call,
    headers: list[tuple[bytes, bytes]],
    predictor: Predictor,
    translation: Translation,
) -> None:
    """Make of a call of a foreign protocol one of `POST /predict`; raises CallError."""
    body = call.body or b""
    sample = await predictor.sample_outputs()
    asked = Asked(predictor.model.schema, sample, predictor.max_rows)
    try:
        call.body, call.content_type = await _off_loop(
            translation.read, body, headers, asked, size=len(body)
        )
    except CallError as error:
        raise (error if call.conceal is None else discreet(error)) from None


def _asks_to_explain(query: bytes, form: Form, translation: Translation | None) -> bool:
    """Tell whether a call asks what moved the model; raises InvalidInput where that is unclear."""
    if not query:
        return False
    asked = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("explain", ["false"])
    fault = None
    if asked not in (["true"], ["false"]):
        fault = Fault("/explain", "wrong", "Write ?explain=true, or leave it out.", "true or false")
    elif asked == ["true"] and (translation is not None or form is not PLAIN):
        detail = "Explanations go with rows and answers in JSON only, of POST /predict."
        fault = Fault("/explain", "wrong", detail, "a body and an answer of application/json")
    if fault is not None:
        raise InvalidInput("The query does not fit.", faults=(fault,))
    return asked == ["true"]


def headers_of(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell what an answer is."""
    content_type = "application/json" if answer.error is None else PROBLEM_TYPE
    headers = [
        (b"content-type", (answer.content_type or content_type).encode()),
        (b"content-length", str(len(answer.body)).encode()),
    ]
    if answer.replayed:
        headers.append((b"idempotent-replayed", b"true"))
    if isinstance(answer.error, MethodNotAllowed):
        headers.append((b"allow", b"POST"))
    if answer.error is not None:
        headers += [(k.encode(), v.encode()) for k, v in problem_headers(answer.error).items()]
    return headers


async def _send(answer: Answer, more: Sequence[tuple[bytes, bytes]], send: Send) -> None:
    headers = [*headers_of(answer), *more]
    start = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})
