"""A comparison of two versions as a page of its own, which fetches nothing."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from onrecord.insight.quality import LEAST_ROWS

__all__ = ["compare_page"]


def compare_page(comparison: dict[str, Any]) -> str:
    """Return what `compare` returned as HTML; all that came from callers or a model is escaped."""
    pages = Environment(
        loader=PackageLoader("onrecord.insight"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return pages.get_template("compare.html").render(least=LEAST_ROWS, **comparison)
