"""`/v2`: what the Open Inference Protocol asks beside predictions: health and metadata.

Source: https://github.com/kserve/open-inference-protocol (REST).
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import onrecord
from onrecord.accounts.caller import Caller
from onrecord.http.health import readiness
from onrecord.http.models import find_model
from onrecord.http.predict import no_such_model
from onrecord.http.services import KeyCallerDep, Services, ServicesDep
from onrecord.http.tensors import datatype_of, outputs_of
from onrecord.serving.prediction import Predictor

__all__ = ["router"]

router = APIRouter(prefix="/v2", tags=["prediction"])


class Live(BaseModel):
    """The process answers."""

    live: bool


class Ready(BaseModel):
    """Whether predictions can be answered."""

    ready: bool


class ModelReady(Ready):
    """Whether a model can be asked."""

    name: str


class ServerMetadata(BaseModel):
    """Who answers, and which extensions of the protocol it knows."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """One input or output; a size of -1 is any number of rows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = Field(
        description="Of probabilities, `classes`: which class each of the columns is of."
    )


class ModelMetadata(BaseModel):
    """One model, or one version of it: what it takes and answers."""

    name: str
    versions: list[str] = Field(description="The numbers of all versions that are loaded.")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Ready, "description": "Not ready"}}


@router.get("", summary="Who answers, by the Open Inference Protocol")
async def server_metadata(_: KeyCallerDep) -> ServerMetadata:
    """Show the server's name, version and extensions."""
    extensions = ["binary_tensor_data"]
    return ServerMetadata(name="onrecord", version=onrecord.__version__, extensions=extensions)


@router.get("/health/live", summary="Is the process alive, by the Open Inference Protocol")
async def live() -> Live:
    """Answer as long as the process runs."""
    return Live(live=True)


@router.get(
    "/health/ready",
    summary="Can predictions be answered, by the Open Inference Protocol",
    responses=_NOT_READY,
)
async def ready(services: ServicesDep) -> Ready:
    """Answer 200 where `GET /readyz` does, else 503."""
    if (await readiness(services)).ready:
        return Ready(ready=True)
    return JSONResponse({"ready": False}, status_code=503)  # type: ignore[return-value]


@router.get("/models/{name}", summary="A model's tensors")
async def model_metadata(name: str, caller: KeyCallerDep, services: ServicesDep) -> ModelMetadata:
    """Show what the live version takes and answers."""
    return await _metadata(find_model(name, caller, services).live, services)


@router.get("/models/{name}/versions/{version}", summary="A version's tensors")
async def version_metadata(
    name: str, version: str, caller: KeyCallerDep, services: ServicesDep
) -> ModelMetadata:
    """Show what one version takes and answers."""
    return await _metadata(_find(name, version, caller, services), services)


@router.get("/models/{name}/ready", summary="Can a model be asked")
async def model_ready(name: str, caller: KeyCallerDep, services: ServicesDep) -> ModelReady:
    """Answer 200 where the model is loaded, else 404."""
    return ModelReady(name=find_model(name, caller, services).name, ready=True)


@router.get("/models/{name}/versions/{version}/ready", summary="Can a version be asked")
async def version_ready(
    name: str, version: str, caller: KeyCallerDep, services: ServicesDep
) -> ModelReady:
    """Answer 200 where the version is loaded, else 404."""
    return ModelReady(name=_find(name, version, caller, services).model.name, ready=True)


def _find(name: str, version: str, caller: Caller, services: Services) -> Predictor:
    predictor = find_model(name, caller, services).find(version)
    if predictor is None:
        raise no_such_model(services.served, name)
    return predictor


async def _metadata(predictor: Predictor, services: Services) -> ModelMetadata:
    model = predictor.model
    outputs = outputs_of(await predictor.sample_outputs())
    versions = services.served.models[model.name].versions
    return ModelMetadata(
        name=model.name,
        versions=[str(version.number) for version in versions],
        platform=model.format,
        inputs=[
            TensorMetadata(name=it.name, datatype=datatype_of(it), shape=[-1], parameters={})
            for it in model.schema.columns
        ],
        outputs=[
            TensorMetadata(
                name=it.name,
                datatype=it.datatype,
                shape=it.shape(-1),
                parameters={} if it.classes is None else {"classes": list(it.classes)},
            )
            for it in outputs
        ],
    )
