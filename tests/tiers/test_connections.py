"""Connections kept at hand between commands."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from asgi_tiercache.tiers.connections import KeptConnections
from tests.servers import RedisServer


def on(server: RedisServer, test: object) -> None:
    """Run `test` with kept connections to `server`, and the client whose pool they come from."""

    async def body() -> None:
        client = Redis.from_url(server.url)
        try:
            async with asyncio.timeout(10):
                await test(KeptConnections(client.connection_pool), client)  # type: ignore[operator]
        finally:
            await client.aclose()

    asyncio.run(body())


def test_a_connection_serves_one_command_after_the_other(redis_server: RedisServer) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        await kept.ask(b"SET", b"k", b"\xff")
        assert await kept.ask(b"GET", b"k") == b"\xff"
        ids = {await kept.ask(b"CLIENT", b"ID") for _ in range(5)}
        assert len(ids) == 1

    on(redis_server, test)


def test_a_refused_command_leaves_its_connection_usable(redis_server: RedisServer) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        before = await kept.ask(b"CLIENT", b"ID")
        with pytest.raises(ResponseError):
            await kept.ask(b"NO-SUCH-COMMAND")
        assert await kept.ask(b"CLIENT", b"ID") == before

    on(redis_server, test)


def test_a_reply_that_nobody_waited_for_never_answers_the_next_command(redis_server: RedisServer) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        await client.set("late", "late")
        waiting = asyncio.create_task(kept.ask(b"BLPOP", b"nothing", b"5"))
        for _ in range(20):
            await client.ping()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        await client.rpush("nothing", "the reply that comes too late")
        assert await kept.ask(b"GET", b"late") == b"late"

    on(redis_server, test)


def test_a_connection_that_the_server_has_closed_is_not_used_again(redis_server: RedisServer) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        number = await kept.ask(b"CLIENT", b"ID")
        await client.client_kill_filter(_id=str(number))
        for _ in range(50):
            await client.ping()
        assert await kept.ask(b"PING") == b"PONG"
        assert await kept.ask(b"CLIENT", b"ID") != number

    on(redis_server, test)
