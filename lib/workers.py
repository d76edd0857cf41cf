"""Shares tasks between several processes.

Plain fork and pipes: importing multiprocessing costs more than reading a small log. A worker's answer is marshalled,
which is faster than JSON and never leaves the program.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

# Below this much a second process costs more than it saves.
WORTHWHILE = 8 << 20

# What a pipe holds on every system, in numbers of tasks of four bytes.
_AT_ONCE = 4096

Work = Callable[[Iterable[str], Callable[[int], None]], Any]


class Progress:
    """Learns how far long work is: how much is to be done, and each part that is done. This one shows nothing."""

    wants_total = False  # whether it is worth while to work out how much there is

    def expect(self, size: int) -> None:
        """So much more is to be done."""

    def __call__(self, size: int) -> None:
        """So much more is done."""

    def part(self, number: int, parts: int) -> None:
        """Part `number` of equal parts is done; the first is number 1."""
        if number == 1:
            self.expect(parts)
        self(1)


SILENT = Progress()


class WorkerDied(RuntimeError):
    """A worker ended without its answer."""


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worthwhile(size: int) -> int:
    """How many processes are worth while for so many bytes."""
    return processors() if size >= WORTHWHILE else 1


def answers(work: Work, sizes: Mapping[str, int], jobs: int, progress: Callable[[int], None]) -> list[Any]:
    """What `work(tasks, progress)` returns in each process; together they get every task once. Raises WorkerDied.

    `sizes`: the tasks and their bytes. `progress` is called with the size of each stretch that was read.
    """
    count = min(jobs, len(sizes))
    if count <= 1:
        return [work(list(sizes), progress)]
    # The largest first, so that the processes end together.
    return _fork(work, sorted(sizes, key=lambda task: (-sizes[task], task)), count, progress)


def _queue(numbers: Iterable[int]) -> int:
    """A pipe from which processes take numbers, each once."""
    queue, queue_in = os.pipe()
    os.write(queue_in, b"".join(number.to_bytes(4, "big") for number in numbers))
    os.close(queue_in)
    return queue


def _fork(work: Work, tasks: list[str], count: int, progress: Callable[[int], None]) -> list[Any]:
    import selectors  # few commands have work for several processes

    selector = selectors.DefaultSelector()
    step = -(-len(tasks) // _AT_ONCE)
    queue = _queue(range(0, len(tasks), step))
    children = []
    for number in range(count):
        results, result_in = os.pipe()
        notes, note_in = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for key in list(selector.get_map().values()):
                    os.close(key.fd)
                os.close(results)
                os.close(notes)
                _serve(work, _take(queue, tasks, step), result_in, note_in)
                status = 0
            finally:
                os._exit(status)
        os.close(result_in)
        os.close(note_in)
        children.append(child)
        selector.register(results, selectors.EVENT_READ, number)
        selector.register(notes, selectors.EVENT_READ, None)
    os.close(queue)
    received: list[list[bytes]] = [[] for _ in children]
    while selector.get_map():
        for key, _ in selector.select():
            data = os.read(key.fd, 1 << 20)
            if not data:
                selector.unregister(key.fd)
                os.close(key.fd)
            elif key.data is None:
                progress(sum(int(note) for note in data.split()))
            else:
                received[key.data].append(data)
    for child in children:
        _, status = os.waitpid(child, 0)
        if status:
            raise WorkerDied("a worker process died; run again with --jobs 1 to see why")
    return [marshal.loads(b"".join(parts)) for parts in received]


def _take(queue: int, tasks: list[str], step: int) -> Iterator[str]:
    """The tasks that this process takes: each read gets the next number from the shared pipe."""
    while number := os.read(queue, 4):
        at = int.from_bytes(number, "big")
        yield from tasks[at : at + step]


def _serve(work: Work, share: Iterable[str], result_in: int, note_in: int) -> None:
    def on_bytes(size: int) -> None:
        os.write(note_in, b"%9d\n" % size)

    data = memoryview(marshal.dumps(work(share, on_bytes)))
    os.close(note_in)
    while data:
        data = data[os.write(result_in, data) :]
