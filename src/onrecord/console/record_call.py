"""One call on record: what was asked and answered, its proof, its outcomes, its replay."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from onrecord.accounts.caller import Caller
from onrecord.console.pages import PREFIX, PageRoute, code_of, page
from onrecord.console.record import csv_response
from onrecord.console.session import ChangeDep, PersonDep
from onrecord.console.snippets import curl_command, predict_url
from onrecord.errors import CallError, Conflict, Fault, InvalidInput, NotFound
from onrecord.http import erasures, outcomes, proofs, replays
from onrecord.http.outcomes import OutcomeOrder, check_teller
from onrecord.http.predictions import as_recorded, find_call
from onrecord.http.proofs import InclusionProof
from onrecord.http.services import Services, ServicesDep
from onrecord.insight.recorded_calls import RecordedAnswer, decoded_answers
from onrecord.record.ids import prediction_id, row_of
from onrecord.record.reader import Entry
from onrecord.serving.outputs import prediction_text, probabilities_by_class

__all__ = ["router"]

_MOST_ROWS = 100
_MOST_TEXT = 100_000
_CURL_BYTES = 16_000

router = APIRouter(prefix=f"{PREFIX}/record", include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class _Refused:
    """A form of the page that was refused: which, why, and what it said."""

    form: str
    error: CallError
    text: str


@router.get("/{prediction}.json")
async def call_as_json(prediction: str, person: PersonDep, services: ServicesDep) -> Response:
    """Give one call as the API does."""
    recorded = as_recorded(await find_call(prediction, person, services))
    return JSONResponse(recorded.model_dump(mode="json"), headers={"cache-control": "no-store"})


@router.get("/{prediction}.csv")
async def call_as_csv(prediction: str, person: PersonDep, services: ServicesDep) -> Response:
    """Give the answers to a call's rows as CSV, a row each."""
    entry = await find_call(prediction, person, services)
    rows = [
        {
            "id": prediction_id(entry.id, n),
            "prediction": prediction_text(answer.prediction),
            **{f"probability_{name}": it for name, it in (answer.probabilities or {}).items()},
        }
        for n, answer in enumerate(_answers(entry))
    ]
    return csv_response(entry.id, rows, list(rows[0]) if rows else ["id", "prediction"])


@router.get("/{prediction}/proof.json")
async def proof_as_json(prediction: str, person: PersonDep, services: ServicesDep) -> Response:
    """Give the proof that a call is on record, to check elsewhere."""
    proof = await proofs.prove_prediction(prediction, person, services)
    headers = {
        "cache-control": "no-store",
        "content-disposition": f'attachment; filename="proof-{prediction}.json"',
    }
    return JSONResponse(proof.model_dump(mode="json"), headers=headers)


@router.get("/{prediction}")
async def show_call(
    request: Request, prediction: str, person: PersonDep, services: ServicesDep
) -> Response:
    """Show one call."""
    return await _call_page(request, prediction, person, services)


@router.post("/{prediction}/outcome")
async def tell_outcome(
    request: Request, prediction: str, person: ChangeDep, services: ServicesDep
) -> Response:
    """Say what really happened to what was predicted, as the API's outcome does."""
    value = str((await request.form()).get("outcome", "")).strip()
    try:
        await check_teller(person)
        answers = _answers(await find_call(prediction, person, services))
        meant = _outcome(value, answers[row_of(prediction)] if answers else None)
        order = OutcomeOrder(outcome=meant)
        await outcomes.tell_outcome(prediction, order, Response(), person, services)
    except (InvalidInput, Conflict) as error:
        refused = _Refused("outcome", error, value)
        return await _call_page(request, prediction, person, services, refused)
    return RedirectResponse(f"{PREFIX}/record/{prediction}#outcomes", 303)


@router.post("/{prediction}/erase")
async def erase(
    request: Request, prediction: str, person: ChangeDep, services: ServicesDep
) -> Response:
    """Erase input and answer of the call for ever, as the API's erasure does; admins only."""
    person.check_admin()
    form = await request.form()
    reason = str(form.get("reason", "")).strip()
    try:
        if not reason or form.get("sure") != "yes":
            fault = Fault("/reason", "missing", "Give the reason and tick that you are sure.")
            raise InvalidInput("Nothing was erased.", faults=(fault,))
        order = erasures.ErasureOrder(prediction_id=prediction, reason=reason[:1000])
        await erasures.erase(order, person, services)
    except (InvalidInput, Conflict, NotFound) as error:
        refused = _Refused("erase", error, reason)
        return await _call_page(request, prediction, person, services, refused)
    return RedirectResponse(f"{PREFIX}/record/{prediction}", 303)


async def _call_page(
    request: Request,
    prediction: str,
    person: Caller,
    services: Services,
    refused: _Refused | None = None,
) -> Response:
    entry = await find_call(prediction, person, services)
    recorded = as_recorded(entry)
    answers = _answers(entry)
    concealed = entry.input is not None and services.reveal(entry.input) != entry.input
    against = request.query_params.get("replay", "")
    proof, unproven = await _proof(prediction, person, services)
    replay, no_replay = await _replay(prediction, against, person, services)
    history = await outcomes.list_outcomes(prediction, person, services)
    model = services.served.models.get(entry.model)
    return page(
        request,
        "call.html",
        code=code_of(None if refused is None else refused.error),
        title=f"Call {entry.id}",
        call=recorded,
        row=row_of(prediction),
        asked=_pretty(recorded.input),
        concealed=concealed,
        answered=_pretty(recorded.output),
        answers=[_shown(n, answer) for n, answer in enumerate(answers[:_MOST_ROWS])],
        rows=len(answers),
        curl=_curl(request, entry, concealed=concealed),
        proof=proof,
        unproven=unproven,
        outcomes=history.outcomes,
        may_tell=person.role != "auditor" and bool(answers),
        classes=list((answers[0].probabilities or {}) if answers else {}),
        versions=[] if model is None else list(reversed(model.versions)),
        against=against,
        replay=replay,
        no_replay=no_replay,
        may_erase=person.role == "admin" and entry.erased_at is None,
        refused=refused,
    )


async def _proof(
    prediction: str, person: Caller, services: Services
) -> tuple[InclusionProof | None, str]:
    try:
        return await proofs.prove_prediction(prediction, person, services), ""
    except Conflict as error:
        return None, error.detail


async def _replay(
    prediction: str, against: str, person: Caller, services: Services
) -> tuple[replays.ReplayedCall | None, str]:
    if not against:
        return None, ""
    try:
        return await replays.replay_prediction(prediction, person, services, against[:200]), ""
    except (Conflict, NotFound) as error:
        return None, error.detail


def _answers(entry: Entry) -> Sequence[RecordedAnswer]:
    """Return the answers to a call's rows; none where it was refused, or they are no JSON."""
    if entry.error_code is not None or entry.output is None:
        return []
    return decoded_answers(entry.output, entry.output_content_type) or []


def _shown(row: int, answer: RecordedAnswer) -> dict[str, Any]:
    """Return an answer with its probabilities by class, and by target where there are several."""
    return {
        "row": row,
        "prediction": prediction_text(answer.prediction),
        "probabilities": probabilities_by_class(answer.prediction, answer.probabilities),
    }


def _outcome(text: str, answer: RecordedAnswer | None) -> Any:
    """Return what a field says as the API takes it: a number, a class, or an object of targets."""
    if not text:
        fault = Fault("/outcome", "missing", "Say what happened.")
        raise InvalidInput("The outcome is missing.", faults=(fault,))
    if answer is None or isinstance(answer.prediction, str | bool | int):
        return text
    try:
        return msgspec.json.decode(text, type=dict[str, Any] | float)
    except msgspec.MsgspecError:
        fault = Fault("/outcome", "wrong_form", "Write a number, or a JSON object of the targets.")
        raise InvalidInput("The outcome does not fit.", faults=(fault,)) from None


def _pretty(content: Any) -> str | None:
    """Return a payload as people read it; None where there is none or it is no text."""
    if content is None or (isinstance(content, dict) and "base64" in content):
        return None
    text = (
        content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
    )
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}\n..."


def _curl(request: Request, entry: Entry, *, concealed: bool) -> str | None:
    """Return the command that asks the same again; None where there is nothing left to ask."""
    if entry.input is None:
        return None
    try:
        text = entry.input.decode()
        body = f"--data-raw {shlex.quote(text)}"
    except UnicodeDecodeError:
        text, body = "", ""
    if concealed or not text or len(text) > _CURL_BYTES:
        body = "--data-binary @input"
    kind = entry.content_type or "application/json"
    return curl_command(predict_url(request, entry.model), kind, body)
