"""Sealing: what is signed, by whom, and what a crash or a second sealer makes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from onrecord.errors import SealError, Unavailable
from onrecord.record import batch
from onrecord.record.batch import committer
from onrecord.record.call import RecordedCall
from onrecord.record.checkpoint import Head, PublicKey, SigningKey, open_note
from onrecord.record.commit_order import complete_up_to
from onrecord.record.database import Database
from onrecord.record.heads_file import HeadsFile
from onrecord.record.merkle import Frontier
from onrecord.record.seal import Sealer, newest_head, unsealed
from onrecord.record.verify import Verified, signed_heads, verify

MakeCall = Callable[..., RecordedCall]


@pytest.fixture
def heads(tmp_path: Path) -> HeadsFile:
    return HeadsFile(tmp_path / "outside" / "heads.jsonl")


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.from_file(tmp_path / "seal.key")


@pytest.fixture
def sealer(database: Database, key: SigningKey, heads: HeadsFile) -> Sealer:
    return Sealer(database, key, heads)


@pytest.fixture
def save(database: Database, make_call: MakeCall) -> Iterator[Callable[[int], list[str]]]:
    connection = database.raw_connection()
    commit = committer(connection.dbapi_connection, database.dialect)

    def save(count: int) -> list[str]:
        calls = [make_call() for _ in range(count)]
        commit(calls)
        return [call.id for call in calls]

    yield save
    connection.close()


@pytest.fixture
def filed(heads: HeadsFile, key: SigningKey) -> Callable[[], list[Head]]:
    """Return what reads the heads that are in the file."""
    return lambda: signed_heads(heads.lines(), key.public)


@pytest.fixture
def verified(
    database: Database, key: SigningKey, filed: Callable[[], list[Head]]
) -> Callable[[], Verified]:
    """Return what verifies the record under the heads that are in the file."""
    return lambda: verify(database, filed(), key.public)


def test_nothing_on_record_is_nothing_to_sign(sealer: Sealer, heads: HeadsFile) -> None:
    assert sealer.seal() is None
    assert heads.lines() == []


@pytest.mark.parametrize("sizes", [[1], [255, 1, 1], [3, 600, 300, 1], [256, 256]])
def test_each_head_is_over_all_that_was_on_record(
    sealer: Sealer,
    save: Callable[[int], list[str]],
    sizes: list[int],
    filed: Callable[[], list[Head]],
    verified: Callable[[], Verified],
) -> None:
    for number, size in enumerate(sizes, 1):
        save(size)
        head = sealer.seal()

        assert head is not None
        assert head.size == sum(sizes[:number])
        assert head == filed()[-1]
    assert [head.size for head in filed()] == [
        sum(sizes[:number]) for number in range(1, len(sizes) + 1)
    ]
    found = verified()
    assert (found.rows, found.heads, found.unsealed) == (sum(sizes), len(sizes), 0)
    assert found.fault is None


def test_sealing_again_signs_nothing_new(
    sealer: Sealer, heads: HeadsFile, save: Callable[[int], list[str]]
) -> None:
    save(2)

    first, second = sealer.seal(), sealer.seal()

    assert first == second
    assert len(heads.lines()) == 1


def test_a_large_backlog_is_sealed_in_parts(
    monkeypatch: pytest.MonkeyPatch,
    sealer: Sealer,
    save: Callable[[int], list[str]],
    filed: Callable[[], list[Head]],
    verified: Callable[[], Verified],
) -> None:
    monkeypatch.setattr("onrecord.record.seal._LEAVES_AT_ONCE", 300)
    save(1000)

    sealer.seal()

    assert [head.size for head in filed()] == [300, 600, 900, 1000]
    assert verified().fault is None


def test_what_is_not_yet_sealed_is_counted(
    database: Database, sealer: Sealer, save: Callable[[int], list[str]]
) -> None:
    save(2)
    sealer.seal()
    save(3)

    with database.read() as connection:
        head = newest_head(connection)
        assert head is not None
        assert unsealed(connection, head.last_seq) == 3
        assert unsealed(connection, None) == 5


def test_two_sealers_at_once_make_one_tree(
    database: Database,
    key: SigningKey,
    heads: HeadsFile,
    save: Callable[[int], list[str]],
    tmp_path: Path,
) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    others = [Database(url) for _ in range(2)]
    # On different machines they would not share the file's lock either.
    files = [heads, HeadsFile(tmp_path / "elsewhere" / "heads.jsonl")]
    refused: list[SealError] = []
    stop = threading.Event()

    def seal_on(own: Database, file: HeadsFile) -> None:
        sealer = Sealer(own, key, file)
        while not stop.is_set():
            try:
                sealer.seal()
            except SealError as error:
                refused.append(error)

    pairs = zip(others, files, strict=True)
    threads = [threading.Thread(target=seal_on, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for _ in range(30):
        save(40)
    stop.set()
    for thread in threads:
        thread.join()
    for file in files:
        Sealer(database, key, file).seal()

    assert all("elsewhere" in str(error) for error in refused), refused
    with database.read() as connection:
        head = newest_head(connection)
    assert head is not None
    assert head.size == 1200
    for file in files:
        found = verify(database, signed_heads(file.lines(), key.public), key.public)
        assert (found.fault, found.unsealed) == (None, 0)
    for other in others:
        other.close()


def test_several_writers_at_once_leave_no_row_out(
    database: Database,
    sealer: Sealer,
    make_call: MakeCall,
    filed: Callable[[], list[Head]],
    verified: Callable[[], Verified],
) -> None:
    def write() -> None:
        connection = database.raw_connection()
        commit = committer(connection.dbapi_connection, database.dialect)
        for size in (1, 3, 200) * 8:
            commit([make_call() for _ in range(size)])
        connection.close()

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        sealer.seal()
    head = sealer.seal()

    assert head is not None
    assert head.size == 4 * 8 * 204
    found = verified()
    assert (found.fault, found.unsealed) == (None, 0)


def test_a_row_drawn_before_but_committed_after_holds_up_the_seal(
    database: Database, make_call: MakeCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.dialect == "sqlite":
        return  # it has one writer at a time
    slow = database.raw_connection()
    connection: Any = slow.dbapi_connection
    batch.committer(connection, "postgresql")  # prepares the statement
    bounds: list[int] = []
    asking = threading.Thread(target=lambda: bounds.append(complete_up_to(database)))
    with connection.transaction():
        batch._insert_into_postgresql(connection.pgconn, [make_call()])
        asking.start()
        asking.join(0.3)
        assert bounds == []
    asking.join(30)
    assert bounds == [1]

    monkeypatch.setattr("onrecord.record.commit_order._PATIENCE_MS", 50)
    with connection.transaction():
        batch._insert_into_postgresql(connection.pgconn, [make_call()])
        with pytest.raises(Unavailable, match="may be stuck"):
            complete_up_to(database)
    slow.close()


def test_a_head_that_a_crash_kept_from_the_file_is_put_there_later(
    sealer: Sealer,
    heads: HeadsFile,
    save: Callable[[int], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    filed: Callable[[], list[Head]],
) -> None:
    save(3)
    with monkeypatch.context() as patched:
        patched.setattr(heads, "append", lambda note: (_ for _ in ()).throw(SealError("disk full")))
        with pytest.raises(SealError, match="disk full"):
            sealer.seal()
    assert heads.last() is None

    head = sealer.seal()

    assert head is not None
    assert [found.size for found in filed()] == [3]


def test_a_half_written_line_is_no_head_and_spoils_none(
    sealer: Sealer,
    heads: HeadsFile,
    save: Callable[[int], list[str]],
    filed: Callable[[], list[Head]],
    verified: Callable[[], Verified],
) -> None:
    save(3)
    sealer.seal()
    whole = heads.path.read_bytes()
    heads.path.write_bytes(whole + whole[:50])
    save(2)

    sealer.seal()

    assert [line.note is None for line in heads.lines()] == [False, True, False]
    assert [head.size for head in filed()] == [3, 5]
    assert verified().fault is None


def test_a_database_behind_the_heads_file_is_not_sealed(
    database: Database, sealer: Sealer, heads: HeadsFile, save: Callable[[int], list[str]]
) -> None:
    save(3)
    sealer.seal()
    with database.write() as connection:
        for table in ("tree_heads", "tree_tiles", "sealed_blocks"):
            connection.execute(sa.text(f"DELETE FROM {table}"))

    with pytest.raises(SealError, match="cut or is an older copy"):
        sealer.seal()


def test_tiles_that_were_changed_are_not_signed(
    database: Database, sealer: Sealer, heads: HeadsFile, save: Callable[[int], list[str]]
) -> None:
    save(3)
    sealer.seal()
    with database.write() as connection:
        hashes = connection.execute(sa.text("SELECT hashes FROM tree_tiles")).scalar_one()
        connection.execute(sa.text("UPDATE tree_tiles SET hashes = :h"), {"h": bytes(hashes)[::-1]})
    save(1)

    with pytest.raises(SealError, match="was changed"):
        sealer.seal()
    assert len(heads.lines()) == 1


def test_another_key_does_not_go_on_with_a_record(
    database: Database,
    sealer: Sealer,
    heads: HeadsFile,
    save: Callable[[int], list[str]],
    tmp_path: Path,
) -> None:
    save(1)
    sealer.seal()
    other = SigningKey.from_file(tmp_path / "other.key")

    with pytest.raises(SealError, match="not signed by"):
        Sealer(database, other, heads).seal()


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "seal.key"
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(str(SigningKey.from_file(path).public)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert str(PublicKey.parse(found[0])) == found[0]
    path.chmod(0o644)
    with pytest.raises(SealError, match="chmod 600"):
        SigningKey.from_file(path)


def test_a_file_that_is_no_key_is_told_without_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    path.write_text("PRIVATE+KEY+onrecord/x+00000000+c2VjcmV0")
    path.chmod(0o600)

    with pytest.raises(SealError, match="no signing key") as caught:
        SigningKey.from_file(path)

    assert "c2VjcmV0" not in str(caught.value)


# Made by Go's golang.org/x/mod/sumdb/note documentation example.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_notes_are_those_of_other_tools() -> None:
    with pytest.raises(SealError, match="not a head"):  # the signature holds
        open_note(GO_NOTE, PublicKey.parse(GO_KEY))
    with pytest.raises(SealError, match="does not fit"):
        open_note(GO_NOTE.replace("answer", "question"), PublicKey.parse(GO_KEY))


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("\n1\n", "\n2\n"),
        lambda note: note[:-10] + "AAAAAAAA=\n",
        lambda note: note.replace("\u2014", "-"),
        lambda note: "",
        lambda note: note.split("\n\n")[0],
    ],
)
def test_a_note_with_anything_changed_is_refused(
    key: SigningKey, change: Callable[[str], str]
) -> None:
    _, note = key.sign(1, Frontier().root())

    assert open_note(note, key.public).size == 1
    with pytest.raises(SealError):
        open_note(change(note), key.public)


def test_two_heads_of_one_size_that_differ_are_refused(
    key: SigningKey, heads: HeadsFile, filed: Callable[[], list[Head]]
) -> None:
    for root in (b"a" * 32, b"b" * 32):
        heads.append(key.sign(1, root)[1])

    with pytest.raises(SealError, match=r"line 2.*two different heads of size 1"):
        filed()
    assert json.loads(heads.path.read_text().splitlines()[0]).keys() == {"note"}
