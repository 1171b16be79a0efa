"""Gathers the commands, and shows an expected failure as one message on standard error.

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer

import onrecord
from onrecord.cli.terminal import shown
from onrecord.errors import CallError, OnrecordError

__all__ = ["main"]

_COMMANDS = {
    "serve": ("serve", "serve"),
    "demo": ("serve", "demo"),
    "init": ("models", "init"),
    "trust": ("models", "trust"),
    "check": ("models", "check"),
    "predict": ("bulk", "predict"),
    "log": ("record", "log"),
    "replay": ("replay", "replay"),
    "quality": ("outcomes", "quality"),
    "export": ("record", "export_record"),
    "verify": ("seal", "verify"),
    "erase": ("erase", "erase"),
    "config": ("admin", "config"),
}
_GROUPS = {
    "users": ("admin", "users_app"),
    "api-keys": ("api_keys", "api_keys_app"),
    "keys": ("admin", "keys_app"),
    "db": ("admin", "db_app"),
    "seal": ("seal", "seal_app"),
    "spool": ("spool", "spool_app"),
    "outcomes": ("outcomes", "outcomes_app"),
    "drift": ("drift", "drift_app"),
    "models": ("versions", "models_app"),
    "retention": ("retention", "retention_app"),
}


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"onrecord {onrecord.__version__}")
        raise typer.Exit


def _from(module: str, name: str) -> Any:
    return getattr(import_module(f"onrecord.cli.{module}"), name)


def _build(only: str | None = None) -> typer.Typer:
    """Return the command line, or as much of it as the command `only` needs.

    What a command does not need is not imported, which would take longer than most of them do.
    """
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

    for name, (module, command) in _COMMANDS.items():
        if only in {None, name}:
            cli.command(name)(_from(module, command))
    for name, (module, group) in _GROUPS.items():
        if only in {None, name}:
            cli.add_typer(_from(module, group), name=name)
    return cli


def main() -> None:
    """Run the command line."""
    try:
        asked = sys.argv[1] if len(sys.argv) > 1 else None
        _build(asked if asked in _COMMANDS | _GROUPS else None)()
    except CallError as error:
        lines = [error.detail, *(f"{fault.pointer}: {fault.detail}" for fault in error.faults)]
        sys.exit(shown("onrecord: " + "\n  ".join(lines)))
    except OnrecordError as error:
        sys.exit(shown(f"onrecord: {error}"))
