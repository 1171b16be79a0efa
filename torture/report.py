"""What a harness found, and the table of all of it."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torture.verdict import Verdict

__all__ = ["Finding", "disk_sync_microseconds", "place", "table"]

_SYNCS = 300


@dataclass(frozen=True)
class Finding:
    """What came of one harness over one database.

    `rounds` says how often it did its harm and `harm` what that was. `more` counts what must not
    be either, beside what the verdict has; of a `broken` build something must be.
    """

    harness: str
    where: str
    rounds: int
    harm: str
    verdict: Verdict
    more: Mapping[str, int] = field(default_factory=dict)
    broken: str | None = None
    remark: str = ""

    @property
    def holds(self) -> bool:
        """Whether the promise held."""
        return self.verdict.holds and not any(self.more.values())

    @property
    def as_expected(self) -> bool:
        """Whether the product held, or the broken build was caught."""
        return self.holds is (self.broken is None)


def place(kind: str, workers: int) -> str:
    """Return the name of a deployment."""
    return f"{kind}, {workers} worker{'s' if workers > 1 else ''}"


_COLUMNS = (
    "harness",
    "where",
    "build",
    "harm",
    "answered",
    "missing",
    "altered",
    "twice",
    "other faults",
)


def table(findings: Iterable[Finding]) -> str:
    """Return the findings as a Markdown table."""
    lines = [[*_COLUMNS, "result"]]
    for found in findings:
        verdict = found.verdict
        counts = (
            verdict.answered,
            verdict.missing,
            verdict.altered,
            verdict.duplicated,
            verdict.partial + verdict.foreign + verdict.damaged,
        )
        if found.broken:
            result = "NOT CAUGHT" if found.holds else "caught"
        else:
            result = "held" if found.holds else "FAILED"
        remarks = [f"{count:,} {what}" for what, count in found.more.items() if count]
        remarks += [found.remark] if found.remark else []
        lines.append(
            [
                found.harness,
                found.where,
                found.broken or "onrecord",
                f"{found.rounds:,} {found.harm}",
                *(f"{count:,}" for count in counts),
                "; ".join([result, *remarks]),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    rows.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(rows)


def disk_sync_microseconds(directory: Path) -> float:
    """Return the median time that appending 4 KiB and fdatasync take there."""
    took = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(_SYNCS):
            start = time.perf_counter()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - start)
    return statistics.median(took) * 1e6
