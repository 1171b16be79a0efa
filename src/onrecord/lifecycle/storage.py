"""Model directories in S3-compatible storage, copied here for as long as they are read.

Everything else reads directories. What a copy is made of is bounded: the files that belong to a
model, and no more than this machine could load.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from onrecord.errors import ModelDirectoryError, RemoteError, WorkFailed
from onrecord.lifecycle.apart import run_apart
from onrecord.serving.artifact import COMPANIONS
from onrecord.serving.formats import FORMATS
from onrecord.serving.model_files import MLMODEL_FILE, SCHEMA_FILE, memory_bytes
from onrecord.serving.runtimes import first_line

__all__ = ["at_hand", "is_in_storage"]

_SCHEME = "s3://"
_WANTED = frozenset({*FORMATS, *COMPANIONS, SCHEMA_FILE, MLMODEL_FILE})
_DEEPEST = 3
"""Files of `MODELS/NAME/VERSION/` lie three levels down."""
_MOST_FILES = 10_000
_REMEDY = (
    "Name the folder of a model or of its versions, s3://BUCKET/FOLDER; and see to it that "
    "AWS_ENDPOINT_URL_S3, AWS_REGION and the credentials (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, a profile or a role) are those of the bucket."
)
_WAITS = {"connect_timeout": 10, "read_timeout": 60}


def is_in_storage(place: str | Path) -> bool:
    """Tell whether a model directory is one of S3-compatible storage: `s3://BUCKET/FOLDER`."""
    return str(place).startswith(_SCHEME)


@contextmanager
def at_hand(places: Sequence[str | Path]) -> Iterator[list[Path]]:
    """Yield where model directories can be read: themselves, or copies that are there for as long.

    Storage is reached with the credentials and the address (`AWS_ENDPOINT_URL_S3`) that the AWS
    tools take from the environment and their files. Raises ModelDirectoryError where a copy cannot
    be made; one about a copy names the address that it was made of.
    """
    with ExitStack() as stack:
        yield [
            stack.enter_context(_copy(str(place))) if is_in_storage(place) else Path(place)
            for place in places
        ]


@contextmanager
def _copy(url: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="onrecord-") as home:
        folder = Path(home) / url.rstrip("/").rpartition("/")[2]
        try:
            # The client of the storage, its threads and its credentials end with the process.
            run_apart("copying it", partial(_fetch, url, folder))
        except WorkFailed as error:
            raise ModelDirectoryError(url, None, str(error), _REMEDY) from None
        try:
            yield folder
        except ModelDirectoryError as error:
            raise error.as_of(str(folder), url) from None


def _fetch(url: str, folder: Path) -> None:
    """Copy the files of the model directories under a URL; raises RemoteError."""
    try:
        import s3fs
    except ImportError:
        raise RemoteError(
            "it needs s3fs, which comes with an extra: pip install 'onrecord[s3]'"
        ) from None
    try:
        storage = s3fs.S3FileSystem(config_kwargs=_WAITS, use_listings_cache=False)
        wanted = _wanted(url.rstrip("/"), storage.find(url, maxdepth=_DEEPEST, detail=True))
        for name, key in wanted.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            storage.get_file(key, str(folder / name))
    except RemoteError:
        raise
    except Exception as error:
        # It is one of dozens of classes, of three libraries.
        raise RemoteError(first_line(error)) from error


def _wanted(url: str, listed: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the keys of the objects to copy, by where in the folder they belong.

    All files of an MLflow model are wanted, as only its own text says which one is the model.
    """
    root = url.removeprefix(_SCHEME) + "/"
    found = {key.removeprefix(root): key for key in listed if key.startswith(root)}
    mlflow = {name.rpartition("/")[0] for name in found if name.split("/")[-1] == MLMODEL_FILE}
    wanted = {
        name: key
        for name, key in found.items()
        if (name.rpartition("/")[2] in _WANTED or name.rpartition("/")[0] in mlflow)
        and not {"", ".", ".."} & {*name.split("/")}
    }
    if not wanted:
        raise RemoteError("there is no model")
    size, most = sum(listed[key]["size"] for key in wanted.values()), memory_bytes()
    if len(wanted) > _MOST_FILES or size > most:
        raise RemoteError(
            f"its models are {len(wanted)} files of {size} bytes together, and at most "
            f"{_MOST_FILES} of {most} can be read here"
        )
    return wanted
