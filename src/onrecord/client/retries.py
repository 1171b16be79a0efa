"""Sending a request until it is answered: when once more, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx2

from onrecord.client.answers import problem_of, retry_after
from onrecord.client.errors import Unreachable
from onrecord.client.steps import Flow, Pause, Send

__all__ = ["Retries", "send"]

_AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses of answers that say that nothing was done: here, or by a proxy that reached nobody."""
_FIRST_WAIT = 0.25


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is sent at most, and the longest wait before that, in seconds.

    The wait is what `Retry-After` says; where that is longer the refusal is raised at once. Without
    one it is a random part of a quarter of a second that is doubled each time.
    """

    attempts: int = 5
    longest_wait: float = 60.0

    def wait(self, attempt: int, told: float | None) -> float | None:
        """Return the seconds to wait after an attempt (from 1), None where no other is due."""
        if attempt >= self.attempts or (told is not None and told > self.longest_wait):
            return None
        if told is not None:
            return told
        most = min(_FIRST_WAIT * 2 ** (attempt - 1), self.longest_wait)
        return random.uniform(0, most)  # noqa: S311 - it only parts clients from each other


def send(request: Send, retries: Retries) -> Flow[httpx2.Response]:
    """Send a request that does no harm when it comes twice; returns an answer of status 2xx.

    Raises Unreachable, Problem and UnexpectedAnswer.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            response: httpx2.Response = yield request
        except httpx2.TransportError as error:
            wait = retries.wait(attempt, None)
            if wait is None:
                what = str(error) or type(error).__name__
                raise Unreachable(f"{request.method} {request.path}: {what}") from error
        else:
            if response.is_success:
                return response
            wait = None
            if response.status_code in _AGAIN:
                wait = retries.wait(attempt, retry_after(response))
            if wait is None:
                raise problem_of(response)
        yield Pause(wait)
