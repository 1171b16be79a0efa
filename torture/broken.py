"""onrecord, broken on purpose in one way: `python -m torture.broken WAY serve ...`.

A harness that finds nothing wrong with a build that is known to be wrong shows nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from uvicorn import Server

from onrecord.cli import main
from onrecord.errors import Unavailable
from onrecord.kept_process import KeptProcess
from onrecord.record import writer_process
from onrecord.record.call import RecordedCall
from onrecord.record.writer import Writer
from onrecord.serving.admission import Admission
from onrecord.serving.prediction import Predictor
from onrecord.serving.served import ServedModel, ServedModels
from torture import broken_writer
from torture.broken_writer import WAY

Settled = Callable[[Unavailable | None], None]


def answer_before_commit() -> None:
    """Tell every call that it is on record as soon as it waits."""
    submit = Writer.submit

    def submit_and_settle(self: Writer, call: RecordedCall, settled: Settled) -> None:
        submit(self, call, lambda _: None)
        settled(None)

    Writer.submit = submit_and_settle  # type: ignore[method-assign]


def ignore_commit_errors() -> None:
    """Tell calls that they are on record though their commit failed."""
    Writer._refuse = lambda self, batch, _: self._settle(batch, None)  # type: ignore[method-assign]


def in_the_writer(way: str) -> None:
    """Have the writer's process be a broken one."""
    start = writer_process.KeptProcess

    def start_broken(_: str, order: bytes, **more: Any) -> KeptProcess:
        return start("torture.broken_writer", order, **more)

    os.environ[WAY] = way
    writer_process.KeptProcess = start_broken  # type: ignore[assignment,misc]


def leave_at_once() -> None:
    """Leave on SIGTERM without finishing the calls in hand."""
    Server.handle_exit = lambda *_: os._exit(0)  # type: ignore[method-assign]


def admit_all() -> None:
    """Let every call in, however many wait already."""
    Admission.full = lambda *_: False  # type: ignore[method-assign]


def name_the_first_version() -> None:
    """Have every version's answers name the one that was loaded first."""
    make, names = Predictor.__init__, []

    def make_named(self: Predictor, *given: Any) -> None:
        make(self, *given)
        names.append(self._model_json)
        self._model_json = names[0]

    Predictor.__init__ = make_named  # type: ignore[method-assign,assignment]


def keep_the_first_version() -> None:
    """Go on with the versions of the start, whatever becomes live."""
    serve = ServedModels.serve

    def serve_once(self: ServedModels, models: Sequence[ServedModel]) -> None:
        if not self.models:
            serve(self, models)

    ServedModels.serve = serve_once  # type: ignore[method-assign]


WAYS = {
    "admit-all": admit_all,
    "answer-before-commit": answer_before_commit,
    "ignore-commit-errors": ignore_commit_errors,
    "keep-the-first-version": keep_the_first_version,
    "name-the-first-version": name_the_first_version,
    "leave-at-once": leave_at_once,
} | {way: partial(in_the_writer, way) for way in broken_writer.WAYS}

if __name__ == "__main__":
    WAYS[sys.argv.pop(1)]()
    main()
