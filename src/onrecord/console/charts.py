"""What `charts.js` draws, as values; a table of them stands beside each chart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

__all__ = ["chart"]


def chart(
    times: Sequence[str], lines: Sequence[tuple[str, Sequence[float | None], str]], unit: str = ""
) -> dict[str, Any]:
    """Return lines over time: each has a label, its values and a colour of `console.css`."""
    return {
        "unit": unit,
        "at": list(times),
        "seconds": [datetime.fromisoformat(it).timestamp() for it in times],
        "lines": [
            {"label": label, "values": list(values), "colour": colour}
            for label, values, colour in lines
        ],
    }
