"""The public keys of an OpenID Connect issuer, read over HTTP and kept fresh."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import anyio.to_thread
import jwt
import msgspec
import structlog

from onrecord.errors import RemoteError, Unavailable
from onrecord.outgoing import fault_of_url, get

__all__ = ["IssuerKeys"]

_SECONDS = 5.0
_MAX_BYTES = 1024 * 1024

_Name = tuple[str, str]


class IssuerKeys:
    """The keys that an issuer signs with now; to be used on one event loop.

    They are found as OpenID Connect Discovery 1.0, section 4, says, when this is started and every
    `refresh_seconds`. A key that is not known is looked for at once, but not within
    `pause_seconds` of the last look: made-up key names make no storm of requests. While the issuer
    is away, or has no usable key, the keys read before stay. Keys of an algorithm other than
    `algorithms` and symmetric ones count for nothing. `version` grows whenever other keys are read.
    """

    def __init__(
        self,
        issuer: str,
        *,
        algorithms: Sequence[str],
        refresh_seconds: float = 300.0,
        pause_seconds: float = 10.0,
    ) -> None:
        self.version = 0
        self._issuer = issuer
        self._algorithms = tuple(algorithms)
        self._refresh_seconds = refresh_seconds
        self._pause_seconds = pause_seconds
        self._keys: dict[_Name, jwt.PyJWK] = {}
        self._jwks: dict[_Name, dict[str, Any]] = {}
        self._failed = True
        self._looked_at = float("-inf")
        self._look: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read the keys from now on; this waits for nothing, also where the issuer is away."""
        self._keeping = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        """Read no more."""
        for task in (self._keeping, self._look):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """Return the key of that name for that algorithm, None where the issuer has none.

        Raises Unavailable where the issuer could not be asked.
        """
        key = self._keys.get((kid, algorithm))
        if key is None and (
            self._look is not None or time.monotonic() - self._looked_at >= self._pause_seconds
        ):
            await self._refresh()
            key = self._keys.get((kid, algorithm))
        if key is None and self._failed:
            raise Unavailable(
                "The keys of the token's issuer cannot be read now.",
                retry_after=max(1, round(self._pause_seconds)),
            )
        return key

    async def _keep_fresh(self) -> None:
        while True:
            await self._refresh()
            await asyncio.sleep(self._pause_seconds if self._failed else self._refresh_seconds)

    async def _refresh(self) -> None:
        """Have one look at the issuer's keys, which all share who want one meanwhile."""
        if self._look is None:
            self._looked_at = time.monotonic()
            self._look = asyncio.create_task(self._look_once())
        # One caller who leaves must not take it away from the others.
        await asyncio.shield(self._look)

    async def _look_once(self) -> None:
        log = structlog.get_logger("onrecord").bind(issuer=self._issuer)
        try:
            jwks, keys = await anyio.to_thread.run_sync(self._read, abandon_on_cancel=True)
        except RemoteError as error:
            self._failed = True
            log.warning(
                "the issuer's keys cannot be read; those read before stay", reason=str(error)
            )
        except Exception:
            self._failed = True
            log.exception("the issuer's keys cannot be read; those read before stay")
        else:
            self._failed = False
            if jwks != self._jwks:
                self._jwks, self._keys = jwks, keys
                self.version += 1
                log.info("the issuer's keys were read", keys=sorted(kid for kid, _ in keys))
        finally:
            self._look = None

    def _read(self) -> tuple[dict[_Name, dict[str, Any]], dict[_Name, jwt.PyJWK]]:
        discovery = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        document = _object_at(discovery)
        if document.get("issuer") != self._issuer:
            raise RemoteError(
                f"{discovery}: its issuer is {str(document.get('issuer'))[:200]!r}, not what "
                "setting oidc_issuer says"
            )
        address = document.get("jwks_uri")
        fault = fault_of_url(address) if isinstance(address, str) else "there is none"
        if fault is not None:
            raise RemoteError(f"{discovery}: jwks_uri: {fault}")
        found = _object_at(str(address)).get("keys")
        jwks, keys = {}, {}
        for jwk in found if isinstance(found, list) else ():
            key = _usable(jwk)
            if key is not None and key.algorithm_name in self._algorithms:
                name = (jwk["kid"], key.algorithm_name)
                jwks[name], keys[name] = jwk, key
        if not keys:
            raise RemoteError(f"{address}: no key with a kid for {', '.join(self._algorithms)}")
        return jwks, keys


def _object_at(url: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(
            get(url, seconds=_SECONDS, max_bytes=_MAX_BYTES), type=dict[str, Any]
        )
    except RemoteError as error:
        raise RemoteError(f"{url}: {error}") from None
    except (ValueError, RecursionError):
        raise RemoteError(f"{url}: this is no JSON object") from None


def _usable(jwk: Any) -> jwt.PyJWK | None:
    """Return a key of a set (RFC 7517); None where it is not one to verify with."""
    if (
        not isinstance(jwk, dict)
        or not isinstance(jwk.get("kid"), str)
        or jwk.get("kty") not in ("RSA", "EC", "OKP")
        or jwk.get("use", "sig") != "sig"
    ):
        return None
    try:
        return jwt.PyJWK(jwk)
    except Exception:  # noqa: BLE001 - whatever the library trips over is a key it cannot use
        return None
