"""`onrecord drift`: whether what a model is asked is still like its baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from onrecord.cli.admin import DatabaseOption, open_database
from onrecord.cli.moments import moment
from onrecord.cli.terminal import print_table, shown
from onrecord.insight.baselines import Drifts
from onrecord.insight.pages import drift_page
from onrecord.parts import build_reveal, drift_rules, operator
from onrecord.record.by import By
from onrecord.record.model_versions import find
from onrecord.settings import load_settings

__all__ = ["drift_app"]

drift_app = typer.Typer(
    help="Whether what a model is asked is still like its baseline.", no_args_is_help=True
)

_DRIFTS = 1

_Name = Annotated[str, typer.Argument(help="The model's name.")]
_Version = Annotated[str, typer.Option(help="An alias, label, number, or the start of a hash.")]


@drift_app.command("show")
def show(
    name: _Name,
    version: _Version = "live",
    since: Annotated[
        str, typer.Option(help="Which hours: those that begin since 24h ago, 7d, or a time.")
    ] = "24h",
    until: Annotated[str | None, typer.Option(help="And before, likewise.")] = None,
    fail_on_drift: Annotated[
        bool, typer.Option("--fail-on-drift", help="Exit with code 1 where anything drifts.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write it there, too, as a page of its own.")
    ] = None,
    database: DatabaseOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare what a version was asked and answered with its baseline."""
    settings = load_settings(database=database)
    bounds = moment(since, "--since"), moment(until, "--until")
    with open_database(database) as opened:
        with opened.read() as connection:
            meant = find(connection, name, version)
        drifts = Drifts(opened, build_reveal(settings))
        found = drifts.report(meant, *bounds, drift_rules(settings))
    if html is not None:
        html.write_text(drift_page(found), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _tell(found)
    if fail_on_drift and found["status"] == "drift":
        raise typer.Exit(_DRIFTS)


@drift_app.command("freeze")
def freeze(
    name: _Name,
    version: _Version = "live",
    since: Annotated[
        str | None, typer.Option(help="Calls received since: 7d, or a time; by default all.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Received before, likewise.")] = None,
    database: DatabaseOption = None,
) -> None:
    """Make what a version was asked and answered in a time its baseline, from now on."""
    settings = load_settings(database=database)
    bounds = moment(since, "--since"), moment(until, "--until")
    with open_database(database) as opened:
        with opened.read() as connection:
            meant = find(connection, name, version)
        by = By("", operator=operator())
        made = Drifts(opened, build_reveal(settings)).freeze(meant, *bounds, by)
    typer.echo(shown(f"the baseline of {meant} is {made.source}"))


def _tell(found: dict[str, Any]) -> None:
    baseline = found["baseline"]
    version = f"{found['version']} (number {found['number']})"
    lines = [
        f"{found['model']} {version}: {found['status']}, of {found['rows']} rows",
        f"  baseline  {baseline['source']}",
    ]
    if found["left_out"]:
        lines.append(f"  left out, as they are sensitive: {', '.join(found['left_out'])}")
    if found["estimate"] is not None:
        lines.append(_estimate(found["estimate"]))
    typer.echo(shown("\n".join(lines)))
    titles = ("feature or score", "status", "rows", "PSI", "effect", "p", "missing", "was")
    print_table(
        titles,
        [
            (
                it["name"],
                it["status"],
                it["rows"],
                _number(it["psi"]),
                _number(it["effect"]),
                _number(it["p_corrected"]),
                _share(it["missing"]["window"]),
                _share(it["missing"]["baseline"]),
            )
            for it in found["features"] + found["scores"]
        ],
    )


def _estimate(found: dict[str, Any]) -> str:
    figures = (
        f"{name} {it['value']:.4g} ({it['low']:.4g} to {it['high']:.4g})"
        for name, it in (("accuracy", found["accuracy"]), ("ROC AUC", found["roc_auc"]))
        if it["value"] is not None
    )
    by = "scores that known outcomes calibrate" if found["calibrated"] else "scores as they are"
    return f"  estimate  {', '.join(figures)}, from {by}: outcomes may say otherwise"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
