"""The clock of the soak: set here, read by every process of ours (clock/sitecustomize.py)."""

from __future__ import annotations

import mmap
import pathlib
import struct
import time

HOUR = 3_600_000
SHIM = pathlib.Path(__file__).resolve().parent / "clock"


class Clock:
    """A wall clock that runs `rate` times as fast as the real one, and jumps when told."""

    def __init__(self, place: pathlib.Path, start_ms: int, rate: int) -> None:
        self.place, self.rate = place, rate
        place.write_bytes(bytes(56))
        with place.open("r+b") as file:
            self.held = mmap.mmap(file.fileno(), 56)
        self.jumped = 0.0  # when it was set last, on the clock that only goes forward
        self._set(start_ms * 1_000_000)

    def _set(self, shown: int) -> None:
        """The other setting is written first, then it counts: nobody ever reads half of one."""
        other = 1 - self.held[0]
        struct.pack_into("<qqq", self.held, 8 + 24 * other, time.monotonic_ns(), shown, self.rate)
        self.held[0] = other

    def _now_ns(self) -> int:
        begun, shown, rate = struct.unpack_from("<qqq", self.held, 8 + 24 * self.held[0])
        return int(shown + (time.monotonic_ns() - begun) * rate)

    def now(self) -> int:
        """Milliseconds since 1970."""
        return self._now_ns() // 1_000_000

    def jump(self, ms: int) -> None:
        """Set the clock forward, or back."""
        self._set(self._now_ns() + ms * 1_000_000)
        self.jumped = time.monotonic()

    def environment(self, shim: pathlib.Path = SHIM) -> dict[str, str]:
        """What makes a process see this clock."""
        return {"SOAK_CLOCK": str(self.place), "PYTHONPATH": str(shim)}
