"""The writer's process: it puts on record what the workers of a server send, and says so.

Every worker is a connection. A worker sends frames, each of a list of calls, and for each gets a
frame with its `Outcome` back, in order; the first frame that it gets is null and says that the
process is there. What several workers have sent by the time that a commit is done is the next
transaction.

It is run as `python -m onrecord.record.writer_main FD`, FD being the listening socket. The first
line of standard input is a `WriterOrder` in JSON: no list of processes may show a database's URL.
The end of standard input says that whoever started it has gone: then it leaves with the last
worker.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec

from onrecord.logs import configure_logs
from onrecord.record.call import RecordedCall
from onrecord.record.commits import Commits, Outcome
from onrecord.record.database import Database
from onrecord.record.frames import FrameReader, frame
from onrecord.record.spool import Spool
from onrecord.record.spooling import Spooling
from onrecord.record.writer_order import WriterOrder

_READ_BYTES = 1 << 20

_decode = msgspec.msgpack.Decoder(list[RecordedCall]).decode
_ALL_RECORDED = frame(Outcome(healthy=True, refused={}))


class _Writing:
    def __init__(self, commits: Commits | Spooling, listener: socket.socket, lifeline: int) -> None:
        self._commits = commits
        self._listener = listener
        self._lifeline = lifeline
        self._workers: dict[socket.socket, FrameReader] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(lifeline, selectors.EVENT_READ)
        self._wanted = True

    def run(self) -> None:
        while self._wanted or self._workers:
            batches: list[tuple[socket.socket, list[RecordedCall]]] = []
            for key, _ in self._selector.select():
                source: Any = key.fileobj
                if source is self._listener:
                    self._welcome()
                elif source == self._lifeline:
                    self._selector.unregister(self._lifeline)
                    self._wanted = False
                else:
                    batches += [(source, _decode(message)) for message in self._receive(source)]
            if batches:
                self._record(batches)

    def _welcome(self) -> None:
        worker, _ = self._listener.accept()
        self._workers[worker] = FrameReader()
        self._selector.register(worker, selectors.EVENT_READ)
        self._send(worker, frame(None))

    def _receive(self, worker: socket.socket) -> list[bytes]:
        try:
            data = worker.recv(_READ_BYTES)
        except OSError:
            data = b""
        if data:
            return self._workers[worker].feed(data)
        self._selector.unregister(worker)
        del self._workers[worker]
        worker.close()
        return []

    def _record(self, batches: list[tuple[socket.socket, list[RecordedCall]]]) -> None:
        outcome = self._commits.record([call for _, batch in batches for call in batch])
        start = 0
        for worker, batch in batches:
            end = start + len(batch)
            if outcome.healthy and not outcome.refused and not outcome.repeated:
                self._send(worker, _ALL_RECORDED)
            else:
                self._send(worker, frame(_part(outcome, start, end)))
            start = end

    def _send(self, worker: socket.socket, data: bytearray) -> None:
        if worker in self._workers:
            # One that has gone is found so when it is read from.
            try:
                worker.sendall(data)
            except OSError:
                return


def _part(outcome: Outcome, start: int, end: int) -> Outcome:
    """Return what became of the calls from `start` to before `end`, by their places from there."""
    reasons = outcome.refused
    refused = {i - start: reasons[i] for i in range(start, end) if i in reasons}
    repeated = tuple(i - start for i in outcome.repeated if start <= i < end)
    return Outcome(outcome.healthy, refused, repeated)


def main() -> None:
    """Run until nobody needs it any more."""
    # They go to all processes of a group; the workers still have calls to send then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lifeline = sys.stdin.fileno()
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(lifeline, 1)
        if not piece:
            return
        line += piece
    order = msgspec.json.decode(line, type=WriterOrder)
    configure_logs(form=order.log_format, level=order.log_level)
    database = Database(order.database_url)
    commits: Commits | Spooling = Commits(database)
    if order.spool is not None:
        commits = Spooling(database, Spool(order.spool))
    listener = socket.socket(fileno=int(sys.argv[1]))
    _Writing(commits, listener, lifeline).run()
    commits.close()
    database.close()
    # Whoever made the socket may have gone without removing it.
    with contextlib.suppress(OSError):
        address = Path(listener.getsockname())
        address.unlink()
        address.parent.rmdir()


if __name__ == "__main__":
    main()
