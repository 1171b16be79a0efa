"""Which model directories a path leads to: one, the versions of a model, or several models'."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onrecord.errors import ModelDirectoryError
from onrecord.serving.formats import FORMATS
from onrecord.serving.model_files import MLMODEL_FILE, SCHEMA_FILE

__all__ = ["Source", "model_sources"]

_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Source:
    """A model directory, and what its model is called where the schema does not say."""

    directory: Path
    name: str


def model_sources(paths: Sequence[Path]) -> list[Source]:
    """Return the model directories that the paths lead to, those of one model oldest first.

    A path is a model directory, a folder of the versions of a model (`NAME/VERSION/`), or a folder
    of models (`MODELS/NAME/VERSION/`); 10 is a later version than 9. Raises ModelDirectoryError
    where a path leads to none, or to a directory of MLflow's.
    """
    found: list[Source] = []
    for path in paths:
        _refuse_mlflow(path)
        inside = list(_within(path))
        if not inside:
            raise ModelDirectoryError(
                str(path),
                "model file",
                "it is missing" if path.is_dir() else "there is no such directory",
                f"Put the model there, as one of {', '.join(FORMATS)}; or name a folder of models, "
                "NAME/VERSION/.",
            )
        found += inside
    return found


def _refuse_mlflow(path: Path) -> None:
    if (path / MLMODEL_FILE).exists() and not (path / SCHEMA_FILE).exists():
        raise ModelDirectoryError(
            str(path),
            None,
            "it is an MLflow model, which has no input schema",
            f"Make a model directory of it first: `onrecord init {path} -o DIR`.",
        )


def _within(path: Path) -> Iterator[Source]:
    if _is_model_directory(path):
        yield Source(path, path.resolve().name)
        return
    for folder in _folders(path):
        if _is_model_directory(folder):
            yield Source(folder, path.resolve().name)
        else:
            yield from (
                Source(version, folder.name)
                for version in _folders(folder)
                if _is_model_directory(version)
            )


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted((entry for entry in path.iterdir() if entry.is_dir()), key=_natural)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    pieces = filter(None, _DIGITS.split(path.name))
    return [(0, int(it), "") if it.isdecimal() else (1, 0, it) for it in pieces]


def _is_model_directory(path: Path) -> bool:
    """Whether a path is meant for one; what it lacks is told when it is read."""
    return path.is_dir() and any((path / name).exists() for name in (*FORMATS, SCHEMA_FILE))
