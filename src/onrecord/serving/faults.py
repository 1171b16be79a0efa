"""The faults of one body, gathered while it is judged, and how they are pointed at."""

from __future__ import annotations

import difflib
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace

from onrecord.errors import CallError, Fault, InvalidInput, MalformedJson
from onrecord.serving.strict_json import shown

__all__ = ["MAX_FAULTS", "Faults", "discreet", "pointer_to"]

MAX_FAULTS = 1000
"""The most faults that one error lists."""

_SUGGESTIONS = 20
"""Unknown fields per body for which a near name is searched; the search takes a while."""

_KEY_SHOWN = 100


@dataclass(slots=True)
class Faults:
    """The faults found so far; beyond the most that are listed, only their number (`more`)."""

    found: list[Fault] = field(default_factory=list)
    more: int = 0
    suggestions: int = 0

    @property
    def full(self) -> bool:
        """Whether no further fault will be listed."""
        return len(self.found) >= MAX_FAULTS

    def add(
        self,
        pointer: str,
        code: str,
        detail: str,
        expected: str | None,
        received: str | None = None,
    ) -> None:
        """Add one fault; its parts are those of `Fault`."""
        if self.full:
            self.more += 1
        else:
            self.found.append(Fault(pointer, code, detail, expected, received))

    def add_unknown(
        self,
        key: str,
        received: str | None,
        place: str,
        names: Sequence[str],
        given: Container[str],
    ) -> None:
        """Add the fault of a key that names no column.

        The nearest of the columns' `names` that are not `given` is suggested.
        """
        if self.full:
            self.more += 1
            return
        hint = ""
        if self.suggestions < _SUGGESTIONS and len(key) <= _KEY_SHOWN:
            self.suggestions += 1
            if near := _nearest(key, [name for name in names if name not in given]):
                hint = f" Did you mean {shown(near)}?"
        detail = f"The model has no such column.{hint}"
        self.add(pointer_to(place, key), "unknown_field", detail, None, received)

    def raise_if_any(self) -> None:
        """Raise InvalidInput with the faults, where there are some."""
        if not self.found:
            return
        count = len(self.found) + self.more
        detail = "1 field does not fit." if count == 1 else f"{count} fields do not fit."
        if self.more:
            detail += f" Only the first {MAX_FAULTS} are listed; {self.more} more are not."
        raise InvalidInput(detail, faults=tuple(self.found))


def discreet(error: CallError) -> CallError:
    """Return an error without anything that came in the body, where that is sensitive.

    Names of the model's own columns stay; others may be values that stand where names should.
    """
    if isinstance(error, MalformedJson):
        return MalformedJson("The body is not JSON that means one thing only.")
    if not error.faults:
        return error
    faults = [
        replace(
            fault,
            pointer=fault.pointer.rpartition("/")[0]
            if fault.code == "unknown_field"
            else fault.pointer,
            detail="It cannot be read." if fault.code == "malformed" else fault.detail,
            received=None,
        )
        for fault in error.faults
    ]
    return type(error)(error.detail, faults=tuple(faults))


def pointer_to(place: str, key: str) -> str:
    """Return the JSON pointer to `key` under `place`; a long key is cut."""
    if len(key) > _KEY_SHOWN:
        key = key[:_KEY_SHOWN] + "…"
    key = key.encode(errors="backslashreplace").decode()
    return f"{place}/{key.replace('~', '~0').replace('/', '~1')}"


def _nearest(key: str, names: list[str]) -> str | None:
    for name in names:
        if name.casefold() == key.casefold():
            return name
    near = difflib.get_close_matches(key, names, n=1)
    return near[0] if near else None
