from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from redis.exceptions import OutOfMemoryError

from asgi_tiercache.errors import TierError
from asgi_tiercache.signals import BreakerChanged, TierFailed, TierRead, WriteDropped
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.breaker import Breaker
from asgi_tiercache.tiers.guard import Guarded
from asgi_tiercache.types import Write
from tests.tiers.doubles import Recorder, ScriptedTier, ticks

WRITE = Write("a", b"1", 60.0)


class Bench:
    def __init__(self, tier: ScriptedTier | None = None, *, deadline: float = 0.02) -> None:
        self.clock = TickingClock()
        self.signals = Recorder()
        self.tier = tier or ScriptedTier()
        breaker = Breaker(tier="L2", deadline=deadline, clock=self.clock, signals=self.signals, random=lambda: 1.0)
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


def test_every_write_that_the_tier_does_not_have_is_reported() -> None:
    bench = Bench()
    bench.tier.error = ConnectionError("refused")

    async def body() -> None:
        for _ in range(3):
            await bench.guarded.set_many([WRITE])
        await bench.guarded.set_many([WRITE, WRITE])

    asyncio.run(body())
    dropped = [drop.reason for drop in bench.signals.of(WriteDropped)]
    assert dropped == ["failed"] * 3 + ["unavailable"] * 2


# ---- a tier that answers, and takes no writes ----


class TakesNothing(ScriptedTier):
    """Answers all but writes: full, a replica, or without the rights; or hangs there."""

    def __init__(self) -> None:
        super().__init__()
        self.refusal: Exception | None = OutOfMemoryError("command not allowed")
        self.hangs_on_writes = False

    async def set_many(self, writes: Sequence[Write]) -> None:
        if self.hangs_on_writes or self.refusal is not None:
            self.writes.append(list(writes))
            if self.hangs_on_writes:
                await asyncio.Event().wait()
            raise TierError("L2: full") from self.refusal
        await super().set_many(writes)


def test_refused_writes_are_put_off_and_reads_go_on() -> None:
    tier = TakesNothing()
    bench = Bench(tier)

    async def body() -> None:
        for _ in range(1000):
            assert not await bench.guarded.set_many([WRITE])
            assert await bench.guarded.get_many(["a"]) == [None]
        assert (len(tier.writes), len(tier.reads)) == (1, 1000)

    asyncio.run(body())
    assert bench.signals.of(BreakerChanged) == [BreakerChanged("L2 writes", "open")]
    assert len(bench.signals.of(TierFailed)) == 1
    assert Counter(drop.reason for drop in bench.signals.of(WriteDropped)) == {"failed": 1, "put off": 999}


def test_writes_are_tried_again_ever_more_seldom_until_one_is_taken() -> None:
    tier = TakesNothing()
    bench = Bench(tier)

    async def body() -> None:
        await bench.guarded.set_many([WRITE])
        for number, seconds in enumerate((0.25, 0.5, 1.0, 2.0, 2.0)):
            bench.clock.tick(seconds - 0.01)
            await bench.guarded.set_many([WRITE])
            assert len(tier.writes) == number + 1
            bench.clock.tick(0.02)
            await bench.guarded.set_many([WRITE])
            assert len(tier.writes) == number + 2
        tier.refusal = None
        bench.clock.tick(2.1)
        assert await bench.guarded.set_many([WRITE])
        assert await bench.guarded.set_many([WRITE])

    asyncio.run(body())
    assert bench.signals.of(BreakerChanged)[-1] == BreakerChanged("L2 writes", "closed")
    assert {change.tier for change in bench.signals.of(BreakerChanged)} == {"L2 writes"}


def test_one_write_is_tried_at_a_time() -> None:
    tier = TakesNothing()
    bench = Bench(tier)

    async def body() -> None:
        await bench.guarded.set_many([WRITE])
        tier.hangs_on_writes = True
        bench.clock.tick(0.3)
        trying = asyncio.create_task(bench.guarded.set_many([WRITE]))
        await ticks(2)
        assert not await bench.guarded.set_many([WRITE])
        assert len(tier.writes) == 2
        trying.cancel()

    asyncio.run(body())


@pytest.mark.parametrize("hangs", [True, False], ids=["hang", "end their connection"])
def test_writes_that_fail_while_reads_are_answered_are_put_off_alone(*, hangs: bool) -> None:
    answered = asyncio.Event()

    class TakesNothingLarge(ScriptedTier):
        async def set_many(self, writes: Sequence[Write]) -> None:
            await answered.wait()
            if hangs:
                await asyncio.Event().wait()
            raise ConnectionError("closed: too large")

    bench = Bench(TakesNothingLarge(), deadline=0.1)

    async def body() -> None:
        for _ in range(3):
            answered.clear()
            writing = asyncio.create_task(bench.guarded.set_many([WRITE]))
            await ticks(2)
            assert await bench.guarded.get_many(["a"]) == [None]
            answered.set()
            assert not await writing
            assert bench.guarded.available
            bench.clock.tick(5.0)

    asyncio.run(body())
    assert {change.tier for change in bench.signals.of(BreakerChanged)} == {"L2 writes"}


def test_writes_that_hang_while_nothing_is_answered_open_the_breaker_for_all() -> None:
    bench = Bench()
    bench.tier.hang()

    async def body() -> None:
        await bench.guarded.set_many([WRITE])
        assert not bench.guarded.available

    asyncio.run(body())
    assert bench.signals.of(BreakerChanged) == [BreakerChanged("L2", "open")]


# ---- the bulkhead ----


def test_reads_beyond_those_made_at_once_wait_their_turn_and_are_misses_where_they_never_have_it() -> None:
    bench = Bench(deadline=0.1)
    bench.guarded.breaker.deadline.at_once = 2

    async def body() -> None:
        await bench.guarded.set_many([WRITE])
        bench.tier.hang()
        reads = [asyncio.create_task(bench.guarded.get_many(["a"])) for _ in range(5)]
        await ticks(3)
        assert len(bench.tier.reads) == 2
        bench.tier.go_on()
        assert await asyncio.gather(*reads) == [[b"1"]] * 5
        bench.tier.hang()
        started = len(bench.tier.reads)
        assert await asyncio.gather(*(bench.guarded.get_many(["a"]) for _ in range(5))) == [[None]] * 5
        assert len(bench.tier.reads) == started + 2

    asyncio.run(body())


def test_its_repr_tells_what_is_guarded_and_how_it_is() -> None:
    bench = Bench()
    assert repr(bench.guarded).startswith("<Guarded <")
    assert repr(bench.guarded).endswith("breaker closed>")
