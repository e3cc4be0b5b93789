"""Reads that are asked for at the same time go to the tier as one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence

from asgi_tiercache.types import Tier, Write

MAX_KEYS = 256
"""Keys in one call; more are asked in calls side by side, so that none holds the server up for long."""

_Waiter = asyncio.Future[bytes | None]


class Batched(Tier):
    """`tier`, with the `get(key)` calls that come together collected into one `get_many`.

    A caller that finds no other's read under way on its loop asks the tier itself, at once: alone, it waits for nobody.
    Those who come while that read is under way join the batch of their tick. A task asks for a batch, so that a caller
    that is cancelled disturbs no other.
    """

    def __init__(self, tier: Tier) -> None:
        self.name = tier.name
        self._tier = tier
        self._busy: dict[asyncio.AbstractEventLoop, int] = {}
        """Loops on which a caller is not alone: one is asking the tier itself, or more are expected."""
        self._open: dict[asyncio.AbstractEventLoop, dict[str, list[_Waiter]]] = {}
        """Per loop, the batch that can still be joined; absent where none is."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, key: str) -> bytes | None:
        """The bytes under `key`.

        Raises:
            TierError: the tier failed; never, if it is a guarded one.
        """
        loop = asyncio.get_running_loop()
        if loop in self._busy:
            return await self._join(loop, key)
        self._busy[loop] = 1
        try:
            return (await self._tier.get_many((key,)))[0]
        finally:
            self._leave(loop)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context for several calls of `get`: none of them goes ahead of the others."""
        loop = asyncio.get_running_loop()
        self._busy[loop] = self._busy.get(loop, 0) + 1
        try:
            yield
        finally:
            self._leave(loop)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key, in the order asked."""
        if len(keys) <= MAX_KEYS:
            return await self._tier.get_many(keys)
        parts = await asyncio.gather(*(self._tier.get_many(part) for part in _parts(keys)))
        return list(itertools.chain.from_iterable(parts))

    async def set_many(self, writes: Sequence[Write]) -> None:
        """Keep each of `writes`."""
        await self._tier.set_many(writes)

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget each of `keys`."""
        await self._tier.delete_many(keys)

    async def ping(self) -> None:
        """Return if the tier answers."""
        await self._tier.ping()

    async def aclose(self) -> None:
        """Let go of what the tier holds for the running loop."""
        await self._tier.aclose()

    def __repr__(self) -> str:
        return f"<Batched {self._tier!r}>"

    def _join(self, loop: asyncio.AbstractEventLoop, key: str) -> _Waiter:
        waiters = self._open.get(loop)
        if waiters is None:
            waiters = self._open[loop] = {}
            loop.call_soon(self._send, loop)  # once whoever is ready in this tick has joined
        waiter: _Waiter = loop.create_future()
        waiters.setdefault(key, []).append(waiter)
        return waiter

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        left = self._busy[loop] - 1
        if left:
            self._busy[loop] = left
        else:
            del self._busy[loop]

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the batch, and start the tasks that ask for it."""
        waiters = self._open.pop(loop)
        for keys in _parts(waiters):
            task = loop.create_task(self._answer({key: waiters[key] for key in keys}))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, waiters: dict[str, list[_Waiter]]) -> None:
        try:
            found = await self._tier.get_many(tuple(waiters))
        except Exception as error:
            for waiter in _waiting(waiters.values()):
                waiter.set_exception(error)
        except asyncio.CancelledError:
            for waiter in _waiting(waiters.values()):
                waiter.cancel()
            raise
        else:
            for data, those in zip(found, waiters.values(), strict=True):
                for waiter in _waiting([those]):
                    waiter.set_result(data)


def _waiting(groups: Iterable[list[_Waiter]]) -> Iterator[_Waiter]:
    """Those that were not cancelled meanwhile."""
    return (waiter for group in groups for waiter in group if not waiter.done())


def _parts(keys: Iterable[str]) -> Iterator[tuple[str, ...]]:
    keys = iter(keys)
    while part := tuple(itertools.islice(keys, MAX_KEYS)):
        yield part
