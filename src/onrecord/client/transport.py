"""How both drivers use httpx2."""

from __future__ import annotations

from typing import Any

import onrecord
from onrecord.client.steps import Send

__all__ = ["options", "request_of"]


def options(timeout: float) -> dict[str, Any]:
    """Return the options of the drivers' own httpx2 clients.

    Redirects are not followed: whoever is named elsewhere would get the token.
    """
    return {"timeout": timeout, "follow_redirects": False}


def request_of(step: Send, base: str) -> dict[str, Any]:
    """Return the arguments of `httpx2.Client.request` for a step."""
    return {
        "method": step.method,
        "url": base + step.path,
        "content": step.content,
        "headers": {"user-agent": f"onrecord/{onrecord.__version__}", **step.headers},
        "follow_redirects": False,
    }
