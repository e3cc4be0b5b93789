"""The log in a real Redis: what only Redis can prove (rules I1, I3, I4), and two caches that share one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from redis import Redis

from asgi_tiercache import TierCache
from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.redislog import RedisLog
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.breaker import Breaker
from asgi_tiercache.tiers.redis import RedisLink
from asgi_tiercache.types import SystemClock
from tests.engine.doubles import written
from tests.servers import RedisServer
from tests.tiers.doubles import Recorder

T = TypeVar("T")

DEADLINE = 5.0


class Redises:
    """One namespace of one server, and whoever uses it."""

    def __init__(self, server: RedisServer) -> None:
        self.namespace = f"test-{secrets.token_hex(4)}"
        self.control = f"{{{self.namespace}}}:control"
        self.stream = f"{{{self.namespace}}}:log"
        self.clock = TickingClock()
        self._url = server.url

    def client(self) -> Redis:
        return Redis.from_url(self._url, decode_responses=True)

    def log(self) -> RedisLog:
        breaker = Breaker(tier="L2", deadline=DEADLINE, clock=SystemClock(), signals=Recorder())
        return RedisLog(RedisLink(self._url), breaker, namespace=self.namespace)

    def cache(self) -> TierCache:
        return TierCache.from_url(self._url, namespace=self.namespace, clock=self.clock, deadline=DEADLINE)


@pytest.fixture
def redises(each_redis: RedisServer) -> Redises:
    return Redises(each_redis)


def with_log(redises: Redises, use: Callable[[RedisLog], Awaitable[T]]) -> T:
    async def body() -> T:
        return await use(redises.log())

    return asyncio.run(body())


# ---- the log ----


def test_asking_first_makes_the_control_hash_once(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        answer = await log.ask(["a"])
        assert (answer.clock, answer.floor, answer.ids) == (0, 0, (0,))
        assert answer.epoch
        assert (await redises.log().ask(())).epoch == answer.epoch

    with_log(redises, use)
    with redises.client() as client:
        assert set(client.hgetall(redises.control)) == {"epoch", "clock", "floor"}


def test_an_invalidation_stands_in_the_log_and_in_the_hash(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        first = await log.append(["a", "b"])
        second = await log.append(["b"])
        assert (first.previous, second.previous) == (0, first.id)
        assert 0 < first.id < second.id < 2**63
        answer = await log.ask(["b", "never", "a"])
        assert (answer.epoch, answer.clock, answer.floor) == (first.epoch, second.id, 0)
        assert answer.ids == (second.id, 0, first.id)

    with_log(redises, use)
    with redises.client() as client:
        assert client.xlen(redises.stream) == 2


def test_clearing_raises_the_floor(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        await log.append(["a"])
        cleared = await log.append_clear()
        answer = await log.ask(["a"])
        assert (answer.floor, answer.clock) == (cleared.id, cleared.id)

    with_log(redises, use)


def test_positions_only_grow_also_within_one_millisecond_and_for_two_workers(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        other = redises.log()
        made = await asyncio.gather(*(worker.append([f"t{n}"]) for n in range(50) for worker in (log, other)))
        ids = sorted(appended.id for appended in made)
        assert len(set(ids)) == 100
        assert sorted(appended.previous for appended in made) == [0, *ids[:-1]], "each names the one before it"

    with_log(redises, use)


def test_positions_grow_also_when_the_clock_of_the_server_was_set_back(redises: Redises) -> None:
    future = f"{2**43}-7"

    async def use(log: RedisLog) -> None:
        first = await log.append(["a"])
        with redises.client() as client:
            client.hset(redises.control, "clock", future)
        second = await log.append(["b"])
        third = await log.append(["c"])
        assert first.id < second.previous == (2**43 << 20) + 7
        assert (second.id, third.id) == (second.previous + 1, second.previous + 2)

    with_log(redises, use)


@pytest.mark.parametrize("operation", ["ask", "append", "clear"])
def test_whoever_finds_no_control_hash_makes_one_with_a_new_epoch(redises: Redises, operation: str) -> None:
    async def use(log: RedisLog) -> None:
        before = await log.append(["a"])
        with redises.client() as client:
            client.delete(redises.control)
        if operation == "ask":
            answer = await log.ask(["a"])
            assert (answer.clock, answer.floor, answer.ids) == (before.id, 0, (0,)), "the clock goes on"
            epoch = answer.epoch
        else:
            appended = await (log.append(["b"]) if operation == "append" else log.append_clear())
            assert appended.previous == before.id < appended.id
            epoch = appended.epoch
        assert epoch != before.epoch
        assert (await log.ask(())).epoch == epoch

    with_log(redises, use)


def test_a_redis_that_lost_everything_begins_a_new_epoch(own_redis: RedisServer) -> None:
    redises = Redises(own_redis)

    async def use(log: RedisLog) -> None:
        before = await log.append(["a"])
        with redises.client() as client:
            client.flushall()
            client.script_flush()
        after = await log.append(["a"])
        assert after.epoch != before.epoch
        assert after.previous == 0

    with_log(redises, use)


def test_namespaces_keep_apart(each_redis: RedisServer) -> None:
    first, second = Redises(each_redis), Redises(each_redis)

    async def body() -> None:
        await first.log().append(["a"])
        assert (await second.log().ask(["a"])).ids == (0,)

    asyncio.run(body())


@pytest.mark.parametrize("tag", ["a:b", "é", "a b", "'\"\\", "{x}", "%", "\ud800", "x" * 256], ids=ascii)
def test_any_text_may_be_a_tag(redises: Redises, tag: str) -> None:
    async def use(log: RedisLog) -> None:
        appended = await log.append([tag, "other"])
        assert (await log.ask(["other", tag])).ids == (appended.id, appended.id)

    with_log(redises, use)


def test_ten_thousand_tags_at_once_are_one_invalidation(redises: Redises) -> None:
    tags = [f"tag {n}" for n in range(10_000)]

    async def use(log: RedisLog) -> None:
        appended = await log.append(tags)
        assert set((await log.ask(tags)).ids) == {appended.id}

    with_log(redises, use)


def test_control_state_that_no_script_of_ours_wrote_is_a_failure_not_a_crash(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        with redises.client() as client:
            client.hset(redises.control, mapping={"epoch": "e", "clock": "nonsense", "floor": "0-0"})
        with pytest.raises(TierError):
            await log.ask(())

    with_log(redises, use)


def test_a_server_that_is_gone_is_a_tier_error(own_redis: RedisServer) -> None:
    redises = Redises(own_redis)

    async def use(log: RedisLog) -> None:
        await log.append(["a"])
        own_redis.stop()
        with pytest.raises(TierError):
            await log.ask(["a"])
        with pytest.raises(TierError):
            await log.append(["a"])

    with_log(redises, use)


# ---- caches over it ----


def test_what_one_cache_stored_another_finds(redises: Redises) -> None:
    async def body() -> None:
        first, second = redises.cache(), redises.cache()
        async with first, second:
            await first.set("k", {"a": 1}, ttl=1000, tags=["t"])
            await written(first)
            assert await second.get("k") == {"a": 1}
            assert second.stats()["tiers"]["L2"]["hits"] == 1

    asyncio.run(body())


def test_an_invalidation_reaches_other_caches_within_the_lease(redises: Redises) -> None:
    async def body() -> None:
        first, second = redises.cache(), redises.cache()
        async with first, second:
            await first.set("k", 1, ttl=1000, tags=["t"])
            await first.set("other", 2, ttl=1000)
            await written(first)
            assert await second.get_many(["k", "other"]) == {"k": 1, "other": 2}
            receipt = await first.invalidate("t")
            assert receipt.durable
            assert await first.get("k") is None
            redises.clock.tick(1.0)
            assert await second.get_many(["k", "other"]) == {"other": 2}

    asyncio.run(body())


def test_a_restarted_worker_revives_nothing(redises: Redises) -> None:
    async def body() -> None:
        async with redises.cache() as cache:
            await cache.set("invalidated", 1, ttl=1000, tags=["t"])
            await cache.set("kept", 2, ttl=1000)
            await written(cache)
            await cache.invalidate("t")
        async with redises.cache() as again:
            assert await again.get_many(["invalidated", "kept"]) == {"kept": 2}

    asyncio.run(body())


def test_a_clear_reaches_other_caches_and_later_ones(redises: Redises) -> None:
    async def body() -> None:
        first, second = redises.cache(), redises.cache()
        async with first, second:
            await first.set("k", 1, ttl=1000)
            await written(first)
            assert await second.get("k") == 1
            await first.clear()
            redises.clock.tick(1.0)
            assert await second.get("k") is None
        async with redises.cache() as third:
            assert await third.get("k") is None

    asyncio.run(body())


def test_lost_control_state_invalidates_everything_everywhere(redises: Redises) -> None:
    async def body() -> None:
        first, second = redises.cache(), redises.cache()
        async with first, second:
            await first.set("k", 1, ttl=1000, tags=["t"])
            await written(first)
            assert await second.get("k") == 1
            await first.invalidate("t")
            with redises.client() as client:
                client.delete(redises.control)
            redises.clock.tick(1.0)
            assert await second.get("k") is None
            assert await first.get("k") is None
            await first.set("k", 2, ttl=1000)
            assert await first.get("k") == 2

    asyncio.run(body())


def test_an_invalidation_while_redis_is_down_is_reported_held_and_sent_later(own_redis: RedisServer) -> None:
    redises = Redises(own_redis)

    async def body() -> None:
        cache = redises.cache()
        async with cache:
            await cache.set("k", 1, ttl=1000, tags=["t"])
            own_redis.stop()
            receipt = await cache.invalidate("t")
            assert not receipt.durable
            assert await cache.get("k") is None
            own_redis.start()
            async with asyncio.timeout(DEADLINE):
                while not _in_the_log(redises):
                    redises.clock.tick(1.0)
                    await cache.get("other")
                    await asyncio.sleep(0)
            assert await cache.get("k") is None

    asyncio.run(body())


def _in_the_log(redises: Redises) -> bool:
    with redises.client() as client:
        return bool(client.hexists(redises.control, "t:t"))


def test_one_odd_key_does_not_stand_in_the_way_of_every_invalidation(redises: Redises) -> None:
    """What Redis's client cannot encode would be held and fail again for ever, and the lease with it."""

    async def body() -> None:
        cache = redises.cache()
        async with cache:
            await cache.delete("odd \ud800")
            assert (await cache.invalidate("t")).durable
            assert cache.stats()["failures"] == {}
            await cache.set("k", 1, ttl=1000)
            redises.clock.tick(100.0)
            assert await cache.get("k") == 1

    asyncio.run(body())


def test_no_key_of_a_users_reaches_the_control_state(own_redis: RedisServer) -> None:
    async def body() -> None:
        cache = TierCache.from_url(own_redis.url, deadline=DEADLINE)
        async with cache:
            await cache.invalidate("before")
            for name in ("control", "log"):
                await cache.set(f"{{tiercache}}:{name}", 1, ttl=1000)
            await written(cache)
            assert (await cache.invalidate("after")).durable

    asyncio.run(body())


def test_a_cache_serves_several_event_loops_one_after_another(redises: Redises) -> None:
    cache = redises.cache()

    async def use(value: int) -> object:
        await cache.set("k", value, ttl=1000, tags=["t"])
        await cache.invalidate("t")
        await cache.set("k", value + 1, ttl=1000)
        await cache.aclose()
        return await cache.get("k")

    asyncio.run(cache.start())
    assert [asyncio.run(use(value)) for value in (1, 5)] == [2, 6]
