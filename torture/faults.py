"""Input/output errors injected into the writes and syncs of the record's files, by strace."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torture.report import Finding
from torture.stage import Stage
from torture.subject import Subject
from torture.verdict import Verdict, examine

__all__ = ["errors"]

_SECONDS = 60
_ATTACHED = re.compile(r"attached")


@dataclass(frozen=True)
class _Fault:
    """Which calls on which file fail: number `when` of them, and with a "+" all that follow."""

    syscalls: str
    file: str
    when: str
    error: str = "EIO"


def errors(stage: Stage, rounds: int) -> Iterator[Finding]:
    """Let each of the first `rounds` writes and syncs of the log fail, and those of the database."""
    syncs, writes = "fsync,fdatasync", "pwrite64"
    numbers = range(1, rounds + 1)
    broken = "ignore-commit-errors"
    yield _inject(stage, "log's sync", [_Fault(syncs, "record.db-wal", "3+")], broken=broken)
    for name, syscalls, file in (
        ("log's sync", syncs, "record.db-wal"),
        ("log's write", writes, "record.db-wal"),
        ("database's sync", syncs, "record.db"),
        ("database's write", writes, "record.db"),
    ):
        few = numbers if file.endswith("wal") else numbers[: max(1, rounds // 10)]
        faults = [_Fault(syscalls, file, str(number)) for number in few]
        faults.append(_Fault(syscalls, file, "2+"))
        yield _inject(stage, name, faults)


def _inject(
    stage: Stage, name: str, faults: list[_Fault], *, broken: str | None = None
) -> Finding:
    more = dict.fromkeys(_MORE, 0)
    with stage.subject(broken=broken) as subject:
        for fault in faults:
            subject.start()
            _let_fail(subject, fault, more)
            subject.stop()
        subject.start()
        with subject.load() as load:
            load.wait_for(20)
        subject.stop()
        verdict = examine(subject.database_url, subject.ledger)
    return Finding("errors", f"SQLite, {name}", len(faults), "times EIO", verdict, more, broken)


_MORE = "not injected", "still ready"


def _let_fail(subject: Subject, fault: _Fault, more: dict[str, int]) -> None:
    log = subject.data_dir.with_suffix(".strace")
    with subject.load(reconnect=True) as load:
        load.wait_for(20)
        with _strace(subject, fault, log):
            end = time.monotonic() + _SECONDS
            while "INJECTED" not in log.read_text(errors="replace") and time.monotonic() < end:
                time.sleep(0.01)
            more["not injected"] += "INJECTED" not in log.read_text(errors="replace")
            time.sleep(0.2)
            print(fault, load.ledger.statuses, subject.ready, subject.running)


@contextmanager
def _strace(subject: Subject, fault: _Fault, log: Path) -> Iterator[None]:
    injected = f"inject={fault.syscalls}:error={fault.error}:when={fault.when}"
    tracer = subprocess.Popen(
        [
            *("strace", "-f", "-p", str(subject.server.process.pid), "-o", str(log), "-s", "0"),
            *("-P", str(subject.data_dir / fault.file)),
            *("-e", f"trace={fault.syscalls}", "-e", injected),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert tracer.stderr is not None
        while not _ATTACHED.search(tracer.stderr.readline()):
            if tracer.poll() is not None:
                raise RuntimeError("strace could not attach to the server")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
