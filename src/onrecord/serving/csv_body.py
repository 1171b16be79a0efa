"""CSV bodies: a header row with the columns' names in any order, then a row a line."""

from __future__ import annotations

import csv
import io
from typing import Any

from onrecord.serving.bounds import Damaged
from onrecord.serving.faults import Faults

__all__ = ["Ragged", "header_of", "parted", "read_csv"]

_MOST_RAGGED = 1000
_FIRST_NUMBER = 2
"""What Arrow calls the first row after the header."""

_BLOCK = 1 << 26


class Ragged(ValueError):
    """Some rows have too many or too few cells.

    `rows` has the number of each (from 0), and the number of its cells.
    """

    def __init__(self, rows: list[tuple[int, int]]) -> None:
        self.rows = rows
        super().__init__("rows of different lengths")

    def add_to(self, faults: Faults, width: int) -> None:
        """Note each of the rows, where the header has `width` cells."""
        for number, length in self.rows:
            detail = f"It has {length} cells, but the header has {width}."
            faults.add(f"/rows/{number}", "wrong_shape", detail, f"{width} cells")


def header_of(body: bytes) -> list[str]:
    """Return the names in the first row that has any; raises Damaged."""
    return parted(body)[0]


def parted(body: bytes) -> tuple[list[str], str]:
    """Return the names in the first row that has any, and all that follows it; raises Damaged."""
    try:
        text = io.StringIO(body.decode("utf-8-sig"), newline="")
        for names in csv.reader(text, strict=True):
            if names:
                return names, text.read()
    except UnicodeDecodeError as error:
        raise Damaged(f"byte {error.start} starts no character of UTF-8") from error
    except csv.Error as error:
        raise Damaged(f"its header cannot be read: {error}") from error
    raise Damaged("it is empty; send a header row and a row a line")


def read_csv(body: bytes, names: list[str], wanted: list[str], max_rows: int) -> Any:
    """Return an Arrow table of the wanted columns' cells as strings, an empty cell as null.

    A quoted empty cell is an empty string. At most `max_rows` + 1 rows are read. Raises Damaged,
    and Ragged where a row has another number of cells than the header.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    ragged: list[tuple[int, int]] = []

    def take_note(row: Any) -> str:
        if len(ragged) < _MOST_RAGGED:
            ragged.append((row.number - _FIRST_NUMBER, row.actual_columns))
        return "skip"

    try:
        reader = arrow_csv.open_csv(
            pa.BufferReader(body),
            read_options=arrow_csv.ReadOptions(
                use_threads=False, block_size=min(len(body), _BLOCK)
            ),
            parse_options=arrow_csv.ParseOptions(
                newlines_in_values=True,
                # In a table of one column an empty line is an empty cell.
                ignore_empty_lines=len(names) > 1,
                invalid_row_handler=take_note,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=wanted,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        batches = []
        count = 0
        for batch in reader:
            batches.append(batch)
            count += batch.num_rows
            if count > max_rows:
                break
    except (pa.ArrowException, OSError) as error:
        raise Damaged(str(error).strip().splitlines()[0][:200]) from error
    if ragged:
        raise Ragged(ragged)
    return pa.Table.from_batches(batches, reader.schema).combine_chunks()
