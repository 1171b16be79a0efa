"""Pages of reports, each of its own: they fetch nothing."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from onrecord.insight.quality import LEAST_ROWS
from onrecord.insight.replay import ReplayReport

__all__ = ["compare_page", "drift_page", "replay_page"]


def replay_page(report: ReplayReport) -> str:
    """Return a replay's report as HTML."""
    return _page("replay.html", report=report)


def compare_page(comparison: dict[str, Any]) -> str:
    """Return what `compare` returned as HTML."""
    return _page("compare.html", least=LEAST_ROWS, **comparison)


def drift_page(report: dict[str, Any]) -> str:
    """Return what `Drifts.report` returned as HTML."""
    return _page("drift.html", **report)


def _page(template: str, **values: Any) -> str:
    """Fill a template; all that came from callers or a model is escaped."""
    pages = Environment(
        loader=PackageLoader("onrecord.insight"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return pages.get_template(template).render(**values)
