"""Log lines: one an event, whatever the event has in it, and no secret among them."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from onrecord.logs import configure_logs

EVIL = 'x\n{"event":"forged"}\r\n\x1b[2J\u2028\x00'


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def say_evil_things() -> None:
    structlog.get_logger("onrecord").warning(EVIL, detail=EVIL)
    logging.getLogger("some.library").warning("it says %s", EVIL)
    password = "correct horse battery"
    try:
        raise ValueError(EVIL + "\ud800")
    except ValueError:
        structlog.get_logger("onrecord").exception("failed", length=len(password))


def test_a_line_of_json_is_one_event_whatever_is_in_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_logs(form="json", level="info")

    say_evil_things()

    lines = [json.loads(line) for line in capfd.readouterr().err.split("\n") if line]
    assert [line["level"] for line in lines] == ["warning", "warning", "error"]
    assert lines[0]["detail"] == EVIL


def test_on_a_console_nothing_moves_the_cursor_and_no_event_looks_like_two(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_logs(form="console", level="info")

    say_evil_things()

    written = capfd.readouterr().err
    assert not set(written) & set("\x1b\r\x00\u2028")
    events = [line for line in written.splitlines() if "[warning" in line or "[error" in line]
    assert len(events) == 3
    assert "Traceback" in written
    assert "correct horse battery" not in written.replace('password = "correct horse battery"', "")
