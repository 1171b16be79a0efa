"""`/predictions/{id}/outcome`: what really happened to what was predicted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from onrecord.accounts.caller import Caller
from onrecord.errors import Conflict, Forbidden, NotFound
from onrecord.http.predictions import find_call
from onrecord.http.services import KeyCallerDep, ReaderDep, Services, ServicesDep
from onrecord.insight.outcome_values import checked_outcome
from onrecord.insight.recorded_calls import decoded_answers
from onrecord.record import outcomes
from onrecord.record.by import By
from onrecord.record.ids import prediction_id, row_of
from onrecord.record.reader import Entry

__all__ = ["OutcomeOrder", "TellerDep", "check_teller", "router"]

router = APIRouter(prefix="/predictions/{prediction}", tags=["record"])

_ANSWERED = 200


class OutcomeOrder(BaseModel):
    """What really happened."""

    model_config = ConfigDict(extra="forbid")

    outcome: bool | int | float | str | dict[str, bool | int | float | str] = Field(
        description="A class or a number as the model predicts it; an object of several targets."
    )
    observed_at: AwareDatetime | None = Field(default=None, description="When it happened.")


class OutcomeOut(BaseModel):
    """What was said to have happened to a prediction.

    `by_user_id` is who said so here; `operator` is the account that ran a command.
    """

    id: str
    prediction_id: str
    outcome: Any
    observed_at: datetime | None
    recorded_at: datetime
    by_user_id: str | None
    operator: str | None


class OutcomeHistory(BaseModel):
    """All that was said of a prediction, newest first: the first is in force."""

    outcomes: list[OutcomeOut]


async def check_teller(caller: KeyCallerDep) -> Caller:
    """Return a caller that may tell outcomes; raises Forbidden where it may not."""
    caller.check_scope("outcome")
    if caller.role == "auditor":
        raise Forbidden("An auditor reads everything and changes nothing: it tells no outcomes.")
    return caller


TellerDep = Annotated[Caller, Depends(check_teller)]
"""Who may tell outcomes: of its own predictions a user or an API key for that, an admin of all."""


@router.post(
    "/outcome",
    status_code=201,
    summary="Say what really happened",
    responses={200: {"model": OutcomeOut, "description": "It was on record already."}},
)
async def tell_outcome(
    prediction: str,
    order: OutcomeOrder,
    response: Response,
    caller: TellerDep,
    services: ServicesDep,
) -> OutcomeOut:
    """Say what really happened to what was predicted: of one's own calls, an admin of all.

    What is said later corrects what was said before, and both stay on record. What is in force
    already is not put on record again: 200 instead of 201.
    """
    entry = await find_call(prediction, caller, services)
    value = _checked(order.outcome, entry, row_of(prediction))

    def add() -> tuple[outcomes.Outcome, bool]:
        with services.database.write() as connection:
            name = prediction_id(entry.id, row_of(prediction))
            said = outcomes.Said(name, value, order.observed_at)
            return outcomes.add(connection, said, By("", user_id=caller.user_id))

    found, new = await services.database.run(add)
    if not new:
        response.status_code = 200
    return _shown(found)


@router.get("/outcomes", summary="List what was said to have happened")
async def list_outcomes(
    prediction: str, caller: ReaderDep, services: ServicesDep
) -> OutcomeHistory:
    """List all that was said of a prediction, newest first."""
    entry = await find_call(prediction, caller, services)
    found = await _history(entry, prediction, services)
    return OutcomeHistory(outcomes=[_shown(outcome) for outcome in found])


async def _history(entry: Entry, prediction: str, services: Services) -> list[outcomes.Outcome]:
    def read() -> list[outcomes.Outcome]:
        with services.database.read() as connection:
            return outcomes.history(connection, prediction_id(entry.id, row_of(prediction)))

    return await services.database.run(read)


def _checked(value: Any, entry: Entry, row: int) -> Any:
    if entry.status != _ANSWERED:
        raise Conflict("The call was refused: nothing was predicted that could come about.")
    if entry.output is None:
        raise Conflict("The payload of the call was erased: its outcome is not taken any more.")
    answers = decoded_answers(entry.output, entry.output_content_type)
    if answers is None:
        raise Conflict("The call was not answered in JSON: outcomes of its rows are not taken yet.")
    if row >= len(answers):
        raise NotFound("There is no such prediction on record.")
    return checked_outcome(value, answers[row])


def _shown(outcome: outcomes.Outcome) -> OutcomeOut:
    values = {name: getattr(outcome, name) for name in OutcomeOut.model_fields if name != "outcome"}
    return OutcomeOut(**values, outcome=outcome.value)
