"""A file of a person: which of its columns a model is asked, and the file with what it answered.

Whether the rows fit is not judged here, but where any table of a call is.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onrecord.errors import Fault, InvalidInput
from onrecord.serving.arrow_bodies import read_parquet
from onrecord.serving.bounds import Damaged
from onrecord.serving.csv_body import Ragged, parted, read_csv
from onrecord.serving.faults import Faults, pointer_to
from onrecord.serving.table_checks import Unread, kind_of_type

__all__ = ["Upload", "kind_of_upload", "open_upload"]

Kind = Literal["csv", "parquet"]

_PARQUET = b"PAR1"
_TITLES: Mapping[Kind, str] = {"csv": "CSV", "parquet": "Parquet"}
_LEAST_LIMIT = 64 * 1024 * 1024
_BODY_TIMES = 4
_ANSWERS = {"id": "prediction_id"}
"""What an answer's columns are called beside the file's own, where it is something else."""


@dataclass(frozen=True)
class Upload:
    """A file that was read: `names` and `arrays` are its columns, as Arrow has them.

    An array is None where its type is none that is read.
    """

    body: bytes
    kind: Kind
    names: tuple[str, ...]
    arrays: tuple[Any, ...]

    def body_for(self, columns: Mapping[str, str]) -> bytes:
        """Return the body of a call with `columns`: by feature, the column of the file it is in.

        It is the file itself where that has these columns, by these names, and no others. Raises
        InvalidInput where the file lacks one.
        """
        counts = Counter(self.names)
        faults = Faults()
        for feature, name in columns.items():
            if counts[name] != 1:
                detail = (
                    f"The file has {counts[name]} columns {name!r}."
                    if counts[name]
                    else f"The file has no column {name!r}."
                )
                faults.add(pointer_to("", feature), "missing", detail, None, None)
            elif self._array(name) is None:
                detail = f"The column {name!r} is nested or binary, which no feature is."
                faults.add(pointer_to("", feature), "wrong_type", detail, None, None)
        faults.raise_if_any()
        if all(feature == name for feature, name in columns.items()) and len(counts) == len(
            columns
        ):
            return self.body
        chosen = [(feature, self._array(name)) for feature, name in columns.items()]
        return _csv(chosen) if self.kind == "csv" else _parquet(chosen)

    def scored(self, answers: bytes, *, header: bool = True) -> bytes:
        """Return the file with its answers beside it, which are in the same form.

        Columns of answers have other names where the file has theirs. Columns that are not read
        are left out. Without a `header` CSV has no first line.
        """
        own = [
            (name, array)
            for name, array in zip(self.names, self.arrays, strict=True)
            if array is not None
        ]
        told = _read_answers(answers, self.kind)
        taken = {name for name, _ in own}
        beside = [(_free(_ANSWERS.get(name, name), taken), values) for name, values in told]
        if self.kind == "csv":
            return _csv([*own, *beside], header=header)
        return _parquet([*own, *beside])

    def _array(self, name: str) -> Any:
        return self.arrays[self.names.index(name)]


def kind_of_upload(body: bytes) -> Kind:
    """Return what a file is by how it begins."""
    return "parquet" if body.startswith(_PARQUET) else "csv"


def open_upload(body: bytes, *, max_rows: int) -> Upload:
    """Read a file of CSV or Parquet; of one with more than `max_rows` rows not all need be read.

    Raises InvalidInput where it cannot be read, and BodyTooLarge where its rows would take too much
    memory.
    """
    kind = kind_of_upload(body)
    try:
        return _open_csv(body, max_rows) if kind == "csv" else _open_parquet(body)
    except Damaged as error:
        detail = f"It is not a {_TITLES[kind]} file that is read here: {error}."
        fault = Fault("", "malformed", detail)
        raise InvalidInput("The file cannot be read.", faults=(fault,)) from None


def _open_csv(body: bytes, max_rows: int) -> Upload:
    names, rest = parted(body)
    # Of names that stand twice Arrow could not tell the columns apart.
    places = [f"c{place}" for place in range(len(names))]
    try:
        table = read_csv(f"{','.join(places)}\n{rest}".encode(), places, places, max_rows)
    except Ragged as error:
        faults = Faults()
        error.add_to(faults, len(names))
        faults.raise_if_any()
        raise
    return Upload(body, "csv", tuple(names), tuple(table.columns))


def _open_parquet(body: bytes) -> Upload:
    source = read_parquet(body, max(_LEAST_LIMIT, _BODY_TIMES * len(body)), _flat_kind)
    counts = Counter(source.names)
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        raise Damaged(f"the column {doubled[0]!r} is there {counts[doubled[0]]} times")
    found = source.read(source.names)
    arrays = (found[name] for name in source.names)
    return Upload(
        body,
        "parquet",
        source.names,
        tuple(None if isinstance(array, Unread) else array for array in arrays),
    )


def _flat_kind(data_type: Any) -> str | None:
    """Return what a type is to the reader: times and decimals, too, stand in the scored file."""
    from pyarrow import types

    if types.is_temporal(data_type) or types.is_decimal(data_type):
        return "other"
    return kind_of_type(data_type)


def _read_answers(answers: bytes, kind: Kind) -> list[tuple[str, Any]]:
    """Return the columns of a call's answer, which this server wrote."""
    import pyarrow as pa
    from pyarrow import parquet

    if kind == "csv":
        names, *rows = csv.reader(io.StringIO(answers.decode(), newline=""))
        columns = zip(*rows, strict=True)
        return [(name, pa.array(cells)) for name, cells in zip(names, columns, strict=True)]
    table = parquet.read_table(pa.BufferReader(answers))
    return [(name, table.column(name)) for name in table.column_names]


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"onrecord_{name}"
    taken.add(name)
    return name


def _parquet(columns: Sequence[tuple[str, Any]]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    names, arrays = zip(*columns, strict=True)
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(list(arrays), names=list(names)), sink)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _csv(columns: Sequence[tuple[str, Any]], *, header: bool = True) -> bytes:
    names, arrays = zip(*columns, strict=True)
    lines = zip(*(array.to_pylist() for array in arrays), strict=True)
    rows: Iterable[Sequence[str | None]] = [names, *lines] if header else lines
    return "".join(",".join(map(_cell, row)) + "\r\n" for row in rows).encode()


def _cell(text: str | None) -> str:
    """Return a cell as it was: an empty one is missing, a quoted empty one is an empty string."""
    if text is None:
        return ""
    if text and not any(mark in text for mark in '",\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'
