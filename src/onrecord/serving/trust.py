"""Which model files the operator has agreed to run.

Unpickling a file runs whatever code is in it, so a pickle is loaded only when its exact bytes
(their SHA-256) were agreed to. A skops file is loaded when all its types were.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onrecord.errors import SettingsError
from onrecord.private_file import write_private_file

__all__ = ["Trust"]


class Trust:
    """The operator's agreements: those of the settings, and those in a file of the server.

    `file` is the server's own (in its data directory, never in a model directory, or whoever wrote
    the model could agree for the operator); None keeps nothing. Raises SettingsError where the
    file cannot be read or is not what this class wrote.
    """

    def __init__(
        self,
        file: Path | None,
        hashes: Collection[str] = (),
        skops_types: Collection[str] = (),
    ) -> None:
        self._file = file
        self._given_hashes = frozenset(text.lower() for text in hashes)
        self._given_types = frozenset(skops_types)
        self._models, self._types = _read(file)

    def allows(self, sha256: str) -> bool:
        """Tell whether the file with this SHA-256 (hexadecimal) may be unpickled."""
        return sha256.lower() in self._given_hashes or sha256.lower() in self._models

    @property
    def skops_types(self) -> frozenset[str]:
        """The full names of the types that a skops file may hold beyond skops' own list."""
        return self._given_types | self._types

    def pin(self, sha256: str, path: Path | str) -> None:
        """Agree to a file's exact bytes; `path` is kept for people only.

        Raises SettingsError where there is no trust file or it cannot be written.
        """
        entry = {"path": str(path), "trusted_at": datetime.now(UTC).isoformat(timespec="seconds")}
        self._models = {**self._models, sha256.lower(): entry}
        self._write()

    def trust_types(self, types: Collection[str]) -> None:
        """Agree to these types in any skops file.

        Raises SettingsError where there is no trust file or it cannot be written.
        """
        self._types |= frozenset(types)
        self._write()

    def _write(self) -> None:
        if self._file is None:
            raise SettingsError("there is no trust file to remember this in")
        content = {"models": self._models, "skops_types": sorted(self._types)}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_private_file(self._file, json.dumps(content, indent=2).encode())
        except OSError as error:
            raise SettingsError(f"{self._file} cannot be written: {error}") from error


def _read(file: Path | None) -> tuple[dict[str, Any], frozenset[str]]:
    if file is None or not file.exists():
        return {}, frozenset()
    try:
        content = json.loads(file.read_bytes())
        models = dict(content.get("models", {}))
        types = frozenset(map(str, content.get("skops_types", ())))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{file} is not a readable trust file ({error}); delete it and run `onrecord trust`"
        ) from error
    return models, types
