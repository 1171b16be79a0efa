"""Tokens of an external issuer, its keys, and who its users are here."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import time_machine

from local_issuer import AUDIENCE, LocalIssuer, forged, jwk, local_issuer, public_pem
from onrecord.accounts.caller import Caller
from onrecord.accounts.external import ExternalTokens, RoleMap
from onrecord.accounts.issuer_keys import IssuerKeys
from onrecord.accounts.sign_in import Accounts
from onrecord.accounts.standing import Gate
from onrecord.accounts.tokens import Tokens
from onrecord.errors import Conflict, Forbidden, SettingsError, Unauthenticated, Unavailable
from onrecord.record import users
from onrecord.record.database import Database

pytestmark = pytest.mark.anyio
NO_MAP = RoleMap("roles", ())


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as issuer:
        yield issuer


def external(
    issuer: LocalIssuer,
    *,
    algorithms: tuple[str, ...] = ("RS256", "EdDSA"),
    roles: RoleMap = NO_MAP,
    pause_seconds: float = 3600,
) -> ExternalTokens:
    keys = IssuerKeys(issuer.url, algorithms=algorithms, pause_seconds=pause_seconds)
    return ExternalTokens(
        keys,
        issuer=issuer.url,
        audience=AUDIENCE,
        roles=roles,
        username_claim="preferred_username",
    )


@pytest.fixture
def make_gate(issuer: LocalIssuer, tokens: Tokens, database: Database) -> Callable[..., Gate]:
    def make(**more: Any) -> Gate:
        return Gate(tokens, database, external=external(issuer, **more), freshness_seconds=0)

    return make


def found(database: Database, name: str) -> users.User:
    with database.read() as connection:
        user = users.by_username(connection, name)
    assert user is not None
    return user


@pytest.mark.parametrize("kind", ["RSA", "OKP"])
async def test_a_good_token_is_its_users(
    make_gate: Callable[..., Gate], issuer: LocalIssuer, database: Database, kind: str
) -> None:
    caller = await make_gate().authenticate(f"Bearer {issuer.token(kind)}")

    user = found(database, "ada")
    assert caller == Caller(user.id, "ada", "user")
    assert (user.issuer, user.subject) == (issuer.url, "248289761001")
    assert (user.password_hash, user.email) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"header": {"typ": "at+jwt"}},
        {"header": {"typ": "application/AT+JWT"}},
        {"header": {"typ": None}},
        {"aud": ["account", AUDIENCE]},
        {"seconds_from_now": {"nbf": -5}},
        {"seconds_from_now": {"iat": 20}},
        {"seconds_from_now": {"exp": -20}},
    ],
    ids=str,
)
async def test_what_issuers_differ_in_is_accepted(
    issuer: LocalIssuer, changes: dict[str, Any]
) -> None:
    now = int(time.time())
    moments = changes.get("seconds_from_now", {})
    others = {name: value for name, value in changes.items() if name != "seconds_from_now"}
    moments = {name: now + seconds for name, seconds in moments.items()}
    claims = await external(issuer).read(issuer.token(**others, **moments))

    assert claims.subject == "248289761001"
    assert claims.expires_at >= now


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"aud": "https://other.example"}, "not issued for this server"),
        ({"without": "aud"}, "malformed"),
        ({"iss": "https://other.example"}, "not issued for this server"),
        ({"exp": 1_000_000}, "has expired"),
        ({"without": "exp"}, "malformed"),
        ({"exp": 10**400}, "malformed"),
        ({"exp": "soon"}, "malformed"),
        ({"nbf": 10**11}, "not valid yet"),
        ({"iat": 10**11}, "not valid yet"),
        ({"without": "iat"}, "malformed"),
        ({"without": "sub"}, "malformed"),
        ({"sub": ""}, "malformed"),
        ({"sub": 7}, "malformed"),
        ({"sub": "a" * 256}, "malformed"),
        ({"sub": "a\x00b"}, "malformed"),
        ({"header": {"typ": "logout+jwt"}}, "not an access token"),
        ({"header": {"crit": ["exp"], "exp": 1}}, "malformed"),
        ({"cnf": {"jkt": "x"}}, "bound to a key"),
        ({"number": 1}, "signature is not valid"),
        ({"header": {"kid": "ed"}}, "signature is not valid"),
    ],
    ids=str,
)
async def test_a_token_that_is_not_right_is_refused(
    issuer: LocalIssuer, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(Unauthenticated, match=words):
        await external(issuer).read(issuer.token(**changes))


async def test_a_token_with_no_or_an_hmac_signature_is_refused(
    make_gate: Callable[..., Gate], issuer: LocalIssuer
) -> None:
    issuer.jwks.append({"kty": "oct", "kid": "oct", "k": "c2VjcmV0", "alg": "HS256"})
    gate, good = make_gate(), issuer.token()
    tries = [forged(good, {"alg": "none", "typ": "JWT", "kid": "rsa"})]
    for kid, secret in (("rsa", public_pem("RSA")), ("oct", b"secret")):
        draft = forged(good, {"alg": "HS256", "typ": "JWT", "kid": kid})
        digest = hmac.digest(secret, draft.rpartition(".")[0].encode(), hashlib.sha256)
        tries.append(forged(good, {"alg": "HS256", "typ": "JWT", "kid": kid}, digest))

    for token in tries:
        with pytest.raises(Unauthenticated, match="signature is not valid"):
            await gate.authenticate(f"Bearer {token}")
    assert (await gate.authenticate(f"Bearer {good}")).username == "ada"


async def test_a_token_that_names_no_key_is_refused(issuer: LocalIssuer) -> None:
    with pytest.raises(Unauthenticated, match="malformed"):
        await external(issuer).read(forged(issuer.token(), {"alg": "RS256", "typ": "JWT"}))


async def test_a_token_too_long_is_not_even_looked_at(
    make_gate: Callable[..., Gate], issuer: LocalIssuer
) -> None:
    with pytest.raises(Unauthenticated, match="malformed"):
        await make_gate().authenticate(f"Bearer {issuer.token(more='x' * 16_384)}")

    assert issuer.asked == []


async def test_an_algorithm_counts_only_where_the_settings_name_it(issuer: LocalIssuer) -> None:
    issuer.jwks = [jwk("ec", "EC"), jwk("rsa", "RSA")]

    with pytest.raises(Unauthenticated, match="signature"):
        await external(issuer).read(issuer.token("EC"))
    await external(issuer, algorithms=("ES256",)).read(issuer.token("EC"))
    with pytest.raises(Unauthenticated, match="signature"):
        await external(issuer, algorithms=("ES256",)).read(issuer.token())


async def test_our_own_tokens_go_on_working_beside_the_issuers(
    make_gate: Callable[..., Gate], tokens: Tokens, database: Database, issuer: LocalIssuer
) -> None:
    with database.write() as connection:
        user = users.add(connection, username="ada", email=None, password_hash="x", role="user")

    caller = await make_gate().authenticate(f"Bearer {tokens.issue(user.id, 1)}")

    assert caller.user_id == user.id
    assert issuer.asked == []


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - other threads have their part in it
            await asyncio.sleep(0.01)


@asynccontextmanager
async def started(keys: IssuerKeys) -> AsyncIterator[IssuerKeys]:
    keys.start()
    yield keys
    await keys.close()


async def test_made_up_key_names_cause_one_look_and_no_more(issuer: LocalIssuer) -> None:
    read = external(issuer)
    async with started(read.keys):
        await read.read(issuer.token())
        assert issuer.looks == 1
        looked = await asyncio.gather(
            *(read.read(issuer.token(header={"kid": f"no{n}"})) for n in range(50)),
            return_exceptions=True,
        )

    assert {type(error) for error in looked} == {Unauthenticated}
    assert issuer.looks == 1


async def test_a_key_not_known_is_looked_for_once_by_all_who_want_it(issuer: LocalIssuer) -> None:
    read = external(issuer, pause_seconds=0)
    await read.read(issuer.token())
    issuer.jwks = [jwk("next", "RSA", 1)]
    new = issuer.token(number=1, header={"kid": "next"})

    await asyncio.gather(*(read.read(new) for _ in range(20)))

    assert issuer.looks == 2


async def test_tokens_of_a_withdrawn_key_are_refused_though_they_are_remembered(
    make_gate: Callable[..., Gate], issuer: LocalIssuer
) -> None:
    gate = make_gate(pause_seconds=0)
    old = f"Bearer {issuer.token()}"
    await gate.authenticate(old)
    issuer.jwks = [jwk("next", "RSA", 1)]
    await gate.authenticate(issuer.token(number=1, header={"kid": "next"}))

    assert gate.authenticate_cached(old) is None
    with pytest.raises(Unauthenticated, match="signature"):
        await gate.authenticate(old)


async def test_an_issuer_that_is_away_at_first_is_asked_again(issuer: LocalIssuer) -> None:
    read = external(issuer, pause_seconds=0.01)
    issuer.status = 500
    async with started(read.keys):
        with pytest.raises(Unavailable) as refusal:
            await read.read(issuer.token())
        assert refusal.value.retry_after
        issuer.status = 200
        await until(lambda: read.keys.version)

        await read.read(issuer.token())


async def test_the_keys_stay_while_the_issuer_is_away(issuer: LocalIssuer) -> None:
    read = external(issuer, pause_seconds=0)
    await read.read(issuer.token())
    issuer.close()

    await read.read(issuer.token())
    with pytest.raises(Unavailable):
        await read.read(issuer.token(header={"kid": "next"}))


async def test_a_hanging_issuer_keeps_nobody_else_waiting(
    issuer: LocalIssuer, make_gate: Callable[..., Gate], tokens: Tokens, database: Database
) -> None:
    with database.write() as connection:
        user = users.add(connection, username="bob", email=None, password_hash="x", role="user")
    issuer.documents["/realms/risk/keys"] = None
    gate = make_gate()
    waiting = asyncio.create_task(gate.authenticate(issuer.token()))
    await until(lambda: issuer.looks)

    assert (await gate.authenticate(tokens.issue(user.id, 1))).username == "bob"
    assert not waiting.done()
    issuer.let_go.set()
    with pytest.raises(Unavailable):
        await waiting


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ({".well-known/openid-configuration": b"<html>"}, "this is no JSON object"),
        ({".well-known/openid-configuration": {"issuer": "https://x"}}, "its issuer is"),
        ({"jwks_uri": "http://keys.example/"}, "write https"),
        ({"jwks_uri": "file:///etc/passwd"}, "write a URL"),
        ({"keys": {"keys": []}}, "no key with a kid"),
        ({"keys": {"keys": [{"kty": "RSA", "kid": "rsa", "n": "?"}, 7]}}, "no key with a kid"),
        ({"keys": {"keys": [jwk("rsa", "RSA", use="enc")]}}, "no key with a kid"),
        ({"keys": b"[" + b" " * 1024 * 1024 + b"]"}, "more than 1048576 bytes"),
        ({"status": 302}, "answered with status 302"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_wrong_with_an_issuer_is_logged(
    issuer: LocalIssuer, documents: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    issuer.status = documents.pop("status", 200)
    if "jwks_uri" in documents:
        document = {"issuer": issuer.url, **documents}
        documents = {".well-known/openid-configuration": document}
    issuer.documents = {f"/realms/risk/{path}": body for path, body in documents.items()}

    with pytest.raises(Unavailable):
        await external(issuer).read(issuer.token())

    assert reason in capsys.readouterr().out


MAPPED = RoleMap.parse("realm_access.roles", ["bosses=admin", "readers=auditor", "a=b=admin"])


@pytest.mark.parametrize(
    ("roles", "claims", "role"),
    [
        (MAPPED, {"realm_access": {"roles": ["x", "readers", "bosses"]}}, "admin"),
        (MAPPED, {"realm_access": {"roles": ["readers"]}}, "auditor"),
        (MAPPED, {"realm_access": {"roles": ["a=b"]}}, "admin"),
        (MAPPED, {"realm_access.roles": "readers"}, "auditor"),
        (MAPPED, {"realm_access": {"roles": "not bosses"}}, "user"),
        (MAPPED, {"realm_access": {"roles": [["bosses"], None, 7]}}, "user"),
        (MAPPED, {"realm_access": ["bosses"]}, "user"),
        (MAPPED, {"roles": ["bosses"]}, "user"),
        (NO_MAP, {"roles": ["admin"]}, "user"),
        (RoleMap.parse("roles", ["staff=user"]), {"roles": ["staff"]}, "user"),
    ],
)
async def test_a_role_is_what_the_map_makes_of_the_claim(
    issuer: LocalIssuer, roles: RoleMap, claims: dict[str, Any], role: str
) -> None:
    assert (await external(issuer, roles=roles).read(issuer.token(**claims))).role == role


async def test_once_the_map_says_who_is_a_user_others_may_not_call(
    make_gate: Callable[..., Gate], issuer: LocalIssuer, database: Database
) -> None:
    gate = make_gate(roles=RoleMap.parse("roles", ["staff=user"]))

    with pytest.raises(Forbidden, match="no role on this server"):
        await gate.authenticate(issuer.token(roles=["guests"]))
    with database.read() as connection:
        assert users.page(connection, 10, None) == []


@pytest.mark.parametrize("word", ["bosses", "bosses=root", "=admin", "bosses="])
async def test_a_map_that_cannot_be_read_is_refused(word: str) -> None:
    with pytest.raises(SettingsError, match="oidc_roles"):
        RoleMap.parse("roles", [word])


async def test_the_role_is_that_of_each_token_and_the_database_has_the_last(
    make_gate: Callable[..., Gate], issuer: LocalIssuer, database: Database
) -> None:
    gate = make_gate(roles=RoleMap.parse("roles", ["bosses=admin"]))
    boss = issuer.token(roles=["bosses"])

    assert (await gate.authenticate(boss)).role == "admin"
    assert found(database, "ada").role == "admin"
    assert (await gate.authenticate(issuer.token())).role == "user"
    assert found(database, "ada").role == "user"
    assert (await gate.authenticate(boss)).role == "admin"


async def test_a_user_of_another_name_later_is_the_same_user(
    make_gate: Callable[..., Gate], issuer: LocalIssuer
) -> None:
    gate = make_gate()
    first = await gate.authenticate(issuer.token())

    assert await gate.authenticate(issuer.token(preferred_username="lovelace")) == first


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_name_that_another_has_or_had_is_not_taken_over(
    make_gate: Callable[..., Gate], issuer: LocalIssuer, database: Database, deleted: bool
) -> None:
    with database.write() as connection:
        local = users.add(connection, username="Ada", email=None, password_hash="x", role="admin")
        if deleted:
            users.delete(connection, local.id)
    gate = make_gate()

    caller = await gate.authenticate(issuer.token())
    other = await gate.authenticate(issuer.token(sub="another"))

    assert len({caller.user_id, other.user_id, local.id}) == 3
    assert caller.role == "user"
    assert caller.username.startswith("ada+")
    assert found(database, "ada").id == local.id


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"preferred_username": "Zoë d'Arc"}, "Zo__d_Arc"),
        ({"preferred_username": "x" * 100}, "x" * 64),
        ({"preferred_username": 7, "sub": "auth0|17"}, "auth0_17"),
        ({"without": "preferred_username"}, "248289761001"),
    ],
)
async def test_a_name_is_made_acceptable(
    make_gate: Callable[..., Gate], issuer: LocalIssuer, claims: dict[str, Any], name: str
) -> None:
    assert (await make_gate().authenticate(issuer.token(**claims))).username == name


@pytest.mark.parametrize("end", [users.delete, lambda c, i: users.set_disabled(c, i, True)])
async def test_a_user_disabled_or_deleted_here_is_refused_whatever_the_token_says(
    make_gate: Callable[..., Gate],
    issuer: LocalIssuer,
    database: Database,
    end: Callable[..., None],
) -> None:
    gate = make_gate()
    known = issuer.token()
    user_id = (await gate.authenticate(known)).user_id
    with database.write() as connection:
        end(connection, user_id)

    for token in (known, issuer.token(iat=int(time.time()) - 1)):
        with pytest.raises(Unauthenticated, match="may not call"):
            await gate.authenticate(token)
    assert gate.authenticate_cached(known) is None


async def test_a_token_is_verified_once_and_remembered_until_it_expires(
    issuer: LocalIssuer, tokens: Tokens, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = external(issuer)
    gate = Gate(tokens, database, external=read, freshness_seconds=3600)
    header = f"Bearer {issuer.token()}"
    caller = await gate.authenticate(header)
    monkeypatch.setattr(read, "read", None)

    assert gate.authenticate_cached(header) is caller
    assert await gate.authenticate(header) is caller
    with time_machine.travel(time.time() + 400, tick=False):
        assert gate.authenticate_cached(header) is None


async def test_workers_that_see_a_user_first_at_once_make_one(
    issuer: LocalIssuer, tokens: Tokens, database: Database
) -> None:
    gates = [Gate(tokens, database, external=external(issuer)) for _ in range(4)]

    callers = await asyncio.gather(
        *(gate.authenticate(issuer.token(jti=str(n))) for gate in gates for n in range(5))
    )

    assert len({caller.user_id for caller in callers}) == 1
    with database.read() as connection:
        assert len(users.page(connection, 10, None)) == 1


async def test_role_and_password_of_an_external_user_are_the_issuers(
    make_gate: Callable[..., Gate], issuer: LocalIssuer, accounts: Accounts
) -> None:
    user_id = (await make_gate().authenticate(issuer.token())).user_id

    with pytest.raises(Conflict, match="signs in at"):
        await accounts.set_role(user_id, "admin")
    with pytest.raises(Conflict, match="signs in at"):
        await accounts.set_password(user_id, "correct horse battery")
    with pytest.raises(Unauthenticated):
        await accounts.sign_in("ada", "", "address")


async def test_an_external_admin_does_not_stand_in_for_the_last_one_here(
    make_gate: Callable[..., Gate], issuer: LocalIssuer, accounts: Accounts
) -> None:
    gate = make_gate(roles=RoleMap.parse("roles", ["bosses=admin"]))
    boss = await gate.authenticate(issuer.token(roles=["bosses"]))

    await accounts.set_disabled(boss.user_id, disabled=True)
    await accounts.set_disabled(boss.user_id, disabled=False)
    local = await accounts.create("root", "correct horse battery", None, "admin")
    with pytest.raises(Conflict, match="last admin"):
        await accounts.set_disabled(local.id, disabled=True)
