"""A shadow: a version answers what the live one has answered already, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

from onrecord.insight.recorded_calls import Meant, Place, calls_of, places_of
from onrecord.insight.recorded_rows import MAX_ROWS, answer_calls
from onrecord.record.commit_order import complete_up_to
from onrecord.record.database import Database
from onrecord.record.shadows import (
    Progress,
    Shadow,
    ShadowAnswer,
    is_running,
    progress_of,
    put_on_record,
)
from onrecord.serving.artifact import Model
from onrecord.serving.served import share_of
from onrecord.serving.validation import Validator

__all__ = ["MOST_BEHIND", "ShadowOver", "Shadowing"]

MOST_BEHIND = 10_000
"""How many calls of its share a shadow may be behind; of more it skips the oldest."""

_CALLS_AT_ONCE = 500
_BYTES_AT_ONCE = 4 << 20
_SOUGHT_AT_ONCE = 5000


class ShadowOver(Exception):
    """The shadow runs no more, or something about its model has changed."""


class Shadowing:
    """One shadow at work: reads the record and puts the version's answers there.

    `model` is the version loaded, `reveal` decrypts recorded inputs. Of the calls that another
    version answered since the shadow began it takes a share by their ids, in the order of the
    record. How far it has come is on record with each batch of answers, so one that is cut short
    goes on where it was. `write` runs what holds up the database's other writers, and returns
    once that is done: a thread of a low priority must not do that itself, or they would wait until
    it gets the processor.
    """

    def __init__(  # noqa: PLR0913 - everything it needs is handed in
        self,
        database: Database,
        shadow: Shadow,
        model: Model,
        reveal: Callable[[bytes], bytes],
        *,
        most_behind: int = MOST_BEHIND,
        write: Callable[[Callable[[], None]], None] = lambda work: work(),
    ) -> None:
        self._database = database
        self._shadow = shadow
        self._model = model
        self._reveal = reveal
        self._most_behind = most_behind
        self._write = write
        self._validator = Validator(model.schema, max_rows=MAX_ROWS)
        self._meant = Meant(shadow.model, other_than=shadow.model_version_id)
        with database.read() as connection:
            self._progress = progress_of(connection, shadow)
        self._complete = self._progress.done_up_to

    def step(self) -> bool:
        """Answer the next calls; return whether more are known to wait.

        Raises ShadowOver where the deployment has changed; then nothing is put on record.
        """
        if self._progress.done_up_to >= self._complete:
            self._complete = complete_up_to(self._database)
            self._shed()
        found = self._places(self._progress.done_up_to, _CALLS_AT_ONCE)
        taken = _within(found, _BYTES_AT_ONCE)
        whole = len(taken) == len(found) < _CALLS_AT_ONCE
        done = replace(self._progress, done_up_to=self._complete if whole else taken[-1].seq)
        if taken:
            self._put(self._answers([place.seq for place in taken if self._is_due(place)]), done)
        else:
            self._progress = done
        return done.done_up_to < self._complete

    def _shed(self) -> None:
        """Skip the oldest calls where too many wait, and put on record how many those are."""
        if self._complete - self._progress.done_up_to <= self._most_behind:
            return
        waiting: list[int] = []
        after = self._progress.done_up_to
        while found := self._places(after, _SOUGHT_AT_ONCE):
            waiting += [place.seq for place in found if self._is_due(place)]
            after = found[-1].seq
        surplus = len(waiting) - self._most_behind
        if surplus > 0:
            skipped = self._progress.skipped + surplus
            self._put([], Progress(waiting[surplus - 1], skipped))

    def _places(self, after: int, most: int) -> list[Place]:
        meant = replace(self._meant, after_seq=after, up_to_seq=self._complete)
        with self._database.read() as connection:
            return places_of(connection, meant, most)

    def _is_due(self, place: Place) -> bool:
        return share_of(self._shadow.model, place.id) < self._shadow.share

    def _answers(self, seqs: Sequence[int]) -> list[ShadowAnswer]:
        with self._database.read() as connection:
            found = calls_of(connection, seqs, self._reveal)
        calls = [call for call in found if call.input is not None]
        answers = answer_calls(self._model, self._validator, calls)
        return [
            ShadowAnswer(call.id, it.output, it.error, it.duration_us)
            for call, it in zip(calls, answers, strict=True)
        ]

    def _put(self, answers: Sequence[ShadowAnswer], progress: Progress) -> None:
        def work() -> None:
            with self._database.write() as connection:
                if not is_running(connection, self._shadow):
                    raise ShadowOver
                put_on_record(connection, self._shadow, answers, progress)

        self._write(work)
        self._progress = progress


def _within(places: list[Place], most_bytes: int) -> list[Place]:
    """Return the first of some calls, as many as have so many bytes together; at least one."""
    sizes = accumulate(place.size for place in places)
    fitting = sum(size <= most_bytes for size in sizes)
    return places[: max(1, fitting)]
