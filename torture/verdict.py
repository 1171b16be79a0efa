"""The record read directly and compared with what the callers know."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy.exc import OperationalError

from onrecord.record.database import Database
from torture.ledger import Ledger, digest

__all__ = ["ROWS", "Verdict", "examine", "judge", "settle"]

ROWS = """
SELECT CAST(requests.id AS text), requests.input, responses.output
FROM requests LEFT JOIN responses ON responses.request_id = requests.id
"""
"""What `judge` compares."""

_ORPHANS = "SELECT count(*) FROM responses WHERE request_id NOT IN (SELECT id FROM requests)"
_SECONDS_BETWEEN_LOOKS = 0.25
_PATIENCE_SECONDS = 5.0
_RECOVERY_SECONDS = 60.0


@dataclass
class Verdict:
    """What a record is worth.

    missing: answered, and not there. altered: there with other bytes than were sent or answered.
    duplicated: one call there under two ids. partial: half of a call. foreign: nobody sent it.
    unanswered: there, though no answer of it arrived, which is no fault unless a harness says so.
    `faults` has some ids or messages to look for.
    """

    answered: int = 0
    missing: int = 0
    altered: int = 0
    duplicated: int = 0
    partial: int = 0
    foreign: int = 0
    unanswered: int = 0
    damaged: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every answered call is on record exactly once, and nothing is half written."""
        wrong = self.missing, self.altered, self.duplicated, self.partial, self.foreign
        return not any(wrong) and not self.damaged

    def add(self, other: Verdict) -> None:
        """Add what another record is worth."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        del self.faults[10:]

    def note(self, kind: str, what: str) -> None:
        """Count one fault."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.faults) < 10:
            self.faults.append(f"{kind}: {what}")


def judge(rows: Iterator[tuple[str, bytes, bytes | None]], ledger: Ledger) -> Verdict:
    """Compare the rows of a record (id, input, output) with a ledger."""
    verdict = Verdict(answered=len(ledger.answered))
    missing = set(ledger.answered)
    seen: set[bytes] = set()
    for request_id, sent, output in rows:
        this = digest(sent)
        if this in seen:
            verdict.note("duplicated", request_id)
        seen.add(this)
        if output is None:
            verdict.note("partial", request_id)
        elif request_id not in ledger.answered:
            verdict.unanswered += 1
            if this not in ledger.open:
                verdict.note("foreign", request_id)
        elif ledger.answered[request_id] != digest(sent, output):
            verdict.note("altered", request_id)
        missing.discard(request_id)
    for request_id in missing:
        verdict.note("missing", request_id)
    return verdict


def examine(database_url: str, ledger: Ledger, *, alone: bool = True) -> Verdict:
    """Read a whole record and compare it with a ledger, whose callers were `alone` or not."""
    database = Database(database_url)
    try:
        with database.read() as connection:
            rows = connection.execution_options(yield_per=1000).exec_driver_sql(ROWS)
            own = ((i, q, o) for i, q, o in rows if alone or i in ledger.answered)
            verdict = judge(((i, bytes(q), o and bytes(o)) for i, q, o in own), ledger)
            for _ in range(connection.exec_driver_sql(_ORPHANS).scalar_one()):
                verdict.note("partial", "a response without a request")
            if database.dialect == "sqlite":
                found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
                if found != ["ok"]:
                    verdict.note("damaged", str(found))
    finally:
        database.close()
    return verdict


def settle(database_url: str, ledger: Ledger) -> Verdict:
    """Return the verdict as soon as nothing is missing, or once it has been the same for a while.

    A server may keep answered calls elsewhere on disk while its database is away; once both run
    again, these have to arrive. A database that is still recovering is waited for.
    """
    end, least = 0.0, None
    patience = time.monotonic() + _RECOVERY_SECONDS
    while True:
        try:
            verdict = examine(database_url, ledger)
        except OperationalError:
            if time.monotonic() > patience:
                raise
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            continue
        if least is None or verdict.missing < least:
            end, least = time.monotonic() + _PATIENCE_SECONDS, verdict.missing
        if not verdict.missing or time.monotonic() > end:
            return verdict
        time.sleep(_SECONDS_BETWEEN_LOOKS)
