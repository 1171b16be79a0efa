"""Traffic: how many calls came, what became of them, and how long the answers took."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection

from onrecord.record import traffic
from onrecord.record.commit_order import complete_up_to
from onrecord.record.database import Database
from onrecord.record.model_versions import StoredVersion, versions
from onrecord.record.tables import utc_text

__all__ = ["MOST_FIELDS", "Tally", "Traffic"]

MOST_FIELDS = 50
"""How many different refused fields are told apart in a version's slice."""

_CALLS_AT_ONCE = 5000
_OF_ROW = re.compile(r"^/rows/\d+(?=/|$)")
_OTHERS = "others"
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Tally(msgspec.Struct):
    """What became of some calls of one version.

    `durations` counts the answered ones by bin, `errors` the refused ones by error code, `statuses`
    by status. `fields` counts in how many calls each field was refused, whichever row it was in.
    """

    durations: dict[int, int] = {}
    statuses: dict[int, int] = {}
    errors: dict[str, int] = {}
    fields: dict[str, int] = {}

    @property
    def answered(self) -> int:
        """How many calls were answered."""
        return sum(self.durations.values())

    @property
    def refused(self) -> int:
        """How many calls were refused."""
        return sum(self.statuses.values())

    def add(self, other: Tally) -> None:
        """Count the calls of another tally, too."""
        for mine, more in (
            (self.durations, other.durations),
            (self.statuses, other.statuses),
            (self.errors, other.errors),
            (self.fields, other.fields),
        ):
            _add(mine, more)

    def quantiles(self) -> dict[str, float | None]:
        """Return the percentiles of the durations, in microseconds and right to a tenth or so."""
        return {name: _quantile(self.durations, share) for name, share in _SHARES.items()}


_Document = dict[int, Tally]
"""The tallies of a slice by the key of their version, 0 where none was reached."""


class Traffic:
    """The traffic of one record."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def update(self, batches: int | None = None) -> bool:
        """Count what came onto the record since, and return whether all of it is counted.

        Each of at most `batches` is of 5,000 calls. Whoever else counts meanwhile counts no call
        twice.
        """
        complete = complete_up_to(self._database)
        with self._database.read() as connection:
            done = traffic.done_up_to(connection)
        while done < complete and batches != 0:
            to = min(complete, done + _CALLS_AT_ONCE)
            with self._database.read() as connection:
                found = _documents(
                    traffic.answered(connection, done, to), traffic.refused(connection, done, to)
                )
            if not self._put(done, to, found):
                return False
            done = to
            batches = None if batches is None else batches - 1
        return done >= complete

    def report(self, since: datetime, until: datetime, step: timedelta) -> dict[str, Any]:
        """Return the traffic of the slices that begin in a time.

        `step` and both ends are multiples of ten minutes; it is quicker where they are of three
        hours. `series` has a point for each `step`, also where no call came;
        `versions` one entry for each version that was called, and one without a number where none
        was reached. Durations are in microseconds.
        """
        with self._database.read() as connection:
            length = max(it for it in traffic.SLICES if not step % it)
            texts = traffic.documents(connection, length, since, until)
            known = {version.id: version for version in versions(connection)}
        whole = Tally()
        by_version: dict[int, Tally] = {}
        points: dict[int, Tally] = {n: Tally() for n in range(max(1, -((since - until) // step)))}
        for begin, text in texts.items():
            for key, tally in msgspec.json.decode(text, type=_Document).items():
                whole.add(tally)
                by_version.setdefault(key, Tally()).add(tally)
                points[(begin - since) // step].add(tally)
        return {
            "since": utc_text(since),
            "until": utc_text(until),
            "step_seconds": int(step.total_seconds()),
            **_figures(whole),
            "statuses": _sorted(whole.statuses),
            "errors": _sorted(whole.errors),
            "fields": _sorted(whole.fields),
            "series": [
                {"at": utc_text(since + n * step), **_figures(tally)}
                for n, tally in sorted(points.items())
            ],
            "versions": [
                {**_named(known.get(key)), **_figures(by_version[key])}
                for key in sorted(by_version, key=lambda key: -by_version[key].answered)
            ],
        }

    def _put(self, done: int, to: int, found: Mapping[datetime, _Document]) -> bool:
        with self._database.write() as connection:
            if not traffic.advance(connection, done, to):
                return False
            for length in traffic.SLICES:
                _merge(connection, length, found)
        return True


def _merge(connection: Connection, length: timedelta, found: Mapping[datetime, _Document]) -> None:
    """Add what was found, by ten minutes, to the slices of a length."""
    starts = {traffic.slice_of(since, length) for since in found}
    if not starts:
        return
    before = traffic.documents(connection, length, min(starts), max(starts) + length)
    merged = {at: msgspec.json.decode(before.get(at, "{}"), type=_Document) for at in starts}
    for since, document in found.items():
        known = merged[traffic.slice_of(since, length)]
        for key, tally in document.items():
            known.setdefault(key, Tally()).add(tally)
    texts = {at: msgspec.json.encode(document).decode() for at, document in merged.items()}
    traffic.put_documents(connection, length, texts)


def _documents(
    answered: Iterable[traffic.Answered], refused: Iterable[traffic.Refused]
) -> dict[datetime, _Document]:
    found: dict[datetime, _Document] = {}

    def tally(since: datetime, key: int | None) -> Tally:
        return found.setdefault(since, {}).setdefault(key or 0, Tally())

    for it in answered:
        _add(tally(it.since, it.model_version_id).durations, {it.bin: it.calls})
    for no in refused:
        of_it = tally(no.since, no.model_version_id)
        _add(of_it.statuses, {no.status: no.calls})
        _add(of_it.errors, {no.error_code or "none": no.calls})
        names = {_OF_ROW.sub("", field) or "/" for field in no.fields}
        _add(of_it.fields, dict.fromkeys(names, no.calls))
    return found


def _add(mine: dict[Any, int], more: Mapping[Any, int]) -> None:
    for name, calls in more.items():
        known = name in mine or len(mine) < MOST_FIELDS or not isinstance(name, str)
        place = name if known else _OTHERS
        mine[place] = mine.get(place, 0) + calls


def _figures(tally: Tally) -> dict[str, Any]:
    return {
        "calls": tally.answered + tally.refused,
        "answered": tally.answered,
        "refused": tally.refused,
        "duration_us": tally.quantiles(),
    }


def _sorted(counts: Mapping[Any, int]) -> list[dict[str, Any]]:
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return [{"name": name, "calls": counts[name]} for name in names]


def _named(version: StoredVersion | None) -> dict[str, Any]:
    if version is None:
        return {"model": None, "number": None, "version": None}
    return {"model": version.name, "number": version.number, "version": version.version}


def _quantile(durations: Mapping[int, int], share: float) -> float | None:
    """Return a quantile, read off between the edges of the bin that it is in."""
    left = share * sum(durations.values())
    for place, calls in sorted(durations.items()):
        if left <= calls:
            low = 2 ** (place / traffic.BINS_AN_OCTAVE)
            return round(low * 2 ** (left / calls / traffic.BINS_AN_OCTAVE), 1)
        left -= calls
    return None
