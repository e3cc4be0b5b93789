"""The engine for callers on plain threads: its coroutines run on a loop, the function on the caller's own thread.

The thread that calls a cached `def` function waits for the loop; where the loop decides that this call has to compute
the value, it asks the waiting thread to do so. No second thread is taken, so a thread pool cannot wait for itself.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import anyio.from_thread

from asgi_tiercache.engine.calls import Call
from asgi_tiercache.engine.values import Values
from asgi_tiercache.errors import BlockingCallError

T = TypeVar("T")

_Work = tuple[contextvars.Context, "asyncio.Future[Any]"]


class Bridge:
    """Runs plain functions through `Values` for the thread that calls them.

    Args:
        values: The story of a value.
        home: The loop of the app, if it is known and running.
        close: Lets go of what the cache holds for a loop; awaited when the bridge's own loop ends.
    """

    def __init__(
        self,
        values: Values,
        *,
        home: Callable[[], asyncio.AbstractEventLoop | None],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._values = values
        self._home = home
        self._own = _LoopThread(close)

    def run(self, call: Call, function: Callable[[], Any], name: str) -> Any:
        """The value of `call`, computed by `function` on this thread if need be.

        Raises:
            BlockingCallError: this thread runs an event loop, which would stand still.
        """
        loop = self._loop(name)
        work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()

        asked: list[asyncio.Future[Any]] = []
        answered = False  # read and written on the loop's thread

        async def load() -> Any:
            if answered:  # with something stale: this thread has gone on
                return await _in_a_thread(function, name)
            made = asyncio.get_running_loop().create_future()
            asked.append(made)
            work.put((contextvars.copy_context(), made))
            return await made

        async def unattended() -> Any:
            return await _in_a_thread(function, name)

        def leave(_: object) -> None:
            nonlocal answered
            answered = True
            work.put(None)

        values = self._values.get_or_fill(call, load, unattended=unattended)
        future = asyncio.run_coroutine_threadsafe(values, loop)
        future.add_done_callback(leave)
        try:
            while (item := work.get()) is not None:
                context, made = item
                _settle_from_thread(made, context, function)
        except BaseException:  # Ctrl-C: this thread computes nothing any more, and others must not wait for it
            loop.call_soon_threadsafe(_give_up, future, asked)
            raise
        try:
            return future.result()
        except _CarriedError as carried:
            raise carried.original from None

    def waiter(self, name: str) -> Callable[[Coroutine[Any, Any, T]], T]:
        """What runs a coroutine to its end on the loop, while this thread waits.

        Raises:
            BlockingCallError: this thread runs an event loop, which would stand still.
        """
        loop = self._loop(name)
        return lambda work: asyncio.run_coroutine_threadsafe(work, loop).result()

    def close(self) -> None:
        """End the bridge's own loop, if it has one; what is queued there is flushed first."""
        self._own.stop()

    def _loop(self, name: str) -> asyncio.AbstractEventLoop:
        if _running_loop() is not None:
            raise BlockingCallError(
                f"{name} is a plain function: called here it would block the event loop; make it async, "
                "or call it from a worker thread"
            )
        home = self._home()
        if (of_worker := _loop_of_worker_thread()) is not None:
            return of_worker
        return home if home is not None and home.is_running() else self._own.loop()


class _LoopThread:
    """An event loop on a thread of its own, for programs that have none; started when it is first needed."""

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        self._close = close
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Event
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():  # a child process has the thread's object, but not the thread
            self._pid, self._lock, self._thread = os.getpid(), threading.Lock(), None
        with self._lock:
            if self._thread is None:
                started: Future[None] = Future()
                self._thread = threading.Thread(
                    target=lambda: asyncio.run(self._run(started)), name="asgi_tiercache", daemon=True
                )
                self._thread.start()
                started.result()
                atexit.register(self.stop)
            return self._loop

    def stop(self) -> None:
        with self._lock:
            if self._thread is None or self._pid != os.getpid():
                return
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()
            self._thread = None
            atexit.unregister(self.stop)

    async def _run(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        started.set_result(None)
        await self._over.wait()
        await self._close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _loop_of_worker_thread() -> asyncio.AbstractEventLoop | None:
    """The loop that started this thread, where AnyIO (hence Starlette and FastAPI) did."""
    try:
        return anyio.from_thread.run_sync(asyncio.get_running_loop)
    except RuntimeError:
        return None


def _settle_from_thread(made: asyncio.Future[Any], context: contextvars.Context, function: Callable[[], Any]) -> None:
    value: Any = None
    error: BaseException | None = None
    try:
        value = context.run(function)  # the fill's context, so that cache.current is there
    except StopIteration as raised:
        error = _CarriedError(raised)
    except Exception as raised:
        error = raised
    except BaseException as raised:
        error = _CarriedError(raised)
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        made.get_loop().call_soon_threadsafe(_settle, made, value, error)


async def _in_a_thread(function: Callable[[], Any], name: str) -> Any:
    """What `function` returns on a thread of its own, which keeps no program from ending."""
    made = asyncio.get_running_loop().create_future()
    arguments = made, contextvars.copy_context(), function
    threading.Thread(target=_settle_from_thread, args=arguments, name=f"renewing {name}", daemon=True).start()
    return await made


def _give_up(future: Future[Any], asked: list[asyncio.Future[Any]]) -> None:
    future.cancel()
    for made in asked:
        made.cancel()


class _CarriedError(Exception):
    """Carries across the loop what would end it, like `SystemExit`, or what no future can hold."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(repr(original))
        self.original = original


def _settle(made: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if made.done():
        return  # the loop has given up waiting
    if error is not None:
        made.set_exception(error)
    else:
        made.set_result(value)
