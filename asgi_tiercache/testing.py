"""Tools for tests of apps that use asgi_tiercache: a clock that ticks on command, tiers that do as they are told.

Nothing here is imported by the package itself.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from asgi_tiercache.errors import TierError
from asgi_tiercache.tiers.leases import Busy, Ended, Lease
from asgi_tiercache.tiers.loops import first
from asgi_tiercache.types import Tier, Write


class TickingClock:
    """A clock that stands still until `tick` is called.

    Args:
        time: What the wall clock shows at first, in seconds since 1970.
        monotonic: What the monotonic clock shows at first, in seconds.
    """

    def __init__(self, time: float = 1_700_000_000.0, monotonic: float = 1_000.0) -> None:
        self._time = time
        self._monotonic = monotonic
        self._number = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"<TickingClock time={self._time} monotonic={self._monotonic}>"

    def time(self) -> float:
        """The wall clock."""
        return self._time

    def monotonic(self) -> float:
        """The monotonic clock."""
        return self._monotonic

    @property
    def sleeping(self) -> int:
        """How many sleep; a test may wait for them before it ticks."""
        return sum(not sleeper.done() for _, _, sleeper in self._sleepers)

    def tick(self, seconds: float) -> None:
        """Let `seconds` go by, and wake who has slept long enough."""
        self._time += seconds
        self._monotonic += seconds
        while self._sleepers and self._sleepers[0][0] <= self._monotonic:
            sleeper = heapq.heappop(self._sleepers)[2]
            if not sleeper.done():
                sleeper.set_result(None)

    def jump(self, seconds: float) -> None:
        """Set the wall clock alone, forwards or back."""
        self._time += seconds

    async def sleep(self, seconds: float) -> None:
        """Return once `tick` has let `seconds` go by."""
        if seconds <= 0:
            return await asyncio.sleep(0)
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._number), sleeper))
        await sleeper


class ScriptedTier(Tier):
    """A tier in memory that can be told to fail or to hang, and remembers what it was asked.

    Two caches that share one behave like two processes that share a Redis.

    Args:
        name: As it appears in statistics.
        clock: Lets entries expire; without one they stay.
    """

    def __init__(self, name: str = "L2", *, clock: TickingClock | None = None) -> None:
        self.name = name
        self.calls: list[str] = []
        """The operations asked for, in order: `"get_many"`, `"set_many"`, ..."""
        self.data: dict[str, bytes] = {}
        """What the tier holds."""
        self._clock = clock
        self._expiry: dict[str, float] = {}
        self._failing = False
        self._next: deque[Exception] = deque()
        self._hold: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<ScriptedTier {self.name}: {len(self.data)} entries, {len(self.calls)} calls>"

    def fail(self, *errors: Exception) -> None:
        """Raise each of `errors` at the next operations; without any, fail from now on until `recover`."""
        self._next.extend(errors)
        self._failing = self._failing or not errors

    def hang(self) -> None:
        """Answer nothing from now on until `recover`."""
        self._hold = self._hold or asyncio.Event()

    def recover(self) -> None:
        """Work again; what hangs is answered."""
        self._failing = False
        self._next.clear()
        if self._hold is not None:
            self._hold.set()
            self._hold = None

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """What is held under `keys`."""
        await self._operate("get_many")
        now = self._clock.monotonic() if self._clock else 0.0
        return [self.data.get(key) if now < self._expiry.get(key, now + 1) else None for key in keys]

    async def set_many(self, writes: Sequence[Write]) -> bool | None:
        """Hold each of `writes`."""
        await self._operate("set_many")
        for write in writes:
            self.data[write.key] = write.data
            if self._clock:
                self._expiry[write.key] = self._clock.monotonic() + write.ttl
        return None

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget `keys`."""
        await self._operate("delete_many")
        for key in keys:
            self.data.pop(key, None)

    async def ping(self) -> None:
        """Answer, unless told otherwise."""
        await self._operate("ping")

    async def aclose(self) -> None:
        """Nothing to let go of."""
        self.calls.append("aclose")

    async def _operate(self, operation: str) -> None:
        self.calls.append(operation)
        if self._hold is not None:
            await self._hold.wait()
        if self._next:
            raise self._next.popleft()
        if self._failing:
            raise TierError(f"{self.name}: told to fail")


class ScriptedLeases:
    """Leases in memory that can be told to fail, and to be held by somebody who never ends them.

    Two caches that share one behave like two processes that share a Redis. Who holds a lease holds it until its end,
    as if renewed for ever.

    Args:
        clock: Measures waits, and when a seized lease runs out.
    """

    def __init__(self, clock: TickingClock) -> None:
        self.calls: list[str] = []
        """What was done, in order: `"acquire"`, `"wait"`, and `"end"` of the leases that were still held."""
        self.waiting = 0
        """How many wait for a lease."""
        self._clock = clock
        self._holders: dict[str, _Holder] = {}
        self._failing = False

    def __repr__(self) -> str:
        return f"<ScriptedLeases {len(self.held)} held, {self.waiting} waiting>"

    @property
    def held(self) -> list[str]:
        """The keys whose lease is held."""
        now = self._clock.monotonic()
        return [key for key, holder in self._holders.items() if now < holder.until]

    def fail(self) -> None:
        """Have nothing to say from now on until `recover`; who waits is told so."""
        self._failing = True
        for key in tuple(self._holders):
            self._end(key, Ended.NOTHING)

    def recover(self) -> None:
        """Work again."""
        self._failing = False

    def seize(self, key: str, seconds: float = math.inf) -> None:
        """Let the lease of `key` be held for `seconds` by somebody who never ends it; its holder has lost it."""
        self._holders[key] = _Holder(self._clock.monotonic() + seconds)

    def end(self, key: str, ended: Ended) -> None:
        """End the lease of `key`, whoever holds it."""
        self._end(key, ended)

    async def acquire(self, key: str, seconds: float) -> Lease | Busy | None:
        """The lease of `key`, unless it is held."""
        self.calls.append("acquire")
        await asyncio.sleep(0)
        if self._failing:
            return None
        if key in self.held:
            return _ScriptedBusy(self, key)
        holder = self._holders[key] = _Holder(math.inf)
        return _ScriptedLease(self, key, holder)

    async def aclose(self) -> None:
        """Nothing to let go of."""

    async def _wait(self, key: str, seconds: float) -> Ended:
        self.calls.append("wait")
        holder = self._holders.get(key)
        if holder is None:
            return Ended.NOTHING if self._failing else Ended.GONE
        told: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        until = self._clock.monotonic() + seconds
        holder.waiting.append(told)
        self.waiting += 1
        try:
            await first(told, self._clock, min(until, holder.until) - self._clock.monotonic())
        finally:
            self.waiting -= 1
            holder.waiting.remove(told)
        if told.done():
            return told.result()
        return Ended.GONE if self._clock.monotonic() >= holder.until else Ended.PATIENCE

    def _end(self, key: str, ended: Ended, holder: _Holder | None = None) -> None:
        if key in self._holders and holder in (None, self._holders[key]):
            self.calls.append("end")
            for told in self._holders.pop(key).waiting:
                if not told.done():
                    told.set_result(ended)


@dataclass(eq=False)
class _Holder:
    until: float
    waiting: list[asyncio.Future[Ended]] = field(default_factory=list)


class _ScriptedLease(Lease):
    def __init__(self, leases: ScriptedLeases, key: str, holder: _Holder) -> None:
        self._leases, self._key, self._holder = leases, key, holder

    @property
    def lost(self) -> bool:
        return self._leases._holders.get(self._key) is not self._holder

    def end(self, ended: Ended) -> None:
        self._leases._end(self._key, ended, self._holder)


class _ScriptedBusy(Busy):
    def __init__(self, leases: ScriptedLeases, key: str) -> None:
        self._leases, self._key = leases, key

    async def wait(self, seconds: float) -> Ended:
        return await self._leases._wait(self._key, seconds)


class _Response(Protocol):
    """A response of `starlette.testclient`, httpx or the like."""

    @property
    def headers(self) -> Mapping[str, str]: ...


def assert_hit(response: _Response, tier: str | None = None) -> None:
    """Assert that `response` came from the cache, and from `tier` (`"L1"`, `"L2"`) if one is given.

    `"flight"` is that of a request which waited for another one's response.

    Raises:
        AssertionError: it did not; the message quotes its `Cache-Status`.
    """
    status = _status(response)
    assert "hit" in status or "collapsed" in status, f"not a hit: {'; '.join(status)}"
    if tier is not None:
        assert f"detail={tier}" in status, f"not from {tier}: {'; '.join(status)}"


def assert_miss(response: _Response, *, stored: bool | None = None) -> None:
    """Assert that the handler made `response`, and that the cache stored it, or did not, if `stored` is given.

    Raises:
        AssertionError: it did not; the message quotes its `Cache-Status`.
    """
    status = _status(response)
    assert status[0] == "tiercache", "no cache has said anything about this response"
    assert "hit" not in status, f"a hit: {'; '.join(status)}"
    assert "collapsed" not in status, f"another request's response: {'; '.join(status)}"
    if stored is not None:
        assert ("stored" in status) is stored, f"stored is not {stored}: {'; '.join(status)}"


def _status(response: _Response) -> list[str]:
    """The parts of the last member of `Cache-Status`: that of the cache nearest to the client (RFC 9211)."""
    line = response.headers.get("cache-status", "")
    return [part.strip() for part in line.rsplit(",", 1)[-1].split(";")]
