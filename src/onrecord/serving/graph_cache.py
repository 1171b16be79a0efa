"""Converted models, kept on disk so that a restart need not convert again.

A conversion imports the model's library and the converters: seconds, and hundreds of megabytes.
What it came to depends on the bytes of the model, its schema and its sample rows and on those
libraries only.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import structlog

import onrecord
from onrecord.private_file import write_private_file
from onrecord.serving.compile import CompiledGraph

__all__ = ["GraphCache", "KeptConversion", "conversion_key"]

_LIBRARIES = (
    "catboost",
    "lightgbm",
    "numpy",
    "onnx",
    "onnxmltools",
    "onnxruntime",
    "pandas",
    "scikit-learn",
    "shap",
    "skl2onnx",
    "skops",
    "xgboost",
    "xgboost-cpu",
)


class KeptConversion(msgspec.Struct, frozen=True):
    """What a conversion came to: a graph, or None and the reason.

    `types` are those in a skops file that the operator had to trust; they are asked for again
    whenever the graph is used. `not_explained` is why the model's answers cannot be explained, ""
    where they can be, and None where the model must be loaded to know.
    """

    graph: CompiledGraph | None
    reason: str
    types: list[str]
    not_explained: str | None


def conversion_key(*sha256: str) -> str:
    """Return the name under which a conversion is kept: a SHA-256 in hexadecimal.

    It is made of those of the files on which the conversion depends, and of the libraries.
    """
    parts = [onrecord.__version__, *sha256]
    parts += [f"{library} {_version(library)}" for library in _LIBRARIES]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


class GraphCache:
    """A folder of conversions, in the server's data directory; None keeps nothing.

    Whoever can write there can change the server's answers, as whoever can write the trust file
    can. A file that cannot be read or written is as good as none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def find(self, key: str) -> KeptConversion | None:
        """Return what was kept, or None."""
        if self._folder is None:
            return None
        try:
            raw = (self._folder / f"{key}.msgpack").read_bytes()
            return msgspec.msgpack.decode(raw, type=KeptConversion)
        except (OSError, msgspec.MsgspecError):
            return None

    def keep(self, key: str, conversion: KeptConversion) -> None:
        """Keep a conversion."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            raw = msgspec.msgpack.encode(conversion)
            write_private_file(self._folder / f"{key}.msgpack", raw)
        except OSError as error:
            structlog.get_logger("onrecord").warning(
                "the converted model cannot be kept", folder=str(self._folder), error=str(error)
            )
