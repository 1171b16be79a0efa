"""Whether one input schema accepts all that another one accepts."""

from __future__ import annotations

from collections.abc import Iterator

from onrecord.serving.columns import Column
from onrecord.serving.input_schema import InputSchema

__all__ = ["narrowings"]

# A value of the first type passes as one of the second, whatever it is.
_WIDER = {("integer", "numeric"), ("boolean", "numeric"), ("boolean", "integer")}


def narrowings(live: InputSchema, candidate: InputSchema) -> list[str]:
    """Return, a sentence each, what calls that fit `live` would be refused or misread for.

    An empty list means that every body that fits `live` fits `candidate` too.
    """
    return list(_narrowings(live, candidate))


def _narrowings(live: InputSchema, candidate: InputSchema) -> Iterator[str]:
    ours = {column.name: column for column in live.columns}
    theirs = {column.name: column for column in candidate.columns}
    for name in theirs.keys() - ours.keys():
        yield f"column {name} is new, and no caller sends it"
    for name, column in ours.items():
        other = theirs.get(name)
        if other is None:
            yield f"column {name} is gone, and callers who send it would be refused"
        else:
            yield from _of_column(column, other)
    if live.task is not None and candidate.task not in {None, live.task}:
        yield f"the task is {candidate.task}, and was {live.task}"
    if live.targets and candidate.targets != live.targets:
        yield f"the targets are {list(candidate.targets)}, and were {list(live.targets)}"
    if live.classes and candidate.classes and set(live.classes) != set(candidate.classes):
        yield f"the classes are {list(candidate.classes)}, and were {list(live.classes)}"


def _of_column(live: Column, candidate: Column) -> Iterator[str]:
    name = live.name
    if live.type != candidate.type and (live.type, candidate.type) not in _WIDER:
        yield f"column {name} is {candidate.type}, and was {live.type}"
        return
    if live.nullable and not candidate.nullable:
        yield f"column {name} may no longer be null"
    if live.sensitive and not candidate.sensitive:
        yield f"column {name} is no longer sensitive, and its values would be on record as they are"
    if candidate.minimum is not None and candidate.low > live.low:
        yield f"column {name} begins at {candidate.minimum}, and began at {live.low}"
    if candidate.maximum is not None and candidate.high < live.high:
        yield f"column {name} ends at {candidate.maximum}, and ended at {live.high}"
    gone = [str(value) for value in live.categories if value not in candidate.categories]
    if candidate.type == "categorical" and gone:
        yield f"column {name} lacks the categories {', '.join(gone)}"
