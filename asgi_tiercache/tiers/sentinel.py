"""A Redis whose master Sentinel names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError

from asgi_tiercache.tiers.clients import Argument, Command, SingleClient
from asgi_tiercache.tiers.loops import end

LOOK_EVERY = 1.0
"""Seconds after which Sentinel is asked again who is the master."""
LOOK_AT_MOST = 0.15
"""Seconds that this may hold a command up."""


class MasterPool(SentinelConnectionPool):
    """Connections to the master that Sentinel names.

    When another one is named, redis-py closes those that lie idle in the pool. Here all of them end: those kept for
    reads count as in use, and would go on asking a master that hangs, or that was cut off and knows nothing new.

    Whoever connects while Sentinel is being asked waits for that answer. Each asking by itself, as redis-py does it, a
    rush would need as many connections to a Sentinel as to the master, and answers would come too late.
    """

    on_move: Callable[[], Awaitable[None]] | None = None
    """Called when the master has changed."""
    _question: asyncio.Task[Any] | None = None

    async def get_master_address(self) -> Any:
        if self._question is None or self._question.done():
            self._question = asyncio.get_running_loop().create_task(self._ask(), name="question to Sentinel")
        # One who is cancelled leaves the others their answer.
        return await asyncio.shield(self._question)

    async def aclose(self) -> None:
        if self._question is not None:
            await end(self._question)
        await super().aclose()

    async def _ask(self) -> Any:
        before = self.master_address
        address = await super().get_master_address()  # type: ignore[no-untyped-call]
        if before is not None and before != address:
            await self.disconnect()
            if self.on_move is not None:
                await self.on_move()
        return address


class SentinelClient(SingleClient):
    """The master that Sentinel names.

    A master that was cut off, or replaced and not told, would go on answering as if nothing had been invalidated
    since. So Sentinel is asked again before commands, each second; reads past the pool profit from what it says.
    """

    def __init__(self, redis: Any, *, given: bool = False) -> None:
        super().__init__(redis, given=given)
        self._looked_at = 0.0
        if isinstance(redis.connection_pool, MasterPool):
            redis.connection_pool.on_move = self._own.aclose

    async def command(self, *command: Argument, key: Argument | None = None) -> Any:
        await self._look()
        return await super().command(*command)

    async def together(self, commands: Sequence[Command], key: Argument) -> list[Any]:
        await self._look()
        return await super().together(commands, key)

    async def blocking(self, *command: Argument, key: Argument) -> Any:
        await self._look()
        return await super().blocking(*command, key=key)

    @contextlib.asynccontextmanager
    async def listening(self, key: Argument) -> AsyncIterator[Any]:
        await self._look()
        async with super().listening(key) as connection:
            yield connection

    async def ping(self) -> None:
        # A master that hangs would not name its successor.
        await self.redis.connection_pool.get_master_address()
        await super().ping()

    async def aclose(self) -> None:
        await super().aclose()
        if not self._given:
            for sentinel in self.redis.connection_pool.sentinel_manager.sentinels:
                await sentinel.aclose()

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._looked_at + LOOK_EVERY:
            return
        self._looked_at = now
        with contextlib.suppress(RedisError, OSError):  # TimeoutError included: the master may be well without Sentinel
            async with asyncio.timeout(LOOK_AT_MOST):
                await self.redis.connection_pool.get_master_address()
