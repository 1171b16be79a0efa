"""The file of signed heads, outside the database: JSON lines, {"note": "..."}, only appended to."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from onrecord.errors import SealError
from onrecord.private_file import sync_folder

__all__ = ["HeadsFile", "Line", "lines_of"]

_TAIL_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file, `number` from 1; `note` is None where the line is not whole."""

    number: int
    note: str | None


class HeadsFile:
    """The file at `path`; a missing one has no lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, note: str) -> None:
        """Add a head, durably; raises SealError where that cannot be done.

        What a crash has left half-written becomes a line of its own, which is no head.
        """
        line = json.dumps({"note": note}).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            with self.path.open("a+b") as file:
                if file.tell() and not self._ends_with_a_line():
                    line = b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise SealError(f"{self.path}: cannot be written: {error.strerror}") from error

    def last(self) -> str | None:
        """Return the newest note, None where there is none; raises SealError as `lines` does."""
        tail = self._read(_TAIL_BYTES).split(b"\n")
        notes = (_note(line) for line in reversed(tail))
        return next((note for note in notes if note is not None), None)

    def lines(self) -> list[Line]:
        """Return every line; raises SealError where the file cannot be read."""
        return lines_of(self._read(None))

    def _read(self, tail: int | None) -> bytes:
        try:
            with self.path.open("rb") as file:
                if tail is not None:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - tail))
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise SealError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _ends_with_a_line(self) -> bool:
        return self._read(1) == b"\n"


def lines_of(content: bytes) -> list[Line]:
    """Return the lines of a file of heads."""
    lines = content.split(b"\n")
    return [Line(number, _note(line)) for number, line in enumerate(lines, 1) if line]


def _note(line: bytes) -> str | None:
    try:
        note = json.loads(line)["note"]
    except (ValueError, KeyError, TypeError):
        return None
    return note if isinstance(note, str) else None
