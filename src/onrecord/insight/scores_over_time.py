"""How the scores of a version were spread in each hour, read off the sketches that drift keeps."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from onrecord.insight.sketch import Sketch, Spread
from onrecord.record import baselines
from onrecord.record.baselines import Baseline
from onrecord.record.database import Database
from onrecord.record.tables import utc_text

__all__ = ["scores_over_time"]

_SHARES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


def scores_over_time(
    database: Database, baseline: Baseline, since: datetime, until: datetime | None = None
) -> list[dict[str, Any]]:
    """Return for each number that a version answers its 10th, 50th and 90th percentile by hour.

    Of two classes only the second one's probability is told, as the first one's says the same.
    Hours that nobody has counted yet, or without a call, have no point.
    """
    with database.read() as connection:
        found = baselines.sketches(connection, baseline.id, since, until)
    hours = {at: msgspec.json.decode(text, type=Sketch) for at, text in found.items()}
    names = [
        name
        for name, spread in msgspec.json.decode(baseline.document, type=Sketch).scores.items()
        if spread.kind == "number"
    ]
    return [
        {
            "name": name,
            "series": [
                {"at": utc_text(at), "rows": spread.rows, **_percentiles(spread)}
                for at, sketch in hours.items()
                if (spread := sketch.scores.get(name)) is not None and any(spread.counts)
            ],
        }
        for name in (names[1:] if len(names) == 2 else names)  # noqa: PLR2004 - two classes
    ]


def _percentiles(spread: Spread) -> dict[str, float]:
    return {name: _quantile(spread, share) for name, share in _SHARES.items()}


def _quantile(spread: Spread, share: float) -> float:
    """Return a quantile, read off between the edges of the bin that it is in."""
    bounds = [spread.low, *spread.edges, spread.high]
    left = share * sum(spread.counts)
    for place, count in enumerate(spread.counts):
        if left <= count and count:
            low, high = bounds[place], bounds[place + 1]
            return low + (high - low) * left / count
        left -= count
    return spread.high
