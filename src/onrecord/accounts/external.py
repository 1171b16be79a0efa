"""Tokens of an external issuer: what of OpenID Connect and RFC 9068 this server relies on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, get_args

import jwt

from onrecord.accounts.caller import Role
from onrecord.accounts.issuer_keys import IssuerKeys
from onrecord.errors import Forbidden, SettingsError, Unauthenticated

__all__ = ["ExternalClaims", "ExternalTokens", "RoleMap"]

_MAX_LENGTH = 16 * 1024
_MAX_SUBJECT = 255  # OpenID Connect Core 1.0, section 2
_MAX_USERNAME = 64
_NOT_OF_A_USERNAME = re.compile(r"[^A-Za-z0-9._@+-]")
_LEEWAY = 30
_LATEST = 2**53
_REQUIRED = ["exp", "iat", "iss", "aud", "sub"]
# RFC 9068, section 2.1, and what most issuers say, if anything. Tokens for other ends have others.
_TYPES = {"jwt", "at+jwt", "application/at+jwt"}


@dataclass(frozen=True, slots=True)
class ExternalClaims:
    """What a valid token of the issuer says of its user.

    `subject` is the user's for ever; `username` is what to call it at first sight; `expires_at`
    is in seconds since the epoch, the leeway for other clocks included.
    """

    subject: str
    username: str
    role: Role
    expires_at: float


@dataclass(frozen=True, slots=True)
class RoleMap:
    """Which roles at the issuer are which here; `claim` is where a token has them.

    The first of `pairs` that a token has counts. One that has none is a user's, unless some pair
    says who is a user.
    """

    claim: str
    pairs: tuple[tuple[str, Role], ...]

    @classmethod
    def parse(cls, claim: str, words: Sequence[str]) -> Self:
        """Return the map of words like "auditors=auditor"; raises SettingsError."""
        return cls(claim, tuple(_pair(word) for word in words))

    def role_in(self, claims: dict[str, Any]) -> Role | None:
        """Return the role of a token with these claims, None where it may not call."""
        held = self._held(claims)
        for name, role in self.pairs:
            if name in held:
                return role
        return None if any(role == "user" for _, role in self.pairs) else "user"

    def _held(self, claims: dict[str, Any]) -> list[Any]:
        # Some issuers have names with dots in them, such as https://example.com/roles.
        value: Any = claims
        for part in [self.claim] if self.claim in claims else self.claim.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value if isinstance(value, list) else [value]


class ExternalTokens:
    """Reads the access tokens of one issuer, meant for `audience` and signed with its `keys`."""

    def __init__(
        self, keys: IssuerKeys, *, issuer: str, audience: str, roles: RoleMap, username_claim: str
    ) -> None:
        self.keys = keys
        self.issuer = issuer
        self._audience = audience
        self._roles = roles
        self._username_claim = username_claim
        self._jwt = jwt.PyJWT({"require": _REQUIRED, "enforce_minimum_key_length": True})

    def names_issuer(self, token: str) -> bool:
        """Tell whether a token says that it is the issuer's; that it is remains to be seen."""
        if len(token) > _MAX_LENGTH:
            return False
        try:
            claims = self._jwt.decode(token, options={"verify_signature": False, "require": []})
        except Exception:  # noqa: BLE001 - whatever PyJWT trips over is no such token
            return False
        return claims.get("iss") == self.issuer

    async def read(self, token: str) -> ExternalClaims:
        """Return what a token says.

        Raises Unauthenticated where it is not valid, Forbidden where it has no role that may call
        here, and Unavailable where the issuer's keys cannot be had.
        """
        key = await self._key_for(token)
        try:
            claims = self._jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self.issuer,
                audience=self._audience,
                leeway=_LEEWAY,
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The token has expired; get another from its issuer.") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("The token is not valid yet.") from None
        except jwt.InvalidSignatureError:
            raise _wrong_signature() from None
        except (jwt.InvalidIssuerError, jwt.InvalidAudienceError):
            raise Unauthenticated("The token was not issued for this server.") from None
        except Exception:  # noqa: BLE001 - whatever PyJWT trips over is a token it could not read
            raise _malformed() from None
        return self._checked(claims)

    async def _key_for(self, token: str) -> jwt.PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except Exception:  # noqa: BLE001 - as above
            raise _malformed() from None
        kid, algorithm, kind = header.get("kid"), header.get("alg"), header.get("typ", "JWT")
        if not (isinstance(kid, str) and isinstance(algorithm, str) and isinstance(kind, str)):
            raise _malformed()
        if kind.lower() not in _TYPES:
            raise Unauthenticated("The token is not an access token.")
        key = await self.keys.find(kid, algorithm)
        if key is None:
            raise _wrong_signature()
        return key

    def _checked(self, claims: dict[str, Any]) -> ExternalClaims:
        subject, expires = claims["sub"], claims["exp"]
        if not (0 < len(subject) <= _MAX_SUBJECT and subject.isprintable()):
            raise _malformed()
        if not (isinstance(expires, int | float) and expires < _LATEST):
            raise _malformed()
        if "cnf" in claims:
            # RFC 9449 and RFC 8705: whoever sends it must show a key, and nobody would look.
            raise Unauthenticated("The token is bound to a key; send one that is not.")
        role = self._roles.role_in(claims)
        if role is None:
            raise Forbidden("Your account at the token's issuer has no role on this server.")
        named = claims.get(self._username_claim)
        username = named if isinstance(named, str) and named else subject
        username = _NOT_OF_A_USERNAME.sub("_", username)[:_MAX_USERNAME]
        return ExternalClaims(subject, username, role, float(expires) + _LEEWAY)


def _pair(word: str) -> tuple[str, Role]:
    name, _, given = word.rpartition("=")
    for role in get_args(Role):
        if name.strip() and given.strip() == role:
            return name.strip(), role
    raise SettingsError("setting oidc_roles: write ROLE=user, ROLE=auditor or ROLE=admin")


def _malformed() -> Unauthenticated:
    return Unauthenticated("The token is malformed.")


def _wrong_signature() -> Unauthenticated:
    return Unauthenticated("The token's signature is not valid.")
