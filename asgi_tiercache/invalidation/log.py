"""The log of invalidations as an interface, and the log that lives in the process (rule I1).

A log hands out positions: integers below 2**63 that only grow within one epoch. They are times: milliseconds since
1970, then 20 bits that count within one. The log knows, for each tag, the position of its last invalidation, and a
floor below which everything is invalid.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from asgi_tiercache.types import Clock, SystemClock

REMEMBERED_TAGS = 100_000
REMEMBERED_RECORDS = 1_000
MAX_PATTERNS = 64
"""Patterns that can be told apart; one more, and everything is invalidated instead."""
_COUNTED = 20
"""Bits of a position that count within a millisecond."""


def position_at(seconds: float, count: int = 0) -> int:
    """The position of an invalidation at `seconds` since 1970, or how far one dated `seconds` ahead is dated ahead."""
    return (round(seconds * 1000) << _COUNTED) + count


@dataclass(frozen=True, slots=True)
class Purge:
    """What one invalidation asks for. One that names nothing is a tick: it only moves the log's clock on."""

    tags: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    """Globs that whole keys have to match."""
    everything: bool = False
    soft: bool = False
    """Make stale rather than invalid (I10)."""
    settle: float = 0.0
    """Seconds by which it is dated ahead: what is read at the origin until then counts as older."""

    def __bool__(self) -> bool:
        return bool(self.tags or self.patterns or self.everything)


class Answer(NamedTuple):
    """What the log knows, all of one moment."""

    epoch: str
    clock: int
    """Position of the last invalidation."""
    floor: int
    """Entries stamped below it are invalid."""
    ids: tuple[int, ...]
    """For each tag asked about, the position of its last hard invalidation; 0: not since the floor."""
    soft_floor: int = 0
    """Entries stamped below it are stale."""
    soft_ids: tuple[int, ...] = ()
    """The same as `ids` of soft invalidations; empty where there is none of any tag."""
    patterns: tuple[tuple[str, int, int], ...] = ()
    """Every pattern that counts, with the positions of its last hard and its last soft invalidation."""


class Appended(NamedTuple):
    """Where an invalidation stands in the log."""

    epoch: str
    id: int
    previous: int
    """The clock just before; a worker whose own position differs has missed something."""
    replicated: bool = True
    """False: a replica was to confirm it, and none did in time."""
    everything: bool = False
    """The log made a `clear()` of it: too many patterns."""


class Record(NamedTuple):
    """One invalidation as the log tells it to those who follow."""

    epoch: str
    id: int
    previous: int
    purge: Purge
    own: bool = False
    """Whether this process made it."""

    @property
    def counts_from(self) -> int:
        """The stamp from which on entries are newer than this: its id, unless it is dated ahead."""
        return self.id + position_at(self.purge.settle)


class InvalidationLog(Protocol):
    """The clock that every stamp is read from. Methods raise `TierError` where the log is out of reach."""

    shared: bool
    """Whether other processes append to it, so that what a worker knows may lag."""

    @property
    def out_of_reach(self) -> bool:
        """Whether it is known, without asking, that a question would not be answered now."""

    async def confirm(self) -> Answer:
        """Epoch, clock and floors; makes the control state where there is none, and replaces what cannot be trusted."""

    async def ask(self, tags: Sequence[str]) -> Answer:
        """Epoch, clock, floors, patterns and the ids of `tags`, read at one moment."""

    async def append(self, purge: Purge, *, replicate: bool = False) -> Appended:
        """Record an invalidation; with `replicate`, wait a moment for a replica to confirm it."""

    async def read(self, after: int) -> list[Record]:
        """The next records after a position, the oldest first; empty where there are none, or none any more."""

    async def follow(self, after: int) -> list[Record]:
        """What `read` returns, waiting a while for a first one."""


class ProcessLog:
    """The log of a single process, for a cache without Redis: of all its event loops, in threads, too.

    Remembers the last 100,000 tags invalidated.

    Forgetting a tag raises the floor past its id (rule I4), so that what it had invalidated stays invalid.
    """

    shared = False
    out_of_reach = False

    def __init__(self, *, clock: Clock | None = None, remembered: int = REMEMBERED_TAGS) -> None:
        self._time = (clock or SystemClock()).time
        self._changing = threading.RLock()
        self._remembered = remembered
        self._epoch = secrets.token_hex(8)
        self._clock = 0
        self._due = 0
        """The furthest that an invalidation was dated ahead."""
        self._floor = 0
        self._soft_floor = 0
        self._hard: dict[str, int] = {}
        self._soft: dict[str, int] = {}
        self._patterns: dict[str, tuple[int, int]] = {}
        self.records: deque[Record] = deque(maxlen=REMEMBERED_RECORDS)
        """The last 1,000 invalidations."""

    def __repr__(self) -> str:
        tags = len(self._hard) + len(self._soft)
        return f"<ProcessLog epoch={self._epoch} clock={self._clock} floor={self._floor} tags={tags}>"

    async def confirm(self) -> Answer:
        """Answers at once."""
        return self.answer()

    async def ask(self, tags: Sequence[str]) -> Answer:
        """Answers at once."""
        return self.answer(tags)

    def answer(self, tags: Sequence[str] = ()) -> Answer:
        """What `ask` returns, without waiting."""
        with self._changing:
            # The clock has to pass by itself what was dated ahead: the furthest at once, others within a second.
            now = position_at(self._time())
            if self._clock < self._due and (self._due <= now or now - self._clock >= position_at(1)):
                self._record(Purge())
            return Answer(
                self._epoch,
                self._clock,
                self._floor,
                tuple(self._hard.get(tag, 0) for tag in tags),
                self._soft_floor,
                tuple(self._soft.get(tag, 0) for tag in tags),
                tuple((glob, hard, soft) for glob, (hard, soft) in self._patterns.items()),
            )

    async def append(self, purge: Purge, *, replicate: bool = False) -> Appended:
        """Done at once; there is no replica to wait for."""
        with self._changing:
            if purge.patterns and len({*self._patterns, *purge.patterns}) > MAX_PATTERNS:
                purge = Purge(everything=True, settle=purge.settle)
            record = self._record(purge)
            counts_from = record.counts_from
            self._due = max(self._due, counts_from)
            if purge.everything and purge.soft:
                self._soft_floor = max(self._soft_floor, counts_from)
            elif purge.everything:
                self._floor = max(self._floor, counts_from)
                self._forget_what_the_floor_covers()
            note(self._soft if purge.soft else self._hard, purge.tags, counts_from)
            note_patterns(self._patterns, purge, counts_from)
            self._bound()
            return Appended(self._epoch, record.id, record.previous, everything=purge.everything)

    async def read(self, after: int) -> list[Record]:
        """Done at once."""
        return [record for record in tuple(self.records) if record.id > after]

    async def follow(self, after: int) -> list[Record]:
        """Nobody follows: what is appended here is applied here."""
        return await self.read(after)

    def _bound(self) -> None:
        while len(self._hard) > self._remembered:
            self._hard, forgotten = without_oldest(self._hard)
            self._floor = max(self._floor, forgotten)
        while len(self._soft) > self._remembered:
            self._soft, forgotten = without_oldest(self._soft)
            self._soft_floor = max(self._soft_floor, forgotten)

    def _forget_what_the_floor_covers(self) -> None:
        """All but what was dated further ahead; patterns too many to be told apart raise the floor instead."""
        floor = self._floor
        self._hard = {tag: id_ for tag, id_ in self._hard.items() if id_ > floor}
        self._patterns = {glob: ids for glob, ids in self._patterns.items() if max(ids) > floor}

    def _record(self, purge: Purge) -> Record:
        # Wall time, but never behind the last one, even if that clock is set back.
        record = Record(self._epoch, max(self._clock + 1, position_at(self._time())), self._clock, purge, own=True)
        self._clock = record.id
        self.records.append(record)
        return record


def note(ids: dict[str, int], names: Iterable[str], id_: int) -> None:
    """Record in `ids` that each of `names` was invalidated at `id_`.

    No name is absent for a moment: other threads judge by `ids` meanwhile.
    """
    for name in names:
        ids[name] = max(ids.get(name, 0), id_)


def note_patterns(ids: dict[str, tuple[int, int]], purge: Purge, id_: int) -> None:
    """Record in `ids` what `purge` says of patterns, hard and soft apart (I10)."""
    for glob in purge.patterns:
        hard, soft = ids.get(glob, (0, 0))
        ids[glob] = (hard, max(soft, id_)) if purge.soft else (max(hard, id_), soft)


def without_oldest(ids: dict[str, int]) -> tuple[dict[str, int], int]:
    """What is left of `ids` without the half that is lowest, and the highest of these: their absence no longer tells.

    By halves, so that what depends on that is not disturbed with each invalidation. A mapping of its own, since other
    threads may be looking into `ids`.
    """
    limit = sorted(ids.values())[(len(ids) - 1) // 2]
    return {name: id_ for name, id_ in ids.items() if id_ > limit}, limit
