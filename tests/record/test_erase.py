"""Erasing: what goes is gone, what stays proves the same, and nothing else passes for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from onrecord.errors import SealError
from onrecord.record import erase, reader, users
from onrecord.record.batch import committer
from onrecord.record.call import RecordedCall
from onrecord.record.checkpoint import SigningKey
from onrecord.record.database import Database
from onrecord.record.erase import By, Eraser, Selection
from onrecord.record.heads_file import HeadsFile
from onrecord.record.proof import prove
from onrecord.record.seal import Sealer
from onrecord.record.verify import Verified, signed_heads, verify

MakeCall = Callable[..., RecordedCall]
COUNT = 40
BY = By("Article 17, case 4711", operator="root")


@dataclass
class Kept:
    """A record of 40 calls, every fourth of them Bob's, all but the last two sealed."""

    database: Database
    calls: list[RecordedCall]
    bob: str
    key: SigningKey
    heads: HeadsFile
    path: Path

    @property
    def eraser(self) -> Eraser:
        return Eraser(self.database, self.key, self.heads)

    @property
    def of_bob(self) -> list[RecordedCall]:
        return [call for call in self.calls if call.user_id == self.bob]

    def verified(self) -> Verified:
        heads = signed_heads(self.heads.lines(), self.key.public)
        return verify(self.database, heads, self.key.public)

    def seal(self) -> None:
        Sealer(self.database, self.key, self.heads).seal()

    def execute(self, statement: str, **values: object) -> None:
        with self.database.write() as connection:
            if self.database.dialect == "postgresql":
                connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
            connection.execute(sa.text(statement), values)

    def entry(self, call: RecordedCall) -> reader.Entry | None:
        with self.database.read() as connection:
            return reader.find(connection, call.id, None)


@pytest.fixture
def kept(
    database: Database, make_call: MakeCall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Kept:
    monkeypatch.setattr(erase, "_CALLS_AT_ONCE", 4)
    with database.write() as connection:
        bob = users.add(connection, username="Bob", email=None, password_hash=None, role="user")
    calls = [
        make_call(
            input=b'{"iban": "secret-%d-%s"}' % (number, b"x" * (number * 300)),
            output=b'{"answer": "hidden-%d"}' % number,
            **({"user_id": bob.id} if number % 4 == 0 else {"model": "other"}),
        )
        for number in range(COUNT)
    ]
    key = SigningKey.from_file(tmp_path / "seal.key")
    heads = HeadsFile(tmp_path / "heads.jsonl")
    connection = database.raw_connection()
    commit = committer(connection.dbapi_connection, database.dialect)
    commit(calls[:-2])
    Sealer(database, key, heads).seal()
    commit(calls[-2:])
    connection.close()
    if database.dialect == "sqlite":
        sa.event.listen(
            database.engine, "checkout", lambda bare, *_: bare.execute("PRAGMA foreign_keys = OFF")
        )
    return Kept(database, calls, bob.id, key, heads, tmp_path / "record.db")


def test_what_a_user_sent_and_got_is_gone_and_the_record_verifies(kept: Kept) -> None:
    meant = Selection(user_id=kept.bob)
    assert kept.eraser.count("payloads", meant) == 10

    done = kept.eraser.erase("payloads", meant, BY)

    assert (done.calls, done.traces) == (10, False)
    found = kept.verified()
    assert (found.fault, found.unsealed, found.unsealed_erasures) == (None, 0, [])
    (act,) = found.erasures
    assert (act.id, act.calls, act.operator, act.reason) == (done.id, 10, "root", BY.reason)
    assert act.selection == f'{{"user_id": "{kept.bob}"}}'
    assert (datetime.now(UTC) - act.erased_at).total_seconds() < 600
    for call in kept.calls:
        entry = kept.entry(call)
        assert entry is not None
        erased = call in kept.of_bob
        assert (entry.input, entry.output) == (
            (None, None) if erased else (call.input, call.output)
        )
        assert entry.erasure_id == (done.id if erased else None)
        assert (entry.erased_at is not None) == erased
    assert kept.eraser.erase("payloads", meant, BY).calls == 0


def test_a_call_has_the_same_leaf_and_place_after_its_erasure(kept: Kept) -> None:
    kept.seal()
    with kept.database.read() as connection:
        before = [prove(connection, call.id) for call in kept.calls]

    kept.eraser.erase("payloads", Selection(user_id=kept.bob), BY)

    with kept.database.read() as connection:
        after = [prove(connection, call.id) for call in kept.calls]
    for old, new in zip(before, after, strict=True):
        assert old is not None
        assert new is not None
        assert (old.leaf, old.index) == (new.leaf, new.index)
    erased = [proof for proof in after if proof and proof.row.user_id == kept.bob]
    assert {(proof.row.salt, proof.row.input, proof.row.output) for proof in erased} == {
        (None, None, None)
    }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_byte_of_an_erased_payload_is_left_in_the_files_of_sqlite(kept: Kept) -> None:
    def left(call: RecordedCall) -> bool:
        files = b"".join(file.read_bytes() for file in kept.path.parent.glob("record.db*"))
        assert call.input is not None
        return call.input[:24] in files or call.output in files

    assert all(left(call) for call in kept.calls)

    kept.eraser.erase("payloads", Selection(user_id=kept.bob), BY)

    assert [left(call) for call in kept.calls] == [call not in kept.of_bob for call in kept.calls]


def test_rows_that_are_removed_leave_a_record_that_verifies(kept: Kept) -> None:
    kept.eraser.erase("payloads", Selection(user_id=kept.bob), BY)

    done = kept.eraser.erase("rows", Selection(model="other"), BY)

    assert done.calls == 30
    found = kept.verified()
    assert found.fault is None
    assert [(act.what, act.calls) for act in found.erasures] == [("payloads", 10), ("rows", 30)]
    assert [kept.entry(call) is None for call in kept.calls] == [
        call.model == "other" for call in kept.calls
    ]
    kept.eraser.erase("rows", Selection(), BY)
    assert kept.verified().fault is None


def test_an_erasure_cut_short_has_done_a_part_and_the_next_does_the_rest(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCutError(Exception):
        pass

    rounds: list[int] = []

    def stop(*_: object) -> None:
        rounds.append(1)
        if len(rounds) == 2:
            raise PowerCutError

    with monkeypatch.context() as patch:
        real = erase._erase_payloads
        patch.setattr(
            erase,
            "_erase_payloads",
            lambda *given: (real(*given), stop()),  # after both updates
        )
        with pytest.raises(PowerCutError):
            kept.eraser.erase("payloads", Selection(user_id=kept.bob), BY)

    found = kept.verified()
    assert found.fault is None
    assert [act.calls for act in found.unsealed_erasures] == [4]
    assert kept.eraser.erase("payloads", Selection(user_id=kept.bob), BY).calls == 6
    assert [act.calls for act in kept.verified().erasures] == [4, 6]


FORGED = (
    "INSERT INTO erasures (seq, id, erased_at, operator, reason, what, selection, calls, leaves,"
    " first_leaf, last_leaf, signature) SELECT 5000, id, erased_at, operator, reason, what,"
    " selection, 1, {leaves}, 9, 9, signature FROM erasures LIMIT 1"
)


@pytest.mark.parametrize("event", [None, "another's", "forged"])
def test_a_payload_that_was_taken_without_a_signed_erasure_is_found(
    kept: Kept, event: str | None
) -> None:
    kept.eraser.erase("payloads", Selection(user_id=kept.bob, before=datetime.now(UTC)), BY)
    victim = kept.calls[9]
    with kept.database.read() as connection:
        proof = prove(connection, victim.id)
        real = connection.execute(sa.text("SELECT max(seq) FROM erasures")).scalar_one()
    assert proof is not None
    asked, said = erase.commitments(proof.row)
    seq = {None: None, "another's": real, "forged": 5000}[event]
    if event == "forged":
        eight = (9).to_bytes(8)
        leaves = f"x'{eight.hex()}'" if kept.database.dialect == "sqlite" else f"'\\x{eight.hex()}'"
        kept.execute(FORGED.format(leaves=leaves))
    kept.execute(
        "UPDATE requests SET input = NULL, salt = NULL, input_commitment = :asked,"
        " erasure_seq = :seq WHERE id = :id",
        asked=asked,
        seq=seq,
        id=victim.id,
    )
    kept.execute(
        "UPDATE responses SET output = NULL, output_commitment = :said WHERE request_id = :id",
        said=said,
        id=victim.id,
    )
    kept.seal()

    fault = kept.verified().fault

    assert fault is not None
    assert (fault.leaf, fault.id) == (9, victim.id)
    assert "no erasure that the record's key signed explains that" in fault.what


def test_an_erasure_that_was_forged_is_found_though_it_was_sealed(kept: Kept) -> None:
    kept.eraser.erase("payloads", Selection(user_id=kept.bob), BY)
    kept.execute(FORGED.format(leaves="leaves"))
    kept.seal()

    fault = kept.verified().fault

    assert fault is not None
    assert fault.seq == 5000
    assert fault.what == "it is an erasure that the record's key did not sign"


@pytest.mark.parametrize(
    "change",
    ["reason = 'none'", "operator = 'ada'", "what = 'rows'", "selection = '{}'", "calls = 3"],
)
def test_an_erasure_that_was_changed_is_found(kept: Kept, change: str) -> None:
    kept.eraser.erase("payloads", Selection(user_id=kept.bob), BY)

    kept.execute(f"UPDATE erasures SET {change}")

    assert kept.verified().fault is not None


def test_rows_cut_without_an_erasure_are_found(kept: Kept) -> None:
    kept.eraser.erase("rows", Selection(model="other"), BY)
    victim = kept.of_bob[3]
    kept.execute("DELETE FROM responses WHERE request_id = :id", id=victim.id)
    kept.execute("DELETE FROM requests WHERE id = :id", id=victim.id)

    fault = kept.verified().fault

    assert fault is not None
    assert (fault.leaf, fault.id, fault.what) == (12, victim.id, "it is missing")


def test_a_payload_that_came_back_is_found(kept: Kept) -> None:
    call = kept.of_bob[1]
    with kept.database.read() as connection:
        salt = connection.execute(
            sa.text("SELECT salt FROM requests WHERE id = :id"), {"id": call.id}
        ).scalar_one()
    kept.eraser.erase("payloads", Selection(user_id=kept.bob), BY)
    kept.execute(
        "UPDATE requests SET input = :input, salt = :salt WHERE id = :id",
        input=call.input,
        salt=salt,
        id=call.id,
    )
    kept.execute(
        "UPDATE responses SET output = :output WHERE request_id = :id",
        output=call.output,
        id=call.id,
    )

    fault = kept.verified().fault

    assert fault is not None
    assert fault.id == call.id


def test_a_call_that_is_not_as_it_was_sealed_is_not_erased(kept: Kept) -> None:
    kept.execute("UPDATE responses SET status = 500 WHERE request_id = :id", id=kept.of_bob[5].id)

    with pytest.raises(SealError, match="not what was sealed"):
        kept.eraser.erase("payloads", Selection(user_id=kept.bob), BY)

    entry = kept.entry(kept.of_bob[5])
    assert entry is not None
    assert entry.input is not None
