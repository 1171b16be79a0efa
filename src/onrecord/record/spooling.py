"""Spooling: calls go on record in the database, and to the spool while the database is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from onrecord.record.call import RecordedCall
from onrecord.record.commits import Commits, Outcome
from onrecord.record.database import Database
from onrecord.record.spool import Spool, SpooledCall

__all__ = ["Drain", "Spooling"]

_TRY_SECONDS = 1.0
_KEYED = (
    "it has an idempotency key, and nobody can tell whether that is held while PostgreSQL is away"
)

_log = logging.getLogger(__name__)


class Spooling:
    """Puts batches of calls on record as `Commits` does, and into a spool where that fails.

    As soon as the database answers again, calls go there directly, while those in the spool follow
    from a thread of its own.
    """

    def __init__(self, database: Database, spool: Spool) -> None:
        self._commits = Commits(database)
        self._spool = spool
        self._away = False
        self._drain = Drain(database, spool)
        self._over = threading.Event()
        self._wanted = threading.Event()
        if spool.waits():
            self._wanted.set()
        self._thread = threading.Thread(target=self._keep_draining, name="drain", daemon=True)
        self._thread.start()

    def record(self, calls: Sequence[RecordedCall]) -> Outcome:
        """Return once every call is durably on record or in the spool, or is refused.

        One with an idempotency key is not spooled: another call may hold that by now.
        """
        direct = Outcome(healthy=True, refused={})
        unsure: Sequence[int] = range(len(calls))
        if not self._away:
            direct = self._commits.record(calls)
            if direct.healthy:
                return direct
            reason = next(iter(direct.refused.values()), "it does not answer")
            _log.error("the database is away, calls go to the spool: %s", reason)
            self._away = True
            # What the database may have taken all the same is found there when the spool drains.
            unsure = list(direct.refused)
        refused = {place: _KEYED for place in unsure if calls[place].idempotency_key is not None}
        kept = [place for place in unsure if place not in refused]
        try:
            self._spool.put([calls[place] for place in kept])
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the next batch is due
            return Outcome(False, refused | dict.fromkeys(kept, str(error)), direct.repeated)
        else:
            return Outcome(True, refused, direct.repeated)
        finally:
            self._wanted.set()

    def close(self) -> None:
        """Let go of the database and the spool; what waits there is drained at the next start."""
        self._over.set()
        self._wanted.set()
        self._thread.join(_TRY_SECONDS)
        if not self._thread.is_alive():
            self._drain.close()
        self._commits.close()
        self._spool.close()

    def _keep_draining(self) -> None:
        while not self._over.is_set():
            self._wanted.wait()
            self._wanted.clear()
            while not self._over.is_set():
                try:
                    drained = self._drain.run(self._is_back)
                except Exception:  # noqa: BLE001 - it outlives whatever a driver raises
                    _log.exception("the spool could not be drained")
                    drained = False
                if drained:
                    break
                self._over.wait(_TRY_SECONDS)

    def _is_back(self) -> None:
        if self._away:
            self._away = False
            _log.warning("the database is back, the spool is drained")


class Drain:
    """Moves calls from a spool to the database, each exactly once.

    A call is forgotten by the spool after its commit. Where that does not come about, or a commit
    went through whose reply was lost, it is found on record by its id the next time.
    """

    def __init__(self, database: Database, spool: Spool) -> None:
        self._commits = Commits(database)
        self._spool = spool

    def run(self, is_back: Callable[[], None] = lambda: None) -> bool:
        """Return whether all that waited is on record or refused, False where the database fails.

        `is_back` is called each time that the database has answered.
        """
        while waiting := self._spool.first():
            if not self._move(waiting):
                return False
            is_back()
        if not self._commits.record([]).healthy:
            return False
        is_back()
        self._spool.tidy()
        return True

    def close(self) -> None:
        """Let go of the database."""
        self._commits.close()

    def _move(self, waiting: Sequence[SpooledCall]) -> bool:
        """Return whether the database answered: then these calls wait no more."""
        there = self._commits.on_record([spooled.call.id for spooled in waiting])
        if there is None:
            return False
        missing = [spooled for spooled in waiting if spooled.call.id not in there]
        if missing:
            outcome = self._commits.record([spooled.call for spooled in missing])
            if not outcome.healthy:
                return False
            if outcome.refused and not self._refuse(missing, outcome):
                return False
        self._spool.remove([spooled.number for spooled in waiting])
        return True

    def _refuse(self, batch: Sequence[SpooledCall], outcome: Outcome) -> bool:
        """Keep what the database refused, unless it did so because the call is there by now."""
        there = self._commits.on_record([batch[place].call.id for place in outcome.refused])
        if there is None:
            return False
        reasons = {
            batch[place].number: reason
            for place, reason in outcome.refused.items()
            if batch[place].call.id not in there
        }
        if reasons:
            self._spool.refuse(reasons)
            reason = next(iter(reasons.values()))
            _log.error("%d spooled calls were refused and stay there: %s", len(reasons), reason)
        return True
