"""The only place where the rooms meet: `create_app` builds every part and hands it over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

import onrecord
from onrecord.accounts.call_limits import CallLimits
from onrecord.accounts.rates import Rate, parse_rate
from onrecord.accounts.set_up import SetUp
from onrecord.accounts.standing import Gate
from onrecord.console import (
    account,
    admin,
    admin_users,
    overview,
    pages,
    record_call,
    sign_in,
    tiles,
    try_file,
    try_it,
)
from onrecord.console import model as console_model
from onrecord.console import record as console_record
from onrecord.errors import ModelDirectoryError, SettingsError
from onrecord.http import (
    api_keys,
    bulk_outcomes,
    compare,
    docs,
    drift,
    erasures,
    health,
    model_versions,
    models,
    open_inference,
    outcomes,
    predictions,
    proofs,
    quality,
    replays,
    tokens,
    users,
)
from onrecord.http.body import BodyLimit, BodyRoom, LargeBodies
from onrecord.http.context import RequestContext
from onrecord.http.direct import STATE_KEY, DirectPredictions
from onrecord.http.idempotency import IdempotentAnswers
from onrecord.http.limits import LIMITS_KEY, Limits, connections_within
from onrecord.http.openapi import OpenApi
from onrecord.http.predict import PredictEndpoint, refusal
from onrecord.http.refusals import add_refusals
from onrecord.http.services import Services
from onrecord.insight.baselines import Drifts
from onrecord.insight.gate import GateRules
from onrecord.lifecycle.examination import examine_apart
from onrecord.lifecycle.fleet import Fleet
from onrecord.lifecycle.versions import Gate as VersionGate
from onrecord.lifecycle.watch import Watcher
from onrecord.logs import AccessLog
from onrecord.parts import (
    build_accounts,
    build_eraser,
    build_examiner,
    build_external,
    build_reveal,
    build_versions,
    convert_apart,
    described,
    drift_rules,
    load_given_models,
    loader,
    operator,
    payload_key_for,
    writer_process,
)
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.model_versions import StoredVersion
from onrecord.record.spool import Spool
from onrecord.record.writer import Writer
from onrecord.serving.admission import Admission
from onrecord.serving.artifact import Model
from onrecord.serving.prediction import Predictor, Recorder
from onrecord.serving.runner import Runner
from onrecord.serving.served import ServedModels
from onrecord.serving.validation import Validator
from onrecord.settings import Settings

_ACCOUNT_BODY_BYTES = 64 * 1024
_LARGE_BODIES = 32
"""For how many bodies of the largest size a worker has memory."""

__all__ = ["create_app"]


def _start_fleet(
    settings: Settings, database: Database, recorder: Recorder, default: str | None
) -> Fleet:
    """Load what the settings and the record say is to answer, and have it answer."""
    given = load_given_models(settings) if settings.model_dir else []
    versions = build_versions(settings, database)
    by = By("", operator=operator())
    models = {}
    for files, model in given:
        version, differing = versions.start(files, model, by)
        if not differing:
            models[version.id] = model
            continue
        structlog.get_logger("onrecord").warning(
            "the directory is not as on record, and what is on record is served; "
            "`onrecord models add` replaces it where the version is not live",
            version=str(version),
            files=differing,
        )

    def build(version: StoredVersion, model: Model) -> Predictor:
        key = payload_key_for(settings, model)
        return Predictor(
            model,
            version.id,
            Validator(model.schema, max_rows=settings.max_rows),
            Runner(model, deadline_seconds=settings.predict_seconds),
            recorder,
            None if key is None else key.conceal,
            version.number,
            model.why_not_explained(),
        )

    if default is None:
        default = given[0][1].name if given else ""
    fleet = Fleet(
        database,
        ServedModels(default),
        load=loader(settings),
        build=build,
        prepare=partial(convert_apart, settings),
    )
    plan = fleet.plan()
    if plan is None:
        raise SettingsError(
            "setting model_dir: name the model directory to serve; the record has no model yet"
        )
    loaded, failures = fleet.load(plan, models)
    fleet.serve(plan, loaded, failures)
    if not fleet.served.models:
        raise ModelDirectoryError(
            "the record", None, "; ".join(failures.values()), "See to it that a version loads."
        )
    return fleet


def _gate_of(settings: Settings, rules: GateRules) -> VersionGate:
    def gate(candidate: StoredVersion, live: StoredVersion | None) -> dict[str, Any]:
        return examine_apart(partial(build_examiner, settings), candidate, live, rules).as_json()

    return gate


def _call_rate(settings: Settings) -> Rate | None:
    if settings.call_rate is None:
        return None
    try:
        return parse_rate(settings.call_rate)
    except ValueError as error:
        raise SettingsError(f"setting call_rate: {error}") from None


def create_app(
    settings: Settings,
    *,
    writer_address: str | None = None,
    counts: Path | None = None,
    default_model: str | None = None,
) -> ASGIApp:
    """Build one server from its settings.

    What it returns is plain ASGI: the prediction path answers before FastAPI, whose middleware
    would cost it as much again, and hands everything else on.

    The model is loaded, the database migrated to head and the token keys read before this
    returns; no request reads a model file. `writer_address` is where the writer's process of the
    server is; without one the application starts its own. `counts` is the directory in which the
    workers of the server count together what is limited; without one the application counts for
    itself. `default_model` is the name of the model of `/predict`, by default that of the first one
    that the settings name. Raises StartupError with one clear message where the server cannot
    start.
    """
    external = build_external(settings)
    database = Database(settings.database_url)
    database.upgrade()
    writer = Writer()
    recorder = Recorder(writer, refusal)
    fleet = _start_fleet(settings, database, recorder, default_model)
    served = fleet.served
    watcher = Watcher(fleet, database)
    reveal = build_reveal(settings)
    parts = build_accounts(settings, database, counts=counts)
    spool = None if settings.spool_place is None else Spool(settings.spool_place)
    stale_seconds = settings.spool_minutes * 60 if spool else 0
    gate = Gate(parts.tokens, database, external=external, stale_seconds=stale_seconds)
    call_limits = CallLimits(
        database,
        rate=_call_rate(settings),
        quota=settings.call_quota,
        directory=counts,
        stale_seconds=stale_seconds,
    )
    max_wait = settings.max_wait_ms
    admission = Admission(
        served.models[served.default].live.model.seconds_per_row,
        max_wait_seconds=None if max_wait is None else max_wait / 1000,
    )
    access = AccessLog()
    direct = DirectPredictions(
        gate=gate,
        served=served,
        writer=writer,
        call_limits=call_limits,
        admission=admission,
        max_body_bytes=settings.max_body_bytes,
        access=access,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        with ExitStack() as stack:
            address = writer_address
            if address is None:
                address = stack.enter_context(writer_process(settings)).address
            await writer.start(address)
            if external is not None:
                external.keys.start()
            limits = Limits(
                connections_within(),
                head_seconds=settings.head_seconds,
                write_seconds=settings.body_seconds,
            )
            watcher.start()
            yield {STATE_KEY: direct, LIMITS_KEY: limits}
            if external is not None:
                await external.keys.close()
            await watcher.close()
            served.close()
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
        # Its redirects would lead to whatever host the request names.
        redirect_slashes=False,
        lifespan=lifespan,
    )
    room = BodyRoom(_LARGE_BODIES * max(settings.max_body_bytes, _ACCOUNT_BODY_BYTES))
    endpoint = PredictEndpoint(
        BodyLimit(
            app,
            room,
            max_bytes=_ACCOUNT_BODY_BYTES,
            seconds=settings.body_seconds,
            is_large=lambda path: bulk_outcomes.is_path(path) or try_file.is_path(path),
        ),
        gate=gate,
        served=served,
        recorder=recorder,
        idempotent=IdempotentAnswers(database, reveal=reveal),
        call_limits=call_limits,
        admission=admission,
        room=room,
        max_body_bytes=settings.max_body_bytes,
        body_seconds=settings.body_seconds,
    )
    app.state.services = Services(
        database=database,
        writer=writer,
        spool=spool,
        accounts=parts.accounts,
        sessions=parts.sessions,
        api_keys=parts.api_keys,
        set_up=SetUp(database, parts.accounts, settings.set_up_file),
        gate=gate,
        eraser=lambda: build_eraser(settings, database),
        served=served,
        fleet=fleet,
        versions=build_versions(settings, database),
        reveal=reveal,
        large_bodies=LargeBodies(
            room, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds
        ),
        gate_of=lambda rules: _gate_of(settings, rules),
        drifts=Drifts(database, reveal),
        drift_rules=drift_rules(settings),
        predict=endpoint.answer,
        registration_open=settings.registration_open,
        token_seconds=settings.token_minutes * 60,
        max_rows=settings.max_rows,
        max_body_bytes=settings.max_body_bytes,
        settings=described(settings),
    )
    _add_routes(app, served, settings)
    add_refusals(app)
    return RequestContext(endpoint, access)


def _add_routes(app: FastAPI, served: ServedModels, settings: Settings) -> None:
    for room in (
        users,
        tokens,
        api_keys,
        models,
        model_versions,
        predictions,
        outcomes,
        bulk_outcomes,
        quality,
        compare,
        drift,
        proofs,
        replays,
        erasures,
        health,
        open_inference,
        pages,
        sign_in,
        account,
        console_record,
        record_call,
        try_it,
        try_file,
        overview,
        console_model,
        tiles,
        admin,
        admin_users,
    ):
        app.include_router(room.router)
    app.include_router(sign_in.root)
    if not settings.docs:
        return
    app.include_router(docs.router)
    document = OpenApi(app, served, max_rows=settings.max_rows)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(document.current())
