"""Files beside a model and its schema that are not as they are on record.

A version is its model, its schema and its label, and their hashes name it. What stands beside them
(sample rows, golden rows, a baseline) can be another the next time the directory is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from onrecord.insight.baselines import OF_FILE, add_of_file
from onrecord.record import baselines
from onrecord.record.model_versions import files_of, replace_files
from onrecord.serving.artifact import COMPANIONS
from onrecord.serving.model_files import BASELINE_FILE

__all__ = ["differing_companions", "replace_companions"]

_Content = bytes | None


def differing_companions(
    connection: Connection, model_version_id: int, files: Mapping[str, bytes]
) -> dict[str, tuple[_Content, _Content]]:
    """Return the companions that are not as on record, by name.

    Of each that is what the record has and what is among `files`, None where there is none.
    """
    there = files_of(connection, model_version_id, COMPANIONS)
    pairs = {name: (there.get(name), files.get(name)) for name in COMPANIONS}
    return {name: (before, now) for name, (before, now) in pairs.items() if before != now}


def replace_companions(
    connection: Connection,
    model_version_id: int,
    differing: Mapping[str, tuple[_Content, _Content]],
) -> dict[str, Any]:
    """Store companions in place of those on record; return the hashes of both, by name.

    A baseline that was taken from the file gives way to the new one, one that was frozen does not.
    Raises ModelDirectoryError where the new one cannot be used.
    """
    replace_files(connection, model_version_id, {name: now for name, (_, now) in differing.items()})
    _, baseline = differing.get(BASELINE_FILE, (None, None))
    newest = baselines.newest(connection, model_version_id)
    if baseline is not None and newest is not None and newest.operator == OF_FILE.operator:
        add_of_file(connection, model_version_id, baseline)
    return {
        name: {"before": _sha256(before), "now": _sha256(now)}
        for name, (before, now) in differing.items()
    }


def _sha256(raw: bytes | None) -> str | None:
    return None if raw is None else hashlib.sha256(raw).hexdigest()
