"""`onrecord outcomes`, `onrecord quality`: what really happened, how right the answers were."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from onrecord.cli.admin import DatabaseOption, open_database
from onrecord.cli.moments import moment
from onrecord.cli.progress import rows_progress
from onrecord.cli.terminal import cell, shown
from onrecord.errors import CallError, InvalidInput, NotFound, SettingsError
from onrecord.insight.entities import Entities, predictions_of
from onrecord.insight.outcome_values import checked_outcome
from onrecord.insight.quality import quality as live_quality
from onrecord.insight.recorded_calls import Meant, count_calls, decoded_answers
from onrecord.parts import build_reveal, operator
from onrecord.record import outcomes, reader
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.ids import is_id, request_id_of, row_of
from onrecord.settings import load_settings

__all__ = ["outcomes_app", "quality"]

outcomes_app = typer.Typer(help="What really happened.", no_args_is_help=True)

_AT_ONCE = 500
_REJECTED = 3


@outcomes_app.callback()
def _group() -> None:
    """Tell what really happened to what was predicted."""


@outcomes_app.command("load")
def load(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file, a row for each outcome.")],
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
    rows = _rows(file)
    by = By("", operator=operator())
    names = (key_column or id_column, outcome_column, observed_column)
    new = rejected = 0
    with open_database(database) as opened:
        entities = None
        if key_column is not None:
            if model is None:
                raise SettingsError("say --model with --key-column: whose predictions are meant")
            keys = {str(row.get(key_column)) for row in rows}
            entities = _entities(opened, Meant(model), key_column, keys)
        with (
            rows_progress() as progress,
            nullcontext() if rejects is None else rejects.open("w", newline="") as bad,
        ):
            writer = None if bad is None else csv.writer(bad)
            if writer is not None:
                writer.writerow(["row", *names[:2], "why"])
            bar = progress.add_task("outcomes", total=len(rows))
            for start in range(0, len(rows), _AT_ONCE):
                some = rows[start : start + _AT_ONCE]
                with opened.write() as connection:
                    said = _said(connection, some, names, entities)
                    good = [it for it in said if isinstance(it, outcomes.Said)]
                    new += sum(is_new for _, is_new in outcomes.add_all(connection, good, by))
                for i, (row, it) in enumerate(zip(some, said, strict=True), start + 1):
                    if isinstance(it, outcomes.Said):
                        continue
                    rejected += 1
                    if writer is not None:
                        writer.writerow([i, *(row.get(name) for name in names[:2]), it])
                    elif rejected == 1:
                        typer.echo(shown(f"row {i}: {it}"), err=True)
                progress.advance(bar, len(some))
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


def _rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; ids and keys stay as they are written."""
    try:
        if file.suffix.lower() == ".csv":
            with file.open(encoding="utf-8-sig", newline="") as opened:
                return list(csv.DictReader(opened, strict=True))
        from pyarrow import ArrowException, parquet

        try:
            found: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
        except ArrowException as error:
            raise SettingsError(f"{file}: {error}") from error
        return found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error


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


def _said(
    connection: Connection,
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    entities: Entities | None,
) -> list[outcomes.Said | str]:
    """Return what each row says, or why it cannot be taken."""
    read: list[outcomes.Said | str] = []
    for row in rows:
        try:
            read.append(_read(row, names, entities))
        except CallError as error:
            read.append(_why(error))
    calls = {request_id_of(it.prediction_id) for it in read if isinstance(it, outcomes.Said)}
    answers = reader.answers(connection, calls)
    return [_checked(it, answers) if isinstance(it, outcomes.Said) else it for it in read]


def _read(row: dict[str, Any], names: Sequence[str], entities: Entities | None) -> outcomes.Said:
    key, observed_at = str(row.get(names[0])), _time(row.get(names[2]))
    prediction = key if entities is None else entities.prediction(key, observed_at)
    if prediction is None:
        raise NotFound(f"No prediction about {key!r} is on record, or none before it happened.")
    return outcomes.Said(prediction, row.get(names[1]), observed_at)


def _checked(
    said: outcomes.Said, answers: Mapping[str, tuple[bytes, str | None]]
) -> outcomes.Said | str:
    """Return what is said as the model says such a thing, or why that cannot be."""
    name = said.prediction_id
    output = answers.get(request_id_of(name)) if is_id(name) else None
    if output is None:
        return f"There is no answered prediction {name!r} on record."
    known, place = decoded_answers(*output), row_of(name)
    if known is None or place >= len(known):
        return f"There is no prediction {name!r} on record, answered in JSON."
    value = said.value
    if isinstance(value, str) and isinstance(known[place].prediction, float):
        value = _number(value)
    try:
        return replace(said, value=checked_outcome(value, known[place]))
    except CallError as error:
        return _why(error)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _time(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise InvalidInput(f"{value!r} is no time such as 2026-11-25T09:00:00Z.") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _why(error: CallError) -> str:
    def parts() -> Iterator[str]:
        yield error.detail
        for fault in error.faults:
            yield fault.detail

    return " ".join(parts())
