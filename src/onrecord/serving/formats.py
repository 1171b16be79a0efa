"""From a model file's bytes to a runtime: which library reads which format."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from onrecord.errors import ModelDirectoryError, UntrustedModelError
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.runtimes import Runtime, first_line
from onrecord.serving.runtimes.catboost import CatboostRuntime, load_catboost
from onrecord.serving.runtimes.lightgbm import LightgbmRuntime
from onrecord.serving.runtimes.lightgbm import load_booster as load_lightgbm
from onrecord.serving.runtimes.onnx import OnnxRuntime
from onrecord.serving.runtimes.sklearn import SklearnRuntime
from onrecord.serving.runtimes.xgboost import XgboostRuntime
from onrecord.serving.runtimes.xgboost import load_booster as load_xgboost
from onrecord.serving.skops_archive import check_archive
from onrecord.serving.trust import Trust

__all__ = [
    "FORMATS",
    "ModelFile",
    "foreign_types",
    "load_runtime",
    "require_trust",
    "types_to_trust",
]

FORMATS = {
    "model.skops": "skops",
    "model.onnx": "onnx",
    "model.ubj": "xgboost",
    "model.json": "xgboost",
    "model.txt": "lightgbm",
    "model.cbm": "catboost",
    "model.pkl": "pickle",
    "model.joblib": "joblib",
}
"""The name of the model file, and what its format is called."""

_EXTRAS = {
    "sklearn": "sklearn",
    "skops": "sklearn",
    "joblib": "sklearn",
    "pandas": "sklearn",
    "scipy": "sklearn",
    "onnxruntime": "onnx",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
}
"""The extra that installs a module."""


@dataclass(frozen=True)
class ModelFile:
    """A model file's path, bytes and the SHA-256 of those bytes in hexadecimal."""

    path: Path
    raw: bytes
    sha256: str

    @property
    def format(self) -> str:
        """What the format is called."""
        return FORMATS[self.path.name]


def types_to_trust(file: ModelFile, trust: Trust) -> list[str]:
    """Return the types in a skops file that are not trusted yet; raises ModelDirectoryError."""
    return sorted(set(foreign_types(file)) - trust.skops_types)


def foreign_types(file: ModelFile) -> list[str]:
    """Return the types in a skops file beyond skops' own list, none for another format.

    Raises ModelDirectoryError.
    """
    if file.format != "skops":
        return []
    try:
        import skops.io

        check_archive(file.raw, file.path.name)
        return sorted(skops.io.get_untrusted_types(data=file.raw))
    except ModelDirectoryError:
        raise
    except ModuleNotFoundError as error:
        raise _lacking(file, error) from error
    except Exception as error:
        raise _unreadable(file, error) from error


def require_trust(file: ModelFile, types: Collection[str], trust: Trust) -> None:
    """Raise UntrustedModelError where the operator has not agreed to a file or to its `types`."""
    if file.format == "skops" and (missing := sorted(set(types) - trust.skops_types)):
        raise UntrustedModelError(
            file.path.name,
            None,
            f"it holds types that this server does not trust: {', '.join(missing)}",
            f"If you know where the file comes from, run `onrecord trust {file.path.parent}`.",
        )
    if file.format in {"pickle", "joblib"} and not trust.allows(file.sha256):
        raise UntrustedModelError(
            file.path.name,
            None,
            f"a {file.format} file runs code when it is loaded, and its SHA-256 {file.sha256} "
            "is not pinned on this server",
            f"If you know where the file comes from, run `onrecord trust {file.path.parent}`; "
            "or save the model in a format that cannot run code (skops, ONNX, or the booster's).",
        )


def load_runtime(file: ModelFile, schema: InputSchema, trust: Trust) -> Runtime:
    """Load the model and check that it takes the schema's columns.

    Raises UntrustedModelError before any code of the file can run where the operator has not agreed
    to it, ModelDirectoryError where the file or the schema is not right.
    """
    name = file.path.name
    require_trust(file, foreign_types(file), trust)
    try:
        loaded = _load(file, schema, trust)
    except ModelDirectoryError:
        raise
    except ModuleNotFoundError as error:
        raise _lacking(file, error) from error
    except Exception as error:
        raise _unreadable(file, error) from error
    try:
        return _runtime_for(loaded, schema, name)
    except ModelDirectoryError:
        raise
    except Exception as error:
        raise ModelDirectoryError(
            "input_schema.json",
            "columns",
            f"{name} cannot answer a probe row made from the schema ({first_line(error)})",
            "Make the schema that of the training data; give columns an `example` the model knows.",
        ) from error


def _load(file: ModelFile, schema: InputSchema, trust: Trust) -> Any:
    """Return an estimator, a booster, or the runtime of an ONNX graph."""
    match file.format:
        case "skops":
            return _load_skops(file, trust)
        case "onnx":
            return OnnxRuntime(file.raw, schema, file.path.name)
        case "xgboost":
            return load_xgboost(file.raw, file.path.name)
        case "lightgbm":
            return load_lightgbm(file.raw, file.path.name)
        case "catboost":
            return load_catboost(file.raw, file.path.name)
        case _:
            return _load_pickle(file)


def _load_skops(file: ModelFile, trust: Trust) -> Any:
    import skops.io

    return skops.io.loads(file.raw, trusted=sorted(trust.skops_types))


def _load_pickle(file: ModelFile) -> Any:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if file.format == "joblib":
            import joblib

            loaded = joblib.load(io.BytesIO(file.raw))
        else:
            import pickle

            loaded = pickle.loads(file.raw)  # noqa: S301
    for warning in said:
        if warning.category.__name__ == "InconsistentVersionWarning":
            structlog.get_logger("onrecord").warning(
                "the model was saved by another version of its library",
                file=file.path.name,
                detail=str(warning.message).split(".\n")[0][:300],
            )
            break
    return loaded


def _runtime_for(loaded: Any, schema: InputSchema, name: str) -> Runtime:
    """Return the runtime for what a file held, whichever format it came in."""
    if isinstance(loaded, OnnxRuntime):
        return loaded
    kind = type(loaded)
    library = kind.__module__.partition(".")[0]
    if library == "xgboost":
        return _runtime_for_xgboost(loaded, schema, name)
    if library == "lightgbm" and kind.__name__ == "Booster":
        return LightgbmRuntime(loaded, schema, name)
    if library == "catboost":
        return CatboostRuntime(loaded, schema, name)
    return SklearnRuntime(loaded, schema, name)


def _runtime_for_xgboost(loaded: Any, schema: InputSchema, name: str) -> Runtime:
    import xgboost

    if isinstance(loaded, xgboost.Booster):
        return XgboostRuntime(loaded, schema, name)
    missing = getattr(loaded, "missing", None)
    if missing is None or missing != missing:  # noqa: PLR0124 - NaN is unlike itself
        return XgboostRuntime(loaded.get_booster(), schema, name, scikit_learn=True)
    return SklearnRuntime(loaded, schema, name)


def _lacking(file: ModelFile, error: ModuleNotFoundError) -> ModelDirectoryError:
    module = (error.name or "").partition(".")[0]
    if error.name in sys.modules or module in sys.modules:
        # The library is there, yet not that part of it: another version wrote the file.
        return _unreadable(file, error)
    extra = _EXTRAS.get(module)
    return ModelDirectoryError(
        file.path.name,
        None,
        f"reading it needs the module {error.name or module}, which is not installed",
        f"Install it: pip install 'onrecord[{extra}]'."
        if extra
        else f"Install the package that has {module} where the server runs, or save the model "
        "without classes of your own.",
    )


def _unreadable(file: ModelFile, error: Exception) -> ModelDirectoryError:
    """Translate a library's error into one line with a remedy."""
    said = str(error).strip()
    if "XGBoost" in said or "xgboost" in type(error).__module__:
        return ModelDirectoryError(
            file.path.name,
            None,
            "this version of XGBoost cannot read it: it is damaged, or an older XGBoost saved it "
            "as a pickle or in the old binary format",
            "With the XGBoost that made it, run model.save_model('model.ubj') and serve that file.",
        )
    if isinstance(error, (ImportError, AttributeError)) and file.format in {"pickle", "joblib"}:
        return ModelDirectoryError(
            file.path.name,
            None,
            "the installed libraries cannot load it: another version wrote it "
            f"({first_line(error)})",
            "Install the version that the model was saved with, or save it again with this one "
            "(better as skops or ONNX).",
        )
    return ModelDirectoryError(
        file.path.name,
        None,
        f"it is not a readable {file.format} file ({first_line(error)})",
        "Save it again, and check that the file's name says its format.",
    )
