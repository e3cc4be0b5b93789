"""Faults that are planted into a worker of the soak, to see whether the soak notices them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from asgi_tiercache import TierCache
from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.entries import Place
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.invalidation.knowledge import Knowledge, Verdict
from asgi_tiercache.invalidation.log import Record
from asgi_tiercache.invalidation.service import Invalidation
from asgi_tiercache.types import Entry, Stamp


class StampsAtStore(Engine):
    """I2: the stamp says what was known at the end."""

    def keep(self, place: Place, key: str, entry: Entry, **options: Any) -> None:
        entry.stamp = self.invalidation.stamp()
        super().keep(place, key, entry, **options)


class NeverJudges(Engine):
    """I3: L1 is not judged on a hit."""

    def recall(self, bucket: Any, key: str, canonical: bytes, now: float) -> Entry | None:
        entry: Entry | None = bucket.get(key, now)
        return entry


class ForgetfulFill(Fill):
    """I2: a nested value's tags are not handed on."""

    def inherit(self, tags: Iterable[str], stamp: Stamp, *, fresh: bool) -> None:
        pass


class InheritsNothing(Engine):
    def begin(self, key: str, asked: bytes = b"") -> Fill:
        return ForgetfulFill(self.invalidation.stamp(), key=key, asked=asked)


class HearsNothing(Invalidation):
    """I5: what others have invalidated is passed over; the position moves on, and the lease with it."""

    def _apply(self, records: Sequence[Record]) -> None:
        if records:
            self.knowledge.position = max(self.knowledge.position, records[-1].id)


class HoldsNothing(Invalidation):
    """I9: what did not reach the log is only queued."""

    def judge_here(self, entry: Entry) -> Verdict:
        return self.knowledge.judge(entry)


class IgnoresEpochs(Knowledge):
    """I4: entries of another epoch count."""

    @staticmethod
    def _verdict(entry: Entry, epoch: str, floor: int, soft_floor: int, hard: Any, soft: Any) -> Verdict:
        entry.stamp = Stamp(epoch, entry.stamp.position)
        return Knowledge._verdict(entry, epoch, floor, soft_floor, hard, soft)


def _engine(kind: type[Engine]) -> Callable[[TierCache], None]:
    def plant(cache: TierCache) -> None:
        cache.engine.__class__ = kind

    return plant


def _deaf(cache: TierCache) -> None:
    invalidation = cache.engine.invalidation
    invalidation.__class__ = HearsNothing
    invalidation.tail._apply = invalidation._apply


def _holds_nothing(cache: TierCache) -> None:
    cache.engine.invalidation.__class__ = HoldsNothing


def _ignores_epochs(cache: TierCache) -> None:
    cache.engine.knowledge.__class__ = IgnoresEpochs
    cache.engine.invalidation._drop_memory = lambda: None


PLANTS: dict[str, Callable[[TierCache], None]] = {
    "none": lambda cache: None,
    "stamp-at-store": _engine(StampsAtStore),
    "never-judges": _engine(NeverJudges),
    "inherits-nothing": _engine(InheritsNothing),
    "deaf": _deaf,
    "holds-nothing": _holds_nothing,
    "ignores-epochs": _ignores_epochs,
}
