"""`onrecord retention`: what has been kept as long as the settings say goes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from onrecord.cli.admin import DatabaseOption, open_database
from onrecord.cli.erase import erase_with_progress
from onrecord.errors import SettingsError
from onrecord.parts import build_eraser, operator
from onrecord.record.by import By
from onrecord.record.retention import due
from onrecord.settings import load_settings

__all__ = ["retention_app"]

retention_app = typer.Typer(help="Erase what was kept long enough.", no_args_is_help=True)


@retention_app.command("run")
def run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the calls.")] = False,
    database: DatabaseOption = None,
) -> None:
    """Erase payloads and rows that are older than the settings say; run it once a day.

    Calls that come meanwhile wait for some milliseconds at most. Cut short, the next run goes on.
    """
    settings = load_settings(database=database)
    payload_days, row_days = settings.retain_payload_days or {}, settings.retain_row_days or {}
    if not payload_days and not row_days:
        raise SettingsError(
            "nothing is said to go: set retain_payload_days or retain_row_days, as "
            '"365,risk=90" for instance'
        )
    with open_database(database) as opened:
        eraser = build_eraser(settings, opened)
        for part in due(payload_days, row_days, datetime.now(UTC)):
            count = eraser.count(part.what, part.selection)
            shown = f"the {part.what} of {count} calls, {part.reason}, {part.selection.text()}"
            if dry_run or not count:
                typer.echo(f"due: {shown}")
                continue
            by = By(part.reason, operator=operator())
            done = erase_with_progress(eraser, part.what, part.selection, by, count)
            typer.echo(f"erased: {shown}: erasure {done.id}")
