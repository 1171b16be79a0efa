"""Calls that share a model: batches, one bad call among good ones, and a queue with an end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from structlog.testing import capture_logs

from onrecord.errors import ModelFailed, Unanswerable, Unavailable
from onrecord.serving.artifact import Model
from onrecord.serving.explanations import Explanations
from onrecord.serving.input_schema import parse_input_schema
from onrecord.serving.outputs import Outputs, TargetOutput
from onrecord.serving.runner import Runner
from onrecord.serving.runtimes import Row
from serving.models import NUMBERS, VALUES, X, load, schema_of, write_pickle

pytestmark = pytest.mark.anyio

SECONDS = 30
BROKEN, REFUSED, SHORT, NOT_A_NUMBER = -1.0, -2.0, -3.0, -4.0


class Doubler:
    """Doubles the first column; waits where it is told to, and fails on the values above."""

    name = "doubler"

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.threads: set[int] = set()
        self.busy = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def predict(self, rows: Sequence[Row]) -> Outputs:
        values = [row[0] for row in rows]
        self.batches.append(values)
        self.threads.add(threading.get_ident())
        self.busy.set()
        assert self.go.wait(SECONDS)
        if REFUSED in values:
            raise ValueError("no answer to that")
        if BROKEN in values:
            raise RuntimeError("broken")
        if SHORT in values:
            values.pop()
        return Outputs(
            [TargetOutput(None, [np.nan if v == NOT_A_NUMBER else v * 2 for v in values])]
        )


class Telling(Doubler):
    """Doubles, and says that the first column did it."""

    def explain(self, rows: Sequence[Row]) -> Explanations:
        told = np.array([[[row[0] * 2]] for row in rows])
        return Explanations("prediction", np.zeros(told.shape[:2]), told)


def model_of(runtime: Any, *, seconds_per_row: float) -> Model:
    raw = schema_of(NUMBERS[:1]).encode()
    return Model(
        name="m",
        version="1",
        sha256="0" * 64,
        schema_sha256="0" * 64,
        input_schema_bytes=raw,
        schema=parse_input_schema(raw, "input_schema.json"),
        format="pickle",
        runtime=runtime,
        runtime_reason="",
        seconds_per_row=seconds_per_row,
        golden_rows=[],
    )


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
async def dear(doubler: Doubler) -> AsyncIterator[Runner]:
    runner = Runner(model_of(doubler, seconds_per_row=1.0), max_waiting_rows=10)
    yield runner
    doubler.go.set()
    runner.close()


async def wait_for(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, SECONDS)


async def started(runner: Runner, *calls: list[float]) -> list["asyncio.Task[Outputs]"]:
    """Start calls and return once each of them waits in the runner."""
    tasks = [asyncio.create_task(runner.predict([(v,) for v in values])) for values in calls]
    await asyncio.sleep(0)
    return tasks


async def kept_busy(runner: Runner, doubler: Doubler) -> "asyncio.Task[Outputs]":
    """Make the model's thread wait, so that what comes next gathers behind it."""
    doubler.go.clear()
    (first,) = await started(runner, [0.0])
    await wait_for(doubler.busy)
    return first


def answers(outputs: Outputs) -> list[Any]:
    return [outputs.row(i)["prediction"] for i in range(len(outputs))]


async def test_a_cheap_model_answers_on_the_loop(doubler: Doubler) -> None:
    runner = Runner(model_of(doubler, seconds_per_row=1e-6))

    outputs = await runner.predict([(1.0,), (2.0,)])

    assert answers(outputs) == [2.0, 4.0]
    assert doubler.threads == {threading.get_ident()}
    runner.close()


async def test_many_rows_leave_the_loop_even_of_a_cheap_model(doubler: Doubler) -> None:
    runner = Runner(model_of(doubler, seconds_per_row=1e-6))

    outputs = await runner.predict([(float(i),) for i in range(100)])

    assert answers(outputs) == [2.0 * i for i in range(100)]
    assert threading.get_ident() not in doubler.threads
    runner.close()


async def test_a_dear_model_answers_in_one_thread_of_its_own(
    dear: Runner, doubler: Doubler
) -> None:
    for value in (1.0, 2.0):
        assert answers(await dear.predict([(value,)])) == [value * 2]

    assert len(doubler.threads) == 1
    assert threading.get_ident() not in doubler.threads


async def test_what_gathers_while_the_model_is_busy_is_one_batch(
    dear: Runner, doubler: Doubler
) -> None:
    first = await kept_busy(dear, doubler)
    others = await started(dear, [1.0], [2.0, 3.0], [4.0])
    doubler.go.set()

    assert [answers(await task) for task in (first, *others)] == [[0.0], [2.0], [4.0, 6.0], [8.0]]
    assert doubler.batches == [[0.0], [1.0, 2.0, 3.0, 4.0]]


async def test_a_batch_has_an_end(doubler: Doubler) -> None:
    runner = Runner(model_of(doubler, seconds_per_row=1.0))
    first = await kept_busy(runner, doubler)
    others = await started(runner, [1.0] * 1000, [2.0] * 24, [3.0])
    doubler.go.set()
    await asyncio.gather(first, *others)

    assert [len(batch) for batch in doubler.batches] == [1, 1024, 1]
    runner.close()


@pytest.mark.parametrize(
    ("value", "error"), [(REFUSED, Unanswerable), (BROKEN, ModelFailed), (SHORT, ModelFailed)]
)
async def test_a_bad_call_fails_alone(
    value: float, error: type[Exception], dear: Runner, doubler: Doubler
) -> None:
    first = await kept_busy(dear, doubler)
    good, bad, also_good = await started(dear, [1.0], [5.0, value], [2.0])
    with capture_logs():
        doubler.go.set()
        await first
        with pytest.raises(error):
            await bad

    assert answers(await good) == [2.0]
    assert answers(await also_good) == [4.0]


async def test_an_answer_that_is_no_number_spoils_its_own_row_only(
    dear: Runner, doubler: Doubler
) -> None:
    first = await kept_busy(dear, doubler)
    good, bad = await started(dear, [1.0], [5.0, NOT_A_NUMBER])
    doubler.go.set()
    await first

    assert answers(await good) == [2.0]
    outputs = await bad
    assert outputs.row(0) == {"prediction": 10.0}
    with pytest.raises(Unanswerable):
        outputs.row(1)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
async def test_a_probability_that_is_no_number_is_no_answer(value: float) -> None:
    outputs = Outputs([TargetOutput(None, ["a", "a"], ("a", "b"), [[0.5, 0.5], [value, 0.5]])])

    assert outputs.row(0)["probabilities"] == {"a": 0.5, "b": 0.5}
    with pytest.raises(Unanswerable):
        outputs.row(1)


@pytest.mark.parametrize(("value", "error"), [(REFUSED, Unanswerable), (BROKEN, ModelFailed)])
async def test_errors_of_a_cheap_model_are_told_apart_too(
    value: float, error: type[Exception], doubler: Doubler
) -> None:
    runner = Runner(model_of(doubler, seconds_per_row=1e-6))

    with capture_logs() as logs, pytest.raises(error):
        await runner.predict([(value,)])

    assert len(logs) == 1
    runner.close()


async def test_a_call_that_would_wait_too_long_for_the_rows_before_it_is_refused(
    doubler: Doubler,
) -> None:
    runner = Runner(model_of(doubler, seconds_per_row=1.0), max_wait_seconds=0.01)
    doubler.go.clear()
    (slow,) = await started(runner, [0.0] * 100)
    await asyncio.sleep(0.05)
    doubler.go.set()
    await slow
    first = await kept_busy(runner, doubler)
    (many,) = await started(runner, [0.0] * 200)

    with pytest.raises(Unavailable) as refused:
        await runner.predict([(1.0,)])
    assert refused.value.retry_after == 1
    (as_many,) = await started(runner, [1.0] * 200)
    doubler.go.set()
    await asyncio.gather(first, many, as_many)
    runner.close()


async def test_a_call_that_would_wait_behind_too_many_rows_is_refused(
    dear: Runner, doubler: Doubler
) -> None:
    first = await kept_busy(dear, doubler)
    waiting = await started(dear, [1.0] * 9)

    with pytest.raises(Unavailable) as caught:
        await dear.predict([(2.0,)])
    doubler.go.set()
    await asyncio.gather(first, *waiting)

    assert caught.value.retry_after == 1
    assert answers(await dear.predict([(2.0,)])) == [4.0]  # there is room again


async def test_one_call_larger_than_the_queue_is_answered_where_none_waits(dear: Runner) -> None:
    assert len(await dear.predict([(1.0,)] * 50)) == 50


async def test_a_caller_who_leaves_disturbs_no_other(dear: Runner, doubler: Doubler) -> None:
    first = await kept_busy(dear, doubler)
    leaving, staying = await started(dear, [1.0], [2.0])
    leaving.cancel()
    first.cancel()
    doubler.go.set()

    assert answers(await staying) == [4.0]
    assert [answers(await dear.predict([(3.0,)])) for _ in range(2)] == [[6.0], [6.0]]


async def test_rows_of_callers_who_left_make_room(dear: Runner, doubler: Doubler) -> None:
    first = await kept_busy(dear, doubler)
    (leaving,) = await started(dear, [1.0] * 9)
    leaving.cancel()
    doubler.go.set()
    await first

    assert len(await dear.predict([(1.0,)] * 10)) == 10
    assert [1.0] * 9 not in doubler.batches  # nobody waits for them


async def test_calls_that_wait_when_the_runner_closes_are_refused(
    dear: Runner, doubler: Doubler
) -> None:
    first = await kept_busy(dear, doubler)
    (waiting,) = await started(dear, [1.0])
    dear.close()
    doubler.go.set()

    assert answers(await first) == [0.0]
    with pytest.raises(Unavailable):
        await asyncio.wait_for(waiting, SECONDS)


async def test_a_call_whose_deadline_passes_is_refused_and_makes_room(doubler: Doubler) -> None:
    runner = Runner(
        model_of(doubler, seconds_per_row=1.0), max_waiting_rows=10, deadline_seconds=0.05
    )
    doubler.go.clear()
    first, late = await started(runner, [0.0], [1.0] * 9)

    for call in (first, late):
        with pytest.raises(Unavailable, match=r"within 0.05 seconds") as refusal:
            await call
        assert refusal.value.retry_after == 1
    doubler.go.set()
    await asyncio.to_thread(runner.close)
    assert [1.0] * 9 not in doubler.batches


@pytest.fixture
async def telling() -> AsyncIterator[tuple[Runner, Telling]]:
    runtime = Telling()
    runner = Runner(model_of(runtime, seconds_per_row=1.0))
    yield runner, runtime
    runtime.go.set()
    runner.close()


async def explaining(runner: Runner, runtime: Telling) -> "asyncio.Task[Explanations]":
    """Ask for explanations of a hundred rows; return while the first of them is made."""
    runtime.go.clear()
    task = asyncio.create_task(runner.explain([(float(i),) for i in range(100)]))
    await wait_for(runtime.busy)
    return task


async def test_explanations_leave_the_thread_to_other_calls_before_they_are_done(
    telling: tuple[Runner, Telling],
) -> None:
    runner, runtime = telling
    told = await explaining(runner, runtime)
    (other,) = await started(runner, [-7.0])
    runtime.go.set()

    assert answers(await other) == [-14.0]
    assert (await told).contributions.ravel().tolist() == [2.0 * i for i in range(100)]
    assert runtime.batches[:2] == [[0.0], [-7.0]]


async def test_explanations_end_where_the_caller_has_gone(telling: tuple[Runner, Telling]) -> None:
    runner, runtime = telling
    told = await explaining(runner, runtime)
    told.cancel()
    await asyncio.wait([told])
    runtime.go.set()

    assert answers(await runner.predict([(-7.0,)])) == [-14.0]
    assert runtime.batches == [[0.0], [-7.0]]


async def test_a_real_model_answers_through_the_runner(tmp_path: Path) -> None:
    model = LinearRegression().fit(X, VALUES)
    runner = Runner(load(write_pickle(tmp_path, model)))

    calls = [runner.predict([tuple(row)]) for row in X[:20].tolist()]
    alone = [answers(outputs)[0] for outputs in await asyncio.gather(*calls)]

    np.testing.assert_allclose(alone, model.predict(X[:20]))
    runner.close()
