"""How much a Parquet file will take in memory, read before anything is unpacked.

Each page says how large it becomes, and the library makes room for exactly that much; so the sum is
checked first, from the same bytes. The footer is read here too: on a damaged one pyarrow's view of
it (`FileMetaData.row_group(i).column(j)`) ends the process instead of raising.

Source: parquet.thrift of the Parquet format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from onrecord.serving.bounds import Damaged
from onrecord.serving.thrift import read_structure

__all__ = ["Footer", "page_claims", "read_footer"]

_MAX_FOOTER = 1 << 20
_MAX_PAGES = 20_000
_MAGIC = b"PAR1"
_TAIL = 8
_DELTA_BYTE_ARRAY = 7


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says of itself: its number of rows, and where each leaf column's pages are.

    `chunks` has a leaf's path, and the start and length of its pages, once for each row group.
    """

    rows: int
    chunks: tuple[tuple[tuple[str, ...], int, int], ...]

    def is_flat(self, name: str) -> bool:
        """Tell whether a name is that of one column, and of no part of a nested one."""
        return {path for path, _, _ in self.chunks if ".".join(path) == name} <= {(name,)}


def read_footer(file: bytes) -> Footer:
    """Return a file's footer; raises Damaged."""
    if len(file) < _TAIL + len(_MAGIC) or file[:4] != _MAGIC or file[-4:] != _MAGIC:
        raise Damaged("it does not begin and end as one")
    length = int.from_bytes(file[-_TAIL:-4], "little")
    if not 0 < length <= len(file) - _TAIL - len(_MAGIC):
        raise Damaged("its footer is cut off")
    if length > _MAX_FOOTER:
        raise Damaged(f"its footer has more than {_MAX_FOOTER} bytes")
    fields, _ = read_structure(file[-_TAIL - length : -_TAIL], 0)
    try:
        groups = fields.get(4, [])
        rows = sum(_count(group[3]) for group in groups)
        if rows != fields[3]:
            raise Damaged("its row groups have other lengths than it says")
        return Footer(rows, tuple(chunk for group in groups for chunk in _chunks(group[1])))
    except (LookupError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise Damaged("its footer cannot be read") from error


def _chunks(columns: list[dict[int, Any]]) -> Iterator[tuple[tuple[str, ...], int, int]]:
    for column in columns:
        if column.get(1):
            raise Damaged("its columns lie in another file")
        said = column[3]
        start, dictionary = _count(said[9]), said.get(11)
        if dictionary is not None and 0 < dictionary < start:
            start = dictionary
        yield tuple(part.decode() for part in said[3]), start, _count(said[7])


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise Damaged("its footer cannot be read")
    return value


def page_claims(file: bytes, footer: Footer, names: Sequence[str]) -> int:
    """Return how many bytes the pages of some columns will take.

    Raises Damaged, also where a page has an encoding whose strings may grow without bound.
    """
    total = pages = 0
    for path, start, length in footer.chunks:
        if len(path) != 1 or path[0] not in names:
            continue
        at, end = start, start + length
        if end > len(file):
            raise Damaged("a column lies outside the file")
        while at < end:
            header, at = read_structure(file, at)
            pages += 1
            unpacked, packed = _count(header.get(2)), _count(header.get(3))
            if pages > _MAX_PAGES:
                raise Damaged(f"it has more than {_MAX_PAGES} pages; write larger ones")
            if _DELTA_BYTE_ARRAY in (_inner(header, 5, 2), _inner(header, 8, 4)):
                raise Damaged("it uses the encoding DELTA_BYTE_ARRAY, which is not read here")
            total += max(unpacked, packed)
            at += packed
    return total


def _inner(header: dict[int, Any], field: int, inner: int) -> Any:
    found = header.get(field)
    return found.get(inner) if isinstance(found, dict) else None
