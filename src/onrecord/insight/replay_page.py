"""A replay's report as a page of its own, which fetches nothing."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from onrecord.insight.replay import ReplayReport

__all__ = ["replay_page"]


def replay_page(report: ReplayReport) -> str:
    """Return the report as HTML; all that came from callers or a model is escaped."""
    pages = Environment(
        loader=PackageLoader("onrecord.insight"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return pages.get_template("replay.html").render(report=report)
