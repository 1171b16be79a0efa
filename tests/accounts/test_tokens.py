from __future__ import annotations

import base64
import hashlib
import hmac
import json
import string
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from onrecord.accounts.keys import Key, KeyRing
from onrecord.accounts.tokens import Claims, Tokens
from onrecord.errors import Unauthenticated

USER = "01890a5d-ac96-774b-bcce-b302099a8057"
PUBLIC_KEY = b"-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcN\n-----END PUBLIC KEY-----\n"
HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def forge(
    secret: bytes,
    header: dict[str, Any] | None = None,
    claims: dict[str, Any] | None = None,
    without: str = "",
    digest: str = "HS256",
) -> str:
    """A token with some parts changed or left out, signed with `secret`."""
    now = int(time.time())
    all_claims = {"iss": "us", "aud": "them", "sub": USER, "ver": 1, "iat": now, "exp": now + 60}
    parts = [
        {"alg": "HS256", "typ": "JWT", "kid": "first", **(header or {})},
        {**all_claims, **(claims or {})},
    ]
    for part in parts:
        part.pop(without, None)
    signed = ".".join(encode(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{encode(hmac.new(secret, signed.encode(), HASHES[digest]).digest())}"


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo", "Pacific/Kiritimati"])
def test_a_token_is_read_as_issued_in_any_time_zone(
    tokens: Tokens, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        issued = time.time()
        claims = tokens.read(tokens.issue(USER, 7))
    finally:
        monkeypatch.undo()
        time.tzset()

    assert (claims.user_id, claims.token_version) == (USER, 7)
    assert issued + 3598 < claims.expires_at <= issued + 3601


def test_a_token_is_valid_until_the_second_it_expires(tokens: Tokens) -> None:
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        token = tokens.issue(USER, 1)
        clock.shift(3599.9)
        assert tokens.read(token) == Claims(USER, 1, 1_800_003_600.0)
        clock.shift(0.1)
        with pytest.raises(Unauthenticated, match="expired"):
            tokens.read(token)


def test_the_forger_of_these_tests_makes_valid_tokens(tokens: Tokens, key: Key) -> None:
    assert tokens.read(forge(key.secret)).user_id == USER
    assert tokens.read(forge(key.secret, claims={"iat": int(time.time()) + 30})).user_id == USER


@pytest.mark.parametrize(
    "change",
    [
        {"header": {"alg": "none"}},
        {"header": {"alg": "HS512"}, "digest": "HS512"},
        {"header": {"alg": "HS384"}, "digest": "HS384"},
        {"header": {"alg": "RS256"}},
        {"header": {"alg": "hs256"}},
        {"header": {"alg": ["HS256"]}},
        {"header": {"typ": "at+jwt"}},
        {"header": {"kid": "second"}},
        {"header": {"kid": ""}},
        {"header": {"kid": 3}},
        {"header": {"kid": ["first"]}},
        {"header": {"kid": None}},
        # RFC 8725, section 3.10: a key's name goes nowhere near a path, a query or an address.
        *(
            {"header": {"kid": kid}}
            for kid in (
                "../../dev/null",
                "/dev/null",
                "first' OR '1'='1",
                "x' UNION SELECT 'AAAA",
                "| id",
                "first\x00",
                "FIRST",
                " first",
                "http://192.0.2.1/key",
                "first" * 100,
                {"$ne": ""},
                True,
            )
        ),
        {"header": {"b64": False, "crit": ["b64"]}},
        {"header": {"crit": ["unheard-of"], "unheard-of": True}},
        {"header": {"crit": []}},
        {"header": {"alg": "HS256 "}},
        {"header": {"alg": "nOnE"}},
        {"header": {"alg": ""}},
        {"header": {"alg": None}},
        {"header": {"typ": "refresh+jwt"}},
        *({"without": name} for name in ("alg", "typ", "kid")),
        *({"without": name} for name in ("iss", "aud", "sub", "ver", "iat", "exp")),
        {"claims": {"iss": "others"}},
        {"claims": {"iss": ["us"]}},
        {"claims": {"aud": "others"}},
        {"claims": {"aud": ["them"]}},
        {"claims": {"sub": ""}},
        {"claims": {"sub": 3}},
        {"claims": {"ver": "1"}},
        {"claims": {"ver": True}},
        {"claims": {"ver": 1.0}},
        {"claims": {"ver": None}},
        {"claims": {"exp": 1}},
        {"claims": {"exp": -1}},
        {"claims": {"exp": "9999999999"}},
        {"claims": {"exp": 9999999999.5}},
        {"claims": {"exp": float("inf")}},
        {"claims": {"exp": float("nan")}},
        {"claims": {"exp": [9999999999]}},
        {"claims": {"iat": 9999999999}},
        {"claims": {"iat": "1"}},
        {"claims": {"iat": None}},
        {"claims": {"nbf": 9999999999}},
        {"claims": {"nbf": "soon"}},
        {"claims": {"sid": 3}},
        {"claims": {"sid": ["a"]}},
        {"claims": {"sid": {}}},
        {"claims": {"sub": None}},
        {"claims": {"sub": [USER]}},
        {"claims": {"aud": ["them", "others"]}},
        {"claims": {"aud": None}},
        {"claims": {"iat": float("inf")}},
        {"claims": {"exp": None}},
        {"claims": {"padding": "x" * 4096}},
    ],
    ids=str,
)
def test_a_token_signed_with_our_key_but_not_of_our_form_is_refused(
    tokens: Tokens, key: Key, change: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        tokens.read(forge(key.secret, **change))
    assert refusal.value.token_was_sent
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256"])
@pytest.mark.parametrize("signature", ["", "AA", encode(bytes(32))])
def test_no_signature_and_no_algorithm_make_a_token(
    tokens: Tokens, key: Key, alg: str, signature: str
) -> None:
    forged = forge(key.secret, header={"alg": alg}).rpartition(".")[0]

    with pytest.raises(Unauthenticated):
        tokens.read(f"{forged}.{signature}")


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": {"kty": "oct", "k": encode(b"x" * 32), "kid": "first"}},
        {"jku": "http://192.0.2.1/jwks.json"},
        {"x5u": "http://192.0.2.1/cert.pem"},
        {"x5c": ["MIIB"]},
    ],
    ids=str,
)
def test_a_key_that_the_token_brings_along_is_not_used(
    tokens: Tokens, key: Key, header: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated, match="signature"):
        tokens.read(forge(b"x" * 32, header=header))


def test_of_two_claims_of_one_name_the_last_counts(tokens: Tokens, key: Key) -> None:
    head, payload, _ = forge(key.secret).split(".")
    text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
    doubled = encode(text.replace('{"iss"', '{"sub": "other", "iss"').encode())
    signature = encode(hmac.new(key.secret, f"{head}.{doubled}".encode(), hashlib.sha256).digest())

    assert tokens.read(f"{head}.{doubled}.{signature}").user_id == USER


def test_a_token_in_five_parts_or_in_json_is_refused(tokens: Tokens, key: Key) -> None:
    head, payload, signature = forge(key.secret).split(".")
    flattened = json.dumps({"protected": head, "payload": payload, "signature": signature})

    for token in (f"{head}..{payload}.{signature}.AA", f"{head}.{payload}.{signature}.", flattened):
        with pytest.raises(Unauthenticated, match="malformed"):
            tokens.read(token)


def test_a_token_names_its_session(tokens: Tokens) -> None:
    assert tokens.read(tokens.issue(USER, 1, "s-1")).session_id == "s-1"
    assert tokens.read(tokens.issue(USER, 1)).session_id is None


def test_a_token_signed_with_another_secret_is_refused(tokens: Tokens) -> None:
    with pytest.raises(Unauthenticated, match="signature"):
        tokens.read(forge(b"x" * 32))


def test_a_public_key_does_not_become_a_secret(tokens: Tokens) -> None:
    with pytest.raises(Unauthenticated):
        tokens.read(forge(PUBLIC_KEY, header={"alg": "RS256"}))
    with pytest.raises(Unauthenticated):
        tokens.read(forge(PUBLIC_KEY, header={"jwk": {"kty": "oct", "k": encode(PUBLIC_KEY)}}))


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "eyJ",
        "\x00",
        "\ud800.\ud800.\ud800",
        "é.è.ê",
        "W10.W10.W10",
        encode(b"[" * 2000) + ".e30.",
        "x" * 4097,
        "x" * 10_000_000,
    ],
    ids=range(13),
)
def test_garbage_is_refused(tokens: Tokens, garbage: str) -> None:
    with pytest.raises(Unauthenticated, match="malformed"):
        tokens.read(garbage)


def test_every_changed_character_of_a_token_spoils_it(tokens: Tokens) -> None:
    token = tokens.issue(USER, 1)
    alphabet = string.ascii_letters + string.digits + "-_"
    changed = [(place, "A" if token[place] != "A" else "B") for place in range(len(token))]
    # Two bits of the last character are beyond the signature.
    changed += [(len(token) - 1, other) for other in alphabet if other != token[-1]]
    for place, other in changed:
        with pytest.raises(Unauthenticated):
            tokens.read(token[:place] + other + token[place + 1 :])


SPELLINGS: dict[str, Callable[[list[str]], str]] = {
    "padding": lambda parts: ".".join(parts) + "=",
    "padding in each part": lambda parts: ".".join(p + "=" * (-len(p) % 4) for p in parts),
    "a line feed after": lambda parts: ".".join(parts) + "\n",
    "a line feed within": lambda parts: ".".join(p[:9] + "\n" + p[9:] for p in parts),
    "a space within": lambda parts: ".".join(p[:9] + " " + p[9:] for p in parts),
    "a foreign character within": lambda parts: ".".join(p[:9] + "!" + p[9:] for p in parts),
    "the other alphabet": lambda parts: ".".join([*parts[:2], "+/" + parts[2][2:]]),
    "a NUL after": lambda parts: ".".join(parts) + "\x00",
    "a longer signature": lambda parts: ".".join(parts) + "AAAA",
    "half the signature": lambda parts: ".".join([*parts[:2], parts[2][:22]]),
    "the signature in hexadecimal": lambda parts: ".".join(
        [*parts[:2], base64.urlsafe_b64decode(parts[2] + "=").hex()]
    ),
    "the signature twice": lambda parts: ".".join([*parts, parts[2]]),
    "the parts in another order": lambda parts: ".".join(parts[::-1]),
    "the header as JSON": lambda parts: ".".join(
        [base64.urlsafe_b64decode(parts[0] + "==").decode(), *parts[1:]]
    ),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_a_token_has_one_spelling(tokens: Tokens, key: Key, case: str) -> None:
    token = forge(key.secret)
    assert tokens.read(token)

    with pytest.raises(Unauthenticated):
        tokens.read(SPELLINGS[case](token.split(".")))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_a_token_is_utf_8(tokens: Tokens, key: Key, encoding: str) -> None:
    head, payload, _ = forge(key.secret, claims={"name": "é"}).split(".")
    claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
    claims = claims.replace("\\u00e9", "é")
    other = encode(claims.encode(encoding))
    signature = encode(hmac.new(key.secret, f"{head}.{other}".encode(), hashlib.sha256).digest())

    with pytest.raises(Unauthenticated):
        tokens.read(f"{head}.{other}.{signature}")


def test_a_header_that_names_two_algorithms_is_no_way_around_the_signature(
    tokens: Tokens, key: Key
) -> None:
    _, payload, _ = forge(key.secret).split(".")
    for first, second in (("none", "HS256"), ("HS256", "none"), ("RS256", "HS256")):
        head = encode(f'{{"alg":"{first}","typ":"JWT","kid":"first","alg":"{second}"}}'.encode())
        for signature in ("", encode(bytes(32))):
            with pytest.raises(Unauthenticated):
                tokens.read(f"{head}.{payload}.{signature}")


def test_the_unsigned_and_the_unsecured_are_refused(tokens: Tokens) -> None:
    header, payload, _ = tokens.issue(USER, 1).split(".")
    unsecured = encode(b'{"alg":"none","typ":"JWT","kid":"first"}')

    for token in (f"{header}.{payload}.", f"{header}.{payload}", f"{unsecured}.{payload}."):
        with pytest.raises(Unauthenticated):
            tokens.read(token)


def test_a_token_outlives_one_rotation_and_not_two(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    tokens = Tokens(
        KeyRing.from_file(path), issuer="us", audience="them", lifetime=timedelta(hours=1)
    )
    first = tokens.issue(USER, 1)
    KeyRing.rotate_file(path)
    second = tokens.issue(USER, 2)
    assert tokens.read(first).token_version == 1

    KeyRing.rotate_file(path)
    assert tokens.read(second).token_version == 2
    with pytest.raises(Unauthenticated, match="signature"):
        tokens.read(first)
