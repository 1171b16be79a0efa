"""A full disk under load: what cannot be recorded is not answered, and room brings it all back."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from torture.report import Finding
from torture.stage import Stage
from torture.subject import Subject
from torture.verdict import Verdict, examine

__all__ = ["full"]

_DISK_BYTES = 64 << 20
_FREE_BYTES = (150_000, 900_000)
_REFUSALS = 50
_SECONDS = 60


def full(stage: Stage, rounds: int) -> Iterator[Finding]:
    """Fill a small disk, and reach a limit on the size of files, so many times in all."""
    broken = "ignore-commit-errors"
    verdict, more = _limited(stage, 1, broken=broken)
    yield Finding("full", "SQLite, file size limit", 1, "times", verdict, more, broken)
    share = -(-rounds // 2)
    verdict, more = _limited(stage, share)
    yield Finding("full", "SQLite, file size limit", share, "times", verdict, more)
    disk = stage.home / "small"
    disk.mkdir()
    refusal = _mount(disk)
    if refusal:
        yield Finding("full", "SQLite, tmpfs", 0, "times", Verdict(), remark=f"not run: {refusal}")
        return
    try:
        verdict, more = _on_small_disk(stage, disk, share)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    yield Finding("full", "SQLite, tmpfs", share, "times", verdict, more)


def _limited(
    stage: Stage, rounds: int, *, broken: str | None = None
) -> tuple[Verdict, dict[str, int]]:
    more = dict.fromkeys(_MORE, 0)
    with stage.subject(broken=broken) as subject:
        for _ in range(rounds):
            subject.start()
            with subject.load() as load:
                load.wait_for(50)
            log = subject.data_dir / "record.db-wal"
            _limit(subject, str(log.stat().st_size + stage.chance.randint(*_FREE_BYTES)))
            make_room = partial(_limit, subject, "unlimited")
            _fill(subject, make_room, more, patience=3 if broken else _SECONDS)
        return _verdict(subject), more


def _on_small_disk(stage: Stage, disk: Path, rounds: int) -> tuple[Verdict, dict[str, int]]:
    more = dict.fromkeys(_MORE, 0)
    # The log is on the full disk too.
    with stage.subject(data_dir=disk / "data") as subject:
        for _ in range(rounds):
            subject.start()
            ballast = disk / "ballast"
            _fill_up(ballast, stage.chance.randint(*_FREE_BYTES))
            _fill(subject, ballast.unlink, more)
        return _verdict(subject), more


_MORE = "not refused", "never ready again", "ended by itself"


def _fill(
    subject: Subject,
    make_room: Callable[[], None],
    more: dict[str, int],
    *,
    patience: float = _SECONDS,
) -> None:
    with subject.load(reconnect=True) as load:
        refused = load.ledger.refused + _REFUSALS
        end = time.monotonic() + patience
        while load.ledger.refused < refused and time.monotonic() < end:
            time.sleep(0.01)
        more["not refused"] += load.ledger.refused < refused
        make_room()
        end = time.monotonic() + _SECONDS
        while not subject.ready and time.monotonic() < end and subject.running:
            time.sleep(0.05)
        more["ended by itself"] += not subject.running
        more["never ready again"] += subject.running and not subject.ready
        with contextlib.suppress(TimeoutError):
            load.wait_for(50)
    subject.stop()


def _limit(subject: Subject, size: str) -> None:
    """Limit the size of the files that the server writes; only softly, so that it can be lifted."""
    for process in subject.processes:
        subprocess.run(["prlimit", "--pid", str(process), f"--fsize={size}:"], check=True)


def _verdict(subject: Subject) -> Verdict:
    # What the last fault left is recovered by a server too, as the others were.
    subject.start()
    subject.stop()
    return examine(subject.database_url, subject.ledger)


def _fill_up(ballast: Path, free: int) -> None:
    with ballast.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(max(0, file.tell() - free))


def _mount(disk: Path) -> str:
    """Mount a small disk there; return why it cannot be, or nothing."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "onrecord-torture", str(disk)],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stderr.strip()
