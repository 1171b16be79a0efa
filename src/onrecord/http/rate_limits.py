"""How a caller is told what limits it and where it stands.

Source: draft-ietf-httpapi-ratelimit-headers-11, sections 3 and 4.
"""

from __future__ import annotations

from functools import lru_cache

from onrecord.accounts.call_limits import Admission, Limits

__all__ = ["limit_headers"]


def limit_headers(admission: Admission) -> list[tuple[bytes, bytes]]:
    """Return `RateLimit-Policy` and `RateLimit`, with one item a limit."""
    standing = ", ".join(
        f'"{policy.name}";r={left.calls};t={left.seconds}'
        for policy, left in zip(admission.limits.policies, admission.remaining, strict=True)
    )
    return [
        (b"ratelimit-policy", _policies(admission.limits)),
        (b"ratelimit", standing.encode()),
    ]


@lru_cache(maxsize=10_000)
def _policies(limits: Limits) -> bytes:
    return ", ".join(
        f'"{policy.name}";q={policy.amount};w={policy.seconds}' for policy in limits.policies
    ).encode()
