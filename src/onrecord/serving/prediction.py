"""The story of one prediction: validate, predict, record, answer.

Nothing here knows HTTP or SQL. A call comes in as a `Call`; what goes out is an `Answer` that has
been committed to the record before `predict` returns it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

import anyio.to_thread
import msgspec

from onrecord.errors import CallError, NotExplainable, Unavailable
from onrecord.record.call import RecordedCall
from onrecord.record.ids import prediction_id
from onrecord.serving.answers import encode_answers
from onrecord.serving.artifact import Model
from onrecord.serving.explanations import MOST_ROWS
from onrecord.serving.faults import discreet
from onrecord.serving.forms import CONTENT_TYPES, PLAIN, Form, Kind
from onrecord.serving.outputs import Outputs
from onrecord.serving.runner import Runner
from onrecord.serving.runtimes import Row
from onrecord.serving.validation import Rows, Validator

__all__ = [
    "Answer",
    "Call",
    "CallWriter",
    "Conceal",
    "Predictor",
    "Recorder",
    "RefusalRenderer",
    "recorded_call",
]

Conceal: TypeAlias = Callable[[bytes], bytes]
"""Encrypts what must not be on record as it came."""

_INLINE_BYTES = 64 * 1024
"""Bodies above this are validated in a thread, so that one large call delays no other."""


@dataclass(slots=True)
class Call:
    """One prediction call of a known user.

    `body` is None where it was not read to its end; `started` is `time.perf_counter()` at arrival;
    `form` says in which form the rows come and the answer goes; `api_key_id` is the API key it came
    with, None where a signed-in user made it; `idempotency_key` is the key that it is to hold;
    `conceal` encrypts what is recorded of the body; `explain` is whether the answer is to say what
    moved the model.
    """

    id: str
    user_id: str
    model: str
    x_request_id: str | None
    content_type: str | None
    body: bytes | None
    received_at: datetime
    started: float
    form: Form = PLAIN
    api_key_id: str | None = None
    idempotency_key: str | None = None
    conceal: Conceal | None = None
    explain: bool = False

    @property
    def shown_id(self) -> str:
        """The id that the caller sees in X-Request-ID: its own where it sent one."""
        return self.x_request_id or self.id


@dataclass(slots=True)  # not frozen: making one would take five times as long
class Answer:
    """What leaves the server: a status, the body's bytes, and the refusal if it is one.

    `content_type` is None where the body is JSON. `replayed` is whether an earlier call with the
    same idempotency key got it.
    """

    status: int
    body: bytes
    error: CallError | None = None
    content_type: str | None = None
    replayed: bool = False


class RefusalRenderer(Protocol):
    """Turns an error into the answer that the caller will see."""

    def __call__(self, error: CallError, shown_id: str) -> Answer:
        """Return the refusal of a call that its caller knows by `shown_id`."""
        ...


class CallWriter(Protocol):
    """Puts calls on record."""

    async def write(self, call: RecordedCall) -> None:
        """Return once `call` is durably on record; raises Unavailable where it cannot be."""
        ...


class Predictor:
    """One served model version: its validator, its runner and the record it writes to.

    `model_version_id` is its key on record and `number` its place among the model's versions.
    `conceal` is what its calls need that have sensitive columns, else None. `not_explained` is why
    its answers cannot be explained, "" where they can be.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - everything it needs is handed in
        self,
        model: Model,
        model_version_id: int,
        validator: Validator,
        runner: Runner,
        recorder: Recorder,
        conceal: Conceal | None = None,
        number: int = 1,
        not_explained: str = "",
    ) -> None:
        self.conceal = conceal
        self.model = model
        self.number = number
        self.not_explained = not_explained
        self.model_version_id = model_version_id
        self._validator = validator
        self._runner = runner
        self._recorder = recorder
        self._sample: Outputs | None = None
        self._model_json = msgspec.Raw(
            msgspec.json.encode(
                {"name": model.name, "version": model.version, "sha256": model.sha256}
            )
        )

    async def predict(self, call: Call) -> Answer:
        """Answer `call`: the answer is on record when this returns, whatever it says.

        Raises Unavailable where the record cannot be written; then there is no prediction.
        """
        if call.body is None:
            raise ValueError("a call without a body has nothing to predict")
        if call.form is not PLAIN:
            return await self._predict_many(call, call.body, call.form)
        try:
            rows = await self._validate(call.body)
            outputs = await self._runner.predict(rows.values)
            if call.explain:
                body = await self._explained(call.id, rows, outputs)
            else:
                body = self._encode(call.id, outputs, len(rows.values), many=rows.many)
        except Unavailable:
            raise
        except CallError as error:
            return await self._refuse(call, error)
        return await self._recorder.record(call, Answer(200, body), self.model_version_id)

    async def _explained(self, request_id: str, rows: Rows, outputs: Outputs) -> bytes:
        if self.not_explained:
            raise NotExplainable(self.not_explained)
        if len(rows.values) > MOST_ROWS:
            raise NotExplainable(f"At most {MOST_ROWS} rows of a call are explained.")
        found = await self._runner.explain(rows.values)
        names = self.model.schema.names
        answers = [
            {**outputs.row(i), "explanation": found.row(i, names)} for i in range(len(rows.values))
        ]
        return self._encode_answers(request_id, answers, many=rows.many)

    @property
    def max_rows(self) -> int:
        """The most rows that one call may have."""
        return self._validator.max_rows

    async def sample_outputs(self) -> Outputs:
        """Return its answer to a row made from its schema: which targets and classes it answers.

        Nothing goes on record. It is asked once. Raises CallError where it has no answer now.
        """
        if self._sample is None:
            outputs = await self._runner.predict([self.model.schema.probe_row()])
            self._sample = outputs.in_lists()
        return self._sample

    async def answers_to(self, body: bytes, kind: Kind) -> list[dict[str, Any]]:
        """Return what it says to the rows of a body, of which nothing goes on record.

        Raises CallError where it has no answer, in words that hold nothing of a sensitive input.
        """
        try:
            rows, _ = await anyio.to_thread.run_sync(self._read, body, kind)
            outputs = (await self._runner.predict(rows)).in_lists()
        except CallError as error:
            raise self._told(error) from None
        return [outputs.row(i) for i in range(len(outputs))]

    def _told(self, error: CallError) -> CallError:
        return error if self.conceal is None else discreet(error)

    async def _refuse(self, call: Call, error: CallError) -> Answer:
        told = self._told(error)
        return await self._recorder.refuse(call, told, self.model_version_id)

    def close(self) -> None:
        """Let go of the model's thread."""
        self._runner.close()

    def read_at_once(self, body: bytes) -> Row | None:
        """Return the row of a plain body of one good row, None for any other body."""
        if len(body) > _INLINE_BYTES:
            return None
        rows = self._validator.validate_fast(body)
        return None if rows is None or rows.many else rows.values[0]

    def answer_at_once(self, calls: Sequence[Call], rows: Sequence[Row]) -> list[Answer | None]:
        """Return the answers to calls of one row each, which are not on record yet.

        All rows go through the model together. None where a call must go through `predict`: where
        the model is not cheap, or the answer is a refusal.
        """
        outputs = self._runner.predict_at_once(rows)
        if outputs is None:
            if len(rows) == 1:
                return [None]
            # Few rows are at fault: the others are answered all the same.
            pairs = zip(calls, rows, strict=True)
            return [self.answer_at_once([call], [row])[0] for call, row in pairs]
        return [self._answer_of(call.id, outputs, i) for i, call in enumerate(calls)]

    def _answer_of(self, request_id: str, outputs: Outputs, place: int) -> Answer | None:
        try:
            return Answer(200, self._encode_row(request_id, outputs.row(place)))
        except CallError:
            return None

    async def _predict_many(self, call: Call, body: bytes, form: Form) -> Answer:
        """Answer a call whose rows, or whose answer, are in another form than JSON."""
        try:
            rows, many = await anyio.to_thread.run_sync(self._read, body, form.input)
            outputs = await self._runner.predict(rows)
            encoded = await anyio.to_thread.run_sync(
                self._encode_as, call.id, outputs, form.output, many
            )
        except Unavailable:
            raise
        except CallError as error:
            return await self._refuse(call, error)
        content_type = None if form.output == "json" else CONTENT_TYPES[form.output]
        answer = Answer(200, encoded, content_type=content_type)
        return await self._recorder.record(call, answer, self.model_version_id)

    def _read(self, body: bytes, kind: Kind) -> tuple[Sequence[Row], bool]:
        """Return a body's rows, and whether it has the form of many."""
        if kind != "json":
            return self._validator.read_table(body, kind), True
        rows = self._validator.validate(body)
        return rows.values, rows.many

    def _encode_as(self, request_id: str, outputs: Outputs, kind: Kind, many: bool) -> bytes:
        if kind == "json":
            return self._encode(request_id, outputs.in_lists(), len(outputs), many=many)
        return encode_answers(outputs, request_id, bytes(self._model_json), kind)

    async def _validate(self, body: bytes) -> Rows:
        if len(body) <= _INLINE_BYTES:
            return self._validator.validate(body)
        return await anyio.to_thread.run_sync(self._validator.validate, body)

    def _encode(self, request_id: str, outputs: Outputs, count: int, *, many: bool) -> bytes:
        answers = [outputs.row(i) for i in range(count)]
        return self._encode_answers(request_id, answers, many=many)

    def _encode_answers(
        self, request_id: str, answers: Sequence[dict[str, Any]], *, many: bool
    ) -> bytes:
        """Return the answers to the rows of a call as JSON; `many` is whether it had that form."""
        if not many:
            return self._encode_row(request_id, answers[0])
        predictions = [{"id": prediction_id(request_id, i), **row} for i, row in enumerate(answers)]
        answer = {"id": request_id, "model": self._model_json, "predictions": predictions}
        return msgspec.json.encode(answer)

    def _encode_row(self, request_id: str, row: dict[str, Any]) -> bytes:
        return msgspec.json.encode({"id": request_id, "model": self._model_json, **row})


class Recorder:
    """Puts answers on record and only then hands them back."""

    def __init__(self, writer: CallWriter, render: RefusalRenderer) -> None:
        self._writer = writer
        self._render = render

    async def refuse(self, call: Call, error: CallError, model_version_id: int | None) -> Answer:
        """Put a refusal of a known user on record and return it as the answer."""
        return await self.record(call, self._render(error, call.shown_id), model_version_id)

    async def record(self, call: Call, answer: Answer, model_version_id: int | None) -> Answer:
        """Commit the call and its answer, then return the answer.

        Raises Unavailable where that fails.
        """
        await self._writer.write(recorded_call(call, answer, model_version_id))
        return answer


def recorded_call(call: Call, answer: Answer, model_version_id: int | None) -> RecordedCall:
    """Return a call and its answer, which is ready now, as they go on record."""
    error = answer.error
    body = call.body
    if call.conceal is not None and body is not None:
        body = call.conceal(body)
    return RecordedCall(
        id=call.id,
        user_id=call.user_id,
        model=call.model,
        model_version_id=model_version_id,
        x_request_id=call.x_request_id,
        content_type=call.content_type,
        input=body,
        received_at=call.received_at,
        status=answer.status,
        output=answer.body,
        error_code=error.code if error else None,
        error_fields=tuple(fault.pointer for fault in error.faults) if error else (),
        duration_us=int((time.perf_counter() - call.started) * 1e6),
        responded_at=datetime.now(UTC),
        output_content_type=answer.content_type,
        api_key_id=call.api_key_id,
        idempotency_key=call.idempotency_key,
        explain=call.explain,
    )
