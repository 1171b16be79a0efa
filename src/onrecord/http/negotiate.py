"""In which form a call's rows come, and in which its caller wants the answer (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec

from onrecord.errors import NotAcceptable, UnsupportedCoding, UnsupportedMediaType
from onrecord.http.context import header
from onrecord.serving.forms import CONTENT_TYPES, PLAIN, Form, Kind, kind_of

__all__ = ["best_of", "check_coding", "form_of", "given_kind"]

_SHOWN = 100
_EXTRA = "pyarrow, which comes with an extra: pip install 'onrecord[data]'"
_RANGES = 50
"""The most media ranges of an Accept header that are looked at."""


def check_coding(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise UnsupportedCoding where a body is compressed (RFC 9110, section 8.4).

    Few bytes can unpack to any number of them. CSV, Arrow and Parquet compress by themselves, and
    there what they unpack to is bounded.
    """
    coding = header(headers, b"content-encoding")
    if coding is not None and coding.strip().lower() not in {b"", b"identity"}:
        shown = coding.decode("latin-1")[:_SHOWN]
        raise UnsupportedCoding(f"Send the body without Content-Encoding, not as {shown}.")


@lru_cache(maxsize=256)
def form_of(content_type: str | None, accept: bytes | None) -> Form:
    """Return the form that a call's Content-Type and Accept headers ask for.

    Where both are JSON it is `PLAIN` itself. A call without a content type is read as JSON, since
    curl users forget it and nothing else is meant. Raises UnsupportedMediaType and NotAcceptable.
    """
    given = given_kind(content_type)
    form = Form(given, _wanted(accept))
    return PLAIN if form == PLAIN else form


def given_kind(content_type: str | None) -> Kind:
    """Return the kind of a body; raises UnsupportedMediaType where it is not read here."""
    kind = "json" if content_type is None else kind_of(content_type)
    if kind is None:
        essence = (content_type or "").split(";", 1)[0].strip()[:_SHOWN]
        raise UnsupportedMediaType(
            f"Send the input as application/json, {_others()}, not as "
            f"{essence or 'an empty media type'}."
        )
    if kind != "json" and not _has_pyarrow():
        raise UnsupportedMediaType(f"This server reads application/json only; it lacks {_EXTRA}.")
    return kind


def best_of(kinds: Sequence[Kind], accept: bytes | None) -> Kind | None:
    """Return which of the kinds an Accept header weighs most, None where it accepts none of them.

    Of equals it is one that is named, and one that comes before.
    """
    wanted = accept.decode("latin-1") if accept and accept.strip() else "*/*"
    weights = {kind: _weight(kind, wanted) for kind in kinds}
    best = max(weights, key=weights.__getitem__)
    return best if weights[best][0] > 0 else None


def _wanted(accept: bytes | None) -> Kind:
    best = best_of(tuple(CONTENT_TYPES) if _has_pyarrow() else ("json",), accept)
    if best is not None:
        return best
    if not _has_pyarrow():
        raise NotAcceptable(f"This server answers in application/json only; it lacks {_EXTRA}.")
    raise NotAcceptable(f"Answers come as application/json, {_others()}; accept one of them.")


def _others() -> str:
    return ", ".join(_essence(kind) for kind in CONTENT_TYPES if kind != "json")


def _weight(kind: Kind, accept: str) -> tuple[float, int]:
    """Return the weight of a kind, and how exactly the range that gives it names the kind."""
    essence = _essence(kind)
    names = {essence: 2, essence.split("/", 1)[0] + "/*": 1, "*/*": 0}
    found = (0.0, -1)
    for name, weight in _ranges(accept):
        exact = names.get(name, -1)
        if exact > found[1]:
            found = (weight, exact)
    return found


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for entry in accept.split(",")[:_RANGES]:
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = min(max(float(value), 0.0), 1.0)
                except ValueError:
                    weight = 0.0
        yield name, weight


def _essence(kind: Kind) -> str:
    return CONTENT_TYPES[kind].split(";", 1)[0]


def _has_pyarrow() -> bool:
    return find_spec("pyarrow") is not None
