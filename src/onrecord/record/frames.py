"""Frames: messages of known length on a stream, between the server and the writer's process."""

from __future__ import annotations

import struct

import msgspec

__all__ = ["FrameReader", "frame"]

_LENGTH = struct.Struct("!Q")
_encode_into = msgspec.msgpack.Encoder().encode_into


def frame(message: object) -> bytearray:
    """Return `message` as MessagePack with its length in front: 8 bytes, big-endian.

    Raises ValueError or OverflowError where it holds what MessagePack cannot.
    """
    buffer = bytearray(_LENGTH.size)
    _encode_into(message, buffer, _LENGTH.size)
    _LENGTH.pack_into(buffer, 0, len(buffer) - _LENGTH.size)
    return buffer


class FrameReader:
    """Takes a stream apart into the messages that were sent, which are still encoded."""

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
