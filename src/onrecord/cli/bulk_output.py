"""The answers to a file's chunks: kept as they come, joined at the end, and only then in sight."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from onrecord.errors import StartupError
from onrecord.serving.answers import parquet_options

__all__ = ["Kept", "Output", "run_identity"]

_ROW_GROUP = 100_000


def run_identity(**parts: object) -> str:
    """Return a SHA-256 of everything that makes two runs the same."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Kept:
    """The directory OUT.partial: one file a finished chunk, and the run that they belong to.

    Each file is the answer's bytes, a Parquet file. It gets its name once it is whole, so one that
    is there is finished. Raises StartupError where the directory belongs to another run.
    """

    def __init__(self, out: Path, parts: dict[str, object]) -> None:
        self.path = out.with_name(out.name + ".partial")
        self._manifest = self.path / "run.json"
        self._wanted = {"identity": run_identity(**parts), **parts}
        self.path.mkdir(parents=True, exist_ok=True)
        if self._manifest.exists():
            self._keys = self._compare(self._wanted)
        elif any(self.path.iterdir()):
            raise StartupError(f"{self.path} was not made by this command; name another output")
        else:
            self.renew_keys()

    def key(self, number: int) -> str:
        """Return the idempotency key of a chunk: the same one after an interruption.

        So a chunk that a server had put on record, but whose answer was not kept, is not put on
        record again.
        """
        return f"{self._keys}-{number}"

    def renew_keys(self) -> None:
        """Give the chunks that are left other keys, since a refusal would be given again, too."""
        self._keys = str(uuid.uuid4())
        _write(self._manifest, json.dumps(self._wanted | {"keys": self._keys}, indent=2).encode())

    def _compare(self, wanted: dict[str, object]) -> str:
        """Return the beginning of the keys of the run in the directory, which must be this one."""
        try:
            found = json.loads(self._manifest.read_bytes())
            keys = str(found["keys"])
            differs = [name for name in wanted if found.get(name) != wanted[name]]
        except (ValueError, TypeError, KeyError, AttributeError):
            keys, differs = "", ["identity"]
        if differs:
            what = ", ".join(name for name in differs if name != "identity") or "its manifest"
            raise StartupError(
                f"{self.path} holds the chunks of another run, which differs in: {what}. "
                "Remove it to start anew, or name another output"
            )
        return keys

    def find(self, number: int, rows: int) -> bytes | None:
        """Return the answer to a chunk of `rows` rows, None where it is not finished."""
        import pyarrow as pa
        from pyarrow import parquet

        file = self._file(number)
        try:
            content = file.read_bytes()
            count = parquet.ParquetFile(pa.BufferReader(content)).metadata.num_rows
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError):
            count = -1
        # A machine that lost its power can leave a file without its content.
        return content if count == rows else None

    def keep(self, number: int, answer: bytes) -> None:
        """Keep the answer to a chunk."""
        _write(self._file(number), answer)

    def count(self) -> int:
        """Return how many chunks are finished."""
        return len(list(self.path.glob("????????.parquet")))

    def remove(self) -> None:
        """Remove the directory: what it holds has been joined."""
        shutil.rmtree(self.path)

    def _file(self, number: int) -> Path:
        return self.path / f"{number:08d}.parquet"


class Output:
    """The file of all answers, a Parquet or CSV file, written under another name until `finish`."""

    def __init__(self, out: Path, directory: Path) -> None:
        self._out = out
        self._part = directory / "joined"
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._rows = 0

    def start(self) -> None:
        """Remove what an earlier run had begun to join; to be called first."""
        self._part.unlink(missing_ok=True)

    def add(self, answer: bytes) -> None:
        """Add the answers to the next chunk, a Parquet file."""
        import pyarrow as pa
        from pyarrow import parquet

        table = parquet.ParquetFile(pa.BufferReader(answer)).read(use_threads=False)
        self._waiting.append(table)
        self._rows += table.num_rows
        if self._rows >= _ROW_GROUP:
            self._flush()

    def finish(self) -> None:
        """Put the file in its place, durably and at once."""
        self._flush()
        self._writer.close()
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.replace(self._out)

    def _flush(self) -> None:
        import pyarrow as pa
        from pyarrow import csv, parquet

        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting, self._rows = [], 0
        if self._writer is None:
            if self._out.suffix.lower() == ".csv":
                self._writer = csv.CSVWriter(self._part, table.schema)
            else:
                options = parquet_options(table.schema)
                self._writer = parquet.ParquetWriter(self._part, table.schema, **options)
        self._writer.write_table(table)


def _write(file: Path, content: bytes) -> None:
    """Write a file that has its name only once it is whole."""
    part = file.with_name(file.name + ".part")
    part.write_bytes(content)
    part.replace(file)
