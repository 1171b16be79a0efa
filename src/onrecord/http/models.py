"""`/models`: what is served, and which input it takes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from onrecord.accounts.caller import Caller
from onrecord.errors import NotFound
from onrecord.http.services import KeyCallerDep, Services, ServicesDep
from onrecord.serving.artifact import Model
from onrecord.serving.json_schema import row_json_schema

__all__ = ["router"]

router = APIRouter(prefix="/models", tags=["models"])


class ServedModel(BaseModel):
    """One served model."""

    name: str
    version: str
    sha256: str
    format: str
    runtime: str
    runtime_reason: str
    default: bool
    columns: list[str]


class ModelList(BaseModel):
    """Every served model."""

    models: list[ServedModel]


def _shown(model: Model, services: Services) -> ServedModel:
    return ServedModel(
        name=model.name,
        version=model.version,
        sha256=model.sha256,
        format=model.format,
        runtime=model.runtime.name,
        runtime_reason=model.runtime_reason,
        default=model.name == services.default_model,
        columns=list(model.schema.names),
    )


def _find(name: str, caller: Caller, services: Services) -> Model:
    predictor = services.predictors.get(name)
    if predictor is None or not caller.reaches(name):
        raise NotFound(f"There is no model {name[:100]!r}; GET /models lists them.")
    return predictor.model


@router.get("", summary="List models")
async def list_models(caller: KeyCallerDep, services: ServicesDep) -> ModelList:
    """List the served models: version, hash, and which runtime answers and why.

    An API key sees those it is for.
    """
    served = [predictor.model for predictor in services.predictors.values()]
    return ModelList(models=[_shown(m, services) for m in served if caller.reaches(m.name)])


@router.get("/{name}", summary="Show a model")
async def show_model(name: str, caller: KeyCallerDep, services: ServicesDep) -> ServedModel:
    """Show one model."""
    return _shown(_find(name, caller, services), services)


@router.get("/{name}/schema", summary="Show a model's input schema")
async def show_schema(name: str, caller: KeyCallerDep, services: ServicesDep) -> dict[str, Any]:
    """Show the JSON Schema (2020-12) of one input row."""
    return row_json_schema(_find(name, caller, services).schema)
