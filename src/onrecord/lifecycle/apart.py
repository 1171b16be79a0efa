"""Work with a model's files in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from onrecord.errors import OnrecordError, WorkFailed

__all__ = ["run_apart"]

_SECONDS = 600.0

T = TypeVar("T")


def run_apart(name: str, work: Callable[[], T]) -> T:
    """Return what `work` returns in a new process; it and its result can be pickled.

    Loading and converting a model holds up whoever does it for seconds, and a file can crash the
    library that reads it. `name` says in an error what was done. Raises WorkFailed where `work`
    raises OnrecordError, where its process dies, and after ten minutes.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_here, args=(sender, work), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(_SECONDS):
            raise WorkFailed(f"{name} took longer than {_SECONDS:g} seconds")
        done, result = receiver.recv()
    except EOFError as error:
        process.join()
        raise WorkFailed(f"{name} died, with exit code {process.exitcode}") from error
    finally:
        process.kill()
        process.join()
        receiver.close()
    if not done:
        raise WorkFailed(f"{name} failed: {result}")
    return result  # type: ignore[no-any-return]


def _work_here(sender: Connection[Any, Any], work: Callable[[], T]) -> None:
    try:
        sender.send((True, work()))
    except OnrecordError as error:
        sender.send((False, str(error)))
