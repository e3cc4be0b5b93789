"""A log in memory that any number of workers share, and that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.log import Answer, Appended, Purge, Record, note, note_patterns
from asgi_tiercache.invalidation.service import Invalidation
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.types import Entry, Stamp
from tests.tiers.doubles import Recorder


class ScriptedLog:
    """The control hash and the log of one namespace, with the rules of the scripts in Redis (I1, I3, I4).

    What is asked is done at once; `pause` holds the replies back, `fail` refuses, `lose_replies` does and says nothing.
    """

    shared = True
    out_of_reach = False

    def __init__(self) -> None:
        self.epochs = 1
        self.clock = 0
        self.floor = 0
        self.soft_floor = 0
        self.ids: dict[str, int] = {}
        self.soft: dict[str, int] = {}
        self.patterns: dict[str, tuple[int, int]] = {}
        self.records: list[Record] = []
        """What followers can still read; a test empties it to make a gap."""
        self.lost = False
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.waiting: list[asyncio.Future[None]] = []
        """Replies that are under way, the oldest first."""
        self._news = asyncio.Event()
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

    async def confirm(self) -> Answer:
        self._called("confirm", ())
        return await self._answered(())

    async def ask(self, tags: Sequence[str]) -> Answer:
        self._called("ask", tags)
        return await self._answered(tags)

    async def append(self, purge: Purge, *, replicate: bool = False) -> Appended:
        self._called("clear" if purge.everything else "append", purge.tags)
        self.clock += 1
        record = Record(self.epoch, self.clock, self.clock - 1, purge)
        self.records.append(record)
        note(self.soft if purge.soft else self.ids, purge.tags, record.id)
        note_patterns(self.patterns, purge, record.id)
        if purge.everything and purge.soft:
            self.soft_floor = record.id
        elif purge.everything:
            self.floor = record.id
        self._news.set()
        await self._reply()
        return Appended(record.epoch, record.id, record.previous)

    async def read(self, after: int) -> list[Record]:
        self._called("read", ())
        records = [record for record in self.records if record.id > after]
        await self._reply()
        return records

    async def follow(self, after: int) -> list[Record]:
        if self._failing:
            raise TierError("the log was told to fail")
        while not (records := [record for record in self.records if record.id > after]):
            self._news.clear()
            await self._news.wait()
        return records

    async def _answered(self, tags: Sequence[str]) -> Answer:
        answer = Answer(
            self.epoch,
            self.clock,
            self.floor,
            tuple(self.ids.get(tag, 0) for tag in tags),
            self.soft_floor,
            tuple(self.soft.get(tag, 0) for tag in tags),
            tuple((glob, hard, soft) for glob, (hard, soft) in self.patterns.items()),
        )
        await self._reply()
        return answer

    def _called(self, operation: str, tags: Sequence[str]) -> None:
        self.calls.append((operation, tuple(tags)))
        if self._failing:
            raise TierError("the log was told to fail")
        if self.lost:
            self._make_control()

    def _make_control(self) -> None:
        self.lost = False
        self.epochs += 1
        self.floor = self.soft_floor = 0
        self.ids.clear()
        self.soft.clear()
        self.patterns.clear()

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
