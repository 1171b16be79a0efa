"""Input/output errors injected into the writes and syncs of the record's files, by strace."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torture.report import Finding
from torture.stage import Stage
from torture.subject import Subject
from torture.verdict import examine

__all__ = ["PLACES", "errors"]

_SECONDS = 60
_CALLS_AFTERWARDS = 100
_PROBED_SECONDS = 1.5
"""Longer than the writer waits until it looks whether the database is back."""


@dataclass(frozen=True)
class _Place:
    """Where errors are injected: into which system calls on which file of the record."""

    name: str
    syscalls: str
    file: str


PLACES = (
    _Place("log's sync", "fsync,fdatasync", "record.db-wal"),
    _Place("log's write", "pwrite64", "record.db-wal"),
    _Place("database's sync", "fsync,fdatasync", "record.db"),
    _Place("database's write", "pwrite64", "record.db"),
)


def errors(stage: Stage, rounds: int, places: Sequence[_Place] = PLACES) -> Iterator[Finding]:
    """Let each of the first `rounds` writes and syncs of the log fail, and some of the database's.

    The database is written at checkpoints only. Last comes a disk that fails for good: then the
    server has to say that it is not ready, also once nobody calls any more.
    """
    yield _inject(stage, PLACES[0], [_FOR_GOOD], broken="ignore-commit-errors")
    for place in places:
        count = rounds if place.file.endswith("wal") else max(1, rounds // 10)
        yield _inject(stage, place, [*map(str, range(1, count + 1)), _FOR_GOOD])


_FOR_GOOD = "2+"
_MORE = "not injected", "ready without a disk"


def _inject(
    stage: Stage, place: _Place, numbers: list[str], *, broken: str | None = None
) -> Finding:
    more = dict.fromkeys(_MORE, 0)
    with stage.subject(broken=broken) as subject:
        for number in numbers:
            subject.start()
            _let_fail(subject, place, number, more)
            subject.stop()
        subject.start()
        with subject.load() as load:
            load.wait_for(20)
        subject.stop()
        verdict = examine(subject.database_url, subject.ledger)
    where = f"SQLite, {place.name}"
    return Finding("errors", where, len(numbers), "times EIO", verdict, more, broken)


def _let_fail(subject: Subject, place: _Place, number: str, more: dict[str, int]) -> None:
    log = subject.data_dir.with_suffix(".strace")
    with _strace(subject, place, number, log):
        with subject.load(reconnect=True) as load:
            end = time.monotonic() + _SECONDS
            while "INJECTED" not in log.read_text(errors="replace") and time.monotonic() < end:
                time.sleep(0.01)
            more["not injected"] += "INJECTED" not in log.read_text(errors="replace")
            # Some commits more: what they find is what the fault left.
            told = load.ledger.told + _CALLS_AFTERWARDS
            while load.ledger.told < told and time.monotonic() < end:
                time.sleep(0.01)
        # A checkpoint that fails leaves the log as it is, and no call without a record.
        if number == _FOR_GOOD and place.file.endswith("wal"):
            time.sleep(_PROBED_SECONDS)
            more["ready without a disk"] += subject.ready


@contextmanager
def _strace(subject: Subject, place: _Place, number: str, log: Path) -> Iterator[None]:
    injected = f"inject={place.syscalls}:error=EIO:when={number}"
    processes = subject.processes
    command = ["strace", "-f", "-o", str(log), "-s", "0", *(f"-p{p}" for p in processes)]
    command += ["-P", str(subject.data_dir / place.file)]
    command += ["-e", f"trace={place.syscalls}", "-e", injected]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        try:
            attached = 0
            while attached < len(processes):
                attached += "attached" in tracer.stderr.readline()
                if tracer.poll() is not None:
                    raise RuntimeError("strace could not attach to the server")
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
