"""Single flight: one computation for all who ask for the same thing at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar, TypeVarTuple

from asgi_tiercache.tiers.loops import first
from asgi_tiercache.types import Clock

T = TypeVar("T")
Args = TypeVarTuple("Args")

REMEMBERED_SECONDS = 60.0
REMEMBERED_KEYS = 10_000


class Flight(Generic[T]):
    """A computation under way, in a task of its own, so that no waiter's cancellation ends it.

    The outcome is known, and waiters are released, when `land` is called or the task ends, whichever comes first: a
    response is complete before the app call that produced it returns.
    """

    def __init__(self, number: int, owner: object = None) -> None:
        self.owner = owner
        """Whatever the one who leads wants others to know of it."""
        self.number = number
        """Flights are numbered in the order in which they begin (rule I6)."""
        self.stream: object = None
        """Where what it brings can be had while there is still more to come."""
        self.attended: Callable[[], bool] = by_nobody
        """Whether anybody takes what it brings in a way of their own, and so is not among those who wait."""
        self.detached = False
        """Whether it goes on though nobody waits: it was begun for nobody, or somebody could wait no longer."""
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[T | None] = self._loop.create_future()
        self._turns: list[asyncio.Future[None]] = []
        self._limit: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None]

    @property
    def waiting(self) -> int:
        """How many wait for what it brings."""
        return sum(not turn.done() for turn in self._turns)

    @property
    def wanted(self) -> bool:
        """Whether it has to go on for anybody's sake."""
        return self.waiting > 0 or self.attended()

    @property
    def landed(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome.done()

    def land(self, outcome: T | None) -> None:
        """Release the waiters with `outcome`; None: there is nothing to share."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)
            self._release()

    def fail(self, error: BaseException) -> None:
        """Release the waiters with an exception."""
        if not self._outcome.done():
            self._outcome.set_exception(error)
            self._outcome.exception()  # retrieved here: that nobody waits is no error
            self._release()

    def open(self, stream: object) -> None:
        """What it brings can be had from `stream` from now on."""
        self.stream = stream
        self._release()

    def result(self) -> T | None:
        """The outcome, once it is known; raises what the flight failed with."""
        return self._outcome.result()

    async def outcome(self) -> T | None:
        """What the flight brought. Cancelling one waiter leaves the others waiting."""
        while not self._outcome.done():
            await self._turn()
        return self._outcome.result()

    def turn(self, seconds: float, *, whole: bool = False) -> asyncio.Future[None] | None:
        """What to wait for: done once there is an outcome, or a stream; or after `seconds` of real time.

        These count from the first on who waits: a timer for each would cost more than all the rest, and a coroutine
        here would be felt. With `whole` a stream does not do. None: there is something to have already.
        """
        if self._outcome.done() or (self.stream is not None and not whole):
            return None
        if self._limit is None:
            self._limit = self._loop.call_later(seconds, self._release)
        return self._turn()

    async def lands_within(self, seconds: float, clock: Clock) -> bool:
        """Wait for `seconds` at the most; whether there is an outcome then, or a stream."""
        if not self.landed and self.stream is None:
            turn = self._turn()
            try:
                await first(turn, clock, seconds)
            finally:
                turn.cancel()
        return self.landed or self.stream is not None

    def abandon(self) -> None:
        """End it if nobody waits any more; who comes later begins anew, whatever becomes of the task."""
        if not (self.wanted or self.landed or self.detached):
            self.land(None)
            self.task.cancel()

    def _turn(self) -> asyncio.Future[None]:
        # A future for each costs less than to shield the one: a thousand may wait.
        turn: asyncio.Future[None] = self._loop.create_future()
        self._turns.append(turn)
        return turn

    def _release(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        turns, self._turns = self._turns, []
        for turn in turns:
            if not turn.done():
                turn.set_result(None)


def by_nobody() -> bool:
    """Of a flight that nobody takes anything of but those who wait."""
    return False


class Flights(Generic[T]):
    """The flights of each event loop, by key."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[asyncio.AbstractEventLoop, str], Flight[T]] = {}
        self._tasks: dict[asyncio.Task[None], Flight[T]] = {}
        self.begun = 0
        """How many flights have begun; read on arrival, it tells a young flight from an old one."""

    def __repr__(self) -> str:
        return f"<Flights under_way={len(self._under_way)} begun={self.begun}>"

    def under_way(self, key: str) -> Flight[T] | None:
        """The flight for `key` that can still be joined."""
        if not self._under_way:  # each read from a lower tier comes here first
            return None
        flight = self._under_way.get((asyncio.get_running_loop(), key))
        return None if flight is None or flight.landed else flight

    def lead(
        self, key: str, work: Callable[[Flight[T]], Coroutine[Any, Any, None]], *, owner: object = None
    ) -> Flight[T]:
        """Begin a flight. `work` lands it; a `work` that ends without landing lands it with nothing or its error."""
        loop = asyncio.get_running_loop()
        place, under_way = (loop, key), self._under_way
        self.begun += 1
        flight = under_way[place] = Flight[T](self.begun, owner)

        def ended(task: asyncio.Task[None]) -> None:
            del self._tasks[task]
            if under_way.get(place) is flight:
                del under_way[place]
            if task.cancelled():
                flight.land(None)
            elif error := task.exception():
                flight.fail(error)
            else:
                flight.land(None)

        flight.task = loop.create_task(work(flight))
        self._tasks[flight.task] = flight
        flight.task.add_done_callback(ended)
        return flight

    def tasks(self) -> list[asyncio.Task[None]]:
        """The running loop's flights that have not ended, those included that have landed already."""
        loop = asyncio.get_running_loop()
        return [task for task in list(self._tasks) if task.get_loop() is loop]

    def end_unattended(self) -> None:
        """Cancel the running loop's flights for which nobody waits, and whose outcome is not known or for nobody."""
        for task in self.tasks():
            flight = self._tasks[task]
            if not flight.wanted and (flight.detached or not flight.landed):
                task.cancel()


class SharedReads(Generic[T]):
    """One read for all who want the same at the same time, made by the first of them in its own task.

    Lighter than a flight: nothing is started. If the reader is cancelled, one of those who wait reads instead. Readers
    are told whether they are alone on their event loop, or should rather ask together with others.
    """

    def __init__(self) -> None:
        self._under_way: dict[asyncio.AbstractEventLoop, dict[object, list[asyncio.Future[T]]]] = {}
        """Per loop, what is being read, and who waits for it; absent where nothing is."""

    def __repr__(self) -> str:
        return f"<SharedReads under_way={sum(map(len, self._under_way.values()))}>"

    async def read(self, key: str, work: Callable[[bool, *Args], Coroutine[Any, Any, T]], *args: *Args) -> T:
        """What `work(alone, *args)` returns, or what it returned to whoever was reading `key` already.

        `alone`: no other read was under way on this loop, and none was announced by `together`.
        """
        loop = asyncio.get_running_loop()
        while (reading := self._under_way.get(loop)) is not None and key in reading:
            turn: asyncio.Future[T] = loop.create_future()
            reading[key].append(turn)
            with contextlib.suppress(_UnreadError):
                return await turn
        alone = reading is None
        if reading is None:
            reading = self._under_way[loop] = {}
        waiting: list[asyncio.Future[T]] = []
        reading[key] = waiting
        try:
            result = await work(alone, *args)
        except BaseException:
            for turn in _not_done(waiting):
                turn.set_exception(_UnreadError())
            raise
        finally:
            del reading[key]
            if not reading:
                del self._under_way[loop]
        if waiting:
            for turn in _not_done(waiting):
                turn.set_result(result)
        return result

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A context for several reads: none of them is alone."""
        loop = asyncio.get_running_loop()
        reading = self._under_way.setdefault(loop, {})
        announced = object()  # stands there like the key of a read
        reading[announced] = []
        try:
            yield
        finally:
            del reading[announced]
            if not reading:
                del self._under_way[loop]


def _not_done(turns: list[asyncio.Future[T]]) -> list[asyncio.Future[T]]:
    return [turn for turn in turns if not turn.done()]


class _UnreadError(Exception):
    """The reader gave up; somebody else has to read."""


class Unshareable:
    """Remembers for a while the keys whose responses may not be shared, so that nobody queues for them again.

    Bounded: when more keys than `limit` are remembered, the one remembered longest ago is forgotten.
    """

    def __init__(self, *, seconds: float = REMEMBERED_SECONDS, limit: int = REMEMBERED_KEYS) -> None:
        self._seconds = seconds
        self._limit = limit
        self._until: dict[str, float] = {}

    def remember(self, key: str, now: float) -> None:
        """The response for `key` could not be shared; `now` is the monotonic clock."""
        self._until.pop(key, None)
        self._until[key] = now + self._seconds
        if len(self._until) > self._limit:
            del self._until[next(iter(self._until))]

    def forget(self, key: str) -> None:
        """A response for `key` was stored after all."""
        self._until.pop(key, None)

    def holds(self, key: str, now: float) -> bool:
        """Whether `key` was remembered less than `seconds` ago."""
        return self._until.get(key, now) > now
