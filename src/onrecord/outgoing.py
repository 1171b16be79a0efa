"""Requests that onrecord itself makes: to the operator's addresses only, bounded in time and size.

They block, so no event loop may make them. Proxies and certificate authorities are those of the
environment (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`). Redirects are not followed: the address
that the operator named is the one that is trusted.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from onrecord.errors import RemoteError
from onrecord.loopback import is_loopback

__all__ = ["fault_of_url", "get", "post"]

_CHUNK = 65536
_IGNORED_BYTES = 65536


def fault_of_url(url: str) -> str | None:
    """Return why a URL is not one to ask, None where it is.

    It must be https, or http on a loopback address, and without a user or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "this is not a URL"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "a URL has printable ASCII characters only, without blanks"
    if not host or parts.scheme not in {"http", "https"}:
        return "write a URL, https://HOST/PATH"
    if parts.scheme == "http" and not is_loopback(host):
        return "write https: plain http is for loopback addresses only"
    if parts.username is not None or parts.fragment:
        return "a user, a password or a fragment has no place in this URL"
    return None


def get(url: str, *, seconds: float, max_bytes: int) -> bytes:
    """Return the body at a URL; raises RemoteError, whose text does not repeat the URL.

    `seconds` bounds every wait on the connection, and then again the whole of the body.
    """
    return _ask(urllib.request.Request(url), seconds=seconds, max_bytes=max_bytes)  # noqa: S310 - `_ask` opens http and https only


def post(
    url: str,
    body: bytes,
    content_type: str,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Post a body; returns where the answer is of status 2xx, raises RemoteError as `get` does."""
    sent = {"content-type": content_type, **(headers or {})}
    request = urllib.request.Request(url, data=body, headers=sent, method="POST")  # noqa: S310 - as above
    _ask(request, seconds=seconds, max_bytes=_IGNORED_BYTES)


def _ask(request: urllib.request.Request, *, seconds: float, max_bytes: int) -> bytes:
    request.add_header("user-agent", "onrecord")
    try:
        with _opener().open(request, timeout=seconds) as answer:
            return _bounded(answer, time.monotonic() + seconds, max_bytes)
    except urllib.error.HTTPError as error:
        error.close()
        raise RemoteError(f"it answered with status {error.code}") from None
    except urllib.error.URLError as error:
        raise RemoteError(f"it cannot be reached: {error.reason}") from None
    except TimeoutError:
        raise RemoteError(f"it did not answer within {seconds:g} seconds") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RemoteError(f"its answer cannot be read: {type(error).__name__}") from None


def _bounded(answer: http.client.HTTPResponse, deadline: float, max_bytes: int) -> bytes:
    body = bytearray()
    while chunk := answer.read1(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise RemoteError(f"its answer has more than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise RemoteError("its answer came too slowly")
    return bytes(body)


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https and nothing else; a redirect is an error to it."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
