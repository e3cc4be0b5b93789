"""Who wants to hear of invalidations: to purge a CDN, say (`cache.on_invalidate`)."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from typing import TypeAlias

from asgi_tiercache.invalidation.log import Purge
from asgi_tiercache.signals import CallbackFailed, Signals
from asgi_tiercache.tiers.loops import end

logger = logging.getLogger("asgi_tiercache")

MAX_WAITING = 1_000
"""Invalidations that wait for slow callbacks; one more, and the oldest is dropped, logged and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """An invalidation that stands in the log, as callbacks of `cache.on_invalidate` are told of it."""

    tags: tuple[str, ...]
    keys: tuple[str, ...]
    """As they stand in Redis, namespace included."""
    paths: tuple[str, ...]
    """Percent-escaped, as in keys."""
    routes: tuple[str, ...]
    """Path templates."""
    users: tuple[str, ...]
    """As they stand in keys: hashed."""
    patterns: tuple[str, ...]
    everything: bool
    soft: bool
    position: int
    """Its id in the log."""
    here: bool
    """Whether this worker made it."""

    @classmethod
    def of(cls, purge: Purge, position: int, *, here: bool) -> Purged:
        """What callbacks are told of `purge`."""

        def named(kind: str) -> tuple[str, ...]:
            return tuple(tag.removeprefix(kind) for tag in purge.tags if tag.startswith(kind))

        return cls(
            tags=tuple(tag for tag in purge.tags if not tag.startswith("*")),
            keys=named("*key:"),
            paths=named("*path:"),
            routes=named("*route:"),
            users=named("*user:"),
            patterns=(*purge.patterns, *(f"{beginning}*" for beginning in named("*prefix:"))),
            everything=purge.everything,
            soft=purge.soft,
            position=position,
            here=here,
        )


Callback: TypeAlias = Callable[[Purged], Awaitable[object] | object]


class Listeners:
    """Calls callbacks one after another, behind the back of whoever invalidates. Memory is bounded."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._callbacks: list[tuple[Callback, bool]] = []
        self._waiting: deque[Purged] = deque()
        self._calling: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None

    def __repr__(self) -> str:
        return f"<Listeners {len(self._callbacks)}, {len(self._waiting)} to tell>"

    def subscribe(self, callback: Callback, *, everywhere: bool) -> None:
        """Call `callback` after each invalidation made here, and with `everywhere` after those of others, too."""
        self._callbacks.append((callback, everywhere))

    def tell(self, purge: Purge, position: int, *, here: bool) -> None:
        """Report an invalidation; returns at once."""
        if not purge or not any(here or everywhere for _, everywhere in self._callbacks):
            return
        self._waiting.append(Purged.of(purge, position, here=here))
        if len(self._waiting) > MAX_WAITING:
            dropped = self._waiting.popleft()
            self._failed("on_invalidate", f"too slow: not told of the invalidation at {dropped.position}")
        loop = asyncio.get_running_loop()
        if self._calling is None or self._calling[0] is not loop or self._calling[1].done():
            # In a context of their own: what they read is not read by the fill that has invalidated.
            task = loop.create_task(self._call_all(), name="callbacks of on_invalidate", context=Context())
            self._calling = loop, task

    async def aclose(self, within: float) -> None:
        """Wait, for at most `within` seconds, until everybody was told."""
        if self._calling is not None and self._calling[0] is asyncio.get_running_loop():
            _, task = self._calling
            await asyncio.wait([task], timeout=within)
            if not task.done():
                await end(task)
                self._failed("on_invalidate", f"too slow: {len(self._waiting) + 1} not told of at the close")

    async def _call_all(self) -> None:
        while True:
            try:
                purged = self._waiting.popleft()
            except IndexError:  # not asked before: another loop may be calling them, too
                return
            for callback, everywhere in tuple(self._callbacks):
                if purged.here or everywhere:
                    await self._call(callback, purged)

    async def _call(self, callback: Callback, purged: Purged) -> None:
        name = getattr(callback, "__qualname__", repr(callback))
        try:
            result = callback(purged)
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            logger.exception("callback %s of on_invalidate failed", name)
            self._signals.emit(CallbackFailed(name, type(error).__name__))

    def _failed(self, name: str, problem: str) -> None:
        logger.warning("callback %s: %s", name, problem)
        self._signals.emit(CallbackFailed(name, "dropped"))
