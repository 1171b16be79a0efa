from __future__ import annotations

import pytest

from onrecord.errors import Conflict
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.record.ids import new_id


def _again(database: Database, user: users.User) -> users.User:
    with database.read() as connection:
        found = users.by_id(connection, user.id)
    assert found is not None
    return found


def test_a_user_is_found_as_it_was_added(database: Database, user: users.User) -> None:
    assert _again(database, user) == user
    with database.read() as connection:
        assert users.by_username(connection, "aDA") == user
        assert users.by_username(connection, "nobody\x00") is None
        assert users.by_id(connection, new_id()) is None
        assert users.by_id(connection, "no id") is None


@pytest.mark.parametrize("name", ["Ada", "ADA", "ada"])
@pytest.mark.parametrize("deleted", [False, True])
def test_a_name_is_taken_once_whatever_its_case_even_by_the_deleted(
    database: Database, user: users.User, name: str, deleted: bool
) -> None:
    if deleted:
        with database.write() as connection:
            users.delete(connection, user.id)
    with database.write() as connection, pytest.raises(Conflict):
        users.add(connection, username=name, email=None, password_hash=None, role="user")


def test_deleting_leaves_a_tombstone_that_nothing_changes(
    database: Database, user: users.User
) -> None:
    with database.write() as connection:
        users.delete(connection, user.id)
    tombstone = _again(database, user)
    assert tombstone.deleted_at is not None
    assert (tombstone.username, tombstone.email, tombstone.password_hash) == ("Ada", None, None)
    assert tombstone.token_version == user.token_version + 1
    with database.write() as connection:
        users.delete(connection, user.id)
        users.set_disabled(connection, user.id, disabled=True)
        users.set_role(connection, user.id, "admin")
        users.set_password_hash(connection, user.id, "new")
        users.rehash(connection, user.id, "new")
    assert _again(database, user) == tombstone


def test_disabling_ends_the_tokens_and_can_be_undone(database: Database, user: users.User) -> None:
    with database.write() as connection:
        users.set_disabled(connection, user.id, disabled=True)
    disabled = _again(database, user)
    assert disabled.disabled_at is not None
    assert disabled.token_version == user.token_version + 1
    with database.write() as connection:
        users.set_disabled(connection, user.id, disabled=True)
    assert _again(database, user).disabled_at == disabled.disabled_at
    with database.write() as connection:
        users.set_disabled(connection, user.id, disabled=False)
    assert _again(database, user).disabled_at is None


def test_a_new_password_ends_the_tokens_and_a_rehash_does_not(
    database: Database, user: users.User
) -> None:
    with database.write() as connection:
        users.rehash(connection, user.id, "stronger")
    assert _again(database, user).token_version == user.token_version
    with database.write() as connection:
        users.set_password_hash(connection, user.id, "other")
    changed = _again(database, user)
    assert (changed.password_hash, changed.token_version) == ("other", user.token_version + 1)


def test_a_role_can_be_changed(database: Database, user: users.User) -> None:
    with database.write() as connection:
        users.set_role(connection, user.id, "admin")
    assert _again(database, user).role == "admin"


def test_users_are_paged_oldest_first(database: Database, user: users.User) -> None:
    names = ["Bea", "Cy", "Di"]
    with database.write() as connection:
        for name in names:
            users.add(connection, username=name, email=None, password_hash=None, role="user")
    with database.read() as connection:
        first = users.page(connection, 3, None)
        rest = users.page(connection, limit=3, after_id=first[-1].id)
    assert [found.username for found in first + rest] == ["Ada", *names]
