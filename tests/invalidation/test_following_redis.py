"""The tail over a real Redis: others' invalidations are known without asking, and a hit costs no command."""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis
from starlette.testclient import TestClient

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.testing import TickingClock, assert_hit
from tests.engine.doubles import written
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask
from tests.servers import RedisServer

PATIENCE = 10.0
DEADLINE = 5.0
POLICY = Policy(ttl=1000, tags=("t",))


def caches(server: RedisServer, number: int = 2, **options: Any) -> list[TierCache]:
    """Caches whose clock stands still, so that only the tail can tell them anything."""
    options = {"namespace": f"tail-{secrets.token_hex(4)}", "deadline": DEADLINE, "clock": TickingClock(), **options}
    return [TierCache.from_url(server.url, **options) for _ in range(number)]


async def soon(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; for what happens in another process there is no event."""
    async with asyncio.timeout(PATIENCE):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def position(cache: TierCache) -> int:
    return cache.stamp().position


def monitoring(client: Any) -> Any:
    return client.monitor()


@contextmanager
def admin(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url, decode_responses=True) as client:
        yield client


def test_what_another_worker_invalidates_is_known_without_a_request_or_a_question(each_redis: RedisServer) -> None:
    async def test() -> None:
        first, second = caches(each_redis)
        async with first, second:
            await second.set("k", 1, ttl=1000, tags=["t"])
            receipt = await first.invalidate("t")

            async def known() -> bool:
                return position(second) == receipt.position

            await soon(known)
            assert await second.get("k") is None

    asyncio.run(test())


def test_a_burst_is_read_in_pages_and_told_whole(each_redis: RedisServer) -> None:
    async def test() -> None:
        first, second = caches(each_redis)
        told: list[str] = []
        second.on_invalidate(lambda purged: told.extend(purged.tags), everywhere=True)
        async with first, second:
            names = [f"{number}" for number in range(1500)]
            last = 0
            for start in range(0, len(names), 100):
                receipts = await asyncio.gather(*(first.invalidate(name) for name in names[start : start + 100]))
                last = max(receipt.position or 0 for receipt in receipts)

            async def known() -> bool:
                return position(second) == position(first) == last

            await soon(known)
        assert sorted(told, key=int) == names
        assert second.engine.knowledge.horizon < position(second), "and without a gap"

    asyncio.run(test())


def test_it_survives_that_its_connection_is_closed(each_redis: RedisServer) -> None:
    async def test() -> None:
        first, second = caches(each_redis, clock=None)
        async with first, second:
            for number in range(3):
                with admin(each_redis) as client:
                    client.client_kill_filter(_type="normal", skipme=True)
                await second.set("k", number, ttl=1000, tags=["t"])

                async def invalidated() -> bool:
                    return (await first.invalidate("t")).durable

                await soon(invalidated)

                async def known() -> bool:
                    return position(second) == position(first)

                await soon(known)
                assert await second.get("k") is None

    asyncio.run(test())


def test_it_survives_a_restart(own_redis: RedisServer) -> None:
    async def test() -> None:
        first, second = caches(own_redis, clock=None, deadline=0.3)
        async with first, second:
            await second.set("k", 1, ttl=1000)
            before = second.stamp().epoch
            own_redis.restart()

            async def both_know() -> bool:
                await first.invalidate("t")
                return first.stamp() == second.stamp() and second.stamp().epoch != before

            await soon(both_know)
            assert await second.get("k") is None, "Redis came back empty: what was before it counts no more"

    asyncio.run(test())


def test_a_worker_that_began_while_redis_was_down_follows_once_it_is_there(own_redis: RedisServer) -> None:
    async def test() -> None:
        first, second = caches(own_redis, clock=None, deadline=0.3)
        told: list[str] = []
        second.on_invalidate(lambda purged: told.extend(purged.tags), everywhere=True)
        own_redis.stop()
        async with second:
            own_redis.start()
            async with first:
                await first.invalidate("before")

                async def both_know() -> bool:
                    await first.invalidate("after")
                    return first.stamp() == second.stamp()

                await soon(both_know)

                async def is_told() -> bool:
                    await first.invalidate("last")
                    return "last" in told

                await soon(is_told)

    asyncio.run(test())


# ---- what a hit costs ----


def test_a_warm_hit_sends_redis_nothing(each_redis: RedisServer) -> None:
    """As `redis-cli MONITOR` would show it."""

    async def test() -> None:
        (cache,) = caches(each_redis, 1)
        app = app_of(Handler(), POLICY.but(lock=False), cache=cache)  # leases end behind the back of whoever held them

        @cache.cached("value:{n}", ttl=1000, lock=False)
        async def value(n: int) -> int:
            return n

        async with cache:
            for n in range(20):
                await value(n)
            await ask(app)
            await written(cache)
            marker = secrets.token_hex(8)
            with admin(each_redis) as watching, admin(each_redis) as client, monitoring(watching) as monitor:
                for _ in range(20):
                    for n in range(20):
                        assert await value(n) == n
                    assert (await ask(app)).cache_status.endswith("detail=L1")
                await asyncio.to_thread(client.echo, marker)
                commands: list[str] = []
                while marker not in (command := await asyncio.to_thread(monitor.next_command))["command"]:
                    commands.append(command["command"])
            named = cache.namespace
            others = [command for command in commands if named in command and not command.startswith("XREAD")]
            assert others == [], "not one of 420 hits"
            assert len([command for command in commands if named in command]) <= 2

    asyncio.run(test())


# ---- its life ----


def test_it_ends_with_the_cache(each_redis: RedisServer) -> None:
    async def test() -> None:
        before = asyncio.all_tasks()
        (cache,) = caches(each_redis, 1)
        async with cache:
            assert len(asyncio.all_tasks()) > len(before)
        assert "not running" in repr(cache.engine.invalidation.tail)
        assert asyncio.all_tasks() == before

    asyncio.run(test())


def test_it_ends_with_the_loop_and_begins_anew_on_the_next(
    each_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    (cache,) = caches(each_redis, 1)

    async def use() -> None:
        await cache.start()
        assert cache.engine.invalidation.tail.running
        await cache.set("k", 1, ttl=1000)
        assert await cache.get("k") == 1

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            asyncio.run(use())
            assert not cache.engine.invalidation.tail.running
        gc.collect()
    assert caplog.text == ""


@pytest.mark.parametrize("with_lifespan", [True, False])
def test_apps_under_test_do_not_notice_it(
    each_redis: RedisServer, with_lifespan: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (cache,) = caches(each_redis, 1, clock=None)
    client = TestClient(app_of(Handler(), POLICY, cache=cache))
    with caplog.at_level(logging.WARNING):
        if with_lifespan:
            with client:
                hit = [client.get("/") for _ in range(5)][-1]
        else:
            hit = [client.get("/") for _ in range(5)][-1]
        gc.collect()
    assert_hit(hit)
    assert caplog.text == ""


# ---- a restart from an older snapshot ----


@pytest.mark.parametrize("trust_restart", [False, True])
def test_a_restart_from_before_an_invalidation_brings_nothing_old_back(
    own_redis: RedisServer, trust_restart: bool
) -> None:
    async def test() -> None:
        first, second = caches(own_redis, clock=None, deadline=0.5, trust_restart=trust_restart)
        async with first:
            await first.set("old", 1, ttl=1000, tags=["t"])
            await first.set("kept", 2, ttl=1000)
            await written(first)
            epoch = first.stamp().epoch
            with admin(own_redis) as client:
                client.save()
            assert (await first.invalidate("t")).durable
        own_redis.kill()
        own_redis.start()
        with admin(own_redis) as client:
            assert client.dbsize() >= 3, "it has read the snapshot"
        async with second:
            if trust_restart:  # promised by whoever says so: that this cannot happen
                assert second.stamp().epoch == epoch
                assert await second.get("kept") == 2
            else:
                assert second.stamp().epoch != epoch
                assert await second.get_many(["old", "kept"]) == {}
            await second.set("new", 3, ttl=1000)
            assert await second.get("new") == 3

    asyncio.run(test())


def test_a_worker_that_lived_through_such_a_restart_serves_nothing_old(own_redis: RedisServer) -> None:
    async def test() -> None:
        first, second = caches(own_redis, clock=None, deadline=0.5, max_lag=0.1)
        async with first, second:
            await first.set("k", 1, ttl=1000, tags=["t"])
            await written(first)
            assert await second.get("k") == 1
            epoch = first.stamp().epoch
            with admin(own_redis) as client:
                client.save()
            await first.invalidate("t")
            own_redis.kill()
            own_redis.start()

            async def both_began_anew() -> bool:
                for cache in (first, second):
                    assert cache is second or await cache.get("k") is None
                    await cache.get("k")
                return first.stamp().epoch == second.stamp().epoch != epoch

            await soon(both_began_anew)
            assert await first.get("k") is None
            assert await second.get("k") is None

    asyncio.run(test())


def test_a_server_that_is_started_again_reads_its_snapshot(own_redis: RedisServer) -> None:
    """Else the two above would prove nothing."""
    with admin(own_redis) as client:
        client.set("k", "v")
        client.save()
    own_redis.restart()
    with admin(own_redis) as client:
        assert client.get("k") == "v"
