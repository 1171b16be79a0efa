"""Files of the package that pages are made of: scripts and styles, own ones and others'."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from fastapi import Response

from onrecord.errors import NotFound

__all__ = ["own_file"]


def own_file(package: str, media_types: Mapping[str, str], path: str) -> Response:
    """Return a file in the folder `static` of a package; raises NotFound.

    `media_types` names each file that there is. Those of `vendor/` have their version in the path,
    and never change.
    """
    if path not in media_types:
        raise NotFound("There is no such file.")
    content = files(package).joinpath("static").joinpath(path).read_bytes()
    caching = "public, max-age=31536000, immutable" if path.startswith("vendor/") else "no-cache"
    return Response(content, media_type=media_types[path], headers={"cache-control": caching})
