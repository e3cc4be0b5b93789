"""Many at once who need the log in a real Redis: they wait for each other, and none of them fails."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from redis.asyncio import Redis

from asgi_tiercache import ConfigError, Policy, TierCache
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.redis import RedisLink
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask
from tests.servers import RedisServer

# Generous: what is tested is that nobody fails for want of a connection, not how fast a busy machine is.
DEADLINE = 10.0


def _cache(server: RedisServer, namespace: str, clock: TickingClock) -> TierCache:
    return TierCache.from_url(server.url, namespace=namespace, clock=clock, deadline=DEADLINE)


def _assert_well(cache: TierCache) -> None:
    stats = cache.stats()
    assert stats["failures"] == {}
    assert stats["breakers"] == {}, "there is one here only once it has opened"


def test_two_hundred_requests_that_all_have_to_ask_the_log_are_hits(redis_server: RedisServer) -> None:
    """As after an invalidation elsewhere that names none of them: this worker cannot tell that it did not."""
    namespace, clock = f"test-{secrets.token_hex(4)}", TickingClock()
    handler = Handler()

    async def body() -> None:
        cache, other = _cache(redis_server, namespace, clock), _cache(redis_server, namespace, clock)
        app = app_of(handler, Policy(ttl=1000), cache=cache, path="/items/{item_id}")
        paths = [f"/items/{number}" for number in range(200)]
        async with cache, other:
            stored = [(await ask(app, path)).body for path in paths]
            assert (await other.invalidate("unrelated")).durable
            clock.tick(2.0)
            replies = await asyncio.gather(*(ask(app, path) for path in paths))
            assert [reply.body for reply in replies] == stored
            assert all(reply.hit for reply in replies)
            assert handler.calls == 200
            _assert_well(cache)

    asyncio.run(body())


def test_a_hundred_and_fifty_invalidations_at_once_all_stand_in_the_log(redis_server: RedisServer) -> None:
    namespace, clock = f"test-{secrets.token_hex(4)}", TickingClock()

    async def body() -> None:
        cache = _cache(redis_server, namespace, clock)
        async with cache:
            receipts = await asyncio.gather(*(cache.invalidate(f"tag {number}") for number in range(150)))
            assert all(receipt.durable for receipt in receipts)
            assert len({receipt.position for receipt in receipts}) == 150
            _assert_well(cache)

    asyncio.run(body())


def test_a_client_that_decodes_what_it_reads_is_refused() -> None:
    with pytest.raises(ConfigError, match="client"):
        RedisLink(client=Redis(decode_responses=True))
    assert repr(RedisLink(client=Redis())) == "<RedisLink of a given client>"
