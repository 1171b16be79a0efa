"""In which forms rows come and answers go: their names and media types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["ARROW", "CONTENT_TYPES", "CSV", "PARQUET", "PLAIN", "Form", "Kind", "kind_of"]

Kind: TypeAlias = Literal["json", "csv", "arrow", "parquet"]

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"

CONTENT_TYPES: Mapping[Kind, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": ARROW,
    "parquet": PARQUET,
}
"""The content type of an answer in each form."""

_KINDS: Mapping[str, Kind] = {
    "application/json": "json",
    CSV: "csv",
    ARROW: "arrow",
    PARQUET: "parquet",
}


@dataclass(frozen=True, slots=True)
class Form:
    """In which form a call's rows come, and in which its answer goes."""

    input: Kind
    output: Kind


PLAIN = Form("json", "json")
"""The form of nearly every call."""


def kind_of(content_type: str) -> Kind | None:
    """Return what a content type stands for, None where it is read nowhere here."""
    essence = content_type.split(";", 1)[0].strip().lower()
    if essence.startswith("application/") and essence.endswith("+json"):
        return "json"
    return _KINDS.get(essence)
