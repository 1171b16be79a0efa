"""`onrecord serve` and `onrecord demo`."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvicorn
from starlette.types import ASGIApp

from onrecord.accounts.set_up import new_code
from onrecord.app import create_app
from onrecord.cli.seal import heads_url
from onrecord.cli.terminal import shown
from onrecord.errors import OnrecordError
from onrecord.http.limits import allow_open_files
from onrecord.http.protocol import HttpProtocol
from onrecord.kept_process import KeptProcess
from onrecord.lifecycle.shadow_keeper import ShadowKeeper
from onrecord.lifecycle.storage import at_hand
from onrecord.logs import configure_logs
from onrecord.parts import check_drift_webhook, first_model_name, writer_process
from onrecord.record import users
from onrecord.record.checkpoint import SigningKey
from onrecord.record.database import Database
from onrecord.record.sealing import Order, sealing_process
from onrecord.settings import Settings, load_settings

__all__ = ["demo", "serve", "worker_app"]

_GARBAGE_THRESHOLD = 20_000
_DRIFT_LEAVE_SECONDS = 10.0
# How the workers learn where the writer's process is.
_WRITER_ADDRESS = "_ONRECORD_WRITER_ADDRESS"
# Where they count together what is limited.
_COUNTS = "_ONRECORD_COUNTS"
# And which model answers /predict.
_DEFAULT_MODEL = "_ONRECORD_DEFAULT_MODEL"


def serve(
    model_dir: Annotated[
        list[str] | None,
        typer.Argument(
            help="Model directories, or folders NAME/VERSION/ of them, here or in S3-compatible "
            "storage (s3://BUCKET/FOLDER); the first one's model answers /predict. By default what "
            "the record has.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="How many worker processes.")] = None,
    database: Annotated[
        str | None, typer.Option(help="sqlite:///FILE or postgresql://USER@HOST/DATABASE.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name.")] = None,
    compile: Annotated[  # noqa: A002 - it is the option's name
        bool | None,
        typer.Option("--compile/--no-compile", help="Convert the model to ONNX where both agree."),
    ] = None,
    spool: Annotated[
        bool | None,
        typer.Option(
            "--spool/--no-spool", help="Record calls in a local file while PostgreSQL is away."
        ),
    ] = None,
) -> None:
    """Serve a model directory over HTTP."""
    given: dict[str, object] = {
        "model_dir": tuple(model_dir) if model_dir else None,
        "host": host,
        "port": port,
        "workers": workers,
        "database": database,
        "model_name": name,
        "compile": compile,
        "spool": spool,
    }
    settings = load_settings(**given)
    check_drift_webhook(settings)
    configure_logs(form=settings.log_format, level=settings.log_level)
    allow_open_files()
    if settings.workers == 1:
        # Started first, it is there by the time that the model is loaded.
        with writer_process(settings) as writer:
            app = _build(settings, writer.address)
            _announce(settings)
            with _beside(settings, given):
                uvicorn.Server(uvicorn.Config(app, **_uvicorn_options(settings))).run()
        return
    _serve_with_workers(settings, given)


def _uvicorn_options(settings: Settings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "lifespan": "on",
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": list(settings.trusted_proxies),
        "http": HttpProtocol,
        "ws": "none",
        "timeout_graceful_shutdown": settings.drain_seconds,
    }


def _serve_with_workers(settings: Settings, given: dict[str, object]) -> None:
    """Start several workers, which load what the record has.

    What the settings name is put on record once, before any worker starts: a worker that is
    replaced later must serve what the others do, whatever the directories hold then; and a model
    that cannot be served must be said once.
    """
    with tempfile.TemporaryDirectory(prefix="onrecord-") as private:
        counts = Path(private) / "counts"
        counts.mkdir()
        with at_hand(settings.model_dir) as paths:
            here = settings.model_copy(update={"model_dir": tuple(paths)})
            default = first_model_name(here)
            spawn = multiprocessing.get_context("spawn")
            trial = spawn.Process(target=_try_to_start, args=(here,))
            trial.start()
            trial.join()
        if trial.exitcode != 0:
            raise typer.Exit(1)
        for key, value in {**given, "model_dir": None}.items():
            if value is not None:
                os.environ[f"ONRECORD_{key.upper()}"] = str(value)
        os.environ["ONRECORD_MODEL_DIR"] = ""
        os.environ[_DEFAULT_MODEL] = default or ""
        with writer_process(settings) as writer, _beside(settings, given):
            os.environ[_WRITER_ADDRESS] = writer.address
            os.environ[_COUNTS] = str(counts)
            _announce(settings)
            options = _uvicorn_options(settings)
            uvicorn.run(
                "onrecord.cli.serve:worker_app",
                factory=True,
                workers=settings.workers,
                timeout_worker_healthcheck=60,
                **options,
            )


def _try_to_start(settings: Settings) -> None:
    configure_logs(form=settings.log_format, level="warning")
    try:
        create_app(settings)
    except OnrecordError as error:
        sys.exit(shown(f"onrecord: {error}"))


def worker_app() -> ASGIApp:
    """Build the application in a worker process, from the environment that `serve` prepared."""
    settings = load_settings()
    configure_logs(form=settings.log_format, level=settings.log_level)
    return _build(
        settings,
        os.environ[_WRITER_ADDRESS],
        Path(os.environ[_COUNTS]),
        os.environ[_DEFAULT_MODEL] or None,
    )


def _build(
    settings: Settings, writer_address: str, counts: Path | None = None, default: str | None = None
) -> ASGIApp:
    app = create_app(settings, writer_address=writer_address, counts=counts, default_model=default)
    # What start-up made stays until the end. Without this every full collection walks through all
    # of the model libraries, and calls wait for it for a tenth of a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, 20, 20)
    return app


@contextmanager
def _beside(settings: Settings, given: dict[str, object]) -> Iterator[None]:
    """Have the record sealed, shadows run and drift looked for, once for all workers."""
    told = {name: value for name, value in given.items() if name != "model_dir"}
    with ExitStack() as stack:
        shadows = ["-m", "onrecord.cli.shadow_worker"]
        stack.enter_context(ShadowKeeper(settings.database_url, shadows, told))
        if settings.drift_minutes:
            stack.enter_context(_drift_process(settings, told))
        if settings.seal_seconds:
            stack.enter_context(_sealing(settings))
        yield


def _drift_process(settings: Settings, told: dict[str, object]) -> KeptProcess:
    return KeptProcess(
        "onrecord.cli.drift_worker",
        msgspec.json.encode(told),
        name="the process that looks for drift",
        leave_seconds=_DRIFT_LEAVE_SECONDS,
        pause_seconds=60 * settings.drift_minutes,
    )


def _sealing(settings: Settings) -> KeptProcess:
    SigningKey.from_file(settings.seal_key_file)
    order = Order(
        database_url=settings.database_url,
        key_file=str(settings.seal_key_file),
        heads_file=str(settings.heads_path),
        seconds=settings.seal_seconds,
        log_format=settings.log_format,
        log_level=settings.log_level,
        heads_url=heads_url(settings),
        delivered_file=str(settings.delivered_file),
    )
    return sealing_process(order)


def _announce(settings: Settings) -> None:
    address = f"http://{settings.host}:{settings.port}"
    what = ", ".join(map(str, settings.model_dir)) or "the models on record"
    lines = [f"onrecord serves {what} at {address} (API page: {address}/docs)"]
    lines.append(f"  console: {address}/console")
    lines.append(f"  record: {settings.shown()['database']}")
    registration = "open" if settings.registration_open else "closed"
    lines.append(f"  registration: {registration} (setting `registration`)")
    if settings.oidc_issuer is not None:
        lines.append(f"  tokens of {settings.oidc_issuer} are accepted, too")
    database = Database(settings.database_url)
    with database.read() as connection:
        if not users.has_admin(connection):
            lines.append(f"  no admin yet: make one at {address}/console/set-up by the set-up code")
            lines.append(f"    {new_code(settings.set_up_file)}")
            lines.append("    or with `onrecord users create NAME --admin`")
    database.close()
    typer.echo("\n".join(lines), err=True)


def demo(
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    directory: Annotated[
        Path, typer.Option(help="Where the demo keeps its model and its record.")
    ] = Path("onrecord-data/demo"),
    serve_on: Annotated[
        bool, typer.Option("--serve/--exit", help="Keep serving after the walk.")
    ] = True,
) -> None:
    """Train a small real model, serve it and walk through one recorded prediction."""
    from onrecord.demo.walk import run_demo

    run_demo(directory, port=port, keep_serving=serve_on)
