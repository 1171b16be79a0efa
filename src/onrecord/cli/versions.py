"""`onrecord models`: the versions of each model, and which of them answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from onrecord.cli.admin import DatabaseOption, open_database
from onrecord.cli.compare import compare
from onrecord.cli.terminal import cell, shown
from onrecord.errors import GateRefused, SettingsError
from onrecord.insight.gate import GateRules
from onrecord.lifecycle.directories import model_sources
from onrecord.lifecycle.examination import examine_stored
from onrecord.lifecycle.storage import at_hand
from onrecord.parts import build_examiner, build_versions, load_directory, operator
from onrecord.record import model_changes
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.deployments import deployment_of
from onrecord.record.model_versions import StoredVersion, files_of, find, versions, versions_of
from onrecord.record.tables import utc_text
from onrecord.settings import Settings, load_settings

__all__ = ["models_app", "percentage"]

_Given = tuple[Settings, Database]

models_app = typer.Typer(
    help="The versions of each model, and which of them answers.", no_args_is_help=True
)

_Name = Annotated[str, typer.Argument(help="The model's name.")]
_Version = Annotated[
    str,
    typer.Argument(help="An alias, label, number, or the start of its SHA-256."),
]
_Reason = Annotated[str, typer.Option(help="Why, as it goes on record.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models_app.command("add")
def add(
    directory: Annotated[
        str, typer.Argument(help="The model directory, here or s3://BUCKET/FOLDER.")
    ],
    name: Annotated[str | None, typer.Option(help="The model's name.")] = None,
    reason: _Reason = "",
    database: DatabaseOption = None,
) -> None:
    """Put a model directory on record as a version, the candidate of its model."""
    settings = load_settings(database=database, model_name=name)
    with at_hand([directory]) as paths, open_database(database) as opened:
        for source in model_sources(paths):
            files, model = load_directory(settings, source)
            version, replaced = build_versions(settings, opened).add(files, model, _by(reason))
            told = f"; replaced on record: {', '.join(replaced)}" if replaced else ""
            _tell(f"added {version}: it is the candidate{told}")


@models_app.command("list")
def list_models(database: DatabaseOption = None, as_json: _Json = False) -> None:
    """List all versions of all models."""
    with open_database(database) as opened:
        _show(opened, None, as_json=as_json)


@models_app.command("show")
def show(name: _Name, database: DatabaseOption = None, as_json: _Json = False) -> None:
    """Show the versions of a model, which of them answers, and what is shared out."""
    with open_database(database) as opened:
        _show(opened, name, as_json=as_json)


@models_app.command("promote")
def promote(
    name: _Name,
    version: _Version = "candidate",
    max_changed: Annotated[
        str | None,
        typer.Option(help="How many of the replayed rows may be answered otherwise, as 1%."),
    ] = None,
    replay_calls: Annotated[
        int, typer.Option(min=0, help="How many of the newest calls are replayed.")
    ] = 1000,
    tolerance: Annotated[
        float, typer.Option(min=0, help="By how much a number may differ and be the same.")
    ] = 1e-6,
    allow_schema_change: Annotated[
        bool,
        typer.Option("--allow-schema-change", help="Let it refuse what the live one accepts."),
    ] = False,
    reason: _Reason = "",
    database: DatabaseOption = None,
    as_json: _Json = False,
) -> None:
    """Make a version the live one where the gate lets it through; exit code 1 where it does not."""
    rules = GateRules(
        allow_schema_change=allow_schema_change,
        replay_calls=replay_calls,
        max_changed=None if max_changed is None else percentage(max_changed, "--max-changed"),
        tolerance=tolerance,
    )
    settings = load_settings(database=database)
    with open_database(database) as opened:
        examiner = build_examiner(settings)

        def gate(candidate: StoredVersion, live: StoredVersion | None) -> dict[str, Any]:
            return examine_stored(examiner, candidate, live, rules).as_json()

        try:
            done, found = build_versions(settings, opened).promote(name, version, _by(reason), gate)
        except GateRefused as error:
            if as_json:
                typer.echo(json.dumps(error.report, indent=2))
            raise
        finally:
            examiner.database.close()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        replayed = (found or {}).get("replay")
        told = (
            f" ({replayed['changed']} of {replayed['rows']} replayed rows are answered otherwise)"
            if replayed
            else ""
        )
        _tell(f"{done} is live{told}")


@models_app.command("rollback")
def rollback(name: _Name, reason: _Reason = "", database: DatabaseOption = None) -> None:
    """Make the version live again that was before the present one."""
    with _changing(database) as (settings, opened):
        done = build_versions(settings, opened).rollback(name, _by(reason))
    _tell(f"{done} is live again")


@models_app.command("shadow")
def shadow(
    name: _Name,
    version: _Version = "candidate",
    share: Annotated[str, typer.Option(help="Of the calls, as 10%.")] = "100%",
    reason: _Reason = "",
    database: DatabaseOption = None,
) -> None:
    """Have a version answer a share of the calls, too, unseen by the callers."""
    done, part = _shared(name, version, "shadow", share, reason, database)
    _tell(f"{done} shadows {part:.4g} of the calls")


@models_app.command("canary")
def canary(
    name: _Name,
    version: _Version = "candidate",
    share: Annotated[str, typer.Option(help="Of the users, as 10%.")] = "10%",
    reason: _Reason = "",
    database: DatabaseOption = None,
) -> None:
    """Have a version answer the calls of a share of the users."""
    done, part = _shared(name, version, "canary", share, reason, database)
    _tell(f"{done} answers {part:.4g} of the users")


@models_app.command("stop")
def stop(name: _Name, reason: _Reason = "", database: DatabaseOption = None) -> None:
    """End shadow and canary; the candidate stays one."""
    with _changing(database) as (settings, opened):
        done = build_versions(settings, opened).stop(name, _by(reason))
    _tell(f"{done} answers no calls now but those that name it")


@models_app.command("retire")
def retire(
    name: _Name,
    version: Annotated[str, typer.Argument(help="Which version, not the live one.")],
    reason: _Reason = "",
    database: DatabaseOption = None,
) -> None:
    """Take a version out of use; its files stay on record."""
    with _changing(database) as (settings, opened):
        done = build_versions(settings, opened).retire(name, version, _by(reason))
    _tell(f"{done} is retired")


@models_app.command("export")
def export(
    name: _Name,
    version: _Version,
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to write.")],
    database: DatabaseOption = None,
) -> None:
    """Write the files of a version, as they are on record, into a new directory."""
    with open_database(database) as opened, opened.read() as connection:
        found = find(connection, name, version)
        files = files_of(connection, found.id)
    output.mkdir(parents=True)
    for file_name, raw in files.items():
        (output / file_name).write_bytes(raw)
    _tell(f"wrote {', '.join(sorted(files))} of {found} to {output}")


@models_app.command("changes")
def changes(
    name: Annotated[str | None, typer.Argument(help="Only this model's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    database: DatabaseOption = None,
    as_json: _Json = False,
) -> None:
    """List what changed about which version answers, newest first: when, by whom and why."""
    with open_database(database) as opened, opened.read() as connection:
        found = model_changes.page(connection, model=name, limit=limit)
    if as_json:
        told = [
            asdict(it) | {"changed_at": utc_text(it.changed_at), "details": json.loads(it.details)}
            for it in found
        ]
        typer.echo(json.dumps(told, indent=2))
        return
    table = Table("when", "model", "what", "number", "version", "who", "why")
    for it in found:
        who = it.operator if it.by_user_id is None else f"user {it.by_user_id}"
        why = json.loads(it.details).get("reason", "")
        row = (utc_text(it.changed_at), it.model, it.action, it.number, it.version, who, why)
        table.add_row(*(cell(str(value)) for value in row))
    Console().print(table)


models_app.command("compare")(compare)


def _shared(
    name: str,
    version: str,
    action: Literal["shadow", "canary"],
    share: str,
    reason: str,
    url: str | None,
) -> tuple[StoredVersion, float]:
    part = percentage(share, "--share")
    with _changing(url) as (settings, database):
        versions_of = build_versions(settings, database)
        return versions_of.share(name, version, action, part, _by(reason)), part


@contextmanager
def _changing(url: str | None) -> Iterator[_Given]:
    with open_database(url) as database:
        yield load_settings(database=url), database


def percentage(text: str, option: str) -> float:
    """Return a share, 0 to 1, that is written as 10% or 0.1; raises SettingsError."""
    digits = text.strip()
    try:
        share = float(digits.removesuffix("%")) / (100 if digits.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SettingsError(f"{option}: write a share such as 10% or 0.1, not {text!r}")
    return share


def _show(database: Database, name: str | None, *, as_json: bool) -> None:
    with database.read() as connection:
        found = versions(connection) if name is None else versions_of(connection, name)
        deployments = {it.name: deployment_of(connection, it.name) for it in found}
    rows = [
        asdict(it)
        | {
            "added_at": utc_text(it.added_at),
            "stored_at": it.stored_at and utc_text(it.stored_at),
            "retired_at": it.retired_at and utc_text(it.retired_at),
            "alias": deployments[it.name].alias_of(it.id),
        }
        for it in found
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("model", "number", "version", "state", "added", "SHA-256")
    for version, row in zip(found, rows, strict=True):
        values = (
            version.name,
            version.number,
            version.version,
            _state(version, row["alias"]),
            row["added_at"],
            version.sha256[:16],
        )
        table.add_row(*(cell(str(value)) for value in values))
    Console().print(table)
    for it in deployments.values():
        for what, share in (("shadow", it.shadow_share), ("canary", it.canary_share)):
            if share:
                _tell(f"{it.name}: {what} {share:.4g}")


def _state(version: StoredVersion, alias: str | None) -> str:
    if alias is not None:
        return alias
    if version.retired_at is not None:
        return "retired"
    return "in use" if version.stored_at is not None else "files not on record"


def _by(reason: str) -> By:
    return By(reason, operator=operator())


def _tell(text: str) -> None:
    typer.echo(shown(text))
