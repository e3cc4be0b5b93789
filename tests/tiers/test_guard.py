from __future__ import annotations

import asyncio

from asgi_tiercache.errors import TierError
from asgi_tiercache.signals import BreakerChanged, TierFailed, TierRead, WriteDropped
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.breaker import Breaker
from asgi_tiercache.tiers.guard import Guarded
from asgi_tiercache.types import Write
from tests.tiers.doubles import Recorder, ScriptedTier, ticks

WRITE = Write("a", b"1", 60.0)


class Bench:
    def __init__(self) -> None:
        self.clock = TickingClock()
        self.signals = Recorder()
        self.tier = ScriptedTier()
        breaker = Breaker(tier="L2", deadline=0.02, clock=self.clock, signals=self.signals, random=lambda: 1.0)
        self.guarded = Guarded(self.tier, breaker, clock=self.clock, signals=self.signals)


def test_a_healthy_tier_is_used_as_if_nothing_stood_between() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.guarded.set_many([WRITE])
        assert await bench.guarded.get_many(["a", "b"]) == [b"1", None]
        await bench.guarded.delete_many(["a"])
        assert await bench.guarded.get_many(["a"]) == [None]
        await bench.guarded.ping()
        await bench.guarded.aclose()

    asyncio.run(body())
    assert bench.guarded.available
    assert (bench.guarded.name, bench.tier.pings, bench.tier.closed) == ("L2", 1, 1)


def test_a_failing_tier_is_a_miss_and_no_operation_raises() -> None:
    bench = Bench()
    bench.tier.error = TierError("down")

    async def body() -> None:
        assert await bench.guarded.get_many(["a", "b"]) == [None, None]
        await bench.guarded.set_many([WRITE])
        await bench.guarded.delete_many(["a"])
        await bench.guarded.ping()
        await bench.guarded.aclose()

    asyncio.run(body())
    operations = [failed.operation for failed in bench.signals.of(TierFailed)]
    assert operations == ["get", "set", "delete", "close"], "the third failure opened the breaker, so no ping was made"
    assert not bench.guarded.available


def test_a_hanging_tier_is_left_alone_after_one_deadline_for_every_operation() -> None:
    bench = Bench()
    bench.tier.hang()

    async def body() -> None:
        async with asyncio.timeout(5):
            assert await bench.guarded.get_many(["a"]) == [None]
            for _ in range(50):
                assert await bench.guarded.get_many(["a"]) == [None]
                await bench.guarded.set_many([WRITE])
                await bench.guarded.delete_many(["a"])
                await bench.guarded.ping()

    asyncio.run(body())
    assert bench.tier.calls == 1


def test_closing_a_hanging_tier_takes_no_longer_than_the_deadline() -> None:
    bench = Bench()
    bench.tier.hang()

    async def body() -> None:
        async with asyncio.timeout(5):
            await bench.guarded.aclose()

    asyncio.run(body())
    assert bench.signals.of(TierFailed) == [TierFailed("L2", "close", "TimeoutError")]


def test_it_comes_back_after_a_probe_by_ping() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.guarded.set_many([WRITE])
        bench.tier.error = ConnectionError("reset")
        for _ in range(3):
            await bench.guarded.get_many(["a"])
        bench.tier.error = None
        bench.clock.tick(0.3)
        assert await bench.guarded.get_many(["a"]) == [None]
        await ticks(5)
        assert await bench.guarded.get_many(["a"]) == [b"1"]

    asyncio.run(body())
    assert bench.tier.pings == 1
    assert bench.signals.of(BreakerChanged)[-1] == BreakerChanged("L2", "closed")


def test_each_read_that_reached_the_tier_is_reported_with_its_hits_and_its_time() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.guarded.set_many([WRITE])
        bench.tier.hang()
        reading = asyncio.create_task(bench.guarded.get_many(["a", "b", "c"]))
        await ticks(2)
        bench.clock.tick(0.125)
        bench.tier.go_on()
        await reading

    asyncio.run(body())
    assert bench.signals.seen == [TierRead("L2", 1, 2, 0.125)]


def test_reads_that_an_open_breaker_refused_are_not_reported_as_reads() -> None:
    bench = Bench()
    bench.tier.error = ConnectionError("refused")

    async def body() -> None:
        for _ in range(10):
            await bench.guarded.get_many(["a"])

    asyncio.run(body())
    bench.guarded.report()
    assert sum(read.misses for read in bench.signals.of(TierRead)) == 3


def test_the_first_read_is_reported_at_once_and_the_rest_by_sixteens_or_when_asked_for() -> None:
    bench = Bench()

    async def reads(number: int) -> None:
        for _ in range(number):
            await bench.guarded.get_many(["a", "b"])

    asyncio.run(reads(1 + 16 + 5))
    assert [(read.misses, read.reads) for read in bench.signals.of(TierRead)] == [(2, 1), (32, 16)]
    bench.guarded.report()
    assert bench.signals.of(TierRead)[-1] == TierRead("L2", 0, 10, 0.0, 5)
    bench.guarded.report()
    assert len(bench.signals.of(TierRead)) == 3


def test_writes_that_an_open_breaker_refused_are_reported_each() -> None:
    bench = Bench()
    bench.tier.error = ConnectionError("refused")

    async def body() -> None:
        for _ in range(3):
            await bench.guarded.set_many([WRITE])
        assert bench.signals.of(WriteDropped) == []
        await bench.guarded.set_many([WRITE, WRITE])

    asyncio.run(body())
    assert bench.signals.of(WriteDropped) == [WriteDropped("L2", "unavailable")] * 2


def test_its_repr_tells_what_is_guarded_and_how_it_is() -> None:
    bench = Bench()
    assert repr(bench.guarded).startswith("<Guarded <")
    assert repr(bench.guarded).endswith("breaker closed>")
