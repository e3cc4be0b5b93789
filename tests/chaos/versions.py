"""What the apps' database would hold: a version of each item, in one mapped file that all processes read."""

from __future__ import annotations

import mmap
from pathlib import Path

from tests.chaos.bodies import ITEMS


class Versions:
    """The mapped file; aligned 64-bit integers, written by the driver alone.

    Args:
        path: Where it is.
        create: Make it, full of zeros.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(8 * ITEMS))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * ITEMS)
        self._cells = memoryview(self._map).cast("q")

    def __getitem__(self, item: int) -> int:
        return self._cells[item]

    def commit(self, item: int) -> int:
        """Change an item; its new version."""
        self._cells[item] += 1
        return self._cells[item]
