"""Structured logs: one JSON object (or one coloured line) an event, on standard error."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
import structlog

__all__ = ["AccessLog", "configure_logs"]


def configure_logs(*, form: str, level: str) -> None:
    """Send every log line, uvicorn's and the libraries' included, through one pipeline.

    `form` is "json" or "console"; `level` the least level written.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [structlog.processors.add_log_level, _add_time]
    last: list[structlog.typing.Processor]
    if form == "json":
        last = [structlog.processors.format_exc_info, _render_json]
        factory: Any = structlog.BytesLoggerFactory(sys.stderr.buffer)
        foreign: list[structlog.typing.Processor] = [*last, _as_text]
    else:
        # Plain tracebacks: pretty ones show every frame's variables, passwords and tokens included.
        last = foreign = [
            structlog.processors.format_exc_info,
            _without_controls,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
        factory = structlog.WriteLoggerFactory(sys.stderr)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *foreign],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.INFO))
    for name, wanted in (("uvicorn", True), ("uvicorn.error", True), ("uvicorn.access", False)):
        # The line of a request is `AccessLog`'s.
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = wanted
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


class AccessLog:
    """One line a request, at level info.

    In JSON the lines of one turn of the event loop are written together, past structlog: its
    pipeline and a system call a line would cost a prediction more than its validation does.
    """

    def __init__(self) -> None:
        bound = structlog.get_logger("onrecord.access").bind()
        config = structlog.get_config()
        self._log = bound
        self._on = bound.is_enabled_for(logging.INFO)
        self._direct = config["processors"][-1] is _render_json
        self._lines: list[bytes] = []
        self._unauthenticated = 0
        self._second = 0.0
        self._calendar = ""

    def request(  # noqa: PLR0913, PLR0917 - the fields of the line
        self, request_id: str, method: str, path: str, status: int, user: str | None, started: float
    ) -> None:
        """Write the line of one request; to be called on the event loop.

        `started` is `time.perf_counter()` at its arrival.
        """
        if not self._on:
            return
        fields: dict[str, Any] = {
            "request_id": request_id,
            "method": method,
            "path": path,
            "status": status,
            "user": user,
            "ms": round((time.perf_counter() - started) * 1000, 2),
        }
        if status == HTTPStatus.UNAUTHORIZED:
            # These are in no table, so the log alone tells how many there were.
            self._unauthenticated += 1
            fields["unauthenticated_so_far"] = self._unauthenticated
        if not self._direct:
            self._log.info("request", **fields)
            return
        fields["event"] = "request"
        fields["level"] = "info"
        fields["timestamp"] = self._timestamp()
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._flush)
        self._lines.append(msgspec.json.encode(fields))

    def _timestamp(self) -> str:
        """Return the time as `_add_time` writes it; its calendar part is made once a second."""
        second, fraction = divmod(time.time(), 1)
        if second != self._second:
            self._second = second
            self._calendar = datetime.fromtimestamp(second, UTC).isoformat()[:-6]
        return f"{self._calendar}.{int(fraction * 1e6):06d}Z"

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        sys.stderr.buffer.write(b"\n".join(lines) + b"\n")
        sys.stderr.buffer.flush()


def _add_time(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["timestamp"] = datetime.now(UTC).isoformat()[:-6] + "Z"
    return event


def _without_controls(
    _: object, __: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Escape what would move a terminal's cursor or begin a line that looks like another event."""
    event["event"] = _escaped(str(event["event"]), keep="")
    if "exception" in event:
        event["exception"] = _escaped(event["exception"], keep="\n")
    return event


def _escaped(text: str, *, keep: str) -> str:
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def _render_json(_: object, __: str, event: MutableMapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(event, enc_hook=str)
    except UnicodeEncodeError:  # half of a surrogate pair, which is in no UTF-8
        return json.dumps(event, default=str).encode()


def _as_text(_: object, __: str, line: Any) -> str:
    text: str = line.decode()
    return text
