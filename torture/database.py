"""PostgreSQL killed, and cut off, slow, refusing and vanishing behind a proxy, under load."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy.engine import make_url

from postgres import Cluster
from torture.proxy import Cut, Proxy
from torture.report import Finding, place
from torture.stage import Stage
from torture.subject import Subject
from torture.verdict import Verdict, settle

__all__ = ["behind_proxy", "crash", "cut_off", "gets_ready", "trouble"]

_TRIES = 20
_PAUSE_SECONDS = (0.02, 0.2)
_READY_SECONDS = 60
_NO_SPOOL = {"ONRECORD_SPOOL": "false"}
_CUTS: tuple[Cut, ...] = ("after", "before", "now")


def crash(stage: Stage, rounds: int, workers: Sequence[int] = (1, 2)) -> Iterator[Finding]:
    """SIGKILL PostgreSQL: all of it, and every other time one of its backends."""
    harm = "SIGKILLs of PostgreSQL"
    broken = "synchronous-off"
    with stage.subject("PostgreSQL", broken=broken) as subject:
        tries, verdict = 0, Verdict()
        while verdict.holds and tries < _TRIES:
            tries, verdict = tries + 1, _crash(subject, stage.cluster, 1, stage.chance)
    yield Finding("crash", "PostgreSQL, 1 worker", tries, harm, verdict, broken=broken)
    for count in workers:
        share = max(2, rounds // len(workers))
        with stage.subject("PostgreSQL", workers=count) as subject:
            verdict = _crash(subject, stage.cluster, share, stage.chance)
        yield Finding("crash", place("PostgreSQL", count), share, harm, verdict)


def _crash(subject: Subject, cluster: Cluster, rounds: int, chance: random.Random) -> Verdict:
    if not subject.running:
        subject.start()
    with subject.load(reconnect=True) as load:
        for number in range(rounds):
            load.wait_for(20)
            time.sleep(chance.uniform(*_PAUSE_SECONDS))
            if number % 2:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(cluster.children()), signal.SIGKILL)
            else:
                cluster.crash()
                cluster.start()
        load.wait_for(20)
    return settle(subject.database_url, subject.ledger)


def cut_off(stage: Stage, rounds: int, workers: Sequence[int] = (1, 2)) -> Iterator[Finding]:
    """Cut the server's connections to PostgreSQL, also between COMMIT and its reply."""
    harm = "cuts"
    for broken in ("insert-again", "answer-before-commit"):
        with behind_proxy(stage, broken=broken, settings=_NO_SPOOL) as (subject, proxy, url):
            verdict, settled = _cut_off(subject, proxy, url, _TRIES, stage.chance)
        yield Finding("cut-off", place("PostgreSQL", 1), proxy.cuts, harm, verdict, settled, broken)
    for count, settings in itertools.product(workers, ({}, _NO_SPOOL)):
        with behind_proxy(stage, workers=count, settings=settings) as (subject, proxy, url):
            share = -(-rounds // len(workers) // 2)
            verdict, settled = _cut_off(subject, proxy, url, share, stage.chance)
        where = place("PostgreSQL", count) + (", no spool" if settings else "")
        yield Finding("cut-off", where, proxy.cuts, harm, verdict, settled)


def _cut_off(
    subject: Subject, proxy: Proxy, url: str, cuts: int, chance: random.Random
) -> tuple[Verdict, dict[str, int]]:
    with subject.load(reconnect=True) as load:
        for when in itertools.cycle(_CUTS):
            if proxy.cuts >= cuts:
                break
            time.sleep(chance.uniform(*_PAUSE_SECONDS))
            proxy.cut(when)
            while proxy.armed:
                time.sleep(0.005)
            load.wait_for(5)
    return settle(url, subject.ledger), {"never ready again": int(not gets_ready(subject))}


def trouble(
    stage: Stage, rounds: int, kinds: Sequence[str] = ("slow", "refuses", "vanishes")
) -> Iterator[Finding]:
    """Let PostgreSQL be slow, refuse and vanish behind the proxy, each for `rounds` seconds.

    With the spool no call is refused meanwhile; without one all that are answered are on record.
    """
    with behind_proxy(stage, broken="ignore-commit-errors", settings=_NO_SPOOL) as (
        subject,
        proxy,
        url,
    ):
        verdict, more, *_ = _trouble(subject, proxy, url, "refuses", 1)
    yield Finding(
        "trouble", "PostgreSQL, refuses", 1, "seconds", verdict, more, "ignore-commit-errors"
    )
    for kind in kinds:
        with behind_proxy(stage) as (subject, proxy, url):
            verdict, more, refused, remark = _trouble(subject, proxy, url, kind, rounds)
        more |= {"refused": refused}
        yield Finding(
            "trouble", f"PostgreSQL, {kind}", rounds, "seconds", verdict, more, remark=remark
        )
    with behind_proxy(stage, settings=_NO_SPOOL) as (subject, proxy, url):
        verdict, more, refused, remark = _trouble(subject, proxy, url, "refuses", rounds)
    more |= {"none refused": int(not refused)}
    where = "PostgreSQL, refuses, no spool"
    yield Finding("trouble", where, rounds, "seconds", verdict, more, remark=remark)


def _trouble(
    subject: Subject, proxy: Proxy, url: str, kind: str, seconds: float
) -> tuple[Verdict, dict[str, int], int, str]:
    with subject.load(reconnect=True) as load:
        load.wait_for(100)
        before = load.ledger.refused
        if kind == "slow":
            proxy.delay(0.25)
        elif kind == "refuses":
            proxy.refuse()
        else:
            proxy.hold()
        time.sleep(seconds)
        refused = load.ledger.refused - before
        if kind == "slow":
            proxy.delay(0)
        elif kind == "refuses":
            proxy.accept()
        else:
            proxy.flow()
        back = time.monotonic()
        ready = gets_ready(subject)
        back = time.monotonic() - back
        if ready:
            load.wait_for(50)
    more = {"never ready again": int(not ready)}
    remark = f"{refused:,} refused, ready after {back:.1f} s"
    return settle(url, subject.ledger), more, refused, remark


def gets_ready(subject: Subject) -> bool:
    """Return whether the server says, within a minute, that it can answer."""
    end = time.monotonic() + _READY_SECONDS
    while not subject.ready:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def behind_proxy(
    stage: Stage,
    *,
    workers: int = 1,
    broken: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[tuple[Subject, Proxy, str]]:
    """Give a server that reaches PostgreSQL through a proxy, and the URL without it."""
    url = str(stage.database_url("PostgreSQL"))
    with Proxy(stage.cluster.port) as proxy:
        through = make_url(url).set(port=proxy.port).render_as_string()
        with stage.subject(database_url=through, workers=workers, broken=broken) as subject:
            subject.start(settings=settings)
            yield subject, proxy, url
