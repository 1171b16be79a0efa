"""The only place where the rooms meet: `create_app` builds every part and hands it over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

import onrecord
from onrecord.accounts.api_keys import ApiKeys
from onrecord.accounts.keys import KeyRing
from onrecord.accounts.limits import CallLimit, SignInLimit
from onrecord.accounts.passwords import Passwords
from onrecord.accounts.sessions import Sessions
from onrecord.accounts.sign_in import Accounts
from onrecord.accounts.standing import Gate
from onrecord.accounts.tokens import Tokens
from onrecord.errors import SettingsError
from onrecord.http import (
    api_keys,
    docs,
    erasures,
    health,
    models,
    predictions,
    proofs,
    tokens,
    users,
)
from onrecord.http.body import BodyLimit
from onrecord.http.context import RequestContext
from onrecord.http.direct import STATE_KEY, DirectPredictions
from onrecord.http.openapi import openapi_document
from onrecord.http.predict import PredictEndpoint, refusal
from onrecord.http.refusals import add_refusals
from onrecord.http.services import Services
from onrecord.logs import AccessLog
from onrecord.record.checkpoint import SigningKey
from onrecord.record.database import Database
from onrecord.record.erase import Eraser
from onrecord.record.heads_file import HeadsFile
from onrecord.record.model_versions import register_model_version
from onrecord.record.payload_key import PayloadKey
from onrecord.record.writer import Writer
from onrecord.record.writer_process import WriterProcess
from onrecord.serving.artifact import Model, load_model
from onrecord.serving.prediction import Conceal, Predictor, Recorder
from onrecord.serving.runner import Runner
from onrecord.serving.trust import Trust
from onrecord.serving.validation import Validator
from onrecord.settings import Settings

_ACCOUNT_BODY_BYTES = 64 * 1024

__all__ = [
    "Parts",
    "build_accounts",
    "build_eraser",
    "conceal_for",
    "create_app",
    "load_served_model",
    "load_trust",
    "register_model",
]


def load_trust(settings: Settings) -> Trust:
    """Return what the operator trusts: the server's own file and the settings together."""
    return Trust(
        settings.trust_file, hashes=settings.trusted_models, skops_types=settings.trusted_types
    )


@dataclass(frozen=True)
class Parts:
    """The accounts of one server and the parts under them."""

    tokens: Tokens
    passwords: Passwords
    accounts: Accounts
    sessions: Sessions
    api_keys: ApiKeys


def build_accounts(settings: Settings, database: Database) -> Parts:
    """Build the accounts on a database."""
    keys = (
        KeyRing.from_secrets(settings.token_secrets.get_secret_value())
        if settings.token_secrets is not None
        else KeyRing.from_file(settings.token_file)
    )
    tokens = Tokens(
        keys,
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        lifetime=timedelta(minutes=settings.token_minutes),
    )
    passwords = Passwords()
    return Parts(
        tokens,
        passwords,
        Accounts(database, passwords, SignInLimit()),
        Sessions(
            database,
            tokens,
            longest=timedelta(days=settings.session_days),
            idle=timedelta(days=settings.session_idle_days),
        ),
        ApiKeys(database, longest=timedelta(days=settings.api_key_days)),
    )


def build_eraser(settings: Settings, database: Database) -> Eraser:
    """Build what erases on the record, with the seal's key; raises SealError."""
    key = SigningKey.from_file(settings.seal_key_file)
    return Eraser(database, key, HeadsFile(settings.heads_path))


def conceal_for(settings: Settings, model: Model) -> Conceal | None:
    """Return what encrypts the inputs of a model with sensitive columns; raises SealError."""
    if not model.schema.sensitive:
        return None
    return PayloadKey.from_file(settings.payload_key_file).conceal


def load_served_model(settings: Settings) -> Model:
    """Load the model that the settings name, as a server does.

    Raises SettingsError where they name none, and whatever `load_model` raises.
    """
    if settings.model_dir is None:
        raise SettingsError("setting model_dir: name the model directory to serve")
    return load_model(
        settings.model_dir,
        trust=load_trust(settings),
        name=settings.model_name,
        compile=settings.compile,
        cache=settings.conversions_dir,
    )


def register_model(database: Database, model: Model) -> int:
    """Return the model version's key in the record, which is new where the version is."""
    with database.write() as connection:
        return register_model_version(
            connection,
            name=model.name,
            version=model.version,
            sha256=model.sha256,
            schema_sha256=model.schema_sha256,
            input_schema=model.input_schema_bytes,
            format=model.format,
        )


def _open_model(settings: Settings, database: Database) -> tuple[Model, int]:
    model = load_served_model(settings)
    version_id = register_model(database, model)
    structlog.get_logger("onrecord").info(
        "model loaded",
        model=model.name,
        version=model.version,
        sha256=model.sha256,
        runtime=model.runtime.name,
        reason=model.runtime_reason,
        us_per_row=round(model.seconds_per_row * 1e6, 1),
    )
    return model, version_id


def create_app(settings: Settings, *, writer_address: str | None = None) -> ASGIApp:
    """Build one server from its settings.

    What it returns is plain ASGI: the prediction path answers before FastAPI, whose middleware
    would cost it as much again, and hands everything else on.

    The model is loaded, the database migrated to head and the token keys read before this
    returns; no request reads a model file. `writer_address` is where the writer's process of the
    server is; without one the application starts its own. Raises StartupError with one clear
    message where the server cannot start.
    """
    database = Database(settings.database_url)
    database.upgrade()
    model, model_version_id = _open_model(settings, database)
    parts = build_accounts(settings, database)
    writer = Writer()
    recorder = Recorder(writer, refusal)
    runner = Runner(model, deadline_seconds=settings.predict_seconds)
    validator = Validator(model.schema, max_rows=settings.max_rows)
    conceal = conceal_for(settings, model)
    predictor = Predictor(model, model_version_id, validator, runner, recorder, conceal)
    gate = Gate(parts.tokens, database)
    call_limit = CallLimit(settings.call_rate) if settings.call_rate else None
    access = AccessLog()
    direct = DirectPredictions(
        gate=gate,
        predictors={model.name: predictor},
        default_model=model.name,
        writer=writer,
        call_limit=call_limit,
        max_body_bytes=settings.max_body_bytes,
        access=access,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        with ExitStack() as stack:
            address = writer_address
            if address is None:
                address = stack.enter_context(WriterProcess(settings.database_url)).address
            await writer.start(address)
            yield {STATE_KEY: direct}
            runner.close()
            await writer.close()
        parts.passwords.close()
        database.close()

    app = FastAPI(
        title="onrecord",
        version=onrecord.__version__,
        description="Predictions from a tabular model, each answer on the record.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.state.services = Services(
        database=database,
        writer=writer,
        accounts=parts.accounts,
        sessions=parts.sessions,
        api_keys=parts.api_keys,
        gate=gate,
        eraser=lambda: build_eraser(settings, database),
        predictors={model.name: predictor},
        default_model=model.name,
        registration_open=settings.registration_open,
        token_seconds=settings.token_minutes * 60,
    )
    _add_routes(app, model, settings)
    add_refusals(app)
    endpoint = PredictEndpoint(
        BodyLimit(app, max_bytes=_ACCOUNT_BODY_BYTES, seconds=settings.body_seconds),
        gate=gate,
        predictors={model.name: predictor},
        default_model=model.name,
        recorder=recorder,
        call_limit=call_limit,
        max_body_bytes=settings.max_body_bytes,
        body_seconds=settings.body_seconds,
    )
    return RequestContext(endpoint, access)


def _add_routes(app: FastAPI, model: Model, settings: Settings) -> None:
    for room in (users, tokens, api_keys, models, predictions, proofs, erasures, health):
        app.include_router(room.router)
    if not settings.docs:
        return
    app.include_router(docs.router)
    document: dict[str, Any] = openapi_document(
        app, [model], model.name, max_rows=settings.max_rows
    )

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(document)
