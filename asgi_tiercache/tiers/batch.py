"""Reads that are asked for at the same time go to the tier as one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator

from asgi_tiercache.types import Tier

MAX_KEYS = 256
"""Keys in one call; more are asked in calls side by side, so that none holds the server up for long."""

_Waiter = asyncio.Future[bytes | None]


class Batched:
    """The reads of `tier` that come in one tick of a loop, collected into one `get_many`.

    A task asks for a batch, so that a caller that is cancelled disturbs no other. Whoever is alone does better to ask
    the tier: here it would wait for others who do not come.
    """

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._open: dict[asyncio.AbstractEventLoop, dict[str, list[_Waiter]]] = {}
        """Per loop, the batch that can still be joined; absent where none is."""
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Batched {self._tier!r}>"

    async def get(self, key: str) -> bytes | None:
        """The bytes under `key`.

        Raises:
            TierError: the tier failed; never, if it is a guarded one.
        """
        loop = asyncio.get_running_loop()
        waiters = self._open.get(loop)
        if waiters is None:
            waiters = self._open[loop] = {}
            loop.call_soon(self._send, loop)  # once whoever is ready in this tick has joined
        waiter: _Waiter = loop.create_future()
        waiters.setdefault(key, []).append(waiter)
        return await waiter

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
