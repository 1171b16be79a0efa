"""Text for a terminal, which may come from whoever called, registered or wrote a model file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["cell", "print_table", "shown"]


def shown(text: str) -> str:
    """Return text without what a terminal would obey: escape codes, and marks that turn lines.

    Line feeds stay.
    """
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def cell(text: str) -> Text:
    """Return text for a cell of a table: on one line, and nothing in it is markup."""
    return Text(shown(text).replace("\n", "\N{REPLACEMENT CHARACTER}"))


def print_table(titles: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Print rows under titles, nothing where there are none."""
    if not rows:
        return
    table = Table(*titles)
    for row in rows:
        table.add_row(*(cell(str(value)) for value in row))
    Console().print(table)
