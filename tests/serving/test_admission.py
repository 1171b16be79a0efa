"""How many calls a worker takes in hand at a time."""

from collections import deque

from onrecord.serving.admission import Admission


class Worker:
    """Answers calls one after the other, each in `seconds`, on a clock of its own."""

    def __init__(self, admission: Admission, seconds: float) -> None:
        self.admission = admission
        self.seconds = seconds
        self.now = 0.0
        self.refused = 0
        self.waits: list[float] = []
        self._queue: deque[tuple[int, float]] = deque()
        self._done: deque[float] = deque()
        self._free_at = 0.0

    def run(self, rate: float, seconds: float) -> None:
        """Have calls come at `rate` for so long."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1 / rate
            self._answer_until(self.now)
            self.come()

    def wait(self, seconds: float) -> None:
        """Have no call come for so long."""
        self.now += seconds
        self._answer_until(self.now)

    def come(self) -> None:
        if self.admission.full(self.now):
            self.refused += 1
            return
        self._free_at = max(self._free_at, self.now) + self.seconds
        self._queue.append((self.admission.enter(), self.now))
        self._done.append(self._free_at)

    def _answer_until(self, now: float) -> None:
        while self._queue and self._done[0] <= now:
            number, began = self._queue.popleft()
            done = self._done.popleft()
            self.waits.append(done - began)
            self.admission.leave(number, began, done)


def test_a_load_that_can_be_answered_is_refused_nothing() -> None:
    worker = Worker(Admission(0.01), 0.01)

    worker.run(rate=80, seconds=20)

    assert worker.refused == 0


def test_at_five_times_the_capacity_calls_wait_for_a_few_others_only() -> None:
    worker = Worker(Admission(0.01), 0.01)
    worker.run(rate=30, seconds=5)
    worker.run(rate=500, seconds=2)
    worker.waits.clear()

    worker.run(rate=500, seconds=20)

    assert max(worker.waits) < 0.06
    assert len(worker.waits) > 0.95 * 20 * 100


def test_a_burst_is_let_in_and_a_standing_queue_is_not() -> None:
    worker = Worker(Admission(0.01), 0.01)
    for _ in range(40):
        worker.come()

    assert worker.refused == 0
    worker.run(rate=500, seconds=1)
    assert worker.refused > 300


def test_a_burst_after_an_overload_that_is_over_is_a_burst_again() -> None:
    worker = Worker(Admission(0.01), 0.01)
    worker.run(rate=500, seconds=5)
    worker.wait(5)
    worker.refused = 0
    for _ in range(4):
        worker.come()
    worker.wait(0.05)
    for _ in range(40):
        worker.come()

    assert worker.refused == 0


def test_calls_are_let_in_again_as_soon_as_the_overload_ends() -> None:
    worker = Worker(Admission(0.01), 0.01)
    worker.run(rate=500, seconds=5)
    worker.refused = 0
    worker.run(rate=30, seconds=0.1)
    worker.refused = 0

    worker.run(rate=60, seconds=5)

    assert worker.refused == 0


def test_an_overload_does_not_teach_that_calls_take_long() -> None:
    worker = Worker(Admission(0.01), 0.01)
    worker.run(rate=500, seconds=5)
    worker.waits.clear()

    worker.run(rate=500, seconds=100)

    assert max(worker.waits) < 0.06


def test_the_wait_that_is_set_is_what_calls_wait() -> None:
    worker = Worker(Admission(0.01, max_wait_seconds=0.5), 0.01)
    worker.run(rate=500, seconds=5)
    worker.waits.clear()

    worker.run(rate=500, seconds=20)

    assert 0.4 < max(worker.waits) < 0.6


def test_many_calls_of_a_quick_model_are_let_in() -> None:
    worker = Worker(Admission(0.000_05), 0.000_05)

    worker.run(rate=15_000, seconds=2)

    assert worker.refused == 0
