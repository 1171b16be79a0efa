"""PostgreSQL goes away under load, and what keeps its calls meanwhile is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from torture.database import behind_proxy, gets_ready
from torture.proxy import Proxy
from torture.report import Finding, place
from torture.stage import Stage
from torture.subject import Subject
from torture.verdict import Verdict, settle

__all__ = ["spool"]

_TRIES = 20
_AWAY_SECONDS = (0.2, 1.5)
_DRAIN_SECONDS = (0.0, 0.5)
_ANSWERS = 20


def spool(stage: Stage, rounds: int, workers: Sequence[int] = (1, 2)) -> Iterator[Finding]:
    """Take PostgreSQL away so many times in all; SIGKILL the writer then, the server, or both.

    In each round something is killed while the spool fills or while it is drained.
    """
    harm = "times away"
    for broken in ("forget-spooled", "drain-under-new-ids"):
        with behind_proxy(stage, broken=broken) as (subject, proxy, url):
            tries, verdict = 0, Verdict()
            while verdict.holds and tries < _TRIES:
                tries, verdict = tries + 1, _away(subject, proxy, url, 1, stage.chance)
        yield Finding("spool", place("PostgreSQL", 1), tries, harm, verdict, broken=broken)
    for count in workers:
        share = max(2, rounds // len(workers))
        with behind_proxy(stage, workers=count) as (subject, proxy, url):
            verdict = _away(subject, proxy, url, share, stage.chance)
            more = {"never ready again": int(not gets_ready(subject))}
        yield Finding("spool", place("PostgreSQL", count), share, harm, verdict, more)


def _away(subject: Subject, proxy: Proxy, url: str, rounds: int, chance: random.Random) -> Verdict:
    for _ in range(rounds):
        if not subject.running:
            subject.start()
        with subject.load(reconnect=True) as load:
            load.wait_for(_ANSWERS)
            proxy.refuse()
            load.wait_for(_ANSWERS)
            time.sleep(chance.uniform(*_AWAY_SECONDS))
            kills_server = chance.random() < 0.5
            if chance.random() < 0.5:
                _kill_writer(subject)
            if kills_server and chance.random() < 0.5:
                subject.server.kill()
            proxy.accept()
            time.sleep(chance.uniform(*_DRAIN_SECONDS))
            if kills_server and subject.running:
                subject.server.kill()
            elif not kills_server:
                _kill_writer(subject)
    if not subject.running:
        subject.start()
    return settle(url, subject.ledger)


def _kill_writer(subject: Subject) -> None:
    for process in subject.processes:
        with contextlib.suppress(OSError):
            if b"writer" in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGKILL)
