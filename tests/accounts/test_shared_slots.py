from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onrecord.accounts.shared_slots import SharedSlots, slot_key
from onrecord.errors import SettingsError

HOLDER = """
import sys
from pathlib import Path
from onrecord.accounts.shared_slots import SharedSlots, slot_key

with SharedSlots(Path(sys.argv[1]), size=8, slots=64) as slots:
    key = slot_key("ada")
    slots.write(slots.make_room(key, 0), key, b"halfdone", ends_at=9, rank=1)
    print("held", flush=True)
    sys.stdin.read()
"""


def put(slots: SharedSlots, name: str, record: bytes, ends_at: float = 9, rank: int = 1) -> None:
    key = slot_key(name)
    place = slots.find(key)
    if place is None:
        place = slots.make_room(key, 5)
    slots.write(place, key, record, ends_at=ends_at, rank=rank)


def get(slots: SharedSlots, name: str) -> bytes | None:
    place = slots.find(slot_key(name))
    return None if place is None else slots.read(place)


def test_all_who_open_a_file_see_the_same_records(tmp_path: Path) -> None:
    one, other = (SharedSlots(tmp_path / "counts", size=8, slots=64) for _ in range(2))
    alone = SharedSlots(None, size=8, slots=64)
    with one:
        put(one, "ada", b"12345678")
    with other:
        assert get(other, "ada") == b"12345678"
        put(other, "ada", b"87654321")
    with one, alone:
        assert get(one, "ada") == b"87654321"
        assert get(one, "eve") is None
        assert get(alone, "ada") is None
    assert (tmp_path / "counts").stat().st_mode & 0o077 == 0


def test_what_is_over_makes_room_first_then_what_has_the_lowest_rank() -> None:
    slots = SharedSlots(None, size=8, slots=8)
    names = [f"user{number}" for number in range(8)]
    for rank, name in enumerate(names):
        put(slots, name, b"12345678", ends_at=4 if name == "user5" else math.inf, rank=3 + rank)
    put(slots, "ada", b"12345678", rank=100)
    put(slots, "eve", b"12345678", rank=100)

    found = [name for name in [*names, "ada", "eve"] if get(slots, name) is not None]
    assert found == ["user1", "user2", "user3", "user4", "user6", "user7", "ada", "eve"]


def test_a_key_is_not_found_within_what_another_record_says() -> None:
    slots = SharedSlots(None, size=24, slots=8)
    put(slots, "ada", b"1234" + slot_key("eve") + b"5678")

    assert get(slots, "eve") is None
    put(slots, "eve", b"x" * 24)
    assert get(slots, "eve") == b"x" * 24


def test_a_worker_killed_while_it_holds_the_lock_blocks_nobody(tmp_path: Path) -> None:
    file = tmp_path / "counts"
    slots = SharedSlots(file, size=8, slots=64)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        os.kill(holder.pid, signal.SIGKILL)

        with slots:
            assert get(slots, "ada") == b"halfdone"


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="missing"):
        SharedSlots(tmp_path / "missing" / "counts", size=8, slots=64)
