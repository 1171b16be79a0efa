"""SIGKILL at random moments, and SIGTERM, under load."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Iterator

from torture.report import Finding, place
from torture.stage import Kind, Stage
from torture.subject import Subject
from torture.verdict import Verdict, examine

__all__ = ["kill", "terminate"]

_LOAD_SECONDS = (0.05, 0.5)
_STOP_SECONDS = 60
_TRIES = 20
"""How many rounds a broken build has to be caught in."""
Deployments = tuple[tuple[Kind, int], ...]
_DEPLOYMENTS: Deployments = tuple(itertools.product(("SQLite", "PostgreSQL"), (1, 2)))


def kill(stage: Stage, rounds: int, deployments: Deployments = _DEPLOYMENTS) -> Iterator[Finding]:
    """SIGKILL the server and its workers so many times in all, at random moments of their load."""
    harm = "SIGKILLs"
    for broken in ("answer-before-commit", "two-transactions"):
        with stage.subject(broken=broken) as subject:
            tries, verdict = 0, Verdict()
            while verdict.holds and tries < _TRIES:
                tries, verdict = tries + 1, _kill(subject, 1, stage.chance)
        yield Finding("kill", "SQLite, 1 worker", tries, harm, verdict, broken=broken)
    for kind, workers in deployments:
        share = max(1, rounds // len(deployments))
        with stage.subject(kind, workers=workers) as subject:
            verdict = _kill(subject, share, stage.chance)
        yield Finding("kill", place(kind, workers), share, harm, verdict)


def _kill(subject: Subject, rounds: int, chance: random.Random) -> Verdict:
    for _ in range(rounds):
        subject.start()
        with subject.load() as load:
            load.wait_for(1)
            time.sleep(chance.uniform(*_LOAD_SECONDS))
            subject.server.kill()
    # What the last one left is recovered by a server too, as the others were.
    subject.start()
    subject.stop()
    return examine(subject.database_url, subject.ledger)


def terminate(
    stage: Stage, rounds: int, deployments: Deployments = _DEPLOYMENTS
) -> Iterator[Finding]:
    """SIGTERM the server under load: each call that it had begun is answered before it leaves."""
    harm = "SIGTERMs"
    broken = "leave-at-once"
    with stage.subject(broken=broken) as subject:
        tries, verdict, cut = 0, Verdict(), {"calls cut": 0}
        while not cut["calls cut"] and tries < _TRIES:
            tries, (verdict, cut) = tries + 1, _terminate(subject, 1, stage.chance)
    yield Finding("terminate", "SQLite, 1 worker", tries, harm, verdict, cut, broken)
    for kind, workers in deployments:
        share = max(1, rounds // len(deployments))
        with stage.subject(kind, workers=workers) as subject:
            verdict, cut = _terminate(subject, share, stage.chance)
        yield Finding("terminate", place(kind, workers), share, harm, verdict, cut)


def _terminate(
    subject: Subject, rounds: int, chance: random.Random
) -> tuple[Verdict, dict[str, int]]:
    for _ in range(rounds):
        subject.start()
        with subject.load() as load:
            load.wait_for(1)
            time.sleep(chance.uniform(*_LOAD_SECONDS))
            subject.server.process.send_signal(signal.SIGTERM)
            load.wait_until_gone()
        subject.server.process.wait(_STOP_SECONDS)
    verdict = examine(subject.database_url, subject.ledger)
    # A call that came as its connection was being closed was never begun, and is not on record.
    return verdict, {"calls cut": verdict.unanswered}
