"""Frames: messages of known length on a stream, between the server and the writer's process."""

from __future__ import annotations

import struct

__all__ = ["FrameReader", "frame"]

_LENGTH = struct.Struct("!Q")


def frame(message: bytes) -> bytes:
    """Return `message` with its length in front, as 8 bytes, most significant first."""
    return _LENGTH.pack(len(message)) + message


class FrameReader:
    """Takes a stream apart into the messages that were sent."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are whole now that `data` has come too."""
        buffer = self._buffer
        buffer += data
        messages = []
        while len(buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
            if len(buffer) < end:
                break
            messages.append(bytes(memoryview(buffer)[_LENGTH.size : end]))
            del buffer[:end]
        return messages
