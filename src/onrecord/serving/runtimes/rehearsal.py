"""Loads a model in a process of its own first, where a damaged file can end the process."""

from __future__ import annotations

import subprocess
import sys

from onrecord.errors import ModelDirectoryError

__all__ = ["rehearse"]

_SECONDS = 120


def rehearse(program: str, raw: bytes, file: str, seconds: float = _SECONDS) -> None:
    """Run a Python program with the file's bytes as its input.

    Raises ModelDirectoryError where a signal ends it or it does not end. An exception in it is no
    matter of this function: the same will be raised where the file is loaded in earnest.
    """
    try:
        # The program is ours, and the bytes are only its input.
        ended = subprocess.run(  # noqa: S603
            [sys.executable, "-c", program],
            input=raw,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
        how = "crashes its library" if ended.returncode < 0 else None
    except subprocess.TimeoutExpired:
        how = f"keeps its library busy for more than {seconds:.0f} s"
    if how is not None:
        raise ModelDirectoryError(
            file, None, f"it is damaged: reading it {how}", "Save the model again."
        )
