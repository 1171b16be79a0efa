"""Drift as a page of its own, which fetches nothing."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["drift_page"]


def drift_page(report: dict[str, Any]) -> str:
    """Return what `Drifts.report` returned as HTML; all that came from callers is escaped."""
    pages = Environment(
        loader=PackageLoader("onrecord.insight"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return pages.get_template("drift.html").render(**report)
