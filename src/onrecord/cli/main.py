"""Gathers the commands, and shows an expected failure as one message on standard error.

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import onrecord
from onrecord.cli import (
    admin,
    api_keys,
    bulk,
    compare,
    drift,
    erase,
    models,
    outcomes,
    record,
    replay,
    retention,
    seal,
    serve,
    spool,
    versions,
)
from onrecord.cli.terminal import shown
from onrecord.errors import CallError, OnrecordError

__all__ = ["main"]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"onrecord {onrecord.__version__}")
        raise typer.Exit


def _build() -> typer.Typer:
    cli = typer.Typer(
        name="onrecord",
        help="Serve a tabular machine-learning model, with every answer on the record.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @cli.callback()
    def root(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
        ] = False,
    ) -> None:
        """Serve a tabular machine-learning model, with every answer on the record."""

    cli.command("serve")(serve.serve)
    cli.command("demo")(serve.demo)
    cli.command("init")(models.init)
    cli.command("trust")(models.trust)
    cli.command("check")(models.check)
    cli.command("predict")(bulk.predict)
    cli.command("log")(record.log)
    cli.command("replay")(replay.replay)
    cli.command("quality")(outcomes.quality)
    cli.command("export")(record.export_record)
    cli.command("verify")(seal.verify)
    cli.command("erase")(erase.erase)
    cli.command("config")(admin.config)
    cli.add_typer(admin.users_app, name="users")
    cli.add_typer(api_keys.api_keys_app, name="api-keys")
    cli.add_typer(admin.keys_app, name="keys")
    cli.add_typer(admin.db_app, name="db")
    cli.add_typer(seal.seal_app, name="seal")
    cli.add_typer(spool.spool_app, name="spool")
    cli.add_typer(outcomes.outcomes_app, name="outcomes")
    versions.models_app.command("compare")(compare.compare)
    cli.add_typer(drift.drift_app, name="drift")
    cli.add_typer(versions.models_app, name="models")
    cli.add_typer(retention.retention_app, name="retention")
    return cli


def main() -> None:
    """Run the command line."""
    try:
        _build()()
    except CallError as error:
        lines = [error.detail, *(f"{fault.pointer}: {fault.detail}" for fault in error.faults)]
        sys.exit(shown("onrecord: " + "\n  ".join(lines)))
    except OnrecordError as error:
        sys.exit(shown(f"onrecord: {error}"))
