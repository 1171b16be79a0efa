"""Plain prediction calls, answered past ASGI and together with the others of their moment.

Nearly every call is one good row of JSON that came whole in one packet from a caller who is known
already. All such calls of one turn of the event loop go through the model together, onto the record
together, and their answers leave together: no task, no scope and no message is made for them. What
they are told and what is recorded is what `PredictEndpoint` would have told and recorded; every
other call is left to it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from onrecord.accounts.call_limits import CallLimits
from onrecord.accounts.caller import Caller
from onrecord.accounts.standing import Gate
from onrecord.errors import CallError, Unavailable
from onrecord.http.context import context_headers, own_request_id, server_failed
from onrecord.http.negotiate import form_of
from onrecord.http.predict import headers_of, predict_logged, refusal
from onrecord.http.rate_limits import limit_headers
from onrecord.logs import AccessLog
from onrecord.record.ids import new_request_id
from onrecord.record.writer import Writer
from onrecord.serving.admission import Admission, overloaded
from onrecord.serving.forms import PLAIN
from onrecord.serving.prediction import Answer, Call, Predictor, recorded_call
from onrecord.serving.runtimes import Row
from onrecord.serving.served import ServedModels

__all__ = ["STATE_KEY", "DirectPredictions", "Exchange"]

STATE_KEY = "onrecord.direct"
"""Under which key of the ASGI lifespan state the protocol finds the `DirectPredictions`."""


Headers = list[tuple[bytes, bytes]]


class Exchange(Protocol):
    """One request, come whole, and the way back to its client; header names are lower-case."""

    path: bytes
    headers: Headers
    body: bytes

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Send the answer, of which `head` has the header lines; nothing where nobody is there."""
        ...

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what it takes to answer as a task of the server."""
        ...


@dataclass(slots=True, eq=False)
class _Taken:
    exchange: Exchange
    predictor: Predictor
    caller: Caller
    call: Call
    row: Row
    limit_head: bytes
    number: int


# What `_head` makes of a good answer's headers.
_GOOD_HEAD = (
    b"content-type: application/json\r\ncontent-length: %d\r\n%b"
    b"x-request-id: %b\r\nx-content-type-options: nosniff\r\n"
)

# Stands in the refusal that is made once, where each call's own id goes.
_SLOT = "~" * len(new_request_id())
_ID_SLOT = _SLOT.encode()

_WHOLE_CALL = re.compile(rb"POST (/[^ ?]*) HTTP/1\.1\r\n((?:[^\r\n]+\r\n)+)\r\n")
# What would have it that a call is more or less than its head and so many bytes, and the name that
# its caller gave it.
_FRAMING = re.compile(
    rb"^(content-length|transfer-encoding|expect|connection|upgrade|x-request-id):[ \t]*(.*?)\r$",
    re.IGNORECASE | re.MULTILINE,
)

_TOGETHER = 64
"""The most calls that go through the model at once, so that none waits long for the others."""


class DirectPredictions:
    """Answers the calls it takes; to be used on one event loop."""

    def __init__(  # noqa: PLR0913 - everything it needs is handed in
        self,
        *,
        gate: Gate,
        served: ServedModels,
        writer: Writer,
        call_limits: CallLimits,
        admission: Admission,
        max_body_bytes: int,
        access: AccessLog,
    ) -> None:
        self._gate = gate
        self._served = served
        self._writer = writer
        self._call_limits = call_limits
        self._admission = admission
        self._refusal = refusal(overloaded(), _SLOT)
        self._refusal_head = _head(self._refusal, b"", _SLOT)
        self._max_body_bytes = max_body_bytes
        self._access = access
        self._turn: list[_Taken] = []

    def serves(self, path: bytes) -> bool:
        """Tell whether a POST to that path may be a call to take."""
        return path in self._served.routes

    @property
    def crowded(self) -> bool:
        """Whether it is worth asking `refuse`."""
        admission = self._admission
        return admission.inside >= admission.limit

    def refuse(self, data: bytes) -> tuple[int, bytes, bytes] | None:
        """Return the refusal of one whole call where there are too many: its status, head, body.

        `data` is what a connection that waits for a request received. None where it is anything
        else than one plain call, or where the call may be let in. A refusal is to cost as little as
        may be, so nothing but the length of the call is looked at.
        """
        started = time.perf_counter()
        found = _WHOLE_CALL.match(data)
        if found is None or not self.serves(found[1]) or not self._admission.full(started):
            return None
        framing = _FRAMING.findall(found[2])
        told = {name.lower(): value for name, value in framing}
        if len(told) != len(framing):
            return None
        length, own_id = told.pop(b"content-length", b""), told.pop(b"x-request-id", None)
        if told.pop(b"connection", b"keep-alive").lower() != b"keep-alive" or told:
            return None
        if len(data) - found.end() != (int(length) if length.isdigit() else -1):
            return None
        shown_id = own_request_id(own_id) or new_request_id()
        answer = self._refusal
        body = answer.body.replace(_ID_SLOT, shown_id.encode())
        path = found[1].decode("ascii")
        self._access.request(shown_id, "POST", path, answer.status, None, started)
        return answer.status, self._refusal_head.replace(_ID_SLOT, shown_id.encode()), body

    def take(self, exchange: Exchange) -> bool:
        """Take a request and answer it later, or return False: then it is `PredictEndpoint`'s."""
        started = time.perf_counter()
        headers = dict(exchange.headers)
        if (
            len(exchange.body) > self._max_body_bytes
            or len(headers) != len(exchange.headers)
            or b"content-encoding" in headers
            or b"idempotency-key" in headers
            or self._admission.full(started)
        ):
            return False
        token = headers.get(b"authorization", b"").decode("latin-1")
        route = self._served.routes.get(exchange.path)
        caller = self._gate.authenticate_cached(token)
        if caller is None or route is None or not caller.may_predict(route.name):
            return False
        predictor = route.predictor_for(caller.user_id)
        content_type = headers.get(b"content-type")
        content_type_text = None if content_type is None else content_type.decode("latin-1")
        try:
            if form_of(content_type_text, headers.get(b"accept")) is not PLAIN:
                return False
            row = predictor.read_at_once(exchange.body)
            limit_head = None if row is None else self._admit(caller)
        except CallError:
            return False
        if row is None or limit_head is None:
            return False
        call = Call(
            id=new_request_id(),
            user_id=caller.user_id,
            model=predictor.model.name,
            x_request_id=own_request_id(headers.get(b"x-request-id")),
            content_type=content_type_text,
            body=exchange.body,
            received_at=datetime.now(UTC),
            started=started,
            api_key_id=caller.api_key_id,
            conceal=predictor.conceal,
        )
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._answer_turn)
        number = self._admission.enter()
        taken = _Taken(exchange, predictor, caller, call, row, limit_head, number)
        self._turn.append(taken)
        return True

    def _admit(self, caller: Caller) -> bytes | None:
        """Return the header lines of what limits a caller, None where it is not let through."""
        limits = self._call_limits.of(caller)
        if limits is None:
            return b""
        admission = self._call_limits.admit_at_once(limits)
        if admission is None or admission.error is not None:
            return None
        return _lines(limit_headers(admission))

    def _answer_turn(self) -> None:
        turn, self._turn = self._turn, []
        groups: dict[Predictor, list[_Taken]] = {}
        for taken in turn:
            groups.setdefault(taken.predictor, []).append(taken)
        for predictor, group in groups.items():
            for start in range(0, len(group), _TOGETHER):
                self._answer_together(predictor, group[start : start + _TOGETHER])

    def _answer_together(self, predictor: Predictor, group: list[_Taken]) -> None:
        try:
            answers = predictor.answer_at_once(
                [taken.call for taken in group], [taken.row for taken in group]
            )
        except Exception:
            log = structlog.get_logger("onrecord")
            log.exception("calls failed", calls=len(group), exc_info=predictor.conceal is None)
            error = server_failed()
            for taken in group:
                self._send(taken, refusal(error, taken.call.shown_id))
            return
        for taken, answer in zip(group, answers, strict=True):
            if answer is None:
                taken.exchange.run(self._answer_alone(taken))
            else:
                self._record(taken, answer)

    def _record(self, taken: _Taken, answer: Answer) -> None:
        def settled(error: Unavailable | None) -> None:
            self._send(taken, answer if error is None else refusal(error, taken.call.shown_id))

        version = taken.predictor.model_version_id
        try:
            self._writer.submit(recorded_call(taken.call, answer, version), settled)
        except Unavailable as error:
            settled(error)

    async def _answer_alone(self, taken: _Taken) -> None:
        try:
            answer = await predict_logged(taken.predictor, taken.call)
        except CallError as error:
            answer = refusal(error, taken.call.shown_id)
        self._send(taken, answer)

    def _send(self, taken: _Taken, answer: Answer) -> None:
        call, exchange = taken.call, taken.exchange
        shown_id = call.shown_id
        head = _head(answer, taken.limit_head, shown_id)
        exchange.answer(answer.status, head, answer.body)
        self._admission.leave(taken.number, call.started, time.perf_counter())
        path = exchange.path.decode("ascii")
        username = taken.caller.username
        self._access.request(shown_id, "POST", path, answer.status, username, call.started)


def _head(answer: Answer, limit_head: bytes, shown_id: str) -> bytes:
    if answer.error is None:
        return _GOOD_HEAD % (len(answer.body), limit_head, shown_id.encode())
    return _lines(headers_of(answer)) + limit_head + _lines(context_headers(shown_id))


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
