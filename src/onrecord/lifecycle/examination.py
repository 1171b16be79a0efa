"""The gate's examination of a stored version, here or in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from onrecord.errors import OnrecordError
from onrecord.insight.gate import GateReport, GateRules, examine
from onrecord.lifecycle.fleet import Load, load_stored
from onrecord.record.database import Database
from onrecord.record.model_versions import StoredVersion

__all__ = ["Examiner", "examine_apart", "examine_stored"]

_SECONDS = 600.0


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

    Loading and converting a model holds up whoever does it for seconds, and a file can crash the
    library that reads it. `make` makes the examiner there, and can be pickled. A process that dies,
    or has not ended after ten minutes, is a refusal.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_examine_here, args=(sender, make, candidate, live, rules), daemon=True
    )
    process.start()
    sender.close()
    try:
        if not receiver.poll(_SECONDS):
            return _refused(f"the examination took longer than {_SECONDS:g} seconds")
        found: GateReport | str = receiver.recv()
    except EOFError:
        process.join()
        return _refused(f"the examination died, with exit code {process.exitcode}")
    finally:
        process.kill()
        process.join()
        receiver.close()
    return _refused(found) if isinstance(found, str) else found


def _examine_here(
    sender: Connection[Any, Any],
    make: Callable[[], Examiner],
    candidate: StoredVersion,
    live: StoredVersion | None,
    rules: GateRules,
) -> None:
    try:
        sender.send(examine_stored(make(), candidate, live, rules))
    except OnrecordError as error:
        sender.send(f"the examination failed: {error}")


def _refused(reason: str) -> GateReport:
    return GateReport(False, [reason], [], 0, None)
