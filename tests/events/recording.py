"""A purger that only writes down what it is asked for, and how often a cache has invalidated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asgi_tiercache import Receipt, TierCache
from asgi_tiercache.events import Events
from asgi_tiercache.invalidation.log import ProcessLog
from asgi_tiercache.outbox import Outboxes, PurgeOrder


class Recorder:
    """Stands where the cache invalidates.

    Args:
        journal: What else is to hear of each purge.
    """

    def __init__(self, journal: Callable[[str], object] = lambda _: None) -> None:
        self.purges: list[PurgeOrder] = []
        self.errors: list[BaseException] = []
        """Raised by the next purges, one each."""
        self.durable = True
        self._journal = journal

    async def purge(
        self, tags: Sequence[str], patterns: Sequence[str], *, kind: str, soft: bool, settle: float
    ) -> Receipt:
        """Write it down."""
        purge = PurgeOrder(tuple(tags), tuple(patterns), kind, soft, settle)
        self.purges.append(purge)
        self._journal(f"purge {' '.join((*tags, *patterns))}")
        if self.errors:
            raise self.errors.pop(0)
        position = len(self.purges) if self.durable else None
        return Receipt(durable=self.durable, position=position, names=purge.tags)


def events_of(recorder: Recorder, cache: TierCache | None = None) -> Events:
    """The events of a cache that purge through `recorder`."""
    cache = cache or TierCache()

    def waiter(name: str) -> object:
        raise AssertionError(f"{name} waits")

    return Events(cache.engine, Outboxes(recorder), namespace=cache.namespace, waiter=waiter)  # type: ignore[arg-type]


def purges_of(cache: TierCache) -> int:
    """How many invalidations stand in the log of a memory-only cache, those apart that requests make of their paths."""
    log = cache.engine.invalidation.log
    assert isinstance(log, ProcessLog)
    return sum(not all(tag.startswith("*at:") for tag in record.purge.tags) for record in log.records)
