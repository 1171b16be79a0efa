"""`onrecord outcomes`, `onrecord quality`: what really happened, how right the answers were."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from onrecord.cli.admin import DatabaseOption, open_database
from onrecord.cli.moments import moment
from onrecord.cli.progress import rows_progress
from onrecord.cli.terminal import cell, shown
from onrecord.errors import CallError, SettingsError
from onrecord.insight.bulk_outcomes import tell
from onrecord.insight.entities import Entities, check_key_column, predictions_of
from onrecord.insight.outcome_bodies import Fields, Form, OutcomeRow, keys_of, read_outcomes
from onrecord.insight.quality import quality as live_quality
from onrecord.insight.recorded_calls import Meant, count_calls
from onrecord.insight.recorded_rows import MAX_ROWS
from onrecord.parts import build_reveal, operator
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.reader import Filters
from onrecord.settings import load_settings

__all__ = ["outcomes_app", "quality"]

outcomes_app = typer.Typer(help="What really happened.", no_args_is_help=True)

_AT_ONCE = 500
_FORMS: Mapping[str, Form] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".jsonl": "lines",
}
_REJECTED = 3


@outcomes_app.callback()
def _group() -> None:
    """Tell what really happened to what was predicted."""


@outcomes_app.command("load")
def load(
    file: Annotated[
        Path,
        typer.Argument(help="A CSV, Parquet or JSON (.json, .jsonl) file, a row for each outcome."),
    ],
    model: Annotated[
        str | None, typer.Option(help="With --key-column, whose predictions are meant.")
    ] = None,
    id_column: Annotated[str, typer.Option(help="The column of prediction ids.")] = "prediction_id",
    key_column: Annotated[
        str | None,
        typer.Option(
            help="A column of the model's input and of the file that tells whom a row is about: "
            "the outcome is of the latest prediction about them."
        ),
    ] = None,
    outcome_column: Annotated[str, typer.Option(help="The column of outcomes.")] = "outcome",
    observed_column: Annotated[
        str, typer.Option(help="The column of when it happened, where there is one.")
    ] = "observed_at",
    rejects: Annotated[
        Path | None, typer.Option(help="Write rows that are not taken there, as CSV, and why.")
    ] = None,
    database: DatabaseOption = None,
) -> None:
    """Put the outcomes in a file on record; exit code 3 where some rows are not taken.

    What is on record already is not put there again, so the same file can be loaded again.
    """
    fields = Fields(
        key_column or id_column,
        outcome_column,
        observed_column,
        keyed=key_column is not None,
        exact=False,
    )
    if len(set(fields.names)) < len(fields.names):
        raise SettingsError("each of the columns needs a name of its own")
    if key_column is not None and model is None:
        raise SettingsError("say --model with --key-column: whose predictions are meant")
    rows = _rows(file, fields)
    by = By("", operator=operator())
    whose = Filters(model=model, test=None)
    new = 0
    with open_database(database) as opened:
        entities = None
        if key_column is not None and model is not None:
            check_key_column(opened, model, key_column)
            keys = keys_of(rows)
            entities = _entities(opened, Meant(model), key_column, keys)
        with rows_progress() as progress:
            bar = progress.add_task("outcomes", total=len(rows))
            for start in range(0, len(rows), _AT_ONCE):
                some = rows[start : start + _AT_ONCE]
                told = tell(opened, some, by, whose=whose, entities=entities)
                new += sum(is_new for _, is_new in filter(None, told))
                progress.advance(bar, len(some))
    bad = [row for row in rows if row.faults]
    _tell_rejects(bad, fields, rejects)
    rejected = len(bad)
    typer.echo(
        f"{new} outcomes are new, {len(rows) - new - rejected} were on record, "
        f"{rejected} rows are not taken"
    )
    if rejected:
        raise typer.Exit(_REJECTED)


def quality(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    by: Annotated[
        Literal["version", "hour", "day", "week", "segment"] | None,
        typer.Option(help="What the figures are parted by."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="With --by segment, of which column.")] = None,
    since: Annotated[str | None, typer.Option(help="Received since: 7d, or a time.")] = None,
    until: Annotated[str | None, typer.Option(help="Received before, likewise.")] = None,
    database: DatabaseOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how right a model's answers were, of which the outcome is known."""
    if (by == "segment") != (column is not None):
        raise SettingsError("say --column with --by segment, and only with that")
    meant = Meant(model, since=moment(since, "--since"), until=moment(until, "--until"))
    settings = load_settings(database=database)
    with open_database(database) as opened:
        found = live_quality(opened, meant, by, column, build_reveal(settings))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(shown(f"{model}: {found['outcomes']} outcomes of {found['calls']} answered calls"))
    table = Table("group", "target", "n", "figure", "value", "95 % interval")
    for group in found["groups"]:
        for target, figures in group.get("targets", {"": group}).items():
            for name, figure in figures.items():
                if isinstance(figure, dict) and "value" in figure:
                    n = f"{group['n']}{'' if group['enough'] else ' (too few)'}"
                    row = (group["group"], target, n, name, *_told(figure))
                    table.add_row(*(cell(text) for text in row))
    Console().print(table)


def _told(figure: dict[str, Any]) -> tuple[str, str]:
    if figure["value"] is None:
        return "cannot be told", ""
    interval = "" if figure["low"] is None else f"{figure['low']:.4g} to {figure['high']:.4g}"
    return f"{figure['value']:.4g}", interval


def _rows(file: Path, fields: Fields) -> list[OutcomeRow]:
    form = _FORMS.get(file.suffix.lower())
    if form is None:
        raise SettingsError(f"{file} is none of {', '.join(_FORMS)}; save it as one of them")
    try:
        return read_outcomes(file.read_bytes(), form, fields, max_rows=MAX_ROWS)
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error
    except CallError as error:
        why = "; ".join([error.detail, *(f"{it.pointer} {it.detail}" for it in error.faults)])
        raise SettingsError(f"{file}: {why}") from error


def _tell_rejects(rows: list[OutcomeRow], fields: Fields, file: Path | None) -> None:
    """Write rows that are not taken into a file, or tell the first one where there is none."""
    why = ["; ".join(f"{it.pointer}: {it.detail}" for it in row.faults) for row in rows]
    if file is not None:
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened)
            writer.writerow(["row", *fields.names[:2], "why"])
            for row, reason in zip(rows, why, strict=True):
                writer.writerow([row.number + 1, row.about, row.outcome, reason])
    elif rows:
        typer.echo(shown(f"row {rows[0].number + 1}: {why[0]}"), err=True)


def _entities(database: Database, meant: Meant, column: str, keys: set[str]) -> Entities:
    with rows_progress() as progress:
        bar = progress.add_task("calls", total=count_calls(database, meant))
        reveal = build_reveal(load_settings())
        return predictions_of(
            database,
            meant,
            column,
            keys,
            reveal=reveal,
            advance=lambda calls: progress.advance(bar, calls),
        )
