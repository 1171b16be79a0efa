"""`/erasures`: payloads go for ever, and who had them go is on record."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from onrecord.errors import Conflict, Fault, InvalidInput, NotFound, SealError
from onrecord.http.paging import PageCursor, PageLimit
from onrecord.http.services import AdminDep, OverseerDep, ServicesDep
from onrecord.record import erasures
from onrecord.record.by import By
from onrecord.record.erase import Erased, Selection
from onrecord.record.ids import is_id, request_id_of

__all__ = ["router"]

router = APIRouter(prefix="/erasures", tags=["record"])

_MOST_CALLS = 10_000


class ErasureOut(BaseModel):
    """An erasure, as the API shows it.

    `by_user_id` is the admin who asked for it here; `operator` is the account that ran a command.
    """

    id: str
    erased_at: datetime
    by_user_id: str | None
    operator: str | None
    reason: str
    what: Literal["payloads", "rows"]
    selection: dict[str, Any] = Field(description="Which calls were meant.")
    calls: int = Field(description="How many calls it erased.")


class ErasurePage(BaseModel):
    """One page of erasures, newest first."""

    erasures: list[ErasureOut]
    next: str | None = Field(description="Send it as `before` to get the next, older page.")


class ErasureOrder(BaseModel):
    """Whose payloads are to be erased, and why."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "user_id": "01a211be-a85e-7175-a4f7-33565c93c8d0",
                    "reason": "Article 17, case 4711",
                }
            ]
        },
    )

    user_id: str | None = Field(default=None, description="The user whose calls are meant.")
    prediction_id: str | None = Field(
        default=None, description="In place of a user: a prediction whose call alone is meant."
    )
    model: str | None = Field(default=None, description="Only the calls of this model.")
    before: AwareDatetime | None = Field(default=None, description="Only those received before.")
    reason: str = Field(
        min_length=1,
        max_length=1000,
        description="Why, as it stays on record for ever: name no person in it.",
    )


def _shown(act: erasures.Act) -> ErasureOut:
    values = {name: getattr(act, name) for name in ErasureOut.model_fields}
    return ErasureOut(**values | {"selection": json.loads(act.selection)})


@router.post("", status_code=201, summary="Erase payloads")
async def erase(order: ErasureOrder, caller: AdminDep, services: ServicesDep) -> ErasureOut:
    """Erase input and output of a user's calls, or of one call, for ever; admins only.

    The rows stay, with their proofs. More than 10,000 calls at once are a conflict (409): the
    command `onrecord erase` takes any number.
    """
    meant = _meant(order)

    def act() -> tuple[Erased, list[erasures.Act]]:
        eraser = services.eraser()
        if eraser.count("payloads", meant) > _MOST_CALLS:
            raise Conflict(
                f"More than {_MOST_CALLS} calls are meant: bound them by `before` or `model`, or "
                "have the operator run `onrecord erase`."
            )
        done = eraser.erase("payloads", meant, By(order.reason, user_id=caller.user_id))
        with services.database.read() as connection:
            return done, erasures.page(connection, limit=1, only=done.id)

    try:
        done, acts = await services.database.run(act)
    except SealError as error:
        raise Conflict(f"The record cannot be sealed now: {error}.") from None
    if done.id is None:
        raise NotFound("No call that is meant has a payload: there is nothing to erase.")
    return _shown(acts[0])


def _meant(order: ErasureOrder) -> Selection:
    """Return which calls an order means; raises InvalidInput where it names neither or both."""
    given = {
        name: value
        for name in ("user_id", "prediction_id")
        if (value := getattr(order, name)) is not None
    }
    if len(given) != 1:
        fault = Fault("/user_id", "wrong", "Name either a user or a prediction.")
        raise InvalidInput("The order does not fit.", faults=(fault,))
    for name, value in given.items():
        if not is_id(value):
            fault = Fault(f"/{name}", "wrong_form", f"A {name[:-3]} is named by its id.")
            raise InvalidInput("The order does not fit.", faults=(fault,))
    call = None if order.prediction_id is None else request_id_of(order.prediction_id)
    return Selection(user_id=order.user_id, model=order.model, before=order.before, call=call)


@router.get("", summary="List erasures")
async def list_erasures(
    _: OverseerDep, services: ServicesDep, limit: PageLimit = 50, before: PageCursor = None
) -> ErasurePage:
    """List what was erased, when, by whom and why; admins and auditors only."""
    if before is not None and not is_id(before):
        fault = Fault("/before", "wrong_form", "Send the `next` of the page before.")
        raise InvalidInput("The query does not fit.", faults=(fault,))

    def read() -> list[erasures.Act]:
        with services.database.read() as connection:
            return erasures.page(connection, limit=limit + 1, before=before)

    found = await services.database.run(read)
    return ErasurePage(
        erasures=[_shown(act) for act in found[:limit]],
        next=found[limit - 1].id if len(found) > limit else None,
    )
