"""What one worker knows of the log, and its judgement on entries (rules I2, I3 and I5).

Pure bookkeeping: no I/O, no clock. `shared/models` of the design calls the same thing `Worker`; names agree where
they can: position, horizon, floor, `at`.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Sequence
from typing import Protocol

from asgi_tiercache.invalidation.log import REMEMBERED_TAGS, Answer, Appended, forget_oldest, note
from asgi_tiercache.types import Entry, Stamp


class Verdict(enum.Enum):
    """What a worker can say of an entry by itself."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"
    """Something may have happened that this worker does not know of: ask the log."""


class Knowledge:
    """A map tag -> id of its last invalidation, complete from the horizon on.

    `version` is raised by everything that could turn a verdict; an entry that was found valid at the present version
    needs no second look.
    """

    def __init__(self, *, remembered: int = REMEMBERED_TAGS) -> None:
        self._remembered = remembered
        self._ids: dict[str, int] = {}
        self.epoch = f"unheard-of-{secrets.token_hex(8)}"
        """Until the log has been heard, one of this worker's own: nobody else's entries are of it."""
        self.position = 0
        self.horizon = 0
        self.floor = 0
        self.version = 0

    def __repr__(self) -> str:
        return (
            f"<Knowledge epoch={self.epoch} position={self.position} horizon={self.horizon} "
            f"floor={self.floor} tags={len(self._ids)}>"
        )

    def stamp(self) -> Stamp:
        """What a fill that begins now must be stamped with: this worker's own position, never a newer clock (I2)."""
        return Stamp(self.epoch, self.position)

    def judge(self, entry: Entry) -> Verdict:
        """Rule I3, by this worker's own map; `UNKNOWN` where the map does not reach back far enough (I5)."""
        if self._invalid(entry, self.epoch, self.floor, self._ids.get):
            return Verdict.INVALID
        return Verdict.UNKNOWN if entry.at < self.horizon else Verdict.VALID

    def start_anew(self, epoch: str, position: int) -> None:
        """Forget everything: at the start, and on learning of another epoch (I4)."""
        self._ids.clear()
        self.epoch = epoch
        self.position = self.horizon = position
        self.floor = 0
        self.version += 1

    def appended(self, result: Appended, tags: Sequence[str]) -> bool:
        """Apply an invalidation made by this worker. Returns False if that changed the epoch: L1 is then worthless.

        Not to be told of a reply to what was sent before the epoch changed: `is_late` says so.
        """
        same = result.epoch == self.epoch
        if not same:
            self.start_anew(result.epoch, result.id)
        elif result.id > self.position:
            self._advance(result.id, missed=result.previous != self.position)
        self._learn(tags, result.id)
        return same

    def cleared(self, result: Appended) -> bool:
        """Apply a `clear()` made by this worker. Returns False if that changed the epoch."""
        same = self.appended(result, ())
        self.floor = max(self.floor, result.id)
        return same

    def is_late(self, sent: str, epoch: str) -> bool:
        """Whether a reply that speaks of `epoch` was overtaken: this worker left the epoch `sent` meanwhile (I7)."""
        return self.epoch not in (sent, epoch)

    def answered(self, answer: Answer) -> bool:
        """Take over the log's clock. Returns False if the epoch is another one: L1 is then worthless.

        The position moves on only with the horizon: what lies between was not seen, so every older entry is asked
        about before it is used again. (The model's simpler variant of I8: a gap keeps L1, only the horizon rises.)
        """
        if answer.epoch != self.epoch:
            self.start_anew(answer.epoch, answer.clock)
            self.floor = answer.floor
            return False
        if answer.floor > self.floor:
            self.floor = answer.floor
            self.version += 1
        if answer.clock > self.position:
            self._advance(answer.clock, missed=True)
        return True

    def settle(self, entry: Entry, answer: Answer) -> bool:
        """Whether `entry` is valid by the log's answer about its tags; remembers what the answer said (I5).

        The ids count for later, the entry remembers up to where it was checked. Whether it may enter L1 is a question
        of its own: the horizon may have risen since the answer was given.
        """
        ids = dict(zip(entry.tags, answer.ids, strict=True))
        for tag, id_ in ids.items():
            if id_:
                self._learn((tag,), id_)
        if self._invalid(entry, answer.epoch, answer.floor, ids.get):
            return False
        entry.at = max(entry.at, answer.clock)
        return self.judge(entry) is not Verdict.INVALID

    @staticmethod
    def _invalid(entry: Entry, epoch: str, floor: int, id_of: _IdOf) -> bool:
        made_in, position = entry.stamp
        if made_in != epoch or position < floor:
            return True
        for tag in entry.tags:  # noqa: SIM110 - a generator would be felt in every hit of a lower tier
            if id_of(tag, 0) > position:
                return True
        return False

    def _advance(self, position: int, *, missed: bool) -> None:
        self.position = position
        if missed:
            self.horizon = position
        self.version += 1

    def _learn(self, tags: Sequence[str], id_: int) -> None:
        note(self._ids, tags, id_)
        while len(self._ids) > self._remembered:
            self.horizon = max(self.horizon, forget_oldest(self._ids))
        self.version += 1


class _IdOf(Protocol):
    """The `get` of a mapping tag -> id."""

    def __call__(self, tag: str, default: int, /) -> int: ...
