"""One time limit for many calls, and a bound on how many are made at once (a bulkhead)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from asgi_tiercache.errors import TierError
from asgi_tiercache.tiers.loops import PerLoop

BEATS = 12
"""Parts into which the limit is divided. Time is counted in beats of the event loop: one that was blocked, however
long, has missed the answers that came meanwhile, so it counts one beat, not the time that it lost."""
SLOW = 4
"""Beats from which on an answer is a slow one: a third of the limit."""


class BusyError(TierError):
    """The tier was not asked, since too many calls are under way here: that says nothing of the tier."""


class Deadline:
    """`asyncio.timeout` for calls that all have the same limit, with one timer for all of them.

    Every L2 hit is one such call, and a timer of its own would cost it 10 us, a fifth of the hit. With one limit the
    calls run out in the order in which they began.

        with deadline.limit() as call:
            if call.waits:
                await call.turn()
            await answer()

    A request makes several calls, one after the other, and all of them together have to fit into the limit. So all
    that are under way end, too, once nothing was answered quickly for as long as that, though calls were made.

    Args:
        seconds: The limit, in real time; it may end a twelfth of that earlier.
        at_once: Calls of one event loop that are made at a time; further ones wait for their turn, within the limit.
        impatient: Slow answers add up, as just said. If not, each call has the whole limit.
    """

    def __init__(self, seconds: float, *, at_once: int = sys.maxsize, impatient: bool = False) -> None:
        self.seconds = seconds
        self.at_once = at_once
        """May be changed at any time."""
        self.impatient = impatient
        self._calls = PerLoop(lambda: _Calls(self))

    def limit(self) -> Limit:
        """A context for one call; the call is cancelled at the limit, and the context raises `TimeoutError`.

        Where it has waited for its turn too long to be answered, that is a `BusyError`.
        """
        return Limit(self._calls.get())


class _Calls:
    """The calls of one event loop that are under way, the oldest first, each with the beat at which it began."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.loop = asyncio.get_running_loop()
        self.under_way: dict[Limit, int] = {}
        self.made = 0
        """How many of them have their turn."""
        self.waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        """Turns that calls wait for, the oldest first, each with the beat since which it does."""
        self.beats = 0
        self.unanswered = 0
        """Beats, with calls under way, since the last quick answer."""
        self.beating = False
        self._due = 0.0

    def begin_to_beat(self) -> None:
        self._wait_until(self.loop.time() + self.deadline.seconds / BEATS)

    def pass_on(self) -> None:
        """Give those their turn who can have it, the first first."""
        while self.waiting and self.made < self.deadline.at_once:
            turn, _ = self.waiting.popleft()
            if not turn.done():
                self.made += 1
                turn.set_result(None)

    def _wait_until(self, due: float) -> None:
        self.beating = True
        self._due = due
        self.loop.call_at(due, self._beat)

    def _beat(self) -> None:
        if not self.under_way:
            self.beating = False
            return
        self.beats += 1
        self.unanswered += 1
        if self.deadline.impatient and self.unanswered >= BEATS:
            self.unanswered = 0
            self._end(lambda _: True)
        else:
            self._end(lambda begun: begun <= self.beats - BEATS)
        # The next is not later for this one's being late, unless it would come at once.
        due, now = self._due + self.deadline.seconds / BEATS, self.loop.time()
        self._wait_until(due if due > now else now + self.deadline.seconds / BEATS)

    def _end(self, is_over: Callable[[int], bool]) -> None:
        for limit, _ in list(itertools.takewhile(lambda call: is_over(call[1]), self.under_way.items())):
            del self.under_way[limit]
            limit.expire()


class Limit:
    """One call. What it does to the task's cancellation is what `asyncio.timeout` does."""

    __slots__ = ("_asked", "_begun", "_calls", "_cancelling", "_expired", "_task", "slow", "waits")

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._expired = False
        self.slow = False
        """Whether the answer was a slow one."""
        self.waits = False
        """Whether it does not have its turn yet."""

    def expire(self) -> None:
        self._expired = True
        self._task.cancel()

    async def turn(self, *, patient: bool = True) -> None:
        """Wait for the turn.

        Args:
            patient: Wait behind others, however long they have waited already.

        Raises:
            BusyError: they have waited for so long that a newcomer would most likely wait in vain.
        """
        calls = self._calls
        if not patient and calls.waiting and calls.beats - calls.waiting[0][1] >= SLOW:
            raise BusyError("others wait already for their turn")
        place = calls.loop.create_future(), calls.beats
        calls.waiting.append(place)
        turn, _ = place
        try:
            await turn
        finally:
            if turn.done() and not turn.cancelled():  # perhaps cancelled just after it was given
                self.waits = False
                self._asked = calls.beats
            else:
                with contextlib.suppress(ValueError):  # passed over meanwhile
                    calls.waiting.remove(place)

    def __enter__(self) -> Self:
        calls = self._calls
        task = asyncio.current_task(calls.loop)
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._asked = self._begun = calls.under_way[self] = calls.beats
        if calls.made < calls.deadline.at_once:
            calls.made += 1
        else:
            self.waits = True
        if not calls.beating:
            calls.begin_to_beat()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        calls = self._calls
        # The timer stays, for the next call most likely comes before it goes off.
        calls.under_way.pop(self, None)
        if not self.waits:
            calls.made -= 1
            if kind is not asyncio.CancelledError:
                self.slow = calls.beats - self._asked >= SLOW
                if not self.slow:
                    calls.unanswered = 0
            if calls.waiting:
                calls.pass_on()
        # Somebody else may have cancelled the task, too; then that is what goes on.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            if self._was_late:
                raise BusyError("no turn within the deadline, or too late") from error
            raise TimeoutError from error

    @property
    def _was_late(self) -> bool:
        """Whether it had no turn, or so late that there was hardly time for an answer."""
        return self.waits or (self._asked > self._begun and self._calls.beats - self._asked < SLOW)
