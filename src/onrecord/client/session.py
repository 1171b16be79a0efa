"""Who the client is to the server: an API key or token, or a user who signs in."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from urllib.parse import urlencode

import httpx2

from onrecord.client.answers import json_of
from onrecord.client.errors import ClientError, Unauthenticated
from onrecord.client.retries import Retries, send
from onrecord.client.steps import Alone, Flow, Send

__all__ = ["Session"]

_FORM = {"content-type": "application/x-www-form-urlencoded"}
_ONCE = Retries(attempts=1)
_EARLY = 0.9
"""The part of an access token's life after which it is refreshed, before it can end under way."""


@dataclass(slots=True)
class Session:
    """Gives requests their token; the user who has a password signs in when the first needs one.

    A token that is about to end is refreshed, by one call at a time, since a refresh token is good
    for one use (RFC 9700, section 4.14.2). Where that does not work out, the user signs in again.
    """

    token: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    _refresh_token: str | None = field(default=None, repr=False)
    _good_until: float = 0.0

    def __post_init__(self) -> None:
        given = tuple(it is not None for it in (self.token, self.username, self.password))
        if given not in {(True, False, False), (False, True, True)}:
            raise ValueError(
                "give a token (an API key or an access token), or a username and password"
            )

    def send(self, request: Send, retries: Retries) -> Flow[httpx2.Response]:
        """Send a request with the token, and once more with another where it is not taken."""
        token = yield from self._current(retries)
        try:
            return (yield from send(_with(request, token), retries))
        except Unauthenticated:
            if self.username is None:
                raise
            # It was revoked, or a clock was set.
            token = yield Alone(self._renewed(token, retries))
            return (yield from send(_with(request, token), retries))

    def end(self) -> Flow[None]:
        """End the session that was begun here, if there is one; the next request begins another."""
        refresh_token, self._refresh_token = self._refresh_token, None
        if refresh_token is not None:
            self.token = None
            body = urlencode({"token": refresh_token}).encode()
            yield from send(Send("POST", "/revoke", body, _FORM), _ONCE)

    def _current(self, retries: Retries) -> Flow[str]:
        if self.token is not None and (
            self.username is None or time.monotonic() < self._good_until
        ):
            return self.token
        token: str = yield Alone(self._renewed(self.token, retries))
        return token

    def _renewed(self, stale: str | None, retries: Retries) -> Flow[str]:
        """Return another token than `stale`, which another call may have got meanwhile."""
        if self.token is not None and self.token != stale:
            return self.token
        refresh_token, self._refresh_token = self._refresh_token, None
        if refresh_token is not None:
            fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
            try:
                # Once: were the answer lost, the same token again would look stolen.
                return (yield from self._signed_in(fields, _ONCE))
            except ClientError:
                pass  # the session has ended, or nobody knows: the password begins another
        fields = {"username": self.username or "", "password": self.password or ""}
        return (yield from self._signed_in(fields, retries))

    def _signed_in(self, fields: dict[str, str], retries: Retries) -> Flow[str]:
        began = time.monotonic()
        response = yield from send(
            Send("POST", "/token", urlencode(fields).encode(), _FORM), retries
        )
        answer = json_of(response)
        self.token = token = str(answer["access_token"])
        self._refresh_token = answer["refresh_token"]
        self._good_until = began + _EARLY * answer["expires_in"]
        return token


def _with(request: Send, token: str) -> Send:
    headers = {**request.headers, "authorization": f"Bearer {token}"}
    return Send(request.method, request.path, request.content, headers)
