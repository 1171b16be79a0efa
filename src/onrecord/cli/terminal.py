"""Text for a terminal, which may come from whoever called, registered or wrote a model file."""

from __future__ import annotations

from rich.text import Text

__all__ = ["cell", "shown"]


def shown(text: str) -> str:
    """Return text without what a terminal would obey: escape codes, and marks that turn lines.

    Line feeds stay.
    """
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def cell(text: str) -> Text:
    """Return text for a cell of a table: on one line, and nothing in it is markup."""
    return Text(shown(text).replace("\n", "\N{REPLACEMENT CHARACTER}"))
