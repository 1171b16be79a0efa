"""The gate: what a candidate must show before it becomes the live version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from onrecord.insight.compatibility import narrowings
from onrecord.insight.recorded_calls import Meant, recorded_calls
from onrecord.insight.replay import Replay, ReplayReport
from onrecord.record.database import Database
from onrecord.serving.artifact import Model

__all__ = ["GateReport", "GateRules", "examine"]

_MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class GateRules:
    """What is asked of a candidate.

    The newest `replay_calls` answered calls are replayed; at most `max_changed` (a share, 0 to 1)
    of their rows may be answered otherwise, None: any. A number has changed where it differs by
    more than `tolerance`. With `allow_schema_change` the candidate may accept less than the live
    version, and rows that it refuses count as changed.
    """

    allow_schema_change: bool = False
    replay_calls: int = 1000
    max_changed: float | None = None
    tolerance: float = 1e-6


@dataclass(frozen=True, slots=True)
class GateReport:
    """What was found: `reasons` say why the candidate has not `passed`, none where it has.

    `schema` lists what is narrower than it was. A model that can be loaded answers its
    `golden_rows` as it is to; that is how many they are. `replay` is None where nothing was
    replayed.
    """

    passed: bool
    reasons: list[str]
    schema: list[str]
    golden_rows: int
    replay: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def examine(
    database: Database,
    candidate: Model,
    live: Model | None,
    rules: GateRules,
    reveal: Callable[[bytes], bytes] = lambda raw: raw,
) -> GateReport:
    """Examine a candidate beside the live version; without one there is nothing to compare."""
    schema = [] if live is None else narrowings(live.schema, candidate.schema)
    replayed = None
    if live is not None and rules.replay_calls:
        replay = Replay(candidate, tolerance=rules.tolerance)
        for calls in recorded_calls(database, Meant(live.name, newest=rules.replay_calls), reveal):
            replay.feed(calls)
        replayed = replay.report()
    reasons = [] if rules.allow_schema_change else [f"schema: {it}" for it in schema[:_MOST_TOLD]]
    reasons += [] if replayed is None else _reasons(replayed, rules)
    return GateReport(
        not reasons,
        reasons,
        schema,
        len(candidate.golden_rows),
        None if replayed is None else asdict(replayed),
    )


def _reasons(report: ReplayReport, rules: GateRules) -> list[str]:
    reasons = []
    if report.new_errors and not rules.allow_schema_change:
        example = report.error_examples[0]
        reasons.append(
            f"replay: {report.new_errors} rows that were answered would not be, such as "
            f"{example['prediction_id']}: {example['error']}"
        )
    if rules.max_changed is not None and report.share_changed > rules.max_changed:
        reasons.append(
            f"replay: {report.share_changed:.2%} of {report.rows + report.new_errors} rows are "
            f"answered otherwise, and at most {rules.max_changed:.2%} may be"
        )
    return reasons
