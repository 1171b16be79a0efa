"""What a skops file claims to be, looked at before skops unpacks it: it is a ZIP archive.

skops never writes to the disk and loads only types that are trusted, but it unpacks whatever the
archive says. An archive may say that a few bytes are gigabytes, or have one name for two contents,
of which another reader sees the other.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile

from onrecord.errors import ModelDirectoryError

__all__ = ["check_archive"]

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_ROOM = 64 * 1024 * 1024
_GROWTH = 20
"""How many times its size an archive may unpack to, beyond some room for small ones."""


def check_archive(raw: bytes, file: str) -> None:
    """Raise ModelDirectoryError where an archive is none that `skops.io.dump` would write.

    Sparse matrices are archives within the archive and count with it. Raises zipfile.BadZipFile
    where it is no archive at all.
    """
    left = _ROOM + _GROWTH * len(raw)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        left -= _claimed(archive, file, left)
        for entry in archive.infolist():
            content = io.BytesIO(archive.read(entry))
            if zipfile.is_zipfile(content):
                with zipfile.ZipFile(content) as inner:
                    left -= _claimed(inner, file, left)


def _claimed(archive: zipfile.ZipFile, file: str, most: int) -> int:
    entries = archive.infolist()
    names = [entry.orig_filename for entry in entries]
    if len(set(names)) < len(names):
        raise _refused(file, "its archive has two entries of one name")
    for entry in entries:
        if not _NAME.fullmatch(entry.orig_filename):
            raise _refused(file, f"its archive has an entry named {entry.orig_filename[:80]!r}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _refused(file, f"the entry {entry.filename} of its archive is a link")
        if entry.compress_type not in _KINDS or entry.flag_bits & _ENCRYPTED:
            raise _refused(file, "its archive is packed in a way that has no bound")
    claimed = sum(entry.file_size for entry in entries)
    if claimed > most:
        raise _refused(file, f"its archive unpacks to {claimed} bytes")
    return claimed


def _refused(file: str, problem: str) -> ModelDirectoryError:
    return ModelDirectoryError(
        file, None, problem, "Save the model again with skops.io.dump, stored or deflated."
    )
