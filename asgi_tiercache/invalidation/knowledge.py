"""What one worker knows of the log, and its judgement on entries (rules I2, I3, I5 and I10).

Pure bookkeeping: no I/O, no clock.
"""

from __future__ import annotations

import enum
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from asgi_tiercache.invalidation.log import (
    MAX_PATTERNS,
    REMEMBERED_TAGS,
    Answer,
    Appended,
    Purge,
    Record,
    note,
    note_patterns,
    without_oldest,
)
from asgi_tiercache.invalidation.patterns import matches
from asgi_tiercache.types import Entry, Stamp


class Verdict(enum.Enum):
    """What can be said of an entry."""

    FRESH = "fresh"
    STALE = "stale"
    """Invalidated softly: good enough to be served while it is made anew."""
    INVALID = "invalid"
    UNKNOWN = "unknown"
    """Something may have happened that this worker does not know of: ask the log."""


class Knowledge:
    """A map tag -> ids of its last invalidations, hard and soft, complete from the horizon on.

    `version` is raised by everything that could turn a verdict; an entry that was found fresh at the present version
    needs no second look. What is forgotten goes by halves of the map. An entry that is used in between has been checked
    since (see `judge`), so that only one that was not asks the log again: other tags, however many, cost it nothing.

    Several event loops in threads may use one: what changes it holds a lock. `judge` holds none; that it reads in one
    order what is written in the other (see `start_anew` and `_bound`) keeps it from mixing what was and what is.
    """

    def __init__(self, *, remembered: int = REMEMBERED_TAGS) -> None:
        self.remembered = remembered
        """Tags that the map holds at the most, hard and soft ones each."""
        self._changing = threading.RLock()
        self._hard: dict[str, int] = {}
        self._soft: dict[str, int] = {}
        self._patterns: dict[str, tuple[int, int]] = {}
        self.epoch = f"unheard-of-{secrets.token_hex(8)}"
        """Until the log has been heard, one of this worker's own: nobody else's entries are of it."""
        self.heard_of = False
        """Whether the log has been heard."""
        self.position = 0
        self.horizon = 0
        self.floor = 0
        self.soft_floor = 0
        self.version = 0

    def __repr__(self) -> str:
        return (
            f"<Knowledge epoch={self.epoch} position={self.position} horizon={self.horizon} "
            f"floor={self.floor} tags={len(self._hard) + len(self._soft)}>"
        )

    def stamp(self) -> Stamp:
        """What a fill that begins now must be stamped with: this worker's own position, never a newer clock (I2)."""
        return Stamp(self.epoch, self.position)

    def judge(self, entry: Entry) -> Verdict:
        """Rule I3, by this worker's own map; `UNKNOWN` where the map does not reach back far enough (I5).

        An entry found fresh was checked up to the present position: that is remembered. Not so of a stale one, whose
        soft id may be forgotten later.
        """
        position = self.position  # before judging: another thread may move it on
        hard, soft = self._hard.get, self._soft.get if self._soft else None
        floor, soft_floor = self.floor, self.soft_floor
        patterns = tuple(self._patterns.items()) if self._patterns else ()
        verdict = self._verdict(entry, self.epoch, floor, soft_floor, hard, soft)
        if verdict is Verdict.INVALID or (patterns and _matches(entry, patterns, soft=False)):
            return Verdict.INVALID
        if entry.at < self.horizon or entry.stamp.position > position:
            return Verdict.UNKNOWN
        if verdict is Verdict.STALE or (patterns and _matches(entry, patterns, soft=True)):
            return Verdict.STALE
        entry.at = max(entry.at, position)
        return Verdict.FRESH

    def look_again(self) -> None:
        """Let every entry be judged anew."""
        with self._changing:
            self.version += 1

    def start_anew(self, epoch: str, position: int) -> None:
        """Forget everything: at the start, and on learning of another epoch (I4)."""
        with self._changing:
            # The epoch before what it makes worthless: whoever finds that gone takes no entry of the old epoch.
            self.horizon = self.position = position
            self.epoch = epoch
            self.heard_of = True
            self.floor = self.soft_floor = 0
            self._hard, self._soft, self._patterns = {}, {}, {}
            self.version += 1

    def apply(self, record: Record) -> bool:
        """Apply the next record of the log. Returns False if that changed the epoch: L1 is then worthless.

        One whose predecessor was not applied tells of a gap (I8): the horizon rises, so that every older entry is asked
        about before it is used again.
        """
        with self._changing:
            same = record.epoch == self.epoch
            if not same:
                self.start_anew(record.epoch, record.id)
            elif record.id <= self.position:
                return True
            self._note(record.purge, record.counts_from)
            if same:
                self._advance(record.id, missed=record.previous != self.position)
            return same

    def appended(self, result: Appended, purge: Purge) -> bool:
        """Take note of an invalidation made by this worker. Returns False if that changed the epoch.

        It holds here at once; the position follows only where nothing came between, else the log has to be read.
        Not to be told of a reply to what was sent before the epoch changed: `is_late` says so.
        """
        if result.everything and not purge.everything:
            purge = Purge(everything=True, settle=purge.settle)
        record = Record(result.epoch, result.id, result.previous, purge)
        with self._changing:
            if record.epoch != self.epoch or record.previous == self.position:
                return self.apply(record)
            self._note(purge, record.counts_from)
            self.version += 1
            return True

    def is_late(self, sent: str, epoch: str) -> bool:
        """Whether a reply that speaks of `epoch` was overtaken: this worker left the epoch `sent` meanwhile (I7)."""
        return self.epoch not in (sent, epoch)

    def heard(self, answer: Answer) -> bool:
        """Take over epoch and floors of an answer. Returns False if the epoch is another one: L1 is then worthless.

        The position stays: what lies between it and the answer's clock has not been seen yet.
        """
        with self._changing:
            same = answer.epoch == self.epoch
            if not same:
                self.start_anew(answer.epoch, answer.clock)
            if answer.floor > self.floor or answer.soft_floor > self.soft_floor:
                self.floor = max(self.floor, answer.floor)
                self.soft_floor = max(self.soft_floor, answer.soft_floor)
                self.version += 1
            return same

    def skip_to(self, clock: int) -> None:
        """Give up what lies between here and `clock`, which the log no longer tells: a gap (I8)."""
        with self._changing:
            if clock > self.position:
                self._advance(clock, missed=True)

    def learn(self, entry: Entry, answer: Answer) -> Verdict:
        """What an answer about the tags of `entry` says of it (I5), FRESH, STALE or INVALID.

        The ids count for later, and an entry found fresh remembers up to where it was checked. Whether it may enter L1
        is a question of its own: the horizon may have risen since the answer was given.
        """
        hard = dict(zip(entry.tags, answer.ids, strict=True))
        soft = dict(zip(entry.tags, answer.soft_ids, strict=True)) if answer.soft_ids else {}
        patterns = [(glob, ids) for glob, *ids in answer.patterns]
        self._take_over(hard, soft, patterns)
        theirs_says = self._verdict(
            entry, answer.epoch, answer.floor, answer.soft_floor, hard.get, soft.get if soft else None
        )
        ahead = entry.stamp.position > answer.clock  # of the log itself: nothing could ever invalidate it
        if ahead or theirs_says is Verdict.INVALID or _matches(entry, patterns, soft=False):
            return Verdict.INVALID
        if _matches(entry, patterns, soft=True):
            theirs_says = Verdict.STALE
        if theirs_says is Verdict.FRESH:  # of a stale one the soft id may be forgotten here: it has to be asked about
            entry.at = max(entry.at, answer.clock)
        mine_says = self.judge(entry)
        return theirs_says if mine_says is Verdict.UNKNOWN else mine_says

    @staticmethod
    def _verdict(entry: Entry, epoch: str, floor: int, soft_floor: int, hard: _IdOf, soft: _IdOf | None) -> Verdict:
        """Rule I3 without the patterns; `soft` is None where nothing was invalidated softly."""
        made_in, position = entry.stamp
        if made_in != epoch or position < floor:
            return Verdict.INVALID
        for tag in entry.tags:  # a loop: generators would be felt in every hit of a lower tier
            if hard(tag, 0) > position:
                return Verdict.INVALID
        if position < soft_floor:
            return Verdict.STALE
        if soft is not None:
            for tag in entry.tags:
                if soft(tag, 0) > position:
                    return Verdict.STALE
        return Verdict.FRESH

    def _take_over(self, hard: Mapping[str, int], soft: Mapping[str, int], patterns: Iterable[_Pattern]) -> None:
        with self._changing:
            for mine, theirs in ((self._hard, hard), (self._soft, soft)):
                for tag, id_ in theirs.items():
                    if id_:
                        note(mine, (tag,), id_)
            for glob, (hard_id, soft_id) in patterns:
                known_hard, known_soft = self._patterns.get(glob, (0, 0))
                self._patterns[glob] = max(known_hard, hard_id), max(known_soft, soft_id)
            self._bound()
            self.version += 1

    def _note(self, purge: Purge, id_: int) -> None:
        note(self._soft if purge.soft else self._hard, purge.tags, id_)
        note_patterns(self._patterns, purge, id_)
        if purge.everything and purge.soft:
            self.soft_floor = max(self.soft_floor, id_)
        elif purge.everything:
            self.floor = max(self.floor, id_)
        self._bound()

    def _bound(self) -> None:
        """Forget the oldest where there is too much; what is forgotten is unknown, and is so before it is forgotten."""
        while len(self._hard) > self.remembered:
            left, forgotten = without_oldest(self._hard)
            self.horizon = max(self.horizon, forgotten)
            self._hard = left
        while len(self._soft) > self.remembered:
            left, forgotten = without_oldest(self._soft)
            self.horizon = max(self.horizon, forgotten)
            self._soft = left
        while len(self._patterns) > MAX_PATTERNS:
            oldest = min(self._patterns, key=lambda glob: max(self._patterns[glob]))
            self.horizon = max(self.horizon, *self._patterns[oldest])
            del self._patterns[oldest]

    def _advance(self, position: int, *, missed: bool) -> None:
        if missed:  # before the position: an entry judged meanwhile must not count as checked past the gap
            self.horizon = max(self.horizon, position)
        self.position = position
        self.version += 1


class _IdOf(Protocol):
    """The `get` of a mapping tag -> id."""

    def __call__(self, tag: str, default: int, /) -> int: ...


_Pattern = tuple[str, Sequence[int]]
"""A glob with the positions of its last hard and its last soft invalidation."""


def _matches(entry: Entry, patterns: Sequence[_Pattern], *, soft: bool) -> bool:
    """Whether a pattern that was invalidated after the entry's stamp matches it."""
    position = entry.stamp.position
    return any(ids[soft] > position and matches(glob, entry.tags) for glob, ids in patterns)
