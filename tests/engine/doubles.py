"""Caches over scripted tiers and logs, as the tests of the engine and of its edges use them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asgi_tiercache.invalidation.log import InvalidationLog
from asgi_tiercache.testing import ScriptedTier, TickingClock
from asgi_tiercache.tiercache import TierCache
from tests.invalidation.scripted import ScriptedLog


@dataclass
class Fleet:
    """Several caches over one tier, one log and one clock, like the workers of a service."""

    clock: TickingClock = field(default_factory=TickingClock)
    log: InvalidationLog = field(default_factory=ScriptedLog)
    tier: ScriptedTier = field(init=False)

    def __post_init__(self) -> None:
        self.tier = ScriptedTier(clock=self.clock)

    @property
    def scripted(self) -> ScriptedLog:
        assert isinstance(self.log, ScriptedLog)
        return self.log

    def worker(self, **options: Any) -> TierCache:
        """A cache that has nothing in memory yet."""
        return TierCache(l2=self.tier, log=self.log, clock=self.clock, **options)


def alone(**options: Any) -> tuple[TierCache, TickingClock]:
    """A memory-only cache and its clock."""
    clock = TickingClock()
    return TierCache(clock=clock, **options), clock


async def written(cache: TierCache) -> None:
    """Return when what `cache` has queued for its lower tier is there."""
    assert cache.engine.stack is not None
    await cache.engine.stack.flush()


class Paused:
    """A loader that counts its calls, and returns once it is told to."""

    def __init__(self, *values: object) -> None:
        self._values: Sequence[object] = values or ("value",)
        self.calls = 0
        self.go = asyncio.Event()

    async def __call__(self) -> object:
        value = self._values[min(self.calls, len(self._values) - 1)]
        self.calls += 1
        await self.go.wait()
        if isinstance(value, BaseException):
            raise value
        return value
