"""A clock that another process sets: Python runs this at its start where PYTHONPATH names this directory.

$SOAK_CLOCK is a file of 56 bytes (soak_clock.py): which of two settings counts, and the settings. The wall clock of this
process is then what the setting makes of the monotonic clock, so it runs faster and jumps while processes run. Clocks that
only go forward, and the times that the kernel gives files, stay real; a file that is marked with the present moment
(os.utime) is marked with this clock's.
"""

import os

if _place := os.environ.get("SOAK_CLOCK"):
    import mmap
    import struct
    import time

    with open(_place, "rb") as _file:
        _held = mmap.mmap(_file.fileno(), 56, access=mmap.ACCESS_READ)
    _setting, _ticks, _utime = struct.Struct("<qqq").unpack_from, time.monotonic_ns, os.utime

    def _now_ns() -> int:
        begun, shown, rate = _setting(_held, 8 + 24 * _held[0])
        return shown + (_ticks() - begun) * rate

    def _marked(path, times=None, **given):  # type: ignore[no-untyped-def]
        if times is None and "ns" not in given:
            given["ns"] = (_now_ns(), _now_ns())
        return _utime(path, times, **given) if times is not None else _utime(path, **given)

    time.time_ns, time.time, os.utime = _now_ns, lambda: _now_ns() / 1e9, _marked
