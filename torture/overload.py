"""Five times as many calls as can be answered, and the same few for half an hour."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torture.arrivals import Outcome, arriving
from torture.ledger import Ledger, digest
from torture.memory import mebibytes, peak
from torture.report import Finding, place
from torture.slow_model import slow_model_dir
from torture.stage import Kind, Stage
from torture.subject import Subject
from torture.verdict import Verdict, examine

__all__ = ["CASES", "Case", "keep", "overload", "steady", "wrong"]

_TIMES_CAPACITY = 5
_UNLOADED = 0.3
"""Of the capacity: a load at which calls seldom meet."""

_LEAST_GOOD = 0.5
_TIMES_UNLOADED = 3
_MOST_GROWTH_MIB = 64
_MOST_GROWTH = 0.02
_SETTLING_SECONDS = 1.0
"""A burst is let in as such; only after a while is it known to be an overload."""

_STEADY_RATE = 200
_CAPACITY_SECONDS = 3


@dataclass(frozen=True)
class Case:
    """A model that takes `seconds` a row, asleep or `busy`, and how many callers it can take."""

    name: str
    seconds: float
    busy: bool
    callers: int
    connections: int


CASES = (
    Case("a model of 10 ms a row", 0.010, False, 4, 1000),
    Case("a model of 2 ms of CPU a row", 0.002, True, 4, 1000),
)


def overload(stage: Stage, rounds: int, cases: Sequence[Case] = CASES) -> Iterator[Finding]:
    """Let calls arrive at five times the measured capacity for so many seconds."""
    yield _overload(stage, cases[0], min(rounds, 10), broken="admit-all")
    for case in cases:
        yield _overload(stage, case, rounds)


def _overload(stage: Stage, case: Case, seconds: int, broken: str | None = None) -> Finding:
    home = stage.home / f"slow-{case.seconds}"
    model_dir, sha256 = slow_model_dir(home / "risk", stage.model_dir, case.seconds, busy=case.busy)
    with stage.subject(model_dir=model_dir, broken=broken) as subject:
        subject.start(settings={"ONRECORD_TRUSTED_MODELS": sha256, "ONRECORD_LOG_LEVEL": "info"})
        capacity = _arrive(subject, 0, _CAPACITY_SECONDS, case.callers).rate
        calm = _arrive(subject, _UNLOADED * capacity, seconds, case.connections)
        with peak(subject) as memory:
            storm = _arrive(subject, _TIMES_CAPACITY * capacity, seconds, case.connections)
        after = _arrive(subject, _UNLOADED * capacity, max(2, seconds / 10), case.connections)
        subject.stop()
        verdict = examine(subject.database_url, subject.ledger)
    ratio = storm.p(99) / calm.p(99)
    more = wrong(storm) | {
        f"p99 is more than {_TIMES_UNLOADED} x the unloaded one": int(ratio > _TIMES_UNLOADED),
        f"less than {_LEAST_GOOD:.0%} of the capacity answered": int(
            storm.rate < _LEAST_GOOD * capacity
        ),
        f"memory grew by more than {_MOST_GROWTH_MIB} MiB": int(memory.grown > _MOST_GROWTH_MIB),
        "refused when the load had gone": after.statuses.get(503, 0),
        "refused calls on record": verdict.unanswered,
    }
    refused = sum(storm.statuses.values()) - storm.statuses.get(200, 0)
    remark = (
        f"{case.name}: capacity {capacity:.0f}/s, {sum(storm.statuses.values()) / seconds:.0f}/s "
        f"came (up to {storm.late * 1000:.0f} ms late), {storm.rate:.0f}/s answered, "
        f"{refused / sum(storm.statuses.values()):.0%} refused within "
        f"{_p99(storm.refused_after):.0f} ms (p99); p50 and p99 of the answered "
        f"{storm.p(50):.1f} and {storm.p(99):.1f} ms, unloaded {calm.p(50):.1f} and "
        f"{calm.p(99):.1f}: {ratio:.1f} x; memory {memory.before:.0f} + {memory.grown:.0f} MiB"
    )
    return Finding(
        "overload", place("SQLite", 1), seconds, "s of overload", verdict, more, broken, remark
    )


def _arrive(subject: Subject, rate: float, seconds: float, connections: int) -> Outcome:
    settling = _SETTLING_SECONDS if rate else 0.0
    plan = subject.plan(rate=rate, seconds=seconds, connections=connections, settling=settling)
    with arriving(plan) as outcome:
        came = outcome()
    keep(subject.ledger, came)
    return came


def keep(ledger: Ledger, came: Outcome) -> None:
    """Keep in a ledger what came of a plan."""
    ledger.statuses.update(came.statuses)
    for request_id, (sent, received) in came.answered.items():
        ledger.answered[request_id] = digest(sent.encode(), received.encode())
    ledger.open.update(digest(sent.encode()) for sent in [*came.refused, *came.unanswered])


def wrong(came: Outcome) -> dict[str, int]:
    """Return the counts of what no load may bring about."""
    others = sum(n for status, n in came.statuses.items() if status not in {200, 429, 503})
    return {
        "answers other than 200, 429 and 503": others,
        "refusals without Retry-After or no problem document": came.bare,
        "calls without an answer": came.lost,
        "calls never sent": came.unsent,
    }


def _p99(ascending: Sequence[float]) -> float:
    return ascending[int(len(ascending) * 0.99)] if ascending else 0.0


def steady(
    stage: Stage, rounds: int, kind: Kind = "SQLite", rate: float = _STEADY_RATE
) -> Iterator[Finding]:
    """Let calls arrive steadily for so many seconds, and compare the memory before and after."""
    with stage.subject(kind) as subject:
        subject.start()
        warm = max(2.0, rounds / 6)
        verdict = Verdict()
        counts: dict[str, int] = {}
        _arrive(subject, rate, warm, 64)
        before = mebibytes(subject)
        figures = [before]
        end = time.monotonic() + rounds
        while (left := end - time.monotonic()) > 0.5:
            came = _arrive(subject, rate, min(left, 60), 64)
            for what, count in wrong(came).items():
                counts[what] = counts.get(what, 0) + count
            figures.append(mebibytes(subject))
            print(f"  steady: {figures[-1]:.1f} MiB, p99 {came.p(99):.1f} ms", flush=True)
        subject.stop()
        verdict = examine(subject.database_url, subject.ledger)
    growth = figures[-1] / before - 1
    more = counts | {f"memory grew by more than {_MOST_GROWTH:.0%}": int(growth > _MOST_GROWTH)}
    remark = f"{rate:.0f}/s: {before:.1f} MiB after {warm:.0f} s, {figures[-1]:.1f} at the end"
    remark += f" ({growth:+.1%}), at most {max(figures):.1f}"
    yield Finding("steady", place(kind, 1), rounds, "s of load", verdict, more, remark=remark)
