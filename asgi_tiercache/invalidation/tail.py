"""The tail: follows the log, so that other workers' invalidations are known here as soon as Redis can say so (I5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.knowledge import Knowledge
from asgi_tiercache.invalidation.log import InvalidationLog, Record
from asgi_tiercache.tiers.loops import end
from asgi_tiercache.types import Clock

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds after a failure until the log is followed again."""
AT_ONCE = 0.02
"""Seconds below which an empty reply was none to a question that waits."""


class Tail:
    """A task that follows the log, on one event loop at a time.

    Nothing depends on it but speed: what it misses, the lease's questions find (I7).

    Args:
        log: What is followed.
        knowledge: Tells from where on.
        clock: Measures pauses.
        apply: Takes what is read; of the epoch that the worker was in when it asked.
        hear: Asks the log where it stands; whether it has answered.
    """

    def __init__(
        self,
        log: InvalidationLog,
        knowledge: Knowledge,
        clock: Clock,
        apply: Callable[[Sequence[Record]], None],
        hear: Callable[[], Awaitable[bool]],
    ) -> None:
        self._log = log
        self._knowledge = knowledge
        self._clock = clock
        self._apply = apply
        self._hear = hear
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None

    def __repr__(self) -> str:
        return f"<Tail {'running' if self.running else 'not running'}>"

    def start(self) -> None:
        """Follow on the running loop, if nobody follows yet."""
        if self._log.shared and not self.running:
            loop = asyncio.get_running_loop()
            self._running = loop, loop.create_task(self._follow(), name="tail of the invalidation log")

    async def aclose(self) -> None:
        """End what runs on this loop."""
        if self._running is not None and self._running[0] is asyncio.get_running_loop():
            _, task = self._running
            self._running = None
            await end(task)

    @property
    def running(self) -> bool:
        """Whether the log is being followed, on whichever loop."""
        return self._running is not None and not self._running[0].is_closed() and not self._running[1].done()

    async def _follow(self) -> None:
        me, pause = asyncio.current_task(), FIRST_PAUSE
        while me is not None and not me.cancelling():  # see `end`: a loop that ends cancels only once
            epoch, asked = self._knowledge.epoch, self._clock.monotonic()
            try:
                records = await self._next()
            except TierError:
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            if epoch != self._knowledge.epoch:
                continue  # void: a reply to what was asked before the worker changed its epoch (I7)
            if records:
                self._apply(records)
            elif self._clock.monotonic() - asked < AT_ONCE and not me.cancelling():
                await self._clock.sleep(FIRST_PAUSE)  # nothing readable, yet something that ends the wait

    async def _next(self) -> list[Record]:
        """The next records; none at first: what came before this worker is no news to it."""
        if self._knowledge.heard_of:
            return await self._log.follow(self._knowledge.position)
        if not await self._hear():
            raise TierError("the log has not been heard of yet")
        return []
