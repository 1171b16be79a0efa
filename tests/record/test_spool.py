"""The spool and what drains it, over a real PostgreSQL behind a proxy that can go away."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from calls import wait_until
from onrecord.record import reader
from onrecord.record.call import RecordedCall
from onrecord.record.commits import Commits
from onrecord.record.database import Database
from onrecord.record.ids import new_id
from onrecord.record.spool import Spool, SpoolFullError
from onrecord.record.spool_place import SpoolPlace
from onrecord.record.spooling import Drain, Spooling
from torture.proxy import Proxy

eventually = partial(wait_until, seconds=30)

MakeCall = Callable[..., RecordedCall]

ONE_MIB = 1 << 20


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def through(database: Database, postgres_url: str, proxy: Proxy) -> Iterator[Database]:
    """The database as it is reached through the proxy."""
    address = make_url(postgres_url).set(port=proxy.port)
    through = Database(address.render_as_string(hide_password=False))
    yield through
    through.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(SpoolPlace(str(tmp_path / "spool.db"), ONE_MIB))
    spool.open()
    yield spool
    spool.close()


@pytest.fixture
def spooling(through: Database, spool: Spool) -> Iterator[Spooling]:
    spooling = Spooling(through, spool)
    yield spooling
    spooling.close()


def recorded(database: Database) -> list[str]:
    with database.read() as connection:
        return list(
            connection.exec_driver_sql("SELECT id::text FROM requests ORDER BY seq").scalars()
        )


def test_calls_go_to_the_database_while_it_is_there(
    spooling: Spooling, spool: Spool, database: Database, make_call: MakeCall
) -> None:
    calls = [make_call() for _ in range(3)]

    outcome = spooling.record(calls)

    assert outcome.healthy
    assert not outcome.refused
    assert recorded(database) == [call.id for call in calls]
    assert spool.depth().waiting == 0


def test_what_is_spooled_while_the_database_is_away_is_on_record_once_it_is_back(
    spooling: Spooling, spool: Spool, database: Database, proxy: Proxy, make_call: MakeCall
) -> None:
    proxy.refuse()
    batches = [[make_call(input=b"%d" % n, output=b"%d!" % n) for n in range(200)] for _ in "ab"]

    outcomes = [spooling.record(batch) for batch in batches]

    assert all(outcome.healthy and not outcome.refused for outcome in outcomes)
    assert spool.depth().waiting == 400
    proxy.accept()
    eventually(lambda: spool.depth().waiting == 0)
    assert recorded(database) == [call.id for batch in batches for call in batch]
    with database.read() as connection:
        found = reader.find(connection, batches[1][7].id, None)
    assert found is not None
    assert (found.input, found.output) == (b"7", b"7!")


def test_a_call_whose_commit_was_not_told_is_on_record_once(
    spooling: Spooling, spool: Spool, database: Database, proxy: Proxy, make_call: MakeCall
) -> None:
    spooling.record([])
    # The proxy knows the calls that it cuts off by this word.
    call = make_call(input=b'{"pressure": 1}')
    proxy.cut("after")

    outcome = spooling.record([call])

    assert not proxy.armed
    assert outcome.healthy
    assert not outcome.refused
    eventually(lambda: spool.depth().waiting == 0)
    assert recorded(database) == [call.id]


def test_a_call_with_an_idempotency_key_is_refused_while_the_database_is_away(
    spooling: Spooling, spool: Spool, database: Database, proxy: Proxy, make_call: MakeCall
) -> None:
    proxy.refuse()
    plain = make_call()

    outcome = spooling.record([make_call(idempotency_key="a"), plain])

    assert outcome.healthy
    assert list(outcome.refused) == [0]
    assert [spooled.call for spooled in spool.first()] == [plain]


def test_a_database_that_falls_silent_is_given_up_after_a_while(
    through: Database, spool: Spool, proxy: Proxy, make_call: MakeCall
) -> None:
    commits = Commits(through, deadline_seconds=0.3)
    assert commits.record([]).healthy
    proxy.hold()

    outcome = commits.record([make_call()])

    proxy.flow()
    assert not outcome.healthy
    assert commits.record([make_call()]).healthy
    commits.close()


def test_a_drain_that_died_after_its_commit_does_not_record_a_call_again(
    through: Database, spool: Spool, database: Database, make_call: MakeCall
) -> None:
    calls = [make_call() for _ in range(3)]
    commits = Commits(database)
    commits.record(calls[:2])
    commits.close()
    spool.put(calls)

    done = Drain(through, spool).run()

    assert done
    assert recorded(database) == [call.id for call in calls]
    assert spool.depth().waiting == 0


def test_a_call_that_the_database_refuses_stays_and_holds_up_no_other(
    through: Database, spool: Spool, database: Database, make_call: MakeCall
) -> None:
    of_nobody, good = make_call(user_id=new_id()), make_call()
    too_long_for_its_index = make_call(x_request_id=random.Random(1).randbytes(9000).hex())
    spool.put([of_nobody, too_long_for_its_index, good])

    done = Drain(through, spool).run()

    depth = spool.depth()
    assert done
    assert recorded(database) == [good.id]
    assert (depth.waiting, depth.refused) == (0, 2)
    assert depth.reason is not None
    assert "ForeignKeyViolation" in depth.reason
    spool.readmit()
    assert [spooled.call for spooled in spool.first()] == [of_nobody, too_long_for_its_index]


def test_a_spool_survives_its_process_and_is_drained_by_the_next(
    through: Database, tmp_path: Path, database: Database, make_call: MakeCall
) -> None:
    place = SpoolPlace(str(tmp_path / "spool.db"), ONE_MIB)
    before = Spool(place)
    before.open()
    call = make_call()
    before.put([call])
    before.close()

    after = Spool(place)
    after.open()
    spooling = Spooling(through, after)

    eventually(lambda: recorded(database) == [call.id])
    spooling.close()


def test_a_full_spool_refuses_until_it_has_been_drained(
    spooling: Spooling, spool: Spool, database: Database, proxy: Proxy, make_call: MakeCall
) -> None:
    proxy.refuse()
    accepted, outcome = [], None
    while outcome is None or outcome.healthy:
        call = make_call(input=b"x" * 100_000)
        outcome = spooling.record([call])
        if outcome.healthy:
            accepted.append(call.id)
        assert len(accepted) < 20

    assert outcome.refused
    assert spool.depth().full
    assert spool.depth().bytes <= ONE_MIB
    assert not spooling.record([]).healthy
    proxy.accept()
    eventually(lambda: spooling.record([]).healthy)
    eventually(lambda: spool.depth().waiting == 0)
    assert recorded(database) == accepted
    assert not spool.depth().full


def test_a_full_spool_takes_nothing_of_a_batch(spool: Spool, make_call: MakeCall) -> None:
    batch = [make_call(input=b"x" * 100_000) for _ in range(20)]

    with pytest.raises(Exception, match="full"):
        spool.put(batch)

    assert spool.depth().waiting == 0
    spool.put(batch[:9])
    with pytest.raises((SpoolFullError, Exception), match="full"):
        spool.put(batch[9:11])
    assert spool.depth().waiting == 9


def test_a_drained_spool_holds_no_byte_of_what_was_in_it(
    through: Database, spool: Spool, tmp_path: Path, make_call: MakeCall
) -> None:
    spool.put([make_call(input=b"a very private thing" * 1000)])

    Drain(through, spool).run()

    files = [path for path in tmp_path.iterdir() if path.name.startswith("spool.db")]
    assert files
    assert not [path for path in files if b"a very private thing" in path.read_bytes()]
    assert (tmp_path / "spool.db").stat().st_mode & 0o777 == 0o600
