"""The gate's examination of a stored version, here or in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from onrecord.errors import OnrecordError, WorkFailed
from onrecord.insight.gate import GateReport, GateRules, examine
from onrecord.lifecycle.apart import run_apart
from onrecord.lifecycle.fleet import Load, load_stored
from onrecord.record.database import Database
from onrecord.record.model_versions import StoredVersion

__all__ = ["Examiner", "examine_apart", "examine_stored"]


@dataclass(frozen=True)
class Examiner:
    """What an examination needs: the record, how a model is loaded and how inputs are decrypted."""

    database: Database
    load: Load
    reveal: Callable[[bytes], bytes]


def examine_stored(
    examiner: Examiner, candidate: StoredVersion, live: StoredVersion | None, rules: GateRules
) -> GateReport:
    """Examine a stored version beside the live one; one that cannot be loaded does not pass."""
    try:
        model = load_stored(examiner.database, candidate, examiner.load)
    except OnrecordError as error:
        return _refused(f"it cannot be loaded: {error}")
    beside = None if live is None else load_stored(examiner.database, live, examiner.load)
    return examine(examiner.database, model, beside, rules, examiner.reveal)


def examine_apart(
    make: Callable[[], Examiner],
    candidate: StoredVersion,
    live: StoredVersion | None,
    rules: GateRules,
) -> GateReport:
    """Examine as `examine_stored` does, in a process of its own.

    `make` makes the examiner there, and can be pickled. An examination that comes to no end is a
    refusal.
    """
    try:
        return run_apart("the examination", partial(_examine, make, candidate, live, rules))
    except WorkFailed as error:
        return _refused(str(error))


def _examine(
    make: Callable[[], Examiner],
    candidate: StoredVersion,
    live: StoredVersion | None,
    rules: GateRules,
) -> GateReport:
    return examine_stored(make(), candidate, live, rules)


def _refused(reason: str) -> GateReport:
    return GateReport(False, [reason], [], 0, None)
