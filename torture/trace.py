"""The system calls of a server, as strace saw them.

strace stops a thread when it enters a call and when the call returns, and lets it go on once it has
written that down. So where one event causes another, even in another thread, the first is on an
earlier line; and what is on an earlier line did not happen later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Call", "command", "read"]

_TRACED = "pwrite64,pwritev,write,writev,sendto,sendmsg,fsync,fdatasync,ftruncate,unlink,rename"
_LONGEST = 1 << 20
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_NUMBER = re.compile(r", (\d+)(?=$|\)| <)")


@dataclass(slots=True)
class Call:
    """One system call: the numbers of the lines where it was entered and where it returned.

    `path` is what its descriptor is open on ("socket:[...]" for a connection), else what it names;
    `data` is what is written, `offset` where, or the length that a file is cut to. `returned` and
    `result` are None where the process ended first, and `over` is where it ended, which tells
    nothing of whether the call came about; `result` is -1 where the call failed.
    """

    name: str
    path: str
    data: bytes
    offset: int
    entered: int
    returned: int | None = None
    result: int | None = None
    over: int | None = None

    @property
    def syncs(self) -> bool:
        """Whether it puts a file on the disk."""
        return self.name in {"fsync", "fdatasync"}

    @property
    def sends(self) -> bool:
        """Whether it writes to a connection."""
        return self.path.startswith("socket:")


def command(log: Path, *, failing_sync: str | None = None) -> list[str]:
    """Return what a server's command has to run under for `read` to read its calls.

    A log that is there is appended to. `failing_sync` is the number of the sync that fails with
    EIO, with a "+" behind it where all that follow do too.
    """
    options = ["-f", "-y", "-xx", "-s", str(_LONGEST), "-e", f"trace={_TRACED}"]
    if failing_sync:
        options += ["-e", f"inject=fsync,fdatasync:error=EIO:when={failing_sync}"]
    return ["strace", "--seccomp-bpf", *options, "-A", "-o", str(log)]


def read(log: Path) -> Iterator[Call]:
    """Give the calls of a log in the order in which they returned."""
    under_way: dict[str, Call] = {}
    with log.open(encoding="ascii") as lines:
        for number, line in enumerate(lines):
            process, _, event = line.partition(" ")
            event = event.lstrip()
            if event.startswith("+++") and process in under_way:
                call = under_way.pop(process)
                call.over = number
                yield call
            if event.startswith(("+++", "---")):
                continue
            resumed = event.startswith("<...")
            call = under_way.pop(process) if resumed else _entered(event, number)
            if "<unfinished ...>" in event:
                under_way[process] = call
                continue
            # The last line of a process that was killed may be cut, or say " = ?".
            call.over = number
            _, returned, result = event.rpartition(" = ")
            if returned and not result.startswith("?"):
                call.returned, call.result = number, int(result.split(" ", 1)[0])
            yield call
    yield from under_way.values()


def _entered(event: str, number: int) -> Call:
    name, _, arguments = event.partition("(")
    strings = _STRING.findall(arguments)
    if any(cut for _, cut in strings):
        raise ValueError(f"strace shortened what was written by a {name}")
    data = b"".join(_bytes(text) for text, _ in strings)
    descriptor = _DESCRIPTOR.match(arguments)
    path = _bytes(descriptor[1]).decode() if descriptor else data.decode(errors="replace")
    end = arguments.rpartition(" = ")[0] or arguments
    offset = (
        _NUMBER.search(end, max(0, len(end) - 40)) if name in {"pwrite64", "ftruncate"} else None
    )
    return Call(name, path, data, int(offset[1]) if offset else 0, number)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
