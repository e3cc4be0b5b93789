"""What every fuzz target has in common: a parser of ours, and a judge of what it makes of any bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """A parser and its oracle, for hypothesis, for atheris and for the corpus alike.

    Attributes:
        parse: Ours: takes bytes from outside, and returns what is made of them.
        judge: Takes the same bytes and what `parse` returned or raised; fails where that is wrong.
        raises: What `parse` is documented to raise; anything else is a defect.
        linear: Whether `parse` is to take linear time; False where what it hands on to is not ours.
    """

    parse: Callable[[bytes], Any]
    judge: Callable[[bytes, Any], None]
    raises: tuple[type[Exception], ...] = ()
    linear: bool = True

    def check(self, data: bytes) -> None:
        """Parse `data`, and have the outcome judged."""
        self.judge(data, self.outcome(data))

    def outcome(self, data: bytes) -> Any:
        """What `parse` makes of `data`; a documented exception is a value."""
        try:
            return self.parse(data)
        except self.raises as error:
            return error


class Source:
    """Draws values from bytes, so that a change of few bytes changes few values. At the end everything is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes, or fewer at the end."""
        taken = self._data[self._position : self._position + size]
        self._position += len(taken)
        return taken

    def integer(self, size: int = 1) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def choice(self, values: Sequence[T]) -> T:
        """One of `values`."""
        return values[self.integer() % len(values)]

    def piece(self) -> bytes:
        """The bytes up to the next 0xFF, which UTF-8 does not have, or to the end."""
        end = self._data.find(b"\xff", self._position)
        piece = self.take((len(self._data) if end < 0 else end) - self._position)
        self._position += end >= 0
        return piece

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


def lines(data: bytes, name: bytes) -> list[tuple[bytes, bytes]]:
    """Field lines called `name`, one for each line of `data`."""
    return [(name, value) for value in data.split(b"\n")]


def fields(data: bytes) -> list[tuple[bytes, bytes]]:
    """Field lines, each a line of `data` with a colon after its name."""
    parts = (line.partition(b":") for line in data.split(b"\n"))
    return [(name.lower(), value) for name, colon, value in parts if colon]
