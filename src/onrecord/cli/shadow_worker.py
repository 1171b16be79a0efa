"""The process of one shadow, which `onrecord serve` starts; see lifecycle/shadow_keeper.py."""

from __future__ import annotations

import os
import select
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from onrecord.errors import DatabaseError, OnrecordError, Unavailable
from onrecord.lifecycle.fleet import load_stored
from onrecord.lifecycle.shadow_keeper import ShadowOrder
from onrecord.lifecycle.shadowing import Shadowing, ShadowOver
from onrecord.logs import configure_logs
from onrecord.parts import build_reveal, loader
from onrecord.record.database import Database
from onrecord.record.model_versions import get
from onrecord.record.shadows import Shadow
from onrecord.settings import Settings, load_settings

_LEAST_URGENT = 19
_PAUSE_SECONDS = 0.5


def _run() -> int:
    # A signal reaches the whole group of processes; the one that serves says when it is over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=ShadowOrder)
    settings = load_settings(**order.settings)
    configure_logs(form=settings.log_format, level=settings.log_level)
    database = Database(settings.database_url)
    database.commit_loosely()
    writer = ThreadPoolExecutor(1, thread_name_prefix="shadow writer")
    writer.submit(int).result()  # its thread is there, and keeps the priority that this one has
    _give_way()
    log = structlog.get_logger("onrecord")
    shadowing: Shadowing | None = None
    pause, away = 0.0, False
    while not select.select([sys.stdin], [], [], pause)[0]:
        pause = _PAUSE_SECONDS
        try:
            if shadowing is None:
                shadowing = _begin(settings, database, order.shadow, writer)
            if shadowing.step():
                pause = 0.0
            away = False
        except ShadowOver:
            return 0
        except (DatabaseError, Unavailable, SQLAlchemyError) as error:
            if not away:
                away = True
                log.warning("a shadow waits", model=order.shadow.model, why=str(error))
        except OnrecordError as error:
            log.error("a shadow cannot go on", model=order.shadow.model, why=str(error))  # noqa: TRY400
            return 0
    return 0


def _begin(
    settings: Settings, database: Database, shadow: Shadow, writer: ThreadPoolExecutor
) -> Shadowing:
    with database.read() as connection:
        version = get(connection, shadow.model_version_id)
    model = load_stored(database, version, loader(settings))
    log = structlog.get_logger("onrecord")
    log.info("shadow begins", version=str(version), share=shadow.share)
    return Shadowing(
        database,
        shadow,
        model,
        build_reveal(settings),
        write=lambda work: writer.submit(work).result(),
    )


def _give_way() -> None:
    """Have this thread, and those that it starts, run when nobody else wants the processor."""
    os.nice(_LEAST_URGENT)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    sys.exit(_run())
