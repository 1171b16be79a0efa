"""Heads arrive at a URL: all of them, in their order, whatever befalls the receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert

from calls import wait_until
from local_receiver import LocalReceiver, local_receiver
from onrecord.errors import RemoteError
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.heads_url import HeadsUrl, HeadsUrlThread
from onrecord.record.seal import unsealed_at_most
from onrecord.record.tables import requests, tree_heads


@pytest.fixture
def receiver() -> Iterator[LocalReceiver]:
    with local_receiver() as receiver:
        yield receiver


def sign(database: Database, *sizes: int) -> None:
    with database.write() as connection:
        for size in sizes:
            connection.execute(
                insert(tree_heads).values(
                    size=size, last_seq=size, signed_at=datetime.now(UTC), note=f"us\n{size}\nä\n"
                )
            )


@pytest.fixture
def heads_at(database: Database, tmp_path: Path) -> Callable[..., HeadsUrl]:
    def make(url: str, heads_file: str = "heads.jsonl", seconds: float = 30) -> HeadsUrl:
        return HeadsUrl(
            database,
            url,
            heads_file=tmp_path / heads_file,
            marker=tmp_path / "delivered.json",
            seconds=seconds,
        )

    return make


def test_every_head_is_posted_once_and_in_order(
    database: Database, receiver: LocalReceiver, heads_at: Callable[..., HeadsUrl]
) -> None:
    sign(database, *range(1, 130))
    assert heads_at(receiver.url).deliver() == 129
    sign(database, 200)
    assert heads_at(receiver.url).deliver() == 1
    assert heads_at(receiver.url).deliver() == 0

    assert receiver.sizes == [*range(1, 130), 200]
    assert receiver.notes[0] == "us\n1\nä\n"
    assert receiver.types == {"text/plain; charset=utf-8"}


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_head_that_was_refused_stays_to_be_sent(
    database: Database, receiver: LocalReceiver, heads_at: Callable[..., HeadsUrl], status: int
) -> None:
    sign(database, 1, 2)
    receiver.status = status
    with pytest.raises(RemoteError, match=f"status {status}") as refusal:
        heads_at(receiver.url).deliver()
    assert receiver.tries == 1
    assert "secret" not in str(refusal.value)

    receiver.status = 200
    heads_at(receiver.url).deliver()
    assert receiver.sizes == [1, 2]


def test_another_url_and_another_heads_file_get_every_head(
    database: Database, receiver: LocalReceiver, heads_at: Callable[..., HeadsUrl], tmp_path: Path
) -> None:
    sign(database, 1, 2)
    heads_at(receiver.url).deliver()

    assert heads_at(f"{receiver.url}&more").deliver() == 2
    assert heads_at(receiver.url, "other.jsonl").deliver() == 2
    (tmp_path / "delivered.json").write_text('{"size":')
    assert heads_at(receiver.url).deliver() == 2


def test_a_receiver_that_is_away_hangs_and_fails_gets_all_once_it_is_back(
    database: Database, receiver: LocalReceiver, heads_at: Callable[..., HeadsUrl]
) -> None:
    receiver.hangs.set()
    thread = HeadsUrlThread(heads_at(receiver.url, seconds=1), pause_seconds=0.05)
    sign(database, 1)
    thread.wake()
    wait_until(lambda: receiver.tries == 2)
    sign(database, 2)
    receiver.status = 500
    receiver.hangs.clear()
    tries = receiver.tries
    wait_until(lambda: receiver.tries > tries + 1)
    assert receiver.sizes == []
    receiver.status = 200

    wait_until(lambda: receiver.arrived == [1, 2])
    sign(database, 3)
    thread.close(60)
    assert receiver.arrived == [1, 2, 3]


def test_nobody_waits_long_for_a_receiver_that_is_not_there(
    database: Database, heads_at: Callable[..., HeadsUrl]
) -> None:
    with local_receiver() as gone:
        url = gone.url
    sign(database, 1)
    thread = HeadsUrlThread(heads_at(url), pause_seconds=3600)
    thread.wake()

    thread.close(60)


def test_what_is_unsealed_is_told_by_the_numbers_of_the_rows(
    database: Database, make_call: Callable[..., RecordedCall]
) -> None:
    with database.write() as connection:
        assert unsealed_at_most(connection, None) == 0
        for _ in range(5):
            call = make_call()
            names = ("id", "user_id", "model", "received_at")
            connection.execute(insert(requests).values({n: getattr(call, n) for n in names}))

        assert unsealed_at_most(connection, None) == 5
        assert unsealed_at_most(connection, 2) == 3
        assert unsealed_at_most(connection, 5) == 0
