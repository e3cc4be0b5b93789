"""What the workers of the soak share: the origin's data, and what has been promised of it, in one mapped file.

Times are nanoseconds of CLOCK_MONOTONIC, which on Linux is one clock for all processes. Every cell is an aligned 64-bit
integer, written by one process only, and a list is longer only once its record is complete.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path
from typing import NamedTuple

WORKERS = 4
FACTS = 320
GROUPS = 32
"""Of ten facts each; a fact `n` is in group `n % GROUPS` and is committed by worker `n % WORKERS`."""

VALUE, DIRECT, PAGE, TAGGED = KINDS = (0, 1, 2, 3)
"""What may be read of a fact: a function's value, one stored directly, a response, a value that only tags reach."""
EVERY_KIND = 0b1111

_CAPACITY = 500_000
_RECORD = 4
_STOP = 0
_READS = 1
_VERSIONS = _READS + WORKERS
_LENGTHS = _VERSIONS + FACTS
_LISTS = _LENGTHS + WORKERS
_CELLS = _LISTS + WORKERS * _CAPACITY * _RECORD


class Promise(NamedTuple):
    """A durable invalidation that has returned: what it binds all workers to show."""

    at: int
    """When it had returned."""
    kinds: int
    """Which kinds of reads it binds: bit n for kind n."""
    fact: int
    version: int


class Truth:
    """The mapped file.

    Args:
        path: Where it is; `create` makes it.
        mine: The number of the worker that writes.
    """

    def __init__(self, path: Path, mine: int = 0) -> None:
        self._mine = mine
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CELLS * 8)
        self._cells = memoryview(self._map).cast("q")

    @classmethod
    def create(cls, path: Path) -> Truth:
        """Make a file of zeros, which takes room only where something is written."""
        with path.open("wb") as file:
            file.truncate(_CELLS * 8)
        return cls(path)

    def close(self) -> None:
        """Let go of the file."""
        self._cells.release()
        self._map.close()

    # ---- the run ----

    @property
    def stopped(self) -> bool:
        """Whether everybody is to end."""
        return self._cells[_STOP] != 0

    def stop(self) -> None:
        """Let everybody end."""
        self._cells[_STOP] = 1

    def count_reads(self, number: int) -> None:
        """Say how many reads this worker has checked."""
        self._cells[_READS + self._mine] = number

    @property
    def reads(self) -> int:
        """How many all have checked."""
        return sum(self._cells[_READS : _READS + WORKERS])

    @property
    def all_read(self) -> bool:
        """Whether each has checked a read."""
        return all(self._cells[_READS : _READS + WORKERS])

    # ---- the origin ----

    def version(self, fact: int) -> int:
        """What the origin says of a fact, now."""
        return self._cells[_VERSIONS + fact]

    def commit(self, fact: int) -> None:
        """Change one of this worker's facts."""
        assert fact % WORKERS == self._mine
        self._cells[_VERSIONS + fact] += 1

    # ---- promises ----

    def promise(self, kinds: int, versions: dict[int, int]) -> None:
        """Say that a durable invalidation of these versions has returned here."""
        length = self._cells[_LENGTHS + self._mine]
        for fact, version in versions.items():
            if length >= _CAPACITY:
                raise RuntimeError("the soak runs longer than its list of promises is")
            start = self._start(self._mine, length)
            self._cells[start : start + _RECORD] = _packed(time.monotonic_ns(), kinds, fact, version)
            length += 1
            self._cells[_LENGTHS + self._mine] = length

    def length(self, worker: int) -> int:
        """How many promises a worker has made."""
        return self._cells[_LENGTHS + worker]

    def promised(self, worker: int, index: int) -> Promise:
        """One of them."""
        start = self._start(worker, index)
        return Promise(*self._cells[start : start + _RECORD])

    @staticmethod
    def _start(worker: int, index: int) -> int:
        return _LISTS + (worker * _CAPACITY + index) * _RECORD


def _packed(*numbers: int) -> memoryview:
    packed = memoryview(bytearray(8 * len(numbers))).cast("q")
    for index, number in enumerate(numbers):
        packed[index] = number
    return packed


class Binding:
    """The versions below which no read may fall that begins at a given time.

    Args:
        truth: Where the promises are.
        lag: Nanoseconds after which a promise binds every worker.
    """

    def __init__(self, truth: Truth, lag: int) -> None:
        self._truth = truth
        self._lag = lag
        self._taken = [0] * WORKERS
        self.versions = [[0] * FACTS for _ in KINDS]
        self.since = [[0] * FACTS for _ in KINDS]
        """When what is in `versions` was promised."""

    def advance(self, now: int) -> None:
        """Take over every promise that binds by `now`."""
        for worker in range(WORKERS):
            taken, length = self._taken[worker], self._truth.length(worker)
            while taken < length:
                promise = self._truth.promised(worker, taken)
                if promise.at + self._lag > now:
                    break
                self.bind(promise.kinds, promise.fact, promise.version, promise.at)
                taken += 1
            self._taken[worker] = taken

    def bind(self, kinds: int, fact: int, version: int, at: int) -> None:
        """From now on, `fact` must not be older than `version`."""
        for kind in KINDS:
            if kinds >> kind & 1 and version > self.versions[kind][fact]:
                self.versions[kind][fact] = version
                self.since[kind][fact] = at


def group_of(fact: int) -> int:
    """The group of a fact."""
    return fact % GROUPS


def members(group: int) -> list[int]:
    """The facts of a group."""
    return list(range(group, FACTS, GROUPS))
