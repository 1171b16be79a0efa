"""`onrecord replay`: what another model would have answered to the calls on record."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import typer

from onrecord.cli.admin import DatabaseOption, open_database
from onrecord.cli.moments import moment
from onrecord.cli.progress import rows_progress
from onrecord.cli.terminal import print_table, shown
from onrecord.cli.versions import percentage
from onrecord.errors import SettingsError
from onrecord.insight.conditions import COMPARE, Condition
from onrecord.insight.pages import replay_page
from onrecord.insight.recorded_calls import Meant, count_calls, recorded_calls
from onrecord.insight.replay import Change, Replay, ReplayReport, Where
from onrecord.lifecycle.directories import model_sources
from onrecord.lifecycle.fleet import load_stored
from onrecord.lifecycle.storage import at_hand, is_in_storage
from onrecord.parts import build_reveal, load_directory, loader
from onrecord.record.database import Database
from onrecord.record.model_versions import find
from onrecord.serving.artifact import Model
from onrecord.serving.input_schema import InputSchema
from onrecord.settings import Settings, load_settings

__all__ = ["replay"]

_MOST_SEGMENTS = 10


def replay(
    model: Annotated[str, typer.Option(help="Whose calls are replayed.")],
    against: Annotated[
        str,
        typer.Option(help="A version's alias, label, number or hash, or a model directory."),
    ],
    since: Annotated[
        str | None, typer.Option(help="Received since: 7d, 12h, or a time in UTC.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Received before, likewise.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only rows with COLUMN=VALUE, or !=, <, <=, >, >=; all of several."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many calls, the newest.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, help="By how much a number may differ and be the same; 1e-6, against live 0."
        ),
    ] = None,
    max_changed: Annotated[
        str | None, typer.Option(help="Exit with code 1 where more is changed, as 1%.")
    ] = None,
    form: Annotated[
        Literal["text", "json"], typer.Option("--format", help="How the report is printed.")
    ] = "text",
    html: Annotated[
        Path | None, typer.Option(help="Write the report there, too, as a page of its own.")
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(help="Write every changed row there, a JSON object a line.")
    ] = None,
    database: DatabaseOption = None,
) -> None:
    """Replay recorded calls against another version, and report which answers change.

    Against `live` only what that version answered is replayed, and nothing may differ: exit code 1
    says that the record and the model do not agree any more.
    """
    settings = load_settings(database=database)
    most = None if max_changed is None else percentage(max_changed, "--max-changed")
    with (
        open_database(database) as opened,
        nullcontext() if rows is None else rows.open("wb") as listed,
    ):
        candidate, version_id = _candidate(settings, opened, model, against)
        itself = against == "live"
        meant = Meant(
            model,
            since=moment(since, "--since"),
            until=moment(until, "--until"),
            versions=frozenset({version_id}) if itself and version_id is not None else None,
            newest=limit,
        )
        replayed = Replay(
            candidate,
            tolerance=tolerance if tolerance is not None else 0.0 if itself else 1e-6,
            where=_conditions(where or [], candidate.schema),
            on_change=_lister(listed),
        )
        with rows_progress() as progress:
            bar = progress.add_task("calls", total=count_calls(opened, meant))
            for calls in recorded_calls(opened, meant, build_reveal(settings)):
                replayed.feed(calls)
                progress.advance(bar, len(calls))
        report = replayed.report()  # the last batch is still to be compared, and listed
    if html is not None:
        html.write_text(replay_page(report), encoding="utf-8")
    if form == "json":
        typer.echo(json.dumps(asdict(report) | {"share_changed": report.share_changed}, indent=2))
    else:
        _tell(report)
    if itself and (report.moved or report.changed or report.new_errors):
        typer.echo(shown(f"onrecord: {_disagreement(report)}"), err=True)
        raise typer.Exit(1)
    if most is not None and report.share_changed > most:
        typer.echo(
            f"onrecord: {report.share_changed:.2%} of the rows are answered otherwise, more than "
            f"{most:.2%}",
            err=True,
        )
        raise typer.Exit(1)


def _lister(listed: BinaryIO | None) -> Callable[[Change], object]:
    if listed is None:
        return lambda _: None
    return lambda change: listed.write(msgspec.json.encode(change) + b"\n")


def _candidate(
    settings: Settings, database: Database, name: str, against: str
) -> tuple[Model, int | None]:
    """Return the model to replay against, and its key where it is on record."""
    if is_in_storage(against) or Path(against).is_dir():
        named = settings.model_copy(update={"model_name": name})
        with at_hand([against]) as paths:
            (source, *more) = model_sources(paths)
            if more:
                raise SettingsError(f"--against: {against} holds several models; name one")
            return load_directory(named, source)[1], None
    with database.read() as connection:
        version = find(connection, name, against)
    return load_stored(database, version, loader(settings)), version.id


def _conditions(texts: list[str], schema: InputSchema) -> Where | None:
    if not texts:
        return None
    tests = [_condition(text, schema) for text in texts]
    return lambda row: all(test(row) for test in tests)


def _condition(text: str, schema: InputSchema) -> Where:
    try:
        condition = Condition.parse(text)
    except ValueError as error:
        raise SettingsError(f"--where {text!r}: {error}") from None
    name, value = condition.column, condition.value
    column = next((it for it in schema.columns if it.name == name), None)
    if column is None:
        names = ", ".join(schema.names)
        raise SettingsError(f"--where {text!r}: the columns are {names}")
    compare = COMPARE[condition.compare]
    meant: Any = value
    if value == "null":
        meant = None
    elif column.type == "boolean":
        meant = value.lower() in {"true", "1"}
    elif column.type in {"numeric", "integer"}:
        try:
            meant = float(value)
        except ValueError:
            raise SettingsError(f"--where {text!r}: {name} is a number") from None
    if column.type == "categorical" and meant is not None and condition.compare in {"=", "!="}:
        return lambda row: compare(None if row[name] is None else str(row[name]), meant)
    return lambda row: compare(row[name], meant)


def _disagreement(report: ReplayReport) -> str:
    if report.first is None:
        first = report.error_examples[0]
        return f"the model has no answer to {first['prediction_id']} any more: {first['error']}"
    first_change = report.first
    return (
        f"the record and the model do not agree, first on {first_change.prediction_id}: "
        f"{first_change.before} is on record, and the model says {first_change.after}"
    )


def _tell(report: ReplayReport) -> None:
    version = report.candidate["version"]
    lines = [
        f"{report.rows} rows of {report.calls} calls of {report.model} against {version}",
        f"  answers changed  {report.changed} ({report.share_changed:.2%})",
        f"  scores moved     {report.moved}",
        f"  new errors       {report.new_errors}",
        f"  a row takes      {report.candidate_us_per_row:.1f} us in batches",
    ]
    quantiles = ", ".join(f"{name} {value:.3g}" for name, value in report.differences.items())
    lines.append(f"  difference       {quantiles}")
    lines += [f"  left out         {calls} calls: {why}" for why, calls in report.left_out.items()]
    typer.echo(shown("\n".join(lines)))
    if report.changed:
        print_table(
            ("was", "would be", "rows"),
            [(it["from"], it["to"], it["rows"]) for it in report.transitions],
        )
        segments = [
            (column, it["segment"], it["rows"], it["changed"], f"{it['changed'] / it['rows']:.2%}")
            for column, found in report.segments.items()
            for it in found
            if it["changed"]
        ]
        segments.sort(key=lambda it: -it[3] / it[2])
        print_table(("column", "segment", "rows", "changed", "share"), segments[:_MOST_SEGMENTS])
    if report.most_changed:
        print_table(
            ("prediction", "was", "would be", "difference"),
            [
                (
                    it.prediction_id,
                    it.before["prediction"],
                    it.after["prediction"],
                    f"{it.difference:.4g}",
                )
                for it in report.most_changed[:_MOST_SEGMENTS]
            ],
        )
    print_table(
        ("prediction", "no answer, since"),
        [(it["prediction_id"], it["error"]) for it in report.error_examples[:_MOST_SEGMENTS]],
    )
