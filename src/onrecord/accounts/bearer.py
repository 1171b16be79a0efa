"""The Authorization header: how tokens and API keys are sent."""

from __future__ import annotations

from onrecord.errors import Unauthenticated

__all__ = ["bearer_token"]


def bearer_token(header: str | None) -> str:
    """Return the token in an Authorization header: "Bearer TOKEN" or the token alone.

    Raises Unauthenticated, as where none was sent, if there is none (RFC 6750, section 2.1).
    """
    parts = (header or "").split(maxsplit=1)
    if not parts or (len(parts) == 1 and parts[0].lower() == "bearer"):
        raise Unauthenticated("Send a token: Authorization: Bearer TOKEN.", token_was_sent=False)
    if len(parts) == 1:
        return parts[0]
    scheme, token = parts
    if scheme.lower() != "bearer":
        # RFC 6750, section 3.1: another way of authenticating counts as no token at all.
        raise Unauthenticated(
            "Only bearer tokens are accepted: Authorization: Bearer TOKEN.", token_was_sent=False
        )
    return token.rstrip()
