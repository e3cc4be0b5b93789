"""Connections kept at hand between commands."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis._parsers import _AsyncRESP2Parser
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from asgi_tiercache.tiers.connections import KeptConnections
from tests.servers import RedisServer
from tests.tiers.doubles import until

Test = Callable[[KeptConnections, Redis], Awaitable[None]]


def against(replies: list[bytes], test: Test) -> None:
    """Run `test` against a server that answers each command with the next of `replies`, then closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while replies and (said := await reader.read(1000)):
            # redis-py introduces itself on every connection.
            writer.write(b"+OK\r\n" * said.count(b"SETINFO") or replies.pop(0))
        writer.close()

    async def body() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = Redis(port=server.sockets[0].getsockname()[1], protocol=2)
        try:
            async with asyncio.timeout(10):
                await test(KeptConnections(client, limit=4), client)
        finally:
            await client.aclose()
            server.close()

    asyncio.run(body())


def on(server: RedisServer, test: Test, **options: Any) -> None:
    """Run `test` with kept connections to `server`, and the client whose pool they come from."""

    async def body() -> None:
        client = Redis.from_url(server.url, **options)
        try:
            async with asyncio.timeout(10):
                await test(KeptConnections(client, limit=4), client)
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
        asking = asyncio.create_task(kept.ask(b"GET", b"late"))
        for _ in range(20):
            await client.ping()
        await client.rpush("nothing", "the reply that comes too late")
        assert await asking == b"late"

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


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_is_not_there_and_what_comes_in_many_pieces(redis_server: RedisServer, protocol: int) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        large = bytes(range(256)) * 20_000
        await client.set("large", large)
        assert await kept.ask(b"MGET", b"none", b"large", b"none") == [None, large, None]
        assert await kept.ask(b"GET", b"none") is None

    on(redis_server, test, protocol=protocol)


def test_no_more_connections_than_the_limit(redis_server: RedisServer) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        waiting = [asyncio.create_task(kept.ask(b"BLPOP", b"limited", b"5")) for _ in range(4)]
        await until(lambda: not kept.available)
        await client.rpush("limited", *"abcd")
        await asyncio.gather(*waiting)
        assert kept.available
        assert repr(kept) == "<KeptConnections open=4 idle=4>"

    on(redis_server, test)


def test_where_redis_py_is_not_made_as_expected_commands_go_through_its_pool(redis_server: RedisServer) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        await client.set("k", b"\xff")
        assert await kept.ask(b"GET", b"k") == b"\xff"
        assert await kept.ask(b"MGET", b"k", b"none") == [b"\xff", None]
        assert not kept.available

    on(redis_server, test, parser_class=_AsyncRESP2Parser, protocol=2)


def test_a_reply_to_a_command_that_was_cancelled_takes_its_connection_along(redis_server: RedisServer) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        await kept.ask(b"PING")
        waiting = asyncio.create_task(kept.ask(b"BLPOP", b"cancelled", b"5"))
        await until(lambda: repr(kept) == "<KeptConnections open=1 idle=0>")
        waiting.cancel()
        await asyncio.wait([waiting])
        assert repr(kept) == "<KeptConnections open=0 idle=0>"

    on(redis_server, test)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"?garbage\r\n", InvalidResponse),
        (b"+one\r\n+two\r\n", InvalidResponse),
        (b"$5\r\nab", RedisConnectionError),  # and closed
    ],
)
def test_a_server_that_does_not_speak_as_it_should(sent: bytes, error: type[Exception]) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        with pytest.raises(error):
            await kept.ask(b"GET", b"k")
        assert repr(kept) == "<KeptConnections open=0 idle=0>"

    against([sent], test)


def test_bytes_that_nobody_asked_for_answer_no_command() -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        assert await kept.ask(b"GET", b"k") == b"first"
        (line,) = kept._idle
        unasked = b"+unasked\r\n"
        line.get_buffer(-1)[: len(unasked)] = unasked
        line.buffer_updated(len(unasked))
        assert await kept.ask(b"GET", b"k") == b"second"

    against([b"+first\r\n", b"+second\r\n"], test)


def test_a_client_with_kept_connections_closes_at_once(redis_server: RedisServer) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        await asyncio.gather(*(kept.ask(b"PING") for _ in range(3)))
        await client.aclose()
        await until(lambda: all(line.closed for line in kept._idle))
        assert await kept.ask(b"PING") == b"PONG"

    on(redis_server, test)


def test_a_rush_after_the_server_has_closed_every_connection_stays_within_the_limit(redis_server: RedisServer) -> None:
    async def test(kept: KeptConnections, client: Redis) -> None:
        async def ask() -> None:
            if kept.available:
                assert await kept.ask(b"PING") == b"PONG"
            assert kept._open <= 4

        await asyncio.gather(*(ask() for _ in range(4)))
        await client.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: all(line.closed for line in kept._idle))
        await asyncio.gather(*(ask() for _ in range(30)))
        assert kept._open == 4

    on(redis_server, test)


class LatePool(ConnectionPool):
    """Hands out its first connection only after the server has reset it."""

    on_first: Callable[[], None] | None = None

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        connection = await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]
        if self.on_first is not None:
            self.on_first()
            self.on_first = None
            await until(connection._writer.transport.is_closing)
            await asyncio.sleep(0)  # that is told to whoever has the connection now
        return connection


def test_a_connection_that_ended_before_its_first_command_is_not_waited_for() -> None:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionResetError):
            while said := await reader.read(1000):
                writer.write(b"+OK\r\n" * said.count(b"SETINFO") or b"$1\r\nx\r\n")
        writer.close()

    async def body() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        pool = LatePool(port=server.sockets[0].getsockname()[1], protocol=2)
        pool.on_first = lambda: reset(writers[0])
        client = Redis.from_pool(pool)
        async with asyncio.timeout(10):
            assert await KeptConnections(client, limit=4).ask(b"GET", b"x") == b"x"
        assert len(writers) == 2
        await client.aclose()
        server.close()

    asyncio.run(body())


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
