from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_tiercache.errors import ConfigError, TierError
from asgi_tiercache.tiers.redis import RedisLink, RedisTier
from asgi_tiercache.tiers.writes import WriteQueue
from asgi_tiercache.types import Write
from tests.servers import RedisServer
from tests.tiers.doubles import Recorder, ticks

Runner = Callable[[Coroutine[Any, Any, None]], None]


async def connections(server: RedisServer) -> int:
    """How many clients the server has, beside the one that asks."""
    async with Redis.from_url(server.url) as client:
        return len(await client.client_list()) - 1


async def no_connection_left(server: RedisServer) -> None:
    async with asyncio.timeout(5):
        while await connections(server):
            pass


# ---- the link ----


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost:6379",
        "redis://localhost:none",
        "redis://localhost:99999",
        "redis://localhost/one",
        "redis://localhost?db=one",
        "redis://localhost?no_such_option=1",
        "redis://localhost?protocol=9",
        "redis://localhost?max_connections=-1",
        "redis://[::1",
    ],
)
def test_a_url_that_cannot_be_used_is_an_error_that_names_the_option(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisLink(url)
    assert caught.value.option == "url"


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@host:none", "redis://:hunter2/x@host/0", "redis://u:a#hunter2@host/x"]
)
def test_an_error_about_a_url_does_not_show_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisLink(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("url", ["redis://localhost", "rediss://localhost:6380/2", "unix:///run/redis.sock?db=1"])
def test_urls_of_each_kind_are_accepted(url: str) -> None:
    assert repr(RedisLink(url)) == f"<RedisLink {url.partition('?')[0]}>"


def test_neither_or_both_of_url_and_client_is_an_error() -> None:
    with pytest.raises(ConfigError, match="either"):
        RedisLink()
    with pytest.raises(ConfigError, match="either"):
        RedisLink("redis://localhost", client=Redis())


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@host:1/0", "redis://user:hun@ter2@host/1", "redis://h?password=hunter2"]
)
def test_its_repr_hides_the_password(url: str) -> None:
    shown = repr(RedisLink(url))
    assert "ter2" not in shown
    assert shown.startswith("<RedisLink redis://")


def test_the_clients_own_retries_timeouts_and_maintenance_notifications_are_off() -> None:
    async def body() -> None:
        link = RedisLink("redis://localhost:1?socket_timeout=5&decode_responses=yes")
        pool: Any = link.client().connection_pool
        options = pool.connection_kwargs
        assert options["retry"].get_retries() == 0
        assert [options[name] for name in ("socket_timeout", "socket_connect_timeout")] == [None, None]
        assert (options["health_check_interval"], options["decode_responses"]) == (0, False)
        assert not getattr(pool, "maint_notifications_enabled", bool)(), "clients before 8.1 know none"
        assert pool.max_connections == 96

    asyncio.run(body())


def test_a_loop_has_one_client_and_another_loop_another() -> None:
    link = RedisLink("redis://localhost:1")
    clients = []

    async def body() -> None:
        clients.append(link.client())
        assert link.client() is clients[-1]

    asyncio.run(body())
    asyncio.run(body())
    assert clients[0] is not clients[1]


def test_a_given_client_is_used_as_it_is_and_left_open(redis_server: RedisServer) -> None:
    async def body() -> None:
        async with Redis.from_url(redis_server.url) as client:
            link = RedisLink(client=client)
            assert link.client() is client
            tier = RedisTier(link, prefix="given:")
            await tier.set_many([Write("a", b"1", 60.0)])
            in_use = await connections(redis_server)
            await tier.aclose()
            assert await connections(redis_server) == in_use
            assert await client.get("given:a") == b"1"
        assert repr(link) == "<RedisLink of a given client>"

    asyncio.run(body())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_loop_that_ends_without_closing_leaves_no_connection_and_no_warning(
    run: Runner, own_redis: RedisServer
) -> None:
    tier = RedisTier(RedisLink(own_redis.url))

    async def body() -> None:
        await asyncio.gather(*(tier.get_many([str(number)]) for number in range(5)))
        assert await connections(own_redis) > 1

    run(body())
    gc.collect()
    asyncio.run(no_connection_left(own_redis))


def test_a_loop_that_ends_within_a_call_leaves_no_connection_and_no_warning(own_redis: RedisServer) -> None:
    tier = RedisTier(RedisLink(own_redis.url))

    async def body() -> None:
        tasks = [asyncio.create_task(tier.get_many([str(number)])) for number in range(5)]
        await ticks(3)
        assert not any(task.done() for task in tasks)

    asyncio.run(body())
    gc.collect()
    asyncio.run(no_connection_left(own_redis))


@pytest.mark.parametrize("uv", [False, True], ids=["asyncio", "uvloop"])
def test_a_test_client_without_with_leaves_no_connection_and_no_warning(uv: bool, own_redis: RedisServer) -> None:
    tier = RedisTier(RedisLink(own_redis.url))
    queue = WriteQueue(tier, signals=Recorder())

    async def page(request: Request) -> PlainTextResponse:
        (before,) = await tier.get_many(["page"])
        queue.put(Write("page", (before or b"") + b"x", 60.0))
        return PlainTextResponse(before or b"nothing")

    client = TestClient(Starlette(routes=[Route("/", page)]), backend_options={"use_uvloop": uv})
    assert [client.get("/").text for _ in range(3)] == ["nothing", "x", "xx"]
    gc.collect()
    asyncio.run(no_connection_left(own_redis))


def test_a_test_client_with_lifespan_leaves_no_connection_and_no_warning(own_redis: RedisServer) -> None:
    link = RedisLink(own_redis.url)
    tier = RedisTier(link)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await tier.aclose()

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse((await tier.get_many(["page"]))[0] or b"nothing")

    with TestClient(Starlette(routes=[Route("/", page)], lifespan=lifespan)) as client:
        assert [client.get("/").text for _ in range(2)] == ["nothing"] * 2
    gc.collect()
    asyncio.run(no_connection_left(own_redis))


# ---- the tier ----


def test_keys_carry_the_prefix_and_entries_their_lifetime(each_redis: RedisServer) -> None:
    async def body() -> None:
        tier = RedisTier(RedisLink(each_redis.url), prefix="app:")
        await tier.set_many([Write("a", b"1", 90.5)])
        async with Redis.from_url(each_redis.url) as client:
            assert await client.get("app:a") == b"1"
            assert 80_000 < await client.pttl("app:a") <= 90_500
            await tier.delete_many(["a"])
            assert await client.exists("app:a") == 0
        await tier.aclose()

    asyncio.run(body())


def test_one_read_is_one_command_and_so_is_a_read_of_several_keys(own_redis: RedisServer) -> None:
    async def body() -> None:
        tier = RedisTier(RedisLink(own_redis.url))
        await tier.get_many(["connects"])
        async with Redis.from_url(own_redis.url) as client:
            await client.config_resetstat()
            await tier.get_many(["a"])
            await tier.get_many(["a", "b", "c"])
            stats = await client.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): stats[name]["calls"] for name in stats}
        assert {
            name: number for name, number in calls.items() if "|" not in name and name not in ("info", "config")
        } == {
            "get": 1,
            "mget": 1,
        }
        await tier.aclose()

    asyncio.run(body())


def test_what_redis_refuses_is_a_tier_error(each_redis: RedisServer) -> None:
    async def body() -> None:
        tier = RedisTier(RedisLink(each_redis.url), prefix="refused:")
        writes = [Write("good", b"secret", 60.0), Write("bad", b"secret", 1e30)]
        with pytest.raises(TierError, match=r"L2: ResponseError: .*out of range") as caught:
            await tier.set_many(writes)
        assert "secret" not in str(caught.value)
        assert await tier.get_many(["good", "bad"]) == [b"secret", None]
        await tier.aclose()

    asyncio.run(body())


def test_a_key_of_another_type_holds_no_entry_and_a_write_takes_its_place(each_redis: RedisServer) -> None:
    """Three in a row would open the breaker: one key of somebody else's says nothing of Redis."""

    async def body() -> None:
        tier = RedisTier(RedisLink(each_redis.url), prefix="strange:")
        async with Redis.from_url(each_redis.url) as client:
            await client.sadd("strange:set", "member")
        await tier.set_many([Write("ours", b"1", 60.0)])
        assert await tier.get_many(["set"]) == [b""]  # which is rejected, and counted
        assert await tier.get_many(["set", "ours"]) == [None, b"1"]
        await tier.set_many([Write("set", b"2", 60.0)])
        assert await tier.get_many(["set"]) == [b"2"]
        await tier.aclose()

    asyncio.run(body())


def test_a_write_without_end_is_a_tier_error(redis_server: RedisServer) -> None:
    async def body() -> None:
        tier = RedisTier(RedisLink(redis_server.url))
        with pytest.raises(TierError, match="OverflowError"):
            await tier.set_many([Write("a", b"1", float("inf"))])
        await tier.aclose()

    asyncio.run(body())


def test_a_server_that_talks_rubbish_is_a_tier_error() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def body() -> None:
        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            tier = RedisTier(RedisLink(f"redis://127.0.0.1:{port}"))
            with pytest.raises(TierError):
                await tier.get_many(["a"])
            await tier.aclose()

    asyncio.run(body())


def test_a_tier_tells_where_it_is() -> None:
    tier = RedisTier(RedisLink("redis://user:secret@host:1/2"), name="L3")
    assert tier.name == "L3"
    assert repr(tier) == "<RedisTier L3: <RedisLink redis://user:***@host:1/2>>"
