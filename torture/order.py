"""Each answer was sent after the sync that put its call on the disk had returned, says strace."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from torture import trace
from torture.report import Finding, place
from torture.stage import Stage
from torture.verdict import Verdict, examine

__all__ = ["answers_in", "order"]

_ANSWERS_A_RUN = 2000
_ANSWERS_OF_A_BROKEN_BUILD = 200
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_ANSWER = re.compile(rb"HTTP/1\.1 (?:200|400) .*?\r\nx-request-id: ([0-9a-f-]{36})\r\n", re.DOTALL)

# https://www.sqlite.org/fileformat2.html#walformat
_WAL_HEADER = 32
_FRAME_HEADER = 24


@dataclass
class _Order:
    """When calls were committed to the log, when it was synced, and when answers were sent."""

    committed: dict[bytes, int] = field(default_factory=dict)
    syncs: list[tuple[int, int]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)


def order(stage: Stage, rounds: int, workers: Sequence[int] = (1, 2)) -> Iterator[Finding]:
    """Prove the order of log, sync and answer for so many answers."""
    for broken in ("synchronous-off", "answer-before-commit"):
        yield _prove(stage, _ANSWERS_OF_A_BROKEN_BUILD, workers=1, broken=broken)
    for count in workers:
        yield _prove(stage, rounds // len(workers), workers=count)


def _prove(stage: Stage, answers: int, *, workers: int, broken: str | None = None) -> Finding:
    proven = early = unlogged = 0
    whole = Verdict()
    while proven + early + unlogged < answers:
        with stage.subject(workers=workers, broken=broken) as subject:
            log = subject.data_dir.with_suffix(".strace")
            subject.start(under=trace.command(log))
            with subject.load() as load:
                load.wait_for(min(answers, _ANSWERS_A_RUN), seconds=600)
            subject.stop()
            verdict = examine(subject.database_url, subject.ledger)
            seen = _read(trace.read(log), subject.data_dir / "record.db-wal")
            log.unlink()
        earliest = list(accumulate((r for _, r in reversed(seen.syncs)), min))[::-1]
        for request_id in subject.ledger.answered:
            committed = seen.committed.get(request_id.encode())
            if committed is None:
                unlogged += 1
                continue
            sync = bisect.bisect_right(seen.syncs, (committed, committed))
            if sync < len(earliest) and earliest[sync] < seen.sent[request_id]:
                proven += 1
            else:
                early += 1
        whole.add(verdict)
    more = {"sent before the sync": early, "sent and not in the log": unlogged}
    where = place("SQLite", workers)
    return Finding("order", where, proven, "answers after their sync", whole, more, broken)


def answers_in(call: trace.Call) -> list[str]:
    """Return the ids of the calls that are answered by what is sent."""
    return [request_id.decode() for request_id in _ANSWER.findall(call.data)]


def _read(calls: Iterable[trace.Call], log: Path) -> _Order:
    seen = _Order()
    uncommitted: set[bytes] = set()
    ends = False
    for call in calls:
        if call.sends:
            for request_id in answers_in(call):
                seen.sent[request_id] = call.entered
        elif call.path != str(log) or call.returned is None or call.result == -1:
            continue
        elif call.syncs:
            seen.syncs.append((call.entered, call.returned))
        elif len(call.data) == _FRAME_HEADER:
            # A frame that says how large the database is ends a transaction.
            ends = any(call.data[4:8])
        elif len(call.data) > _WAL_HEADER:
            uncommitted.update(_ID.findall(call.data))
            if ends:
                for found in uncommitted:
                    seen.committed.setdefault(found, call.returned)
                uncommitted.clear()
    seen.syncs.sort()
    return seen
