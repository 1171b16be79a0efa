"""The process that looks for drift, which `onrecord serve` starts; see lifecycle/drift_watch.py."""

from __future__ import annotations

import os
import select
import signal
import sys

import msgspec
import structlog

from onrecord.lifecycle.drift_watch import DriftWatch
from onrecord.logs import configure_logs
from onrecord.parts import build_reveal, drift_rules
from onrecord.record.database import Database
from onrecord.settings import load_settings

_LESS_URGENT = 10


def _run() -> None:
    # A signal reaches the whole group of processes; the one that serves says when it is over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_LESS_URGENT)
    settings = load_settings(**msgspec.json.decode(sys.stdin.buffer.readline()))
    configure_logs(form=settings.log_format, level=settings.log_level)
    database = Database(settings.database_url)
    url, secret = settings.drift_webhook, settings.drift_webhook_secret
    watch = DriftWatch(
        database,
        build_reveal(settings),
        drift_rules(settings),
        url=None if url is None else url.get_secret_value(),
        secret="" if secret is None else secret.get_secret_value(),
    )
    while not select.select([sys.stdin], [], [], 60 * settings.drift_minutes)[0]:
        try:
            watch.look()
        except Exception as error:  # noqa: BLE001 - it outlives whatever a driver raises
            structlog.get_logger("onrecord").error("drift was not looked at", why=str(error))
    database.close()


if __name__ == "__main__":
    _run()
