"""A deterministic scheduler over the real code: two caches, one lower tier, one log, and every order of events.

Everything that takes time (the loader's reads, replies of log and tier, writes to the tier) stands at a gate until the
schedule opens it. A seed gives a schedule, so a violation that was found once is found again.

SERVED, checked after each read: a read that began after a hard invalidation returned on its worker, or returned durable
on any worker `max_lag` ago (and `max_unverified` besides, where the policy serves without the log), never returns older
data.

LATENT, checked at the end, when everything has been delivered and what was stale had time to be made anew: no read
returns what was older than a soft invalidation, either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import TypeVar

from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.log import Answer, Appended, Purge, Record
from asgi_tiercache.invalidation.service import Receipt
from asgi_tiercache.testing import ScriptedTier, TickingClock
from asgi_tiercache.tiercache import TierCache
from asgi_tiercache.types import Write
from tests.invalidation.scripted import ScriptedLog
from tests.tiers.doubles import ticks

T = TypeVar("T")

MAX_LAG = 1.0
MAX_UNVERIFIED = 2.0
STEPS = 60
NEVER = 3600.0
"""Seconds of real time that a schedule cannot take, so that only the schedule decides what is late."""

Versions = tuple[int, int]
"""Of the two facts at the origin."""


class Violation(Exception):  # noqa: N818  (it is what is looked for)
    """A read returned what it must not; the message holds the schedule up to there."""


class GatedLog(ScriptedLog):
    """Answers when the schedule says so; a reply that was lost is a failure."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.refuse = 0
        """How many of the next calls fail before they are done."""
        self.lose = 0
        """How many of the next replies are lost."""

    async def confirm(self) -> Answer:
        return await self._gated("confirm", super().confirm)

    async def ask(self, tags: Sequence[str]) -> Answer:
        return await self._gated("ask", lambda: super(GatedLog, self).ask(tags))

    async def append(self, purge: Purge, *, replicate: bool = False) -> Appended:
        label = f"append {'soft ' if purge.soft else ''}{','.join(purge.tags) or 'clear'}"
        return await self._gated(label, lambda: super(GatedLog, self).append(purge))

    async def read(self, after: int) -> list[Record]:
        return await self._gated("read", lambda: super(GatedLog, self).read(after))

    async def follow(self, after: int) -> list[Record]:
        records = await super().follow(after)
        await self._world.gate(f"news after {after}")
        return records

    def trim(self) -> None:
        """What happens to fields of tags that are older than every entry: the floor rises past them, then they go."""
        self.floor = self.clock
        for ids in (self.ids, self.soft):
            for tag in [tag for tag, id_ in ids.items() if id_ <= self.floor]:
                del ids[tag]

    async def _gated(self, label: str, call: Callable[[], Awaitable[T]]) -> T:
        if self.refuse:
            self.refuse -= 1
            raise TierError("refused")
        lost, self.lose = self.lose > 0, max(0, self.lose - 1)
        result = await call()
        self._world.note(f"  log: {label} -> {result}")
        await self._world.gate(f"reply to {label}")
        if lost:
            raise TierError("lost")
        return result


class GatedTier(ScriptedTier):
    """Reads and writes when the schedule says so."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        found = await super().get_many(keys)
        await self._world.gate("L2 reply")
        return found

    async def set_many(self, writes: Sequence[Write]) -> None:
        await self._world.gate("L2 write")
        await super().set_many(writes)


class Process:
    """One worker: a cache with a function of fact 0, and one of that and fact 1."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.promised = (0, 0)
        """Versions below which no read that begins now may fall, by what returned here."""
        self.cache = TierCache(
            l2=world.tier,
            log=world.log,
            clock=world.clock,
            max_lag=MAX_LAG,
            max_unverified=MAX_UNVERIFIED,
            deadline=NEVER,
        )
        if world.forgetful:  # the map has room for one tag
            self.cache.engine.invalidation.knowledge.remembered = 1
        cached = partial(self.cache.cached, ttl=NEVER, unverified=world.unverified)

        @cached("x", tags=["zero"])
        async def x() -> Versions:
            return await world.read_origin(0), 0

        @cached("y", tags=["one"])
        async def y() -> Versions:
            zero, _ = await x()
            return zero, await world.read_origin(1)

        self.functions = {"x": x, "y": y}


TAGS = ("zero", "one")
WHO: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (((0,), (0,)), ((0,), (1,)), ((0, 1), (0, 1)))
"""The workers that read, and those that invalidate."""
DEPENDS = {"x": (0,), "y": (0, 1)}


class World:
    """The origin, what the workers share, and the schedule."""

    def __init__(self, seed: int, *, plant: Callable[[Process, World], None] | None = None) -> None:
        self.random = Random(seed)
        self.clock = TickingClock()
        self.log = GatedLog(self)
        self.tier = GatedTier(self)
        self.origin = [0, 0]
        self.unverified = self.random.choice(("serve", "bypass"))
        self.lag = MAX_LAG + (MAX_UNVERIFIED if self.unverified == "serve" else 0)
        """Seconds after which an invalidation that returned on one worker binds the other."""
        self.follows = self.random.random() < 0.7
        """Whether workers follow the log, or hear of it only when they ask."""
        self.forgetful = self.random.random() < 0.3
        self.slow = self.random.choice(
            ("reply to ask", "reply to confirm", "reply to append", "news", "L2 reply", "L2 write", "loader", "nothing")
        )
        self._softly = (0, 0)
        self.keys = self.random.choice(("x", "y", "xy"))
        self._readers, self._writers = self.random.choice(WHO)
        self.trace: list[str] = []
        self.violation: str | None = None
        self._plant = plant
        self._gates: list[tuple[str, asyncio.Future[None]]] | None = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._durable: list[tuple[float, Versions]] = []
        self._every: list[Process] = []
        self.workers = [self._started("w0"), self._started("w1")]
        self._moves: tuple[tuple[int, Callable[[], None]], ...] = (
            (12, self._open_a_gate),
            (8, self._read),
            (2, self._commit),
            (5, self._invalidate),
            (2, self._invalidate_softly),
            (1, self._gap),
            (1, self._trim),
            (2, self._upset),
            (1, self._clear),
            (2, self._evict),
            (1, self._lose_control),
            (1, self._fail),
            (5, self._tick),
            (1, self._restart),
        )

    # ---- what the workers meet ----

    def note(self, text: str) -> None:
        self.trace.append(text)

    async def gate(self, label: str) -> None:
        if self._gates is not None:
            opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._gates.append((label, opened))
            await opened

    async def read_origin(self, fact: int) -> int:
        await self.gate(f"loader of {TAGS[fact]} reads")
        version = self.origin[fact]
        self.note(f"  the origin says {TAGS[fact]} = {version}")
        await self.gate(f"loader of {TAGS[fact]} returns")
        return version

    # ---- the schedule ----

    async def run(self) -> None:
        """Play the schedule, then let everything end, then read everything once more.

        Raises:
            Violation: a read returned what it must not.
        """
        # Each schedule does some things often and others never: what is rare together becomes common in some.
        weights = [weight * self.random.choice((0, 0, 1, 4)) for weight, _ in self._moves]
        weights[:2] = [weight + 5 for weight in weights[:2]]
        self._follow(*self.workers)
        for _ in range(STEPS):
            self.random.choices(self._moves, weights)[0][1]()
            await ticks(self.random.choice((0, 1, 8, 8)))
            self._judge()
        await self._end()
        self._judge()

    def _judge(self) -> None:
        if self.violation is not None:
            raise Violation("\n".join([*self.trace, self.violation]))

    async def _end(self) -> None:
        self._open_all()
        self.log.refuse = self.log.lose = 0
        await self._settled()
        # A stale value is given once more, and what is made of one is stale, too: the last round finds all made anew.
        for last in (False, False, False, False, True):
            self.clock.tick(self.lag)
            for worker in self.workers:
                for key in DEPENDS:
                    self._start_read(worker, key, also=self._softly if last else (0, 0))
            await self._settled()
            await ticks(100)
        for worker in self._every:
            await worker.cache.aclose()

    def _open_all(self) -> None:
        gates, self._gates = self._gates or [], None
        for _, opened in gates:
            opened.set_result(None)

    async def _settled(self) -> None:
        for _ in range(2000):
            if not self._tasks:
                return
            await asyncio.sleep(0)
        raise Violation("\n".join([*self.trace, f"still running: {[task.get_name() for task in self._tasks]}"]))

    def _started(self, name: str) -> Process:
        worker = Process(name, self)
        self._every.append(worker)
        if self._plant is not None:
            self._plant(worker, self)
        return worker

    def _follow(self, *workers: Process) -> None:
        for worker in workers if self.follows else ():
            worker.cache.engine.invalidation.tail.start()

    def _go(self, name: str, call: Awaitable[None]) -> None:
        async def run() -> None:
            await call

        self.note(name)
        task = asyncio.get_running_loop().create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- moves ----

    def _open_a_gate(self) -> None:
        if self._gates:
            index = self.random.randrange(len(self._gates))
            if self._gates[index][0].startswith(self.slow) and self.random.random() < 0.8:
                return
            label, opened = self._gates.pop(index)
            self.note(f"opens: {label}")
            opened.set_result(None)

    def _read(self) -> None:
        self._start_read(self.workers[self.random.choice(self._readers)], self.random.choice(self.keys))

    def _start_read(self, worker: Process, key: str, also: Versions = (0, 0)) -> None:
        now = self.clock.monotonic()
        must = _newest(worker.promised, also, *(versions for at, versions in self._durable if at + self.lag <= now))

        async def read() -> None:
            got = await worker.functions[key]()
            self.note(f"{worker.name}: {key} gives {got}, must have {must}")
            if worker in self.workers and any(got[fact] < must[fact] for fact in DEPENDS[key]):
                self.violation = f"STALE: {worker.name} reads {key} = {got}, but {must} was invalidated before"

        self._go(f"{worker.name}: reads {key}", read())

    def _commit(self) -> None:
        fact = self.random.randrange(2)
        self.origin[fact] += 1
        self.note(f"the origin commits {TAGS[fact]} = {self.origin[fact]}")

    def _invalidate(self) -> None:
        worker, fact = self.workers[self.random.choice(self._writers)], self.random.randrange(2)
        if self.random.random() < 0.8:
            self.origin[fact] += 1
        promise = (self.origin[0], 0) if fact == 0 else (0, self.origin[1])
        call = partial(worker.cache.invalidate, TAGS[fact])
        self._go(f"{worker.name}: invalidates {TAGS[fact]} = {self.origin[fact]}", self._promise(worker, promise, call))

    def _invalidate_softly(self) -> None:
        worker, fact = self.workers[self.random.choice(self._writers)], self.random.randrange(2)
        self.origin[fact] += 1
        promise = (self.origin[0], 0) if fact == 0 else (0, self.origin[1])

        async def run() -> None:
            receipt = await worker.cache.invalidate(TAGS[fact], soft=True)
            self.note(f"{worker.name}: softly {receipt}")
            self._softly = _newest(self._softly, promise)

        self._go(f"{worker.name}: invalidates {TAGS[fact]} = {self.origin[fact]} softly", run())

    def _upset(self) -> None:
        """While somebody waits for an answer about an entry, what it says is overtaken."""
        if any(label == "reply to ask" for label, _ in self._gates or ()):
            self.slow = "reply to ask"
            self._invalidate()
            self.random.choice((self._gap, self._lose_control))()
            self.clock.tick(MAX_LAG)
            self._read()

    def _gap(self) -> None:
        self.note("the log is trimmed")
        self.log.records.clear()

    def _trim(self) -> None:
        self.note("the control state is trimmed")
        self.log.trim()

    def _clear(self) -> None:
        worker = self.random.choice(self.workers)
        promise = (self.origin[0], self.origin[1])
        self._go(f"{worker.name}: clears {promise}", self._promise(worker, promise, worker.cache.clear))

    async def _promise(self, worker: Process, promise: Versions, call: Callable[[], Awaitable[Receipt]]) -> None:
        receipt = await call()
        self.note(f"{worker.name}: {receipt}")
        worker.promised = _newest(worker.promised, promise)
        if receipt.durable:
            self._durable.append((self.clock.monotonic(), promise))

    def _evict(self) -> None:
        worker, key = self.random.choice(self.workers), self.random.choice("xy")
        self.note(f"{worker.name}: evicts {key} from L1")
        worker.cache.engine.memory.discard(key)

    def _lose_control(self) -> None:
        self.note("the control state is lost")
        self.log.lose_control()

    def _fail(self) -> None:
        if self.random.random() < 0.5:
            self.log.refuse += self.random.choice((1, 2, 4))
            self.note(f"the log will refuse {self.log.refuse} calls")
        else:
            self.log.lose += 1
            self.note("a reply of the log will be lost")

    def _tick(self) -> None:
        seconds = self.random.choice((0.3, 0.6, 1.0))
        self.note(f"{seconds} s go by")
        self.clock.tick(seconds)

    def _restart(self) -> None:
        """The old process lives on unobserved: what it has sent may still arrive."""
        index = self.random.randrange(2)
        self.note(f"w{index}: restarts")
        self.workers[index] = self._started(f"w{index}'")
        self._follow(self.workers[index])
        # It asks before it judges anything, so whatever is durable binds it from its first read on.
        self.workers[index].promised = _newest((0, 0), *(versions for _, versions in self._durable))


def _newest(*versions: Versions) -> Versions:
    return max(zero for zero, _ in versions), max(one for _, one in versions)


def explore(seeds: range, *, plant: Callable[[Process, World], None] | None = None) -> str | None:
    """The first violation that the schedules of `seeds` lead to, with its schedule."""
    for seed in seeds:
        try:
            asyncio.run(World(seed, plant=plant).run())
        except Violation as violation:
            return f"seed {seed}:\n{violation}"
    return None
