"""What belongs to one event loop: made on first use, let go with the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from asgi_tiercache.types import Clock

T = TypeVar("T")

PATIENCE = 0.25
"""Seconds of real time that a cancelled task has to end before it is cancelled again."""

_watches: dict[asyncio.AbstractEventLoop, list[AsyncGenerator[None, None]]] = {}
"""A loop knows its generators only weakly; here they live until it ends, even if their owner is forgotten before."""


class WrongLoopError(RuntimeError):
    """Nothing can be had on this event loop: it is ending, or what was asked for belongs to another one."""


class PerLoop(Generic[T]):
    """One `T` for each running event loop.

    A loop that ends tells its asynchronous generators, after it has cancelled its tasks: `asyncio.run`, uvicorn, anyio
    and uvloop all do. A suspended generator is therefore how a library without a shutdown call (an app under test,
    a script) learns of the end in time to close connections, and unlike a waiting task nobody finds it among theirs.

    Args:
        make: Makes the `T` of the running loop.
        close: Lets go of it, on its loop.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[object]] | None = None) -> None:
        self._make = make
        self._close = close
        self._held: dict[asyncio.AbstractEventLoop, T] = {}
        self._watched: dict[asyncio.AbstractEventLoop, bool] = {}
        """True while the loop goes on, False once it is ending."""

    def get(self) -> T:
        """The running loop's own.

        Raises:
            WrongLoopError: the loop is ending, and would not close anything made now.
            RuntimeError: no loop is running.
        """
        loop = asyncio.get_running_loop()
        try:
            return self._held[loop]
        except KeyError:
            self._watch(loop)
            value = self._held[loop] = self._make()
            return value

    def peek(self) -> T | None:
        """The running loop's own, if it was made."""
        return self._held.get(asyncio.get_running_loop())

    async def aclose(self) -> None:
        """Let go of the running loop's own; another is made when it is asked for again."""
        value = self._held.pop(asyncio.get_running_loop(), None)
        if value is not None and self._close is not None:
            await self._close(value)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop not in self._watched:
            self._forget_closed_loops()
            self._watched[loop] = True
            _start(self._until_the_end_of(loop), loop)
        elif not self._watched[loop]:
            raise WrongLoopError("the event loop is ending")

    async def _until_the_end_of(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._watched[loop] = False
            _watches.pop(loop, None)
            await self.aclose()

    def _forget_closed_loops(self) -> None:
        # list(): loops in other threads begin and end meanwhile.
        for loop in [loop for loop in list(self._watched) if loop.is_closed()]:
            self._watched.pop(loop, None)
            self._held.pop(loop, None)
        for loop in [loop for loop in list(_watches) if loop.is_closed()]:
            _watches.pop(loop, None)


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel `task` until it has ended.

    Once may not do: up to Python 3.11 `asyncio.wait_for`, in which redis-py may be waiting, loses a cancellation that
    comes just when what it waits for is done.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)


async def first(future: asyncio.Future[Any], clock: Clock, seconds: float) -> None:
    """Return when `future` is done, or after `seconds`."""
    sleeper = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({future, sleeper}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeper.cancel()


class OneTask:
    """At most one task of one event loop, held by a `PerLoop`; it may be begun while the loop cancels others."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` in the task, unless that is running."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(work())

    async def aclose(self) -> None:
        """Cancel the task, and wait for its end."""
        if self._task is not None:
            await end(self._task)


def _start(watch: AsyncGenerator[None, None], loop: asyncio.AbstractEventLoop) -> None:
    """Run `watch` up to its `yield`, which it reaches without waiting; that registers it with the running loop."""
    try:
        watch.__anext__().send(None)
    except StopIteration:
        _watches.setdefault(loop, []).append(watch)
