from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onrecord.accounts.rates import Rate, parse_rate
from onrecord.accounts.windows import Windows

KEY = b"0123456789abcdef"
COUNTER = """
import sys
from pathlib import Path
from onrecord.accounts.rates import parse_rate
from onrecord.accounts.windows import Windows

windows, rate, accepted = Windows(Path(sys.argv[1])), parse_rate("4000/day"), 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3000):
    with windows:
        window = windows.read(b"0123456789abcdef", rate)
        if not window.full:
            windows.add(window)
            accepted += 1
print(accepted)
"""


def hit(windows: Windows, rate: Rate, key: bytes = KEY) -> bool:
    with windows:
        window = windows.read(key, rate)
        if window.full:
            return False
        windows.add(window)
        return True


@pytest.mark.parametrize("text", ["7/second", "30/minute", "5/3 minutes", "40/day"])
def test_no_window_ever_has_more_than_may_be_and_none_is_counted_much_longer(
    clock: Any, text: str
) -> None:
    rate, windows = parse_rate(text), Windows(clock=clock)
    chance = random.Random(7)
    accepted: list[float] = []
    for _ in range(1000):
        clock.shift(chance.expovariate(2 * rate.amount / rate.seconds))
        within = [moment for moment in accepted if clock.now - moment < rate.seconds]
        surely = [moment for moment in accepted if clock.now - moment <= rate.seconds * 60 / 59]
        if hit(windows, rate):
            assert len(within) < rate.amount
            accepted.append(clock.now)
        else:
            assert len(surely) >= rate.amount

    assert len(accepted) > 400


def test_when_the_oldest_leaves_there_is_room_for_another(clock: Any) -> None:
    rate, windows = parse_rate("3/minute"), Windows(clock=clock)
    for _ in range(3):
        assert hit(windows, rate)
        clock.shift(10)
    with windows:
        wait = windows.read(KEY, rate).frees_in

    assert 30 <= wait <= 31.1
    clock.shift(wait - 0.01)
    assert not hit(windows, rate)
    clock.shift(0.02)
    assert hit(windows, rate)
    assert not hit(windows, rate)


def test_processes_that_count_at_once_let_through_exactly_as_many_as_may_be(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", COUNTER, str(tmp_path / "rates")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    workers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for worker in workers:
        worker.stdout.readline()
    for worker in workers:
        worker.stdin.write(b"go\n")
        worker.stdin.flush()
    counts = [int(worker.communicate()[0]) for worker in workers]

    assert sum(counts) == 4000


def test_made_up_keys_do_not_make_one_forgotten_that_counts_many(clock: Any) -> None:
    rate, windows = parse_rate("3/minute"), Windows(clock=clock, slots=8)
    for _ in range(3):
        assert hit(windows, rate)
    for number in range(100):
        assert hit(windows, rate, number.to_bytes(16, "little"))

    assert not hit(windows, rate)


def test_garbage_in_the_file_is_no_error_and_is_forgotten(clock: Any, tmp_path: Path) -> None:
    file, rate = tmp_path / "rates", parse_rate("3/minute")
    windows = Windows(file, clock=clock)
    assert hit(windows, rate)
    chance = random.Random(7)
    for _ in range(50):
        with file.open("r+b") as opened:
            with windows:
                place = windows.read(KEY, rate).place or 0
            opened.seek(place + 16 * chance.randrange(2))
            opened.write(os.urandom(320))
        hit(windows, rate)
        with windows:
            assert windows.read(KEY, rate).frees_in <= 62

    clock.shift(62)
    assert hit(windows, rate)


@pytest.mark.parametrize(
    "text",
    [
        "", "fast", "100", "0/second", "-1/second", "1/fortnight", "1/second;5/minute", "9" * 5000,
        "5/2 days", "100/month", "9999999999/second",
    ],
)  # fmt: skip
def test_a_rate_that_cannot_be_read_or_kept_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate such as"):
        parse_rate(text)
