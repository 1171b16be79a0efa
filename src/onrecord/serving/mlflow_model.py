"""An MLflow model directory, read once: its model file, and a schema drafted from its signature.

MLflow itself is not needed. `MLmodel` is YAML, of which only strings, lists and mappings are read,
so that no tag of it can make an object; the signature in it is JSON. The layout is that of MLflow
2 and 3 (https://mlflow.org/docs/latest/ml/model/).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from onrecord.errors import ModelDirectoryError
from onrecord.serving.model_files import MAX_TEXT_BYTES, MLMODEL_FILE, read_file

__all__ = ["MlflowModel", "read_mlflow_model"]

_MAX_MLMODEL_BYTES = 1024 * 1024
# The key that names the model file, and what that is called in a model directory.
_FLAVORS = {
    "sklearn": ("pickled_model", {".skops": "model.skops", ".pkl": "model.pkl"}),
    "xgboost": ("data", {".ubj": "model.ubj", ".xgb": "model.ubj", ".json": "model.json"}),
    "lightgbm": (
        "data",
        {".lgb": "model.txt", ".txt": "model.txt", ".skops": "model.skops", ".pkl": "model.pkl"},
    ),
    "catboost": ("data", {".cb": "model.cbm", ".cbm": "model.cbm"}),
    "onnx": ("data", {".onnx": "model.onnx"}),
}
_TYPES = {
    "boolean": "boolean",
    "integer": "integer",
    "long": "integer",
    "float": "numeric",
    "double": "numeric",
    "string": "text",
}
_EXAMPLES: dict[str, type | tuple[type, ...]] = {
    "boolean": bool,
    "integer": int,
    "numeric": (int, float),
    "text": str,
}
_GIVE_DATA = "Give the training data, too, and the schema is made from that: `onrecord init"


@dataclass(frozen=True)
class MlflowModel:
    """What is served of an MLflow model.

    `file` is the model file, `name` what it is called in a model directory. `columns` are those
    of the signature, as an input schema has them; None where the model was logged without one.
    """

    directory: Path
    file: Path
    name: str
    columns: list[dict[str, Any]] | None

    def schema(self) -> dict[str, Any]:
        """Return the document for input_schema.json; raises ModelDirectoryError."""
        if self.columns is None:
            raise ModelDirectoryError(
                MLMODEL_FILE,
                "signature",
                "it is missing, so nobody can tell the model's columns",
                f"{_GIVE_DATA} {self.directory} DATA -o OUT`; or log the model with a signature.",
            )
        return {"input_schema": {"columns": self.columns}}


def read_mlflow_model(directory: Path, *, signature: bool = True) -> MlflowModel:
    """Read an MLflow model directory; without its `signature` where that is not wanted.

    Raises ModelDirectoryError where `MLmodel` cannot be read, the model has no flavor that can be
    served, or the signature has what no schema can have.
    """
    document = _mlmodel(directory)
    file, name = _model_file(directory, document)
    columns = None
    inputs = _mapping(document.get("signature")).get("inputs", "null")
    if signature and inputs != "null":
        columns = _columns(directory, inputs, _examples(directory, document))
    return MlflowModel(directory, file, name, columns)


def _mlmodel(directory: Path) -> dict[str, Any]:
    raw = read_file(directory / MLMODEL_FILE, max_bytes=_MAX_MLMODEL_BYTES)
    try:
        # The Python loader: it gives up where lists are nested too deep. All scalars are strings.
        document = yaml.load(raw, yaml.BaseLoader)  # noqa: S506 - it makes no objects
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        place = getattr(error, "problem_mark", None)
        where = "" if place is None else f" (line {place.line + 1})"
        raise ModelDirectoryError(
            MLMODEL_FILE, None, f"it is not YAML{where}", "Download the model from MLflow again."
        ) from error
    return _mapping(document)


def _model_file(directory: Path, document: dict[str, Any]) -> tuple[Path, str]:
    flavors = _mapping(document.get("flavors"))
    for flavor, (key, names) in _FLAVORS.items():
        if flavor not in flavors:
            continue
        file = _mapping(flavors[flavor]).get(key)
        field = f"flavors.{flavor}.{key}"
        if not isinstance(file, str) or Path(file).name != file:
            raise ModelDirectoryError(
                MLMODEL_FILE,
                field,
                "it does not name a file of the directory",
                "Download the model from MLflow again.",
            )
        name = names.get(Path(file).suffix)
        if name is None:
            raise ModelDirectoryError(
                MLMODEL_FILE,
                field,
                f"{file!r} is in a format that onrecord does not serve",
                f"Log the model as one of {', '.join(names)}.",
            )
        return directory / file, name
    raise ModelDirectoryError(
        MLMODEL_FILE,
        "flavors",
        f"none of them can be served: {', '.join(map(str, flavors)) or 'there are none'}",
        f"Log the model itself with one of these flavors: {', '.join(_FLAVORS)}. A pyfunc of your "
        "own is code around a model, which onrecord does not run.",
    )


def _columns(directory: Path, inputs: Any, examples: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        listed = msgspec.json.decode(inputs, type=list[dict[str, Any]])
    except (msgspec.MsgspecError, TypeError, RecursionError) as error:
        raise ModelDirectoryError(
            MLMODEL_FILE,
            "signature.inputs",
            "it is not a list of columns in JSON",
            "Download the model from MLflow again.",
        ) from error
    return [_column(directory, place, entry, examples) for place, entry in enumerate(listed)]


def _column(
    directory: Path, place: int, entry: dict[str, Any], examples: dict[str, Any]
) -> dict[str, Any]:
    name: Any = entry.get("name")
    kind: Any = entry.get("type")
    problem = ""
    if kind == "tensor":
        problem = "it is a tensor, and a schema has columns with names and types"
    elif not isinstance(name, str):
        problem = "it is a column without a name"
    elif not isinstance(kind, str) or kind not in _TYPES:
        told = kind if isinstance(kind, str) else "unknown"
        problem = f"column {name!r} is of type {told}, which no schema has"
    if problem:
        raise ModelDirectoryError(
            MLMODEL_FILE,
            f"signature.inputs[{place}]",
            problem,
            f"Train and log the model on columns of the types {', '.join(_TYPES)}. Where the model "
            "itself takes such columns and only the signature says otherwise, give the training "
            f"data: `onrecord init {directory} DATA -o OUT`.",
        )
    column: dict[str, Any] = {"name": name, "type": _TYPES[kind]}
    if entry.get("required") is False or entry.get("optional") is True:
        column["nullable"] = True
    example = examples.get(name)
    wanted = _EXAMPLES[column["type"]]
    if isinstance(example, wanted) and (wanted is bool or not isinstance(example, bool)):
        column["example"] = example
    return column


def _examples(directory: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the first row of the input example, by column."""
    about = _mapping(document.get("saved_input_example_info"))
    file = about.get("artifact_path")
    if about.get("pandas_orient") != "split" or not isinstance(file, str):
        return {}
    if Path(file).name != file:
        raise ModelDirectoryError(
            MLMODEL_FILE,
            "saved_input_example_info.artifact_path",
            "it does not name a file of the directory",
            "Download the model from MLflow again.",
        )
    raw = read_file(directory / file, max_bytes=MAX_TEXT_BYTES)
    try:
        table = msgspec.json.decode(raw, type=_Split)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ModelDirectoryError(
            file,
            None,
            "it is not the table in JSON that MLmodel says it is",
            "Download the model from MLflow again.",
        ) from error
    return dict(zip(map(str, table.columns), table.data[0], strict=False)) if table.data else {}


class _Split(msgspec.Struct):
    """A table as pandas writes it with orient="split"."""

    data: list[list[Any]]
    columns: list[Any] = []


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
