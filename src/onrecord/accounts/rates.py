"""How many calls in how many seconds: what "100/second" means."""

from __future__ import annotations

from dataclasses import dataclass

from limits import parse_many

__all__ = ["RATE_FORM", "Rate", "parse_rate"]

RATE_FORM = "a rate such as 100/second, 10/minute or 5000/hour, over a day at most"
"""What a rate looks like, for messages."""

_MAX_AMOUNT = 1_000_000_000
_MAX_SECONDS = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `amount` calls within any `seconds`; `text` is how it was written."""

    text: str
    amount: int
    seconds: int


def parse_rate(text: str) -> Rate:
    """Return the rate that a text such as "100/second" or "20/5 minutes" means.

    Raises ValueError where it means none, or one over more than a day: the counts are kept in
    memory and would not outlive the server.
    """
    try:
        (item,) = parse_many(text)
    except ValueError:
        raise ValueError(f"{text[:100]!r} is not {RATE_FORM}") from None
    rate = Rate(text, item.amount, item.get_expiry())
    if not (1 <= rate.amount <= _MAX_AMOUNT and 1 <= rate.seconds <= _MAX_SECONDS):
        raise ValueError(f"{text[:100]!r} is not {RATE_FORM}")
    return rate
