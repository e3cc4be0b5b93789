"""One time limit for many calls."""

from __future__ import annotations

import asyncio
import itertools
from types import TracebackType

from asgi_tiercache.tiers.loops import PerLoop

HELD_UP = 0.05
"""Seconds by which a timer is late only because its event loop was blocked."""


class Deadline:
    """`asyncio.timeout` for calls that all have the same limit, with one timer for all of them.

    Every L2 hit is one such call, and a timer of its own would cost it 10 us, a fifth of the hit. With one limit the
    calls run out in the order in which they began: the timer only ever waits for the oldest.

        with deadline.limit():
            await call()

    Args:
        seconds: The limit, in real time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._calls = PerLoop(lambda: _Calls(seconds))

    def limit(self) -> _Limit:
        """A context for one call; the call is cancelled at the limit, and the context raises `TimeoutError`."""
        return _Limit(self._calls.get())


class _Calls:
    """The calls of one event loop that are under way, the oldest first."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.loop = asyncio.get_running_loop()
        self.under_way: dict[_Limit, float] = {}
        self.timer_due: float | None = None
        self._excused = False

    def wait_until(self, due: float) -> None:
        self.timer_due = due
        self.loop.call_at(due, self._timer)

    def _timer(self) -> None:
        """End what is due, and wait for the next."""
        assert self.timer_due is not None
        now = self.loop.time()
        # Where a handler blocked the loop, answers that came in time lie unread: let them be read first. But once
        # only, since a loop may be slow all the time.
        self._excused = not self._excused and now > self.timer_due + HELD_UP
        if self._excused:
            self.wait_until(now + HELD_UP / 2)
            return
        self._expire(now)
        self.timer_due = None
        if self.under_way:
            self.wait_until(next(iter(self.under_way.values())))

    def _expire(self, now: float) -> None:
        for limit, _ in list(itertools.takewhile(lambda call: call[1] <= now, self.under_way.items())):
            del self.under_way[limit]
            limit.expire()


class _Limit:
    """One call. What it does to the task's cancellation is what `asyncio.timeout` does."""

    __slots__ = ("_calls", "_cancelling", "_expired", "_task")

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._expired = False

    def expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        calls = self._calls
        task = asyncio.current_task(calls.loop)
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        due = calls.under_way[self] = calls.loop.time() + calls.seconds
        if calls.timer_due is None:
            calls.wait_until(due)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # The timer stays, for the next call most likely comes before it goes off.
        self._calls.under_way.pop(self, None)
        # Somebody else may have cancelled the task, too; then that is what goes on.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
