"""Idempotency keys: a prediction call that is sent again gets the answer that it got before.

A key is held by the call on record that came with it, and nothing else is kept of it: it is there
as long as its call, and neither a crash nor another worker can see it without its answer.

Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from onrecord.errors import AlreadyOnRecord, IdempotencyKeyReused, InvalidIdempotencyKey
from onrecord.http.problems import PROBLEM_TYPE
from onrecord.record import reader
from onrecord.record.database import Database
from onrecord.record.text import storable
from onrecord.serving.forms import CONTENT_TYPES
from onrecord.serving.prediction import Answer, Call

__all__ = ["MAX_KEY_LENGTH", "IdempotentAnswers", "idempotency_key"]

MAX_KEY_LENGTH = 255

# RFC 9651, section 3.3.3: printable ASCII, in which a quote and a backslash are escaped.
_QUOTED = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_ESCAPED = re.compile(rb'\\(["\\])')
# A comma would be two headers that a proxy has joined.
_BARE = re.compile(rb"[!#-+\--~]+")

_FIRST_REFUSAL = 400


def idempotency_key(headers: list[tuple[bytes, bytes]]) -> str | None:
    """Return a request's idempotency key, None where it has none.

    It is a String as RFC 9651 has it, in quotes; without them it is taken as well, since that is
    how most clients send it. Raises InvalidIdempotencyKey.
    """
    values = [value.strip(b" \t") for name, value in headers if name == b"idempotency-key"]
    if not values:
        return None
    (value, *more) = values
    quoted = _QUOTED.fullmatch(value)
    key = _ESCAPED.sub(rb"\1", quoted[1]) if quoted else value
    if more or not (quoted or _BARE.fullmatch(value)) or not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise InvalidIdempotencyKey(
            f"Send one Idempotency-Key of 1 to {MAX_KEY_LENGTH} printable ASCII characters in "
            'quotes, such as "8e03978e-40d5-43dd-bc93-6894a57f9324".'
        )
    return key.decode("ascii")


@dataclass(slots=True, eq=False)
class _Running:
    call: Call
    test: bool
    answer: asyncio.Task[Answer]


class IdempotentAnswers:
    """Answers calls that have a key; to be used on one event loop.

    Of calls with the same key that come at once, those to this worker wait for the first. Workers
    do not know of each other's: each may predict, the record takes one call, and the answer of that
    one is what they all give. `reveal` decrypts recorded inputs of models with sensitive columns.
    """

    def __init__(
        self, database: Database, *, reveal: Callable[[bytes], bytes] | None = None
    ) -> None:
        self._database = database
        self._reveal = reveal
        self._running: dict[tuple[str, str], _Running] = {}

    async def answer(
        self, call: Call, key: str, *, test: bool, predict: Callable[[Call], Awaitable[Answer]]
    ) -> Answer:
        """Return what the first call with the key was answered, or what `predict` does now.

        `test` is whether a test key makes the call. Raises IdempotencyKeyReused where the key
        belongs to a call that asked for something else, and Unavailable where it cannot be known
        whether there is one.
        """
        holder = call.user_id, key
        while (first := self._running.get(holder)) is not None:
            if (test, *_asked(call), call.form) == (
                first.test,
                *_asked(first.call),
                first.call.form,
            ):
                return dataclasses.replace(await asyncio.shield(first.answer), replayed=True)
            # That one may itself turn out not to hold the key; then it says nothing about this.
            await asyncio.wait([first.answer])
        return await self._begin(call, holder, test, predict)

    async def _begin(
        self,
        call: Call,
        holder: tuple[str, str],
        test: bool,
        predict: Callable[[Call], Awaitable[Answer]],
    ) -> Answer:
        holding = dataclasses.replace(call, idempotency_key=holder[1])
        answering = asyncio.get_running_loop().create_task(
            self._answer_first(holding, holder[1], test, predict)
        )
        self._running[holder] = _Running(call, test, answering)
        answering.add_done_callback(lambda _: self._running.pop(holder))
        # Whoever waits for it too shall have it where this client goes away.
        return await asyncio.shield(answering)

    async def _answer_first(
        self, call: Call, key: str, test: bool, predict: Callable[[Call], Awaitable[Answer]]
    ) -> Answer:
        answer = await self._recorded(call, key, test)
        if answer is not None:
            return answer
        try:
            return await predict(call)
        except AlreadyOnRecord:
            answer = await self._recorded(call, key, test)
            if answer is None:
                raise
            return answer

    async def _recorded(self, call: Call, key: str, test: bool) -> Answer | None:
        """Return the answer on record to the user's call with the key, None where there is none."""

        def read() -> reader.Entry | None:
            with self._database.read() as connection:
                return reader.find_by_key(connection, call.user_id, key)

        entry = await self._database.run(read)
        if entry is None:
            return None
        if entry.output is None:
            raise IdempotencyKeyReused(
                "The call of this Idempotency-Key was erased, with its answer; send a new key."
            )
        given = entry.input
        if given is not None and self._reveal is not None:
            given = self._reveal(given)
        held = entry.test, entry.model, entry.content_type, given, entry.explain
        if (test, *_asked(call)) != held:
            raise _reused()
        if entry.status >= _FIRST_REFUSAL:
            return Answer(entry.status, entry.output, content_type=PROBLEM_TYPE, replayed=True)
        wanted = None if call.form.output == "json" else CONTENT_TYPES[call.form.output]
        if entry.output_content_type != wanted:
            raise _reused()
        return Answer(
            entry.status, entry.output, content_type=entry.output_content_type, replayed=True
        )


def _asked(call: Call) -> tuple[str, str | None, bytes | None, bool]:
    """Return what a call asked for, as the record has it."""
    content_type = None if call.content_type is None else storable(call.content_type)
    return storable(call.model), content_type, call.body, call.explain


def _reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused(
        "This Idempotency-Key came before with another body, model, Content-Type, Accept or "
        "explain, or from the other side of test and live keys. Send what came then, or a new key."
    )
