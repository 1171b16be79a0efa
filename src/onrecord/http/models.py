"""`/models`: what is served, and which input it takes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from onrecord.accounts.caller import Caller
from onrecord.errors import NotFound
from onrecord.http.services import KeyCallerDep, Services, ServicesDep
from onrecord.serving.json_schema import row_json_schema
from onrecord.serving.prediction import Predictor
from onrecord.serving.served import ServedModel

__all__ = ["find_model", "router"]

router = APIRouter(prefix="/models", tags=["models"])


class ShownVersion(BaseModel):
    """What there is to say of any loaded version."""

    number: int
    version: str
    sha256: str
    runtime: str
    runtime_reason: str
    explainable: bool = Field(description="Whether calls may ask for `explain=true`.")
    explainable_reason: str | None = Field(description="Why not, null where it is explainable.")


class LoadedVersion(ShownVersion):
    """One version that is loaded and answers calls that name it."""

    aliases: list[str] = Field(description="`live`, `candidate`, `previous`.")


class ShownModel(ShownVersion):
    """One served model: its live version, and all that are loaded."""

    name: str
    format: str
    default: bool
    columns: list[str]
    canary_share: float = Field(description="Of the users, who get the candidate's answers.")
    shadow_share: float = Field(description="Of the calls, which the candidate answers unseen.")
    versions: list[LoadedVersion]


class ModelList(BaseModel):
    """Every served model."""

    models: list[ShownModel]


def _told(version: Predictor) -> dict[str, Any]:
    model = version.model
    return {
        "number": version.number,
        "version": model.version,
        "sha256": model.sha256,
        "runtime": model.runtime.name,
        "runtime_reason": model.runtime_reason,
        "explainable": not version.not_explained,
        "explainable_reason": version.not_explained or None,
    }


def _shown(model: ServedModel, services: Services) -> ShownModel:
    live = model.live.model
    places = (("live", model.live), ("candidate", model.candidate), ("previous", model.previous))
    return ShownModel(
        **_told(model.live),
        name=model.name,
        format=live.format,
        default=model.name == services.served.default,
        columns=list(live.schema.names),
        canary_share=model.canary_share,
        shadow_share=model.shadow_share,
        versions=[
            LoadedVersion(
                **_told(it),
                aliases=[alias for alias, held in places if held is it],
            )
            for it in model.versions
        ],
    )


def find_model(name: str, caller: Caller, services: Services) -> ServedModel:
    """Return a served model; raises NotFound where there is none that the caller may know of."""
    model = services.served.models.get(name)
    if model is None or not caller.reaches(name):
        raise NotFound(f"There is no model {name[:100]!r}; GET /models lists them.")
    return model


@router.get("", summary="List models")
async def list_models(caller: KeyCallerDep, services: ServicesDep) -> ModelList:
    """List the served models: version, hash, and which runtime answers and why.

    An API key sees those it is for.
    """
    served = services.served.models.values()
    return ModelList(models=[_shown(m, services) for m in served if caller.reaches(m.name)])


@router.get("/{name}", summary="Show a model")
async def show_model(name: str, caller: KeyCallerDep, services: ServicesDep) -> ShownModel:
    """Show one model."""
    return _shown(find_model(name, caller, services), services)


@router.get("/{name}/schema", summary="Show a model's input schema")
async def show_schema(name: str, caller: KeyCallerDep, services: ServicesDep) -> dict[str, Any]:
    """Show the JSON Schema (2020-12) of one input row."""
    return row_json_schema(find_model(name, caller, services).live.model.schema)
