"""What a power cut leaves: writes that were not synced are dropped, and the record is opened again.

The writes and syncs of a server are recorded under load. For any moment of the recording this makes
the files that a disk may hold then: all that was synced, and of the writes since, none, some, or
some of their sectors. SQLite recovers them, and every call whose answer was being sent by then has
to be there.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pysqlite3 import dbapi2

from torture import trace
from torture.ledger import Ledger
from torture.order import answers_in
from torture.report import Finding, place
from torture.stage import Stage
from torture.subject import Subject
from torture.verdict import ROWS, Verdict, judge

__all__ = ["failed_sync", "replay"]

_ANSWERS_A_RUN = 1200
_CUTS_A_RUN = 1000
_CUTS_OF_A_BROKEN_BUILD = 20
_SECTOR = 512
_SECONDS = 600

Loss = Literal["all", "writes", "sectors"]
_LOSSES: tuple[Loss, ...] = ("all", "writes", "sectors")


@dataclass
class _File:
    """A file of the record: what is certainly on the disk, and what may be there too.

    What a failed sync was to write is `lost`: the kernel takes it for written and tries no more,
    so that it can be read until the power goes and no later sync brings it to the disk. Only
    writing it once more does. (https://wiki.postgresql.org/wiki/Fsync_Errors)
    """

    durable: bytearray
    pending: list[trace.Call] = field(default_factory=list)
    lost: list[trace.Call] = field(default_factory=list)

    def sync(self, sync: trace.Call) -> None:
        """Put on the disk what was written before the sync began, or lose it if that failed.

        A write that the end of its process cut off may have come about; here it did, as what
        comes after it in the file does not depend on it.
        """
        later = []
        for call in self.pending:
            if call.over is not None and call.over < sync.entered:
                if sync.result == 0:
                    self._keep(call)
                else:
                    self.lost.append(call)
            else:
                later.append(call)
        self.pending = later

    def _keep(self, call: trace.Call) -> None:
        _apply(self.durable, call, 0, len(call.data))
        end = call.offset + len(call.data)
        self.lost = [
            lost
            for lost in self.lost
            if lost.offset < call.offset or lost.offset + len(lost.data) > end
        ]

    def after_cut(self, loss: Loss, chance: random.Random) -> bytearray:
        """Return what the disk may hold if the power goes now."""
        content = bytearray(self.durable)
        for call in [*self.lost, *self.pending] if loss != "all" else ():
            pieces = [(0, len(call.data))]
            if loss == "sectors" and call.data:
                first = -call.offset % _SECTOR
                edges = [0, *range(first, len(call.data), _SECTOR), len(call.data)]
                pieces = list(pairwise(edges))
            for start, end in pieces:
                if chance.random() < 0.5:
                    _apply(content, call, start, end)
        return content


def _apply(content: bytearray, call: trace.Call, start: int, end: int) -> None:
    if call.name == "ftruncate":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
        return
    content.extend(bytes(max(0, call.offset + start - len(content))))
    content[call.offset + start : call.offset + end] = call.data[start:end]


def replay(stage: Stage, rounds: int) -> Iterator[Finding]:
    """Cut the power at so many moments of recorded runs."""
    yield _replay(stage, _CUTS_OF_A_BROKEN_BUILD, _load, broken="synchronous-off")
    yield _replay(stage, rounds, _load)


def failed_sync(stage: Stage, rounds: int) -> Iterator[Finding]:
    """Cut the power after syncs that failed: while the server goes on, and after its next start."""
    yield _replay(stage, rounds, _fail_once, after=", a sync failed")
    yield _replay(stage, rounds, _fail_and_restart, after=", restarted on failing syncs")


Recording = Callable[[Subject, Path], None]


def _load(subject: Subject, log: Path) -> None:
    """Record one run."""
    subject.start(under=trace.command(log))
    with subject.load() as load:
        load.wait_for(_ANSWERS_A_RUN, seconds=_SECONDS)
    subject.stop()


def _fail_once(subject: Subject, log: Path) -> None:
    """Record a run in which one sync fails and calls go on."""
    subject.start(under=trace.command(log, failing_sync="30"))
    with subject.load(reconnect=True) as load:
        load.wait_for(_ANSWERS_A_RUN // 2, seconds=_SECONDS)
    subject.stop()


def _fail_and_restart(subject: Subject, log: Path) -> None:
    """Record a run that ends with syncs that fail, and the run after it."""
    subject.start(under=trace.command(log, failing_sync="30+"))
    with subject.load(reconnect=True) as load:
        end = time.monotonic() + _SECONDS
        while not load.ledger.refused and time.monotonic() < end:
            time.sleep(0.005)
        subject.stop()
    subject.start(under=trace.command(log))
    with subject.load() as load:
        load.wait_for(_ANSWERS_A_RUN // 4, seconds=_SECONDS)
    subject.stop()


def _replay(
    stage: Stage, cuts: int, record: Recording, *, broken: str | None = None, after: str = ""
) -> Finding:
    whole = Verdict()
    answered = checkpoints = 0
    for start in range(0, cuts, _CUTS_A_RUN):
        with stage.subject(broken=broken) as subject:
            subject.start()
            subject.stop()
            database = subject.data_dir / "record.db"
            files = {
                str(path): _File(bytearray(path.read_bytes()))
                for path in (database, database.with_name("record.db-wal"))
            }
            log = subject.data_dir.with_suffix(".strace")
            record(subject, log)
            calls = list(trace.read(log))
            log.unlink()
        answered += len(subject.ledger.answered)
        checkpoints += sum(call.syncs and call.path == str(database) for call in calls)
        count = min(_CUTS_A_RUN, cuts - start)
        for verdict in _verdicts(files, calls, subject.ledger, count, stage.chance):
            whole.add(verdict)
    whole.answered = answered
    where = place("SQLite", 1) + after
    remark = f"{checkpoints} checkpoints"
    return Finding("replay", where, cuts, "power cuts", whole, broken=broken, remark=remark)


def _verdicts(
    files: dict[str, _File],
    calls: Iterable[trace.Call],
    ledger: Ledger,
    cuts: int,
    chance: random.Random,
) -> Iterator[Verdict]:
    events = sorted(_events(files, calls), key=lambda event: event[0])
    moments = sorted(chance.choices(range(1, len(events) + 1), k=cuts), reverse=True)
    sent = Ledger(open=ledger.open)
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        for number, (_, event, call) in enumerate(events, 1):
            if event == "write":
                files[call.path].pending.append(call)
            elif event == "sync":
                files[call.path].sync(call)
            else:
                for request_id in answers_in(call):
                    if request_id in ledger.answered:
                        sent.answered[request_id] = ledger.answered[request_id]
            while moments and moments[-1] == number:
                moments.pop()
                loss = chance.choice(_LOSSES)
                for path, file in files.items():
                    content = file.after_cut(loss, chance)
                    (Path(directory) / Path(path).name).write_bytes(content)
                yield _open(Path(directory), sent, ledger)


def _events(
    files: dict[str, _File], calls: Iterable[trace.Call]
) -> Iterator[tuple[int, Literal["write", "sync", "send"], trace.Call]]:
    for call in calls:
        if call.sends:
            yield call.entered, "send", call
        elif call.path not in files:
            continue
        elif call.syncs:
            if call.returned is not None:
                yield call.returned, "sync", call
        elif call.name in {"pwrite64", "ftruncate"}:
            yield call.entered, "write", call
        else:
            raise ValueError(f"the replay cannot follow a {call.name} of {call.path}")


def _open(directory: Path, sent: Ledger, ledger: Ledger) -> Verdict:
    """Let SQLite recover the files and compare them with what was `sent` by then."""
    with closing(dbapi2.connect(str(directory / "record.db"))) as connection:
        try:
            # Of a damaged file even columns that are never null may be read so.
            rows = [(i, bytes(q or b""), o and bytes(o)) for i, q, o in connection.execute(ROWS)]
            found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        except dbapi2.DatabaseError as error:
            rows, found = [], [str(error)]
    # A call whose answer was not sent yet may be there.
    later = {i: d for i, d in ledger.answered.items() if i not in sent.answered}
    verdict = judge(((i, q, o) for i, q, o in rows if i not in later), sent)
    if found != ["ok"]:
        verdict.note("damaged", str(found))
    # SQLite may have made others beside them, which the next cut does not have.
    shutil.rmtree(directory)
    directory.mkdir()
    return verdict


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
