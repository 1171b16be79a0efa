"""How much memory a server has, all its processes together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from live import Server
from torture.subject import Subject, processes_of

__all__ = ["Peak", "mebibytes", "mebibytes_of", "peak"]

_SECONDS_BETWEEN_LOOKS = 0.25


def mebibytes(subject: Subject) -> float:
    """Return what the server's processes have (PSS: of a shared page each one's share)."""
    return mebibytes_of(subject.server)


def mebibytes_of(server: Server) -> float:
    """Return what the processes of a server have, pages of files left out.

    Of a library's page a process has the less the more others map it, whatever it does itself.
    """
    total = 0
    for process in processes_of(server):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1])
    return total / 1024


class Peak:
    """The most memory that was seen; `before` is what there was at the beginning."""

    def __init__(self, before: float) -> None:
        self.before = self.most = before

    @property
    def grown(self) -> float:
        """By how many MiB it grew."""
        return self.most - self.before


@contextlib.contextmanager
def peak(subject: Subject) -> Iterator[Peak]:
    """Watch the server's memory meanwhile."""
    seen = Peak(mebibytes(subject))
    leaving = threading.Event()

    def watch() -> None:
        while not leaving.wait(_SECONDS_BETWEEN_LOOKS):
            seen.most = max(seen.most, mebibytes(subject))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        leaving.set()
        thread.join()
        seen.most = max(seen.most, mebibytes(subject))
