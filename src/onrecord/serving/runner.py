"""Runs a model: at once where it is cheap, in a thread with what else waits where it is not."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from onrecord.errors import CallError, ModelFailed, NotExplainable, Unanswerable, Unavailable
from onrecord.serving.artifact import Model
from onrecord.serving.compile import CompiledRuntime
from onrecord.serving.explanations import Explanations, explain
from onrecord.serving.outputs import Outputs
from onrecord.serving.runtimes import Row, predict_table
from onrecord.serving.table import Table

__all__ = ["Runner"]

CHEAP_SECONDS = 300e-6
"""Below this for one row the hop to a thread and back would cost more than it spares."""

_INLINE_ROWS = 16
_BATCH_ROWS = 1024

_PACED_ROWS = 64
"""Batches of fewer rows do not tell what a row costs among many."""

_EXPLAINING_SECONDS = 0.01
"""About how long rows are explained before another call may have the model's thread."""

_WAIT_IN_ANSWERS = 3
"""How many times what its own rows take a call may wait for the rows before it."""


@dataclass(eq=False, slots=True)
class _Waiting:
    rows: Sequence[Row]
    future: asyncio.Future[Outputs]


class Runner:
    """One model's answers to the calls of one event loop.

    A cheap model answers small calls on the loop. All else waits for the model's one thread, which
    takes what has gathered while it was busy as its next batch; there is no delay to wait for more.
    At most `max_waiting_rows` wait, and no more than are answered in `max_wait_seconds` or in three
    times what the next call takes; beyond them calls are refused, as is one that has waited for
    `deadline_seconds`.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_waiting_rows: int = 20_000,
        max_wait_seconds: float = 1.0,
        deadline_seconds: float = 30.0,
    ) -> None:
        self._runtime = model.runtime
        self._sensitive = model.schema.sensitive
        # A graph that may need its original says so first: the original can be slow.
        self._attempt: Callable[[Sequence[Row]], Outputs | None] = (
            model.runtime.attempt
            if isinstance(model.runtime, CompiledRuntime)
            else model.runtime.predict
        )
        self._predict_table: Callable[[Any], Outputs] = partial(predict_table, model.runtime)
        self._cheap = model.seconds_per_row < CHEAP_SECONDS
        self._max_waiting_rows = max_waiting_rows
        self._max_wait_seconds = max_wait_seconds
        self._deadline_seconds = deadline_seconds
        self._waiting: deque[_Waiting] = deque()
        self._waiting_rows = 0
        self._seconds_per_row = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._drain: asyncio.Task[None] | None = None

    async def predict(self, rows: Sequence[Row]) -> Outputs:
        """Return the model's answers to `rows`.

        Raises Unanswerable where the model refuses the rows, ModelFailed where it breaks on them,
        and Unavailable where too many rows wait already or the deadline passes.
        """
        if self._cheap and len(rows) <= _INLINE_ROWS:
            outputs = self._guarded(self._attempt, rows)
            if outputs is not None:
                return outputs
        if self._waiting_rows and (
            self._waiting_rows + len(rows) > self._max_waiting_rows or self._is_long(len(rows))
        ):
            raise Unavailable("Too many rows wait for the model already.", retry_after=1)
        loop = asyncio.get_running_loop()
        call = _Waiting(rows, loop.create_future())
        self._waiting.append(call)
        self._waiting_rows += len(rows)
        if self._drain is None:
            self._drain = loop.create_task(self._work())
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await self._answer_to(call)
        except TimeoutError:
            raise Unavailable(
                f"The model did not answer within {self._deadline_seconds:g} seconds.",
                retry_after=1,
            ) from None

    async def explain(self, rows: Sequence[Row]) -> Explanations:
        """Return the explanations of `rows`, in the model's thread.

        A few rows are explained at a time, so that other calls get their turn and a call that has
        waited too long, or whose caller has gone, costs no more. Raises NotExplainable where the
        model has none, else as `predict`.
        """
        if self._waiting_rows + len(rows) > self._max_waiting_rows:
            raise Unavailable("Too many rows wait for the model already.", retry_after=1)
        loop = asyncio.get_running_loop()
        self._waiting_rows += len(rows)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                parts: list[Explanations] = []
                done, count = 0, 1
                while done < len(rows):
                    began = time.perf_counter()
                    some = rows[done : done + count]
                    parts.append(await loop.run_in_executor(self._thread, self._explained, some))
                    done += len(some)
                    seconds_per_row = (time.perf_counter() - began) / len(some)
                    count = max(1, int(_EXPLAINING_SECONDS / seconds_per_row))
                return Explanations.join(parts)
        except TimeoutError:
            raise Unavailable(
                f"The model did not explain itself within {self._deadline_seconds:g} seconds.",
                retry_after=1,
            ) from None
        finally:
            self._waiting_rows -= len(rows)

    def _explained(self, rows: Sequence[Row]) -> Explanations:
        try:
            return explain(self._runtime, rows)
        except CallError:
            raise
        except Exception as error:
            # What a model's library says can have values in it.
            structlog.get_logger("onrecord").warning("no explanation", error=type(error).__name__)
            raise NotExplainable("The model has no explanation of these values.") from error

    def _is_long(self, rows: int) -> bool:
        """Whether so many more rows would wait too long for those that wait already."""
        own = rows * self._seconds_per_row
        bound = max(self._max_wait_seconds, _WAIT_IN_ANSWERS * own)
        return self._waiting_rows * self._seconds_per_row > bound

    def predict_at_once(self, rows: Sequence[Row]) -> Outputs | None:
        """Return the answers to the rows of several small calls, where the model is cheap.

        None where it is not, or where a row has no answer of the kind: `predict` tells which.
        """
        if not self._cheap:
            return None
        try:
            return self._guarded(self._attempt, rows)
        except CallError:
            return None

    async def _answer_to(self, call: _Waiting) -> Outputs:
        try:
            return await call.future
        except asyncio.CancelledError:
            if call in self._waiting:  # nobody will read the answer
                self._waiting.remove(call)
                self._waiting_rows -= len(call.rows)
            raise

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = self._next_batch()
                try:
                    answers = await loop.run_in_executor(self._thread, self._answer, batch)
                except RuntimeError:  # the thread has been let go: nobody will answer these
                    answers = [Unavailable("The server is stopping.", retry_after=1)] * len(batch)
                finally:
                    self._waiting_rows -= sum(len(call.rows) for call in batch)
                for call, answer in zip(batch, answers, strict=True):
                    if call.future.done():  # the caller has gone
                        continue
                    if isinstance(answer, Outputs):
                        call.future.set_result(answer)
                    else:
                        call.future.set_exception(answer)
        finally:
            self._drain = None

    def _next_batch(self) -> list[_Waiting]:
        batch = [self._waiting.popleft()]
        count = len(batch[0].rows)
        while self._waiting and count + len(self._waiting[0].rows) <= _BATCH_ROWS:
            batch.append(self._waiting.popleft())
            count += len(batch[-1].rows)
        return batch

    def _answer(self, batch: Sequence[_Waiting]) -> list[Outputs | CallError]:
        """Return each call's answer or error; runs in the thread."""
        began = time.perf_counter()
        answers = self._answer_all(batch)
        rows = sum(len(call.rows) for call in batch)
        if rows >= _PACED_ROWS:
            self._seconds_per_row = (time.perf_counter() - began) / rows
        return answers

    def _answer_all(self, batch: Sequence[_Waiting]) -> list[Outputs | CallError]:
        if len(batch) > 1:
            try:
                together = self._run([row for call in batch for row in call.rows])
                return list(together.split([len(call.rows) for call in batch]))
            except CallError:
                pass  # one call's rows must not fail another's: each is tried alone
        answers: list[Outputs | CallError] = []
        for call in batch:
            try:
                answers.append(self._run(call.rows))
            except CallError as error:
                answers.append(error)
        return answers

    def _run(self, rows: Sequence[Row]) -> Outputs:
        predict = self._predict_table if isinstance(rows, Table) else self._runtime.predict
        outputs = self._guarded(predict, rows)
        if outputs is None:
            raise ModelFailed("The model failed on this input.")
        return outputs

    def _guarded(
        self, predict: Callable[[Sequence[Row]], Outputs | None], rows: Sequence[Row]
    ) -> Outputs | None:
        try:
            outputs = predict(rows)
            if outputs is not None and len(outputs) != len(rows):
                # One caller would get another's answer.
                raise RuntimeError(f"{len(outputs)} answers to {len(rows)} rows")
            return outputs
        except CallError:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            said = type(error).__name__ if self._sensitive else str(error)[:500]
            structlog.get_logger("onrecord").warning("model has no answer", error=said)
            raise Unanswerable("The model has no answer to these values.") from error
        except Exception as error:
            log = structlog.get_logger("onrecord")
            if self._sensitive:  # what the model's library says can have values in it
                log.error("model failed", error=type(error).__name__)  # noqa: TRY400
            else:
                log.exception("model failed")
            raise ModelFailed("The model failed on this input.") from error
