"""`onrecord models compare`: the candidate beside the live version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from onrecord.cli.admin import DatabaseOption, open_database
from onrecord.cli.moments import moment
from onrecord.cli.terminal import print_table, shown
from onrecord.insight.compare import compare as compare_versions
from onrecord.insight.pages import compare_page
from onrecord.insight.quality import LEAST_ROWS

__all__ = ["compare"]

_MOST_TRANSITIONS = 10


def compare(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    since: Annotated[str | None, typer.Option(help="Received since: 7d, or a time.")] = None,
    until: Annotated[str | None, typer.Option(help="Received before, likewise.")] = None,
    live: Annotated[
        str, typer.Option(help="Which version in the live one's place: alias, label, number, hash.")
    ] = "live",
    candidate: Annotated[
        str, typer.Option(help="Which version beside it, likewise.")
    ] = "candidate",
    html: Annotated[
        Path | None, typer.Option(help="Write it there, too, as a page of its own.")
    ] = None,
    database: DatabaseOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a model's candidate with the live version, by shadow and by canary.

    After a promotion name both: --live 1 --candidate 2.
    """
    bounds = moment(since, "--since"), moment(until, "--until")
    with open_database(database) as opened:
        found = compare_versions(opened, name, *bounds, live, candidate)
    if html is not None:
        html.write_text(compare_page(found), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(shown("\n".join(_lines(found))))
    shadow, canary = found["shadow"], found["canary"]
    print_table(
        ("live", "candidate", "rows"),
        [(it["from"], it["to"], it["rows"]) for it in shadow["transitions"][:_MOST_TRANSITIONS]],
    )
    rows = list(
        _outcome_rows("shadow", shadow["outcomes"]["live"], shadow["outcomes"]["candidate"])
    )
    if canary["candidate"] is not None:
        both = canary["live"]["outcomes"], canary["candidate"]["outcomes"]
        rows += _outcome_rows("canary", *both)
    print_table(("calls of", "figure", "live", "95 % interval", "candidate", "95 % interval"), rows)


def _lines(found: dict[str, Any]) -> list[str]:
    live, candidate = (f"{it['version']} (number {it['number']})" for it in _both(found))
    lines = [f"{found['model']}: candidate {candidate} beside live {live}"]
    return lines + _shadow_lines(found["shadow"]) + _canary_lines(found["canary"])


def _shadow_lines(shadow: dict[str, Any]) -> list[str]:
    differences, outcomes = shadow["differences"], shadow["outcomes"]
    quantiles = (f"{name} {_plain(differences[name])}" for name in ("p50", "p90", "p99", "max"))
    lines = [
        f"shadow: {shadow['rows']} rows of {shadow['calls']} calls{_few(shadow)}",
        f"  same answer   {_share(shadow['agreement'])}",
        f"  difference    mean {_number(differences['mean'])}, {', '.join(quantiles)}",
        *_errors_and_times(shadow["errors"], shadow["duration_us"]),
        f"  skipped       {shadow['skipped']} calls",
    ]
    lines += [f"  left out      {n} calls: {why}" for why, n in shadow["left_out"].items()]
    lines.append(f"  outcomes      {outcomes['n']} rows{_few(outcomes)}")
    paired = outcomes["candidate_less_live"] or {}
    return lines + [
        f"  {name}, candidate less live: {_number(figure)}" for name, figure in paired.items()
    ]


def _canary_lines(canary: dict[str, Any]) -> list[str]:
    if canary["candidate"] is None:
        return ["canary: the candidate itself answered no call"]
    live, candidate = _both(canary)
    counts = f"{candidate['calls']} calls{_few(candidate)}, live {live['calls']}{_few(live)}"
    errors, times = (
        {"live": live[it], "candidate": candidate[it]} for it in ("errors", "duration_us")
    )
    lines = [f"canary: {counts}, since {canary['since']}", *_errors_and_times(errors, times)]
    for name in sorted(live["classes"].keys() | candidate["classes"].keys()):
        one, other = (_share(it["classes"].get(name)) for it in (live, candidate))
        lines.append(f"  answered {name}  live {one}; candidate {other}")
    for who, it in (("live", live), ("candidate", candidate)):
        if it["mean"] is not None:
            lines.append(f"  mean answer   {who} {_number(it['mean'])}")
    return lines


def _both(found: dict[str, Any]) -> tuple[Any, Any]:
    return found["live"], found["candidate"]


def _errors_and_times(errors: dict[str, Any], times: dict[str, Any]) -> list[str]:
    shares = (f"{who} {_share(errors[who])}" for who in ("live", "candidate"))
    spent = (
        f"{who} p50 {_plain(times[who]['p50'])} us, p99 {_plain(times[who]['p99'])} us"
        for who in ("live", "candidate")
    )
    return [f"  errors        {'; '.join(shares)}", f"  time          {'; '.join(spent)}"]


def _few(figures: dict[str, Any]) -> str:
    return "" if figures["enough"] else f" (too few to judge by: below {LEAST_ROWS})"


def _share(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "none"
    return f"{figure['value']:.2%} ({figure['low']:.2%} to {figure['high']:.2%})"


def _number(figure: dict[str, Any]) -> str:
    low = "" if figure["low"] is None else f" ({figure['low']:.4g} to {figure['high']:.4g})"
    return f"{_plain(figure['value'])}{low}"


def _plain(value: float | None) -> str:
    return "cannot be told" if value is None else f"{value:.4g}"


def _outcome_rows(of: str, live: Any, candidate: Any) -> list[tuple[str, ...]]:
    """Return a row for each figure that both have, of each target."""
    if live is None or candidate is None:
        return []
    rows: list[tuple[str, ...]] = []
    for target, figures in live.get("targets", {"": live}).items():
        others = candidate["targets"][target] if target else candidate
        for name, figure in figures.items():
            if isinstance(figure, dict) and "value" in figure:
                other = others.get(name) or {"value": None, "low": None}
                told = (_plain(figure["value"]), _interval(figure))
                rows.append(
                    (
                        of,
                        f"{target} {name}".strip(),
                        *told,
                        _plain(other["value"]),
                        _interval(other),
                    )
                )
    return rows


def _interval(figure: dict[str, Any]) -> str:
    return "" if figure["low"] is None else f"{figure['low']:.4g} to {figure['high']:.4g}"
