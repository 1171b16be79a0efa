"""How a page asks a model: by the same way as any call, under the person's name."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from onrecord.console.session import token_of
from onrecord.http.services import Services
from onrecord.serving.prediction import Answer, Predictor

__all__ = ["ask"]


async def ask(  # noqa: PLR0913 - what a call has
    request: Request,
    services: Services,
    predictor: Predictor,
    body: bytes,
    *,
    content_type: str = "application/json",
    explained: bool = False,
) -> Answer:
    """Return the answer to a call that a person makes by a page, on record as any other is.

    It comes in the form that the body has.
    """
    sent: dict[str, Any] | None = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> dict[str, Any]:
        nonlocal sent
        message, sent = sent, None
        return message or {"type": "http.disconnect"}

    headers = [
        (b"authorization", f"Bearer {token_of(request)}".encode()),
        (b"content-type", content_type.encode()),
        (b"accept", content_type.encode()),
    ]
    query = b"explain=true" if explained else b""
    scope = {**request.scope, "headers": headers, "query_string": query}
    return await services.predict(predictor.model.name, str(predictor.number), scope, receive)
