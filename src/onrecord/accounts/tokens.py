"""Tokens: signed statements of who a user is, valid for a while."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt

from onrecord.accounts.keys import KeyRing
from onrecord.errors import Unauthenticated

__all__ = ["Claims", "Tokens"]

_ALGORITHM = "HS256"
_TYPE = "JWT"
_MAX_LENGTH = 4096
# RFC 7515, section 2: base64url without padding, spaces or lines. Both objects begin with {" in
# UTF-8 (RFC 8725, section 3.7; a JSON reader may take UTF-16, too). The last letter of 32 bytes has
# two bits to spare, which are zero: so one token has one spelling.
_FORM = re.compile(r"ey[I-L][\w-]*\.ey[I-L][\w-]*\.[\w-]{42}[AEIMQUYcgkosw048]", re.ASCII)
_CLOCK_SKEW = 60
_REQUIRED = ["exp", "iat", "sub", "iss", "aud", "ver"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says.

    `token_version` is the user's at the time of issue; `expires_at` is in seconds since the epoch;
    `session_id` names the session that the token is of, None where it is of none.
    """

    user_id: str
    token_version: int
    expires_at: float
    session_id: str | None = None


class Tokens:
    """Issues and reads JSON Web Tokens (RFC 7519), signed with HMAC-SHA-256 and nothing else.

    `keys` is the ring that signs and verifies; `lifetime` is how long a new token is valid.
    """

    def __init__(self, keys: KeyRing, *, issuer: str, audience: str, lifetime: timedelta) -> None:
        self.keys = keys
        self._issuer = issuer
        self._audience = audience
        self.lifetime = lifetime
        self._jwt = jwt.PyJWT(
            {
                "require": _REQUIRED,
                "strict_aud": True,
                "enforce_minimum_key_length": True,
                # It is checked here, with a margin that `exp` must not have.
                "verify_iat": False,
            }
        )

    def issue(self, user_id: str, token_version: int, session_id: str | None = None) -> str:
        """Return a new token for a user."""
        key = self.keys.signing_key()
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user_id,
            "ver": token_version,
            "iat": now,
            "exp": int(now + self.lifetime.total_seconds()),
        }
        if session_id is not None:
            claims["sid"] = session_id
        return self._jwt.encode(
            claims, key.secret, algorithm=_ALGORITHM, headers={"kid": key.kid, "typ": _TYPE}
        )

    def read(self, token: str) -> Claims:
        """Return what a token says; raises Unauthenticated where it is not valid.

        Whether its user still exists and may call is not looked at.
        """
        if len(token) > _MAX_LENGTH or not _FORM.fullmatch(token):
            raise _malformed()
        secret = self._secret_for(token)
        try:
            claims = self._jwt.decode(
                token,
                secret,
                algorithms=[_ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The token has expired; sign in again.") from None
        except jwt.InvalidSignatureError:
            raise _wrong_signature() from None
        except (jwt.InvalidIssuerError, jwt.InvalidAudienceError):
            raise Unauthenticated("The token was not issued for this server.") from None
        except Exception:  # noqa: BLE001 - whatever PyJWT trips over is a token it could not read
            raise _malformed() from None
        return _checked(claims)

    def bound_to(self, token: str, text: str) -> str:
        """Return what nobody can make of a text but who has the key that signed a token.

        It is the HMAC-SHA-256 of the text, in hexadecimal. No token is signed by it, since what is
        signed of one begins with `ey`. Raises Unauthenticated where the token is not one.
        """
        return hmac.new(self._secret_for(token), text.encode(), hashlib.sha256).hexdigest()

    def _secret_for(self, token: str) -> bytes:
        try:
            header = jwt.get_unverified_header(token)
        except Exception:  # noqa: BLE001 - as above
            raise _malformed() from None
        kid = header.get("kid")
        if header.get("alg") != _ALGORITHM or header.get("typ") != _TYPE or not kid:
            raise _malformed()
        secret = self.keys.secret_of(kid)
        if secret is None:
            # The same words as for a wrong signature: which keys there are is nobody's business.
            raise _wrong_signature()
        return secret


def _checked(claims: dict[str, Any]) -> Claims:
    """Return the claims of a well-signed token, their types checked."""
    user_id, version = claims["sub"], claims["ver"]
    issued, expires, session_id = claims["iat"], claims["exp"], claims.get("sid")
    if not (user_id and type(version) is int and type(issued) is int and type(expires) is int):
        raise _malformed()
    if session_id is not None and not isinstance(session_id, str):
        raise _malformed()
    if issued > time.time() + _CLOCK_SKEW:
        raise Unauthenticated("The token was issued in the future.")
    return Claims(user_id, version, float(expires), session_id)


def _malformed() -> Unauthenticated:
    return Unauthenticated("The token is malformed.")


def _wrong_signature() -> Unauthenticated:
    return Unauthenticated("The token's signature is not valid.")
