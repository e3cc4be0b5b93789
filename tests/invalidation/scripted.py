"""A log in memory that any number of workers share, and that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.log import Answer, Appended
from asgi_tiercache.invalidation.service import Invalidation
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.types import Entry, Stamp
from tests.tiers.doubles import Recorder


class ScriptedLog:
    """The control hash and the log of one namespace, with the rules of the scripts in Redis (I1, I3, I4).

    What is asked is done at once; `pause` holds the replies back, `fail` refuses, `lose_replies` does and says nothing.
    """

    shared = True

    def __init__(self) -> None:
        self.epochs = 1
        self.clock = 0
        self.floor = 0
        self.ids: dict[str, int] = {}
        self.lost = False
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.waiting: list[asyncio.Future[None]] = []
        """Replies that are under way, the oldest first."""
        self._failing = False
        self._losing = False
        self._paused = False

    @property
    def epoch(self) -> str:
        return f"epoch {self.epochs}"

    def count(self, operation: str) -> int:
        return sum(1 for name, _ in self.calls if name == operation)

    def fail(self) -> None:
        """Refuse everything until `recover`."""
        self._failing = True

    def lose_replies(self) -> None:
        """Do what is asked, and fail to say so, until `recover`."""
        self._losing = True

    def recover(self) -> None:
        self._failing = self._losing = False

    def pause(self) -> None:
        """Hold every further reply back until `resume` or `release`."""
        self._paused = True

    def release(self, index: int = 0) -> None:
        """Let one reply through, if somebody still waits for it."""
        reply = self.waiting.pop(index)
        if not reply.done():
            reply.set_result(None)

    def resume(self) -> None:
        self._paused = False
        while self.waiting:
            self.release()

    def lose_control(self) -> None:
        """What Redis does to a hash that it evicts; whoever comes next makes another (I4)."""
        self.lost = True

    async def ask(self, tags: Sequence[str]) -> Answer:
        self._called("ask", tags)
        answer = Answer(self.epoch, self.clock, self.floor, tuple(self.ids.get(tag, 0) for tag in tags))
        await self._reply()
        return answer

    async def append(self, tags: Sequence[str]) -> Appended:
        self._called("append", tags)
        appended = self._next()
        self.ids.update(dict.fromkeys(tags, appended.id))
        await self._reply()
        return appended

    async def append_clear(self) -> Appended:
        self._called("clear", ())
        appended = self._next()
        self.floor = appended.id
        await self._reply()
        return appended

    def _called(self, operation: str, tags: Sequence[str]) -> None:
        self.calls.append((operation, tuple(tags)))
        if self._failing:
            raise TierError("the log was told to fail")
        if self.lost:
            self._make_control()

    def _make_control(self) -> None:
        self.lost = False
        self.epochs += 1
        self.floor = 0
        self.ids.clear()

    def _next(self) -> Appended:
        self.clock += 1
        return Appended(self.epoch, self.clock, self.clock - 1)

    async def _reply(self) -> None:
        losing = self._losing
        if self._paused:
            reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append(reply)
            await reply
        if losing:
            raise TierError("the reply was lost")


class Worker:
    """One process's view: `Invalidation` over a log, with what it needs."""

    def __init__(
        self,
        log: ScriptedLog,
        *,
        clock: TickingClock | None = None,
        make: Callable[..., Invalidation] = Invalidation,
        max_lag: float = 1.0,
        max_unverified: float = 60.0,
    ) -> None:
        self.clock = clock or TickingClock()
        self.signals = Recorder()
        self.dropped = 0
        self.service = make(
            log,
            clock=self.clock,
            signals=self.signals,
            drop_memory=self._drop,
            max_lag=max_lag,
            max_unverified=max_unverified,
        )

    def _drop(self) -> None:
        self.dropped += 1

    async def started(self) -> Worker:
        await self.service.confirm()
        return self

    def fill(self, *tags: str) -> Entry:
        """An entry whose fill begins and ends now."""
        return an_entry(self.service.stamp(), *tags)


def an_entry(stamp: Stamp, *tags: str, at: int | None = None) -> Entry:
    entry = Entry(stamp, 0.0, 60.0, b"key", tags)
    entry.at = stamp.position if at is None else at
    return entry
