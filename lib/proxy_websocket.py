"""WebSocket frames as they pass a tunnel (RFC 6455) -> the JSON messages in them. Nothing is changed or held back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

_MOST = 8 << 20
_TEXT, _CONTINUED = 1, 0


class Frames:
    """One direction of a tunnel."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.message = bytearray()
        self.reading = False  # inside a text message
        self.skip = 0  # bytes of a frame that is not looked at
        self.lost = False  # a frame made no sense: nothing more is looked at

    def feed(self, data: bytes) -> Iterator[Any]:
        """The messages that are whole by now. Raises nothing."""
        if self.lost:
            return
        self.buffer += data
        while True:
            if self.skip:
                gone = min(self.skip, len(self.buffer))
                del self.buffer[:gone]
                self.skip -= gone
                if self.skip:
                    return
            frame = self._head()
            if frame is None:
                return
            yield from self._frame(*frame)

    def _head(self) -> tuple[int, bool, bool, int, bytes, int] | None:
        """Opcode, last, plain, size of the head, mask and length of the frame at hand; None where it is not whole yet."""
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        length, at = second & 127, 2
        if length >= 126:
            wide = 2 if length == 126 else 8
            if len(buffer) < at + wide:
                return None
            length = int.from_bytes(buffer[at : at + wide], "big")
            at += wide
        mask = b""
        if second & 128:
            if len(buffer) < at + 4:
                return None
            mask = bytes(buffer[at : at + 4])
            at += 4
        if length >> 62:
            self.lost = True
            self.buffer.clear()
            return None
        opcode = first & 15
        if opcode <= _TEXT and length + len(self.message) <= _MOST and len(buffer) < at + length:
            return None  # a text is looked at as a whole
        return opcode, bool(first & 128), not first & 64, at, mask, length

    def _frame(self, opcode: int, last: bool, plain: bool, at: int, mask: bytes, length: int) -> Iterator[Any]:
        kept = opcode == _TEXT or (opcode == _CONTINUED and self.reading)
        if not kept or length + len(self.message) > _MOST or not plain:
            del self.buffer[:at]
            self.skip = length
            if opcode <= 2:
                self.message.clear()
                self.reading = False
            return
        content = bytes(self.buffer[at : at + length])
        del self.buffer[: at + length]
        if mask and content:
            # One operation on two long numbers, instead of one for each byte.
            key = (mask * (len(content) // 4 + 1))[: len(content)]
            content = (int.from_bytes(content, "big") ^ int.from_bytes(key, "big")).to_bytes(len(content), "big")
        self.message += content
        self.reading = not last
        if last:
            try:
                value = orjson.loads(self.message)
            except ValueError:
                value = None
            self.message.clear()
            if value is not None:
                yield value
