"""`/predictions/{id}/replay`: what another version says to what was asked once."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from onrecord.errors import CallError, Conflict, NotFound, Unavailable
from onrecord.http.predictions import find_call
from onrecord.http.services import ReaderDep, ServicesDep
from onrecord.insight.recorded_calls import RecordedAnswer, decoded_answers
from onrecord.insight.replayed_call import beside
from onrecord.record.reader import Entry
from onrecord.serving.forms import kind_of

__all__ = ["ReplayedCall", "router"]

router = APIRouter(prefix="/predictions/{prediction}", tags=["record"])


class ReplayedCall(BaseModel):
    """What a version says to a recorded call, beside what was answered."""

    model: str
    number: int = Field(description="Of the version that answers now.")
    version: str
    sha256: str
    error: str | None = Field(description="Why it has no answer; null where it has.")
    changed: int = Field(description="How many rows have another answer.")
    tolerance: float = Field(description="By how much a number may differ and be the same.")
    rows: list[dict[str, Any]] = Field(description="The first hundred, before and after.")


@router.get("/replay", summary="Replay a call on another version")
async def replay_prediction(
    prediction: str,
    caller: ReaderDep,
    services: ServicesDep,
    version: Annotated[
        str, Query(max_length=200, description="An alias, label, number, or the start of a hash.")
    ] = "live",
) -> ReplayedCall:
    """Show what a version says now to what was asked then; nothing of it goes on record.

    409 where there is nothing to compare: the call was refused, its payload was erased, or it was
    answered in another form than JSON.
    """
    entry = await find_call(prediction, caller, services)
    answers = _answers(entry)
    model = services.served.models.get(entry.model)
    meant = None if model is None else model.find(version)
    if meant is None:
        raise NotFound(f"No version {version[:100]!r} of {entry.model!r} is loaded here.")
    told: dict[str, Any] = {
        "model": entry.model,
        "number": meant.number,
        "version": meant.model.version,
        "sha256": meant.model.sha256,
        "error": None,
    }
    body = services.reveal(entry.input or b"")
    kind = kind_of(entry.content_type or "application/json") or "json"
    try:
        now = await meant.answers_to(body, kind)
    except Unavailable:
        raise
    except CallError as error:
        why = "; ".join(f"{it.pointer}: {it.detail}" for it in error.faults[:3]) or error.detail
        return ReplayedCall(**told | {"error": why}, changed=len(answers), tolerance=0, rows=[])
    return ReplayedCall(**told, **beside(answers, now))


def _answers(entry: Entry) -> list[RecordedAnswer]:
    if entry.error_code is not None:
        raise Conflict("The call was refused: there is no answer to compare with.")
    if entry.output is None or entry.input is None:
        raise Conflict("The payload of the call was erased: it cannot be replayed.")
    answers = decoded_answers(entry.output, entry.output_content_type)
    if not answers:
        raise Conflict("The call was not answered in JSON: it is not compared here.")
    return answers
