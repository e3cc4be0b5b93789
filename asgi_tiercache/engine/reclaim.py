"""What a pattern has made invalid, deleted, to have its memory back before it expires. Nothing depends on it."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import NamedTuple

from asgi_tiercache.invalidation.patterns import beginning_of, matches_key
from asgi_tiercache.tiers.loops import OneTask, PerLoop
from asgi_tiercache.tiers.memory import Memory
from asgi_tiercache.tiers.stack import Stack
from asgi_tiercache.types import Clock, Stamp

MAX_WAITING = 8
"""Patterns that wait for their turn; further ones are left to expire."""
PAUSE = 0.05
"""Seconds between batches, of about 1,000 keys or of 100 that match: a few hundredths of a worker's time, less of
Redis's."""
BATCH = 1_000
"""Entries in memory that are looked at in one go."""


class _Order(NamedTuple):
    glob: str
    since: Stamp
    """Where it stands in the log; what was stamped before is worthless."""

    def matches(self, key: str) -> bool:
        """Whether it is about `key`.

        Two keys that differ in a `{` and a `%7B` share one place in Redis, so either may be the one that matches.
        """
        return matches_key(self.glob, key) or ("%7B" in key and matches_key(self.glob, key.replace("%7B", "{")))

    def outdates(self, stamp: Stamp) -> bool:
        """Whether an entry with `stamp` is invalid by it, or of another epoch."""
        return stamp.epoch != self.since.epoch or stamp.position < self.since.position


class Reclaimer:
    """Looks for what patterns have invalidated, one pattern after another, in a task of the loop that invalidated.

    Args:
        memory: L1.
        stack: The lower tiers, if there are any.
        clock: Its `sleep` paces the work.
    """

    def __init__(self, memory: Memory, stack: Stack | None, clock: Clock) -> None:
        self._memory = memory
        self._stack = stack
        self._clock = clock
        self._waiting: deque[_Order] = deque()
        self._tasks = PerLoop(OneTask, OneTask.aclose)

    def __repr__(self) -> str:
        return f"<Reclaimer {len(self._waiting)} patterns waiting>"

    def begin(self, glob: str, since: Stamp) -> None:
        """Delete, later, what matches `glob` and was stamped before `since`; returns at once."""
        if len(self._waiting) >= MAX_WAITING:
            return
        self._waiting.append(_Order(glob, since))
        with contextlib.suppress(RuntimeError):  # a loop that is ending: the next pattern takes this one along
            self._tasks.get().begin(self._work)

    async def aclose(self) -> None:
        """Give up what is left on the running loop."""
        self._waiting.clear()
        await self._tasks.aclose()

    async def _work(self) -> None:
        while self._waiting:
            order = self._waiting.popleft()
            await self._sweep_memory(order)
            await self._sweep_tiers(order)

    async def _sweep_memory(self, order: _Order) -> None:
        for bucket in self._memory.buckets():
            entries = bucket.entries()
            for first in range(0, len(entries), BATCH):
                if first:
                    await self._clock.sleep(PAUSE)
                for key, entry in entries[first : first + BATCH]:
                    if order.outdates(entry.stamp) and order.matches(key):
                        bucket.discard(key, entry)

    async def _sweep_tiers(self, order: _Order) -> None:
        if self._stack is None:
            return
        sweep = self._stack.sweep(beginning_of(order.glob), order.matches, order.outdates)
        async with contextlib.aclosing(sweep) as batches:
            async for _ in batches:
                await self._clock.sleep(PAUSE)
