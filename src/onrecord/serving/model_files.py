"""The files of a model directory, read with bounds: whoever filled it may not be the operator.

A file is a regular one, inside the directory and no larger than it can be of use. So reading it
never waits for a writer, never leads to another file of the machine and never takes all memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from onrecord.errors import ModelDirectoryError

__all__ = [
    "BASELINE_FILE",
    "MAX_TEXT_BYTES",
    "MLMODEL_FILE",
    "SCHEMA_FILE",
    "memory_bytes",
    "read_file",
]

SCHEMA_FILE = "input_schema.json"
BASELINE_FILE = "baseline.json"
MLMODEL_FILE = "MLmodel"
"""What tells that a directory is one of MLflow's."""

MAX_TEXT_BYTES = 64 * 1024 * 1024
"""The most that a schema or a file of sample rows may have."""


def memory_bytes() -> int:
    """Return how much memory the machine has: no larger model file can be loaded."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def read_file(file: Path, *, max_bytes: int) -> bytes:
    """Return the bytes of a file that lies in a model directory.

    Raises ModelDirectoryError where it is missing, empty, not readable, larger than `max_bytes`,
    not a regular file, or a link that leads out of the directory.
    """
    with _opened(file, max_bytes) as opened:
        raw = opened.read()
    if not raw:
        raise ModelDirectoryError(file.name, None, "it is empty", "Save it again.")
    return raw


@contextmanager
def _opened(file: Path, max_bytes: int) -> Iterator[BinaryIO]:
    try:
        if not file.resolve(strict=True).is_relative_to(file.parent.resolve()):
            raise ModelDirectoryError(
                file.name,
                None,
                "it is a link that leads out of its directory",
                "Put the file itself there, or serve the directory in which it lies.",
            )
        # A FIFO would wait for whoever writes to it.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as opened:
            _check(file, os.fstat(descriptor), max_bytes)
            yield opened
    except FileNotFoundError as error:
        raise ModelDirectoryError(
            file.name,
            None,
            f"it is missing from {file.parent}",
            "Write it, or let `onrecord init MODEL DATA` write it from the training data.",
        ) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        reason = error.strerror if isinstance(error, OSError) else "it is a link to itself"
        raise ModelDirectoryError(
            file.name,
            None,
            f"it cannot be read: {reason}",
            "Make it a file that the server's user may read.",
        ) from error


def _check(file: Path, status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ModelDirectoryError(
            file.name,
            None,
            "it cannot be read: it is not a regular file",
            "Put a file of that name there.",
        )
    if status.st_size > max_bytes:
        raise ModelDirectoryError(
            file.name,
            None,
            f"it has {status.st_size} bytes, and at most {max_bytes} can be read here",
            "Check that it is the right file.",
        )
