"""Refresh-ahead: what will probably be asked for again is renewed before that, by one task of each event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

from asgi_tiercache.ageing import Rhythms
from asgi_tiercache.tiers.loops import OneTask, PerLoop, first
from asgi_tiercache.types import Clock

AT_ONCE = 16
"""Keys that are looked at between two breaths of the event loop."""

Renew = Callable[[], object]


class Ahead:
    """Watches keys, and renews those whose rhythm asks for it when their time has come.

    The task sleeps until the next key is due, and ends when none is watched: where no policy has `refresh_ahead` there
    is none.

    Args:
        clock: Says when it is time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watches = PerLoop(lambda: _Watch(clock), _Watch.aclose)

    def __repr__(self) -> str:
        return f"<Ahead by {self._clock!r}>"

    def seen(self, key: str) -> None:
        """`key` was asked for; called on every hit, where a policy wants it."""
        try:
            self._watches.get().rhythms.seen(key, self._clock.monotonic())
        except RuntimeError:
            return  # this loop is ending

    def watch(self, key: str, at: float, ttl: float, renew: Renew) -> None:
        """From `at` on `renew` is called, if `key`, which was stored for `ttl`, will be asked for again then.

        It is called without the context of any request: in it there is nobody's identity.
        """
        try:
            self._watches.get().watch(key, at, ttl, renew)
        except RuntimeError:
            return

    async def aclose(self) -> None:
        """Forget what the running loop watches, and end its task."""
        await self._watches.aclose()


class _Watch:
    """Of one event loop."""

    def __init__(self, clock: Clock) -> None:
        self.rhythms: Rhythms[Renew] = Rhythms()
        self._clock = clock
        self._task = OneTask()
        self._sooner: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def watch(self, key: str, at: float, ttl: float, renew: Renew) -> None:
        before = self.rhythms.next_at()
        self.rhythms.watch(key, at, ttl, renew)
        now = self.rhythms.next_at()
        if before is None:
            contextvars.Context().run(self._task.begin, self._work)
        if now != before and not self._sooner.done():
            self._sooner.set_result(None)

    async def aclose(self) -> None:
        self.rhythms.clear()
        await self._task.aclose()

    async def _work(self) -> None:
        while (at := self.rhythms.next_at()) is not None:
            now = self._clock.monotonic()
            if now < at:
                self._sooner = asyncio.get_running_loop().create_future()
                await first(self._sooner, self._clock, at - now)
            for due in self.rhythms.due(self._clock.monotonic(), AT_ONCE):
                due.what()
            await asyncio.sleep(0)
