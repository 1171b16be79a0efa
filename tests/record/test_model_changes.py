"""Changes of which version answers are leaves of the tree: whoever edits one is found out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from onrecord.record.by import By
from onrecord.record.checkpoint import SigningKey
from onrecord.record.database import Database
from onrecord.record.heads_file import HeadsFile
from onrecord.record.model_changes import Action, ModelChange, page, put_on_record
from onrecord.record.model_versions import register_model_version
from onrecord.record.seal import Sealer
from onrecord.record.tables import model_changes
from onrecord.record.verify import Verified, signed_heads, verify

ACTIONS: tuple[Action, ...] = ("start", "add", "promote", "rollback", "retire")
BAD = 2


@dataclass
class Sealed:
    """A record of model changes alone, all under one head."""

    database: Database
    changes: list[ModelChange]
    key: SigningKey
    heads: HeadsFile

    def verified(self) -> Verified:
        lines = self.heads.lines()
        return verify(self.database, signed_heads(lines, self.key.public), self.key.public)

    def execute(self, statement: str) -> None:
        """Run a statement as who owns the database would."""
        with self.database.write() as connection:
            connection.execute(sa.text(statement), {"seq": self.changes[BAD].seq})


@pytest.fixture
def sealed(database: Database, tmp_path: Path) -> Sealed:
    by = By(reason="better on the new rows", operator="ops")
    with database.write() as connection:
        version = register_model_version(connection, "iris", "1", "a" * 64, "b" * 64, b"", "onnx")
        changes = [put_on_record(connection, action, version, by) for action in ACTIONS]
    key = SigningKey.from_file(tmp_path / "seal.key")
    heads = HeadsFile(tmp_path / "heads.jsonl")
    Sealer(database, key, heads).seal()
    return Sealed(database, changes, key, heads)


def test_model_changes_are_counted_among_the_rows_that_are_sound(sealed: Sealed) -> None:
    found = sealed.verified()

    assert (found.rows, found.changes, found.unsealed, found.fault) == (5, 5, 0, None)


def test_changes_come_back_as_they_went_in_and_newest_first(sealed: Sealed) -> None:
    with sealed.database.read() as connection:
        newest = page(connection, limit=2, model="iris")
        older = page(connection, limit=9, before=newest[-1].seq)
        others = page(connection, limit=9, model="other")

    assert newest + older == sealed.changes[::-1]
    assert others == []


CHANGED = {
    "changed_at": "'2026-11-25T09:00:00.123457Z'",
    "operator": "'somebody else'",
    "action": "'add'",
    "model": "'other'",
    "number": "7",
    "version": "'9'",
    "sha256": "'c'",
    "schema_sha256": "'c'",
    "details": "'{}'",
}


@pytest.mark.parametrize(("column", "value"), CHANGED.items())
def test_a_changed_field_is_found_and_said_to_be_of_a_model_change(
    sealed: Sealed, column: str, value: str
) -> None:
    sealed.execute(f"UPDATE model_changes SET {column} = {value} WHERE seq = :seq")

    fault = sealed.verified().fault

    bad = sealed.changes[BAD]
    assert fault is not None
    assert (fault.leaf, fault.seq, fault.id) == (BAD, bad.seq, bad.id)
    assert fault.what.startswith("it is a change of the model")
    assert fault.what.endswith("its content is not what was sealed")


def test_every_column_of_a_change_is_sealed_or_says_nothing_elsewhere() -> None:
    by_their_place = {"seq", "id", "by_user_id", "model_version_id"}

    assert {column.name for column in model_changes.c} == {*CHANGED, *by_their_place}


def test_a_removed_change_is_found(sealed: Sealed) -> None:
    sealed.execute("DELETE FROM model_changes WHERE seq = :seq")

    fault = sealed.verified().fault

    assert fault is not None
    assert (fault.leaf, fault.id) == (BAD, sealed.changes[BAD].id)
    assert fault.what == "it is missing"


def test_a_moved_change_is_found_where_it_stood(sealed: Sealed) -> None:
    sealed.execute("UPDATE model_changes SET seq = 5000 WHERE seq = :seq")

    fault = sealed.verified().fault

    assert fault is not None
    assert (fault.leaf, fault.id) == (BAD, sealed.changes[BAD].id)
    assert fault.what == "it was moved: its seq is now 5000"


def test_a_change_put_in_is_found(sealed: Sealed) -> None:
    new = "01a21316-4b45-73c9-9539-a18db2d00000"
    names = ", ".join(c.name for c in model_changes.c if c.name not in {"seq", "id"})
    sealed.execute(
        f"INSERT INTO model_changes (seq, id, {names})"
        f" SELECT -4, '{new}', {names} FROM model_changes WHERE seq = :seq"
    )

    fault = sealed.verified().fault

    assert fault is not None
    assert (fault.leaf, fault.seq, fault.id) == (0, -4, new)
    assert fault.what == (
        "it is a change of the model iris, and it was put in among rows that were sealed without it"
    )
