"""The log of invalidations as an interface, and the log that lives in the process (rule I1).

A log hands out positions: integers below 2**63 that only grow within one epoch. It knows, for each tag, the position
of its last invalidation, and a floor below which everything is invalid.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple, Protocol

REMEMBERED_TAGS = 100_000


class Answer(NamedTuple):
    """What the log knows, all of one moment."""

    epoch: str
    clock: int
    """Position of the last invalidation."""
    floor: int
    """Entries stamped below it are invalid."""
    ids: tuple[int, ...]
    """For each tag asked about, the position of its last invalidation; 0: not since the floor."""


class Appended(NamedTuple):
    """Where an invalidation stands in the log."""

    epoch: str
    id: int
    previous: int
    """The clock just before; a worker whose own position differs has missed something."""


class InvalidationLog(Protocol):
    """The clock that every stamp is read from. Methods raise `TierError` where the log is out of reach."""

    shared: bool
    """Whether other processes append to it, so that what a worker knows may lag."""

    async def ask(self, tags: Sequence[str]) -> Answer:
        """Epoch, clock, floor and the ids of `tags`, read at one moment."""

    async def append(self, tags: Sequence[str]) -> Appended:
        """Invalidate all that carries one of `tags`."""

    async def append_clear(self) -> Appended:
        """Invalidate everything: raise the floor."""


class ProcessLog:
    """The log of a single process, for a cache without Redis. Remembers the last 100,000 tags invalidated.

    Forgetting a tag raises the floor past its id (rule I4), so that what it had invalidated stays invalid.
    """

    shared = False

    def __init__(self, *, remembered: int = REMEMBERED_TAGS) -> None:
        self._remembered = remembered
        self._epoch = secrets.token_hex(8)
        self._clock = 0
        self._floor = 0
        self._ids: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<ProcessLog epoch={self._epoch} clock={self._clock} floor={self._floor} tags={len(self._ids)}>"

    async def ask(self, tags: Sequence[str]) -> Answer:
        """Answers at once."""
        return self.answer(tags)

    def answer(self, tags: Sequence[str] = ()) -> Answer:
        """What `ask` returns, without waiting."""
        return Answer(self._epoch, self._clock, self._floor, tuple(self._ids.get(tag, 0) for tag in tags))

    async def append(self, tags: Sequence[str]) -> Appended:
        """Done at once."""
        previous = self._clock
        self._clock += 1
        note(self._ids, tags, self._clock)
        while len(self._ids) > self._remembered:
            self._floor = max(self._floor, forget_oldest(self._ids))
        return Appended(self._epoch, self._clock, previous)

    async def append_clear(self) -> Appended:
        """Done at once."""
        previous = self._clock
        self._clock += 1
        self._floor = self._clock
        self._ids.clear()
        return Appended(self._epoch, self._clock, previous)


def note(ids: dict[str, int], tags: Sequence[str], id_: int) -> None:
    """Record in `ids` that each of `tags` was invalidated at `id_`; the latest noted stands last."""
    for tag in tags:
        known = ids.pop(tag, 0)
        ids[tag] = max(known, id_)


def forget_oldest(ids: dict[str, int]) -> int:
    """Drop the tag noted longest ago; returns its id, which must not be trusted to be absent from then on."""
    return ids.pop(next(iter(ids)))
