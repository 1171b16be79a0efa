"""The calls that the client makes, as flows: which requests, and how their answers are read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import httpx2

from onrecord.client.answers import json_of
from onrecord.client.errors import UnexpectedAnswer
from onrecord.client.results import (
    InclusionProof,
    Model,
    ModelVersion,
    Outcome,
    PredictedTable,
    Prediction,
    Predictions,
    RecordedCall,
    ToldOutcome,
)
from onrecord.client.retries import Retries
from onrecord.client.session import Session
from onrecord.client.steps import Flow, Send
from onrecord.client.tables import ARROW, arrow_stream, is_array, is_table, predicted_table

__all__ = ["Body", "Calls", "Page", "Row", "key_of", "text_of"]

Row: TypeAlias = Mapping[str, Any]
"""A value for each of the model's columns."""

_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Body:
    """An answer as it came: its bytes, and their media type."""

    content: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some calls on record, newest first; `next` is where the following page begins."""

    calls: Sequence[RecordedCall]
    next: str | None


@dataclass(slots=True)
class Calls:
    """Every call to one server, each a flow."""

    session: Session
    retries: Retries

    def predict(
        self,
        rows: Any,
        *,
        model: str | None,
        version: str | None,
        explain: bool,
        idempotency_key: str | None,
    ) -> Flow[Prediction | Predictions | PredictedTable[Any]]:
        """Ask for the answers to a row, a list of rows or a table, in one call."""
        how = {"model": model, "version": version, "idempotency_key": idempotency_key}
        if is_table(rows):
            if explain:
                raise ValueError("explanations go with a row or a list of rows, not with a table")
            names = None
            if is_array(rows):
                names = (yield from self.model(model)).columns
            body = arrow_stream(rows, names)
            answer = yield from self.predict_body(body, ARROW, accept=ARROW, explain=False, **how)
            return predicted_table(answer.content, rows)
        one = isinstance(rows, Mapping)
        sent = rows if one else {"rows": list(rows)}
        body = _json_bytes(sent)
        answer = yield from self.predict_body(body, _JSON, accept=_JSON, explain=explain, **how)
        told = json.loads(answer.content)
        by = ModelVersion.read(told["model"])
        if one:
            return Prediction.read(told, by)
        return Predictions(
            told["id"], by, tuple(Prediction.read(it, by) for it in told["predictions"])
        )

    def predict_body(
        self,
        body: bytes,
        content_type: str,
        *,
        accept: str,
        model: str | None,
        version: str | None,
        explain: bool,
        idempotency_key: str | None,
    ) -> Flow[Body]:
        """Ask for the answers to a body; one key for all its attempts, so it is on record once."""
        if version is not None and model is None:
            model = (yield from self.model(None)).name
        path = "" if model is None else f"/models/{_segment(model)}"
        path += "" if version is None else f"/versions/{_segment(version)}"
        headers = {
            "content-type": content_type,
            "accept": accept,
            "idempotency-key": key_of(idempotency_key or str(uuid.uuid4())),
        }
        query = "?explain=true" if explain else ""
        request = Send("POST", f"{path}/predict{query}", body, headers)
        response = yield from self.session.send(request, self.retries)
        return Body(response.content, response.headers.get("content-type", ""))

    def models(self) -> Flow[list[Model]]:
        """List the served models."""
        told = yield from self._get("/models")
        return [Model.read(it) for it in told["models"]]

    def model(self, name: str | None) -> Flow[Model]:
        """Show one model, or the default one."""
        if name is not None:
            return Model.read((yield from self._get(f"/models/{_segment(name)}")))
        for model in (yield from self.models()):
            if model.default:
                return model
        raise UnexpectedAnswer("the server shows no default model; name one", status=200)

    def schema(self, name: str) -> Flow[dict[str, Any]]:
        """Show the JSON Schema of a row."""
        told: dict[str, Any] = yield from self._get(f"/models/{_segment(name)}/schema")
        return told

    def recorded_page(self, filters: Mapping[str, Any], before: str | None) -> Flow[Page]:
        """Show a page of the record."""
        asked = {**filters, "before": before}
        query = urlencode({k: text_of(v) for k, v in asked.items() if v is not None})
        told = yield from self._get(f"/predictions?{query}")
        return Page([RecordedCall.read(it) for it in told["predictions"]], told["next"])

    def recorded(self, prediction: str) -> Flow[RecordedCall]:
        """Show the call of a prediction."""
        return RecordedCall.read((yield from self._get(f"/predictions/{_segment(prediction)}")))

    def proof(self, prediction: str) -> Flow[InclusionProof]:
        """Prove that the call of a prediction is on record."""
        told = yield from self._get(f"/predictions/{_segment(prediction)}/proof")
        return InclusionProof.read(told)

    def outcomes(self, prediction: str) -> Flow[list[Outcome]]:
        """List all that was said of a prediction."""
        told = yield from self._get(f"/predictions/{_segment(prediction)}/outcomes")
        return [Outcome.read(it) for it in told["outcomes"]]

    def tell_outcome(
        self, prediction: str, outcome: Any, observed_at: datetime | None
    ) -> Flow[Outcome]:
        """Say what happened to a prediction; saying it again changes nothing."""
        order = {"outcome": outcome, "observed_at": observed_at}
        path = f"/predictions/{_segment(prediction)}/outcome"
        response = yield from self._post(path, _json_bytes(order), _JSON)
        return Outcome.read(json_of(response))

    def tell_outcomes(
        self, model: str, rows: Any, key_column: str | None
    ) -> Flow[list[ToldOutcome]]:
        """Say what happened to many predictions; all is put on record, or nothing."""
        query = "" if key_column is None else "?" + urlencode({"key_column": key_column})
        path = f"/models/{_segment(model)}/outcomes{query}"
        if is_table(rows):
            body, kind = arrow_stream(rows), ARROW
        else:
            body, kind = _json_bytes(list(rows)), _JSON
        response = yield from self._post(path, body, kind)
        return [ToldOutcome.read(it) for it in json_of(response)["outcomes"]]

    def _get(self, path: str) -> Flow[Any]:
        request = Send("GET", path, headers={"accept": _JSON})
        response = yield from self.session.send(request, self.retries)
        return json_of(response)

    def _post(self, path: str, body: bytes, kind: str) -> Flow[httpx2.Response]:
        request = Send("POST", path, body, {"content-type": kind, "accept": _JSON})
        return (yield from self.session.send(request, self.retries))


def key_of(text: str) -> str:
    """Return an idempotency key as its header has it: a String of RFC 9651, section 3.3.3."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def text_of(value: Any) -> str:
    """Return a value of a query as the server reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _segment(text: str) -> str:
    return quote(text, safe="")


def _json_bytes(value: Any) -> bytes:
    """Return JSON; times are RFC 3339, and numpy's numbers are numbers.

    NaN is no JSON, and raises ValueError here.
    """
    return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__} has no form in JSON")
