"""Admission: how many calls a worker has in hand at most before it refuses more.

A call that is refused at once costs next to nothing and can be tried elsewhere or later; one that
is let in to wait makes every later one wait too. By Little's law calls wait as long as it takes to
answer those before them, so the bound on the wait is a bound on their number: the rate at which
calls were answered lately times the wait that is allowed.

A bound that is reached for a moment refuses nobody, since a burst passes; calls are refused once
it was reached again and again for an interval (CoDel's rule, RFC 8289, applied to calls as in
Maurer, "Fail at Scale", ACM Queue 13(8), 2015).
"""

from __future__ import annotations

from onrecord.errors import Unavailable

__all__ = ["Admission", "overloaded"]

_LEAST_WAIT_SECONDS = 0.01
_WAIT_IN_ANSWERS = 2.5
"""How many times what a call takes alone it may wait for others."""

_LEAST_CALLS, _MOST_LEAST_CALLS = 4, 64
_BURST_SECONDS = 0.5
_INTERVAL_SECONDS = 0.1
_WINDOW_SECONDS = 0.1
_KEPT_RATE = 0.9
_WEIGHT = 1 / 32


def overloaded() -> Unavailable:
    """Return what a call is told that is refused."""
    return Unavailable("The server has more calls than it can answer in time.", retry_after=1)


class Admission:
    """The calls that one worker has in hand; to be used on one event loop.

    `seconds_per_row` is what the model takes for a row alone. Calls may wait for one another for
    `max_wait_seconds`; by default two and a half times as long as a call takes that finds few
    others, 10 ms at least. `inside` is how many are in hand, `limit` how many may be for longer
    than a moment. Times are of one clock, in seconds.
    """

    def __init__(self, seconds_per_row: float, *, max_wait_seconds: float | None = None) -> None:
        self._max_wait = max_wait_seconds
        self._alone = seconds_per_row
        self._seconds_per_row = seconds_per_row
        within = int((max_wait_seconds or _LEAST_WAIT_SECONDS) / max(seconds_per_row, 1e-6))
        self._floor = min(max(within, _LEAST_CALLS), _MOST_LEAST_CALLS)
        self._few = self._floor // 4
        self.inside = 0
        self._entered = 0
        self.limit = self._floor
        self._rate = 0.0
        self._answered = 0
        self._window_began = 0.0
        self._full_since = 0.0
        self._full_at = float("-inf")

    def full(self, now: float) -> bool:
        """Whether a call that comes at `now` is to be refused."""
        if self.inside < self.limit:
            return False
        self._note_full(now)
        return self.inside >= self._burst or now - self._full_since > self._interval

    def enter(self) -> int:
        """Take a call in hand and return its number, for `leave`."""
        self.inside += 1
        self._entered += 1
        # As if it had come long ago, where it did not find few others.
        return self._entered if self.inside <= self._few else -self._few

    def leave(self, number: int, began: float, now: float) -> None:
        """Let go of a call, which was taken in hand at `began` and is answered."""
        if self.inside >= self.limit:
            self._note_full(now)
        self.inside -= 1
        self._answered += 1
        # Those that came after it may have been answered together with it.
        if self._entered - number <= self._few:
            self._alone += (now - began - self._alone) * _WEIGHT
        if now - self._window_began >= _WINDOW_SECONDS:
            self._adjust(now)

    def _note_full(self, now: float) -> None:
        if now - self._full_at > self._interval:
            self._full_since = now
        self._full_at = now

    @property
    def _interval(self) -> float:
        return max(_INTERVAL_SECONDS, 3 * self._wait)

    @property
    def _wait(self) -> float:
        return self._max_wait or max(_LEAST_WAIT_SECONDS, _WAIT_IN_ANSWERS * self._alone)

    @property
    def _burst(self) -> int:
        rate = max(self._rate, 1 / (self._seconds_per_row + 1e-4))
        return max(4 * self.limit, int(rate * _BURST_SECONDS))

    def _adjust(self, now: float) -> None:
        elapsed = now - self._window_began
        kept = self._rate * _KEPT_RATE ** min(elapsed / _WINDOW_SECONDS, 1000.0)
        self._rate = max(self._answered / elapsed, kept)
        self.limit = max(self._floor, int(self._rate * self._wait))
        self._window_began = now
        self._answered = 0
