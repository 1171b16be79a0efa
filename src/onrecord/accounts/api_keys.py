"""API keys: long-lived secrets by which programs call in a user's name, with few of its rights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from onrecord.accounts.caller import SCOPES
from onrecord.accounts.opaque import digest_of, random_text, with_secret
from onrecord.accounts.rates import RATE_FORM, parse_rate
from onrecord.errors import Conflict, Fault, Forbidden, InvalidInput, NotFound
from onrecord.record import api_keys, users
from onrecord.record.api_keys import ApiKey
from onrecord.record.database import Database
from onrecord.record.ids import new_id

__all__ = ["ApiKeys", "Kind", "is_api_key"]

Kind = Literal["live", "test"]

_HEADS: dict[Kind, str] = {"live": "onr_live_", "test": "onr_test_"}
_RECOGNITION = 8
_MAX_NAME = 100
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a model can be called, since its name stands in addresses."""

_MAX_MODELS = 100
_MAX_USABLE = 100
_MAX_QUOTA = 1_000_000_000


def is_api_key(token: str) -> bool:
    """Tell whether a bearer token has the form of an API key, valid or not."""
    return token.startswith(tuple(_HEADS.values()))


class ApiKeys:
    """The API keys of one database; `longest` is how long one may be valid.

    Every method raises Unavailable where the database is out of reach.
    """

    def __init__(self, database: Database, *, longest: timedelta) -> None:
        self._database = database
        self._longest = longest

    async def create(  # noqa: PLR0913 - one argument a property of the key
        self,
        user_id: str,
        *,
        name: str,
        kind: Kind,
        scopes: Sequence[str],
        models: Sequence[str] | None,
        expires_at: datetime | None,
        rate: str | None = None,
        quota: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key of a user; return it and its secret, which is not kept and not shown again.

        Without `models` it is for every model; without `expires_at` it is valid as long as one
        may be. `rate` ("10/second") and `quota` (calls a day) limit it beside its owner's.
        Raises InvalidInput with every bad field, Forbidden where the user is an auditor or may
        not call, and Conflict where it has too many keys.
        """
        now = datetime.now(UTC)
        ends = now + self._longest if expires_at is None else expires_at
        faults = (
            *_name_faults(name),
            *_reach_faults(scopes, models),
            *self._end_faults(ends, now),
            *_limit_faults(rate, quota),
        )
        if faults:
            raise InvalidInput("Some fields are not acceptable.", faults=faults)

        def add() -> tuple[ApiKey, str]:
            with self._database.write() as connection:
                owner = _owner(users.by_id(connection, user_id))
                if api_keys.count_usable(connection, user_id, now) >= _MAX_USABLE:
                    raise Conflict(f"A user has at most {_MAX_USABLE} keys; revoke one first.")
                while True:
                    prefix = _HEADS[kind] + random_text(_RECOGNITION)
                    secret = with_secret(prefix)
                    key = ApiKey(
                        id=new_id(),
                        user_id=owner.id,
                        username=owner.username,
                        name=name,
                        kind=kind,
                        prefix=prefix,
                        key_sha256=digest_of(secret),
                        scopes=tuple(sorted(set(scopes))),
                        models=None if models is None else tuple(dict.fromkeys(models)),
                        created_at=now,
                        expires_at=ends,
                        revoked_at=None,
                        last_used_at=None,
                        rate=rate,
                        quota=quota,
                    )
                    if api_keys.add(connection, key):
                        return key, secret

        return await self._database.run(add)

    async def page(self, user_id: str | None, *, limit: int, after_id: str | None) -> list[ApiKey]:
        """Return at most `limit` keys, oldest first: a user's, or with None everyone's."""

        def read() -> list[ApiKey]:
            with self._database.read() as connection:
                return api_keys.page(connection, user_id=user_id, limit=limit, after_id=after_id)

        return await self._database.run(read)

    async def revoke(self, key_id: str, *, owner_id: str | None) -> None:
        """Revoke a key; with an `owner_id` only where it is that user's.

        Every process refuses it within a second. Revoking it again changes nothing. Raises
        NotFound where there is no such key.
        """

        def act() -> None:
            with self._database.write() as connection:
                key = api_keys.by_id(connection, key_id)
                if key is None or (owner_id is not None and key.user_id != owner_id):
                    raise NotFound("There is no such API key.")
                api_keys.revoke(connection, key_id, datetime.now(UTC))

        await self._database.run(act)

    def _end_faults(self, ends: datetime, now: datetime) -> list[Fault]:
        if now < ends <= now + self._longest:
            return []
        longest = f"a time within {self._longest.days} days from now"
        sentence = "The key would end too late." if ends > now else "The time is past."
        return [Fault("/expires_at", "out_of_range", sentence, expected=longest)]


def _owner(user: users.User | None) -> users.User:
    if user is None or not user.may_call:
        raise Forbidden("Only a user who may call can have API keys.")
    if user.role == "auditor":
        raise Forbidden("An auditor reads everything and changes nothing: it has no API keys.")
    return user


def _name_faults(name: str) -> list[Fault]:
    if 1 <= len(name) <= _MAX_NAME and name.isprintable() and not name.isspace():
        return []
    expected = f"1 to {_MAX_NAME} printable characters"
    return [Fault("/name", "wrong_form", "A key needs a name to be known by.", expected)]


def _reach_faults(scopes: Sequence[str], models: Sequence[str] | None) -> list[Fault]:
    faults = []
    known = ", ".join(SCOPES)
    if not scopes:
        sentence = "A key without a scope can do nothing."
        faults.append(Fault("/scopes", "missing", sentence, expected=known))
    for place, scope in enumerate(scopes):
        if scope not in SCOPES:
            sentence = "There is no such scope."
            faults.append(Fault(f"/scopes/{place}", "unknown_scope", sentence, expected=known))
    if models is not None and not 1 <= len(models) <= _MAX_MODELS:
        expected = f"1 to {_MAX_MODELS} names; leave it out for every model"
        faults.append(Fault("/models", "out_of_range", "These are too few or too many.", expected))
    for place, model in enumerate((models or ())[:_MAX_MODELS]):
        if not _MODEL.fullmatch(model):
            expected = "1 to 100 of A-Z a-z 0-9 . _ -, the first a letter or digit"
            sentence = "No model can have this name."
            faults.append(Fault(f"/models/{place}", "wrong_form", sentence, expected))
    return faults


def _limit_faults(rate: str | None, quota: int | None) -> list[Fault]:
    faults = []
    if rate is not None:
        try:
            parse_rate(rate)
        except ValueError:
            faults.append(
                Fault(
                    "/rate",
                    "wrong_form",
                    "This is not a rate such as 100/second.",
                    RATE_FORM,
                    rate[:100],
                )
            )
    if quota is not None and not 1 <= quota <= _MAX_QUOTA:
        expected = f"1 to {_MAX_QUOTA} calls a day; leave it out for no quota"
        faults.append(
            Fault(
                "/quota",
                "out_of_range",
                "A quota is at least one call a day, and no huge number.",
                expected,
                str(quota),
            )
        )
    return faults
