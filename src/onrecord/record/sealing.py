"""The process that seals the record every so often, beside the processes that serve.

Hashing needs the interpreter for longer than a call does; in a process of its own it takes nothing
from the calls but a core's time. It is started with one line of JSON on standard input, `Order`,
and ends, after a last time, when that is closed: also when whoever started it was killed.
"""

from __future__ import annotations

import select
import signal
import sys
from pathlib import Path

import msgspec
import structlog

from onrecord.kept_process import KeptProcess
from onrecord.logs import configure_logs
from onrecord.record.checkpoint import SigningKey
from onrecord.record.database import Database
from onrecord.record.heads_file import HeadsFile
from onrecord.record.heads_url import HeadsUrl, HeadsUrlThread
from onrecord.record.seal import Sealer

__all__ = ["Order", "sealing_process"]

_LAST_TIME_SECONDS = 60.0
_LAST_DELIVERY_SECONDS = 5.0


class Order(msgspec.Struct, frozen=True):
    """What is sealed, with which key, where its heads go, and how often, in seconds.

    `heads_url` is where they go, too, if anywhere; `delivered_file` says which of them have.
    """

    database_url: str
    key_file: str
    heads_file: str
    seconds: float
    log_format: str
    log_level: str
    heads_url: str | None
    delivered_file: str


def sealing_process(order: Order) -> KeptProcess:
    """Return the process, for use as a context manager; it seals what is left before it ends."""
    return KeptProcess(
        __name__,
        msgspec.json.encode(order),
        name="the sealing process",
        leave_seconds=_LAST_TIME_SECONDS,
        pause_seconds=min(order.seconds, 60.0),
    )


def _run() -> None:
    # Ctrl-C reaches the whole group of processes; the one that serves says when it is over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    configure_logs(form=order.log_format, level=order.log_level)
    database = Database(order.database_url)
    log = structlog.get_logger("onrecord")
    delivery = _delivery(order, database)
    over = False
    while not over:
        over = bool(select.select([sys.stdin], [], [], order.seconds)[0])
        try:
            key = SigningKey.from_file(Path(order.key_file))
            Sealer(database, key, HeadsFile(Path(order.heads_file))).seal()
        except Exception as error:  # noqa: BLE001 - it outlives whatever a driver raises
            log.error("the record could not be sealed", reason=str(error))  # noqa: TRY400
        if delivery is not None:
            delivery.wake()
    if delivery is not None:
        delivery.close(_LAST_DELIVERY_SECONDS)
    database.close()


def _delivery(order: Order, database: Database) -> HeadsUrlThread | None:
    if order.heads_url is None:
        return None
    return HeadsUrlThread(
        HeadsUrl(
            database,
            order.heads_url,
            heads_file=Path(order.heads_file),
            marker=Path(order.delivered_file),
        )
    )


if __name__ == "__main__":
    _run()
