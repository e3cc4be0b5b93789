"""What a link offers beside the tier, on every kind of Redis."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from redis import Redis as SyncRedis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError, ResponseError
from redis.utils import str_if_bytes

from asgi_tiercache.errors import TierError
from asgi_tiercache.tiers.clients import LEAVE_EVERY, Script
from asgi_tiercache.tiers.redis import MAX_AT_ONCE, RedisLink, RedisTier
from asgi_tiercache.types import Write
from tests.certificates import Certificates
from tests.clusters import SERVICE, ClusterServers, SentinelServers, ask
from tests.servers import RedisServer

Runner = Callable[[Coroutine[Any, Any, None]], None]
_Sentinel: Any = Sentinel
NOTHING = SimpleNamespace(sentinels=[])
KINDS = ["server", "cluster", "sentinel", "tls"]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest) -> str:
    kind = request.param
    if kind == "tls":
        certificates: Certificates = request.getfixturevalue("certificates")
        server: RedisServer = request.getfixturevalue("tls_redis")
        return f"rediss://127.0.0.1:{server.port}?{certificates.option}"
    fixture = {"server": "redis_server", "cluster": "redis_cluster", "sentinel": "redis_sentinels"}[kind]
    found: str = request.getfixturevalue(fixture).url
    return found


def named(url: str, name: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}client_name={name}"


async def clients(link: RedisLink, key: str, name: str = "") -> list[dict[str, Any]]:
    """What the owner of `key` says of the connections called `name`; by default of those of `link`."""
    name = name or str_if_bytes(await link.command("CLIENT GETNAME", key=key))
    listed: list[dict[str, Any]] = await link.command("CLIENT LIST", key=key)
    return [client for client in listed if client["name"] == name]


async def blocked(link: RedisLink, key: str) -> int:
    return sum("b" in client["flags"] for client in await clients(link, key))


async def is_number(found: Awaitable[int], number: int) -> bool:
    return await found == number


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await holds():
            pass


@contextlib.asynccontextmanager
async def linked(url: str) -> AsyncIterator[tuple[RedisLink, str]]:
    """A link, and a key whose slot nobody else uses."""
    link = RedisLink(named(url, secrets.token_hex(8)))
    try:
        async with asyncio.timeout(20):
            yield link, f"{{link-{secrets.token_hex(4)}}}:key"
    finally:
        await link.aclose()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_commands_scripts_and_pipelines_reach_the_owner_of_their_keys(run: Runner, url: str) -> None:
    echo = Script("return {KEYS[1], ARGV[1], redis.call('INCRBY', KEYS[1], ARGV[2])}")

    async def body() -> None:
        async with linked(url) as (link, key):
            assert await link.command("SET", key, b"1") is True
            assert await link.command("GET", key) == b"1"
            assert await link.evaluate(echo, [key], ["a", 5]) == [key.encode(), b"a", 6]
            assert await link.evaluate(echo, [key], ["b", 1]) == [key.encode(), b"b", 7]
            replies = await link.pipelined(("INCR", key), ("WAIT", 0, 10), ("GET", key), key=key)
            assert replies[0] == 8
            assert replies[2] == b"8"
            assert len(await link.command("TIME", key=key)) == 2
            assert "run_id" in await link.command("INFO", "server", key=key)

    run(body())


def test_a_script_that_the_server_has_forgotten_is_sent_again(url: str) -> None:
    script = Script(f"return '{secrets.token_hex(4)}'")

    async def body() -> None:
        async with linked(url) as (link, key):
            first = await link.evaluate(script, [key])
            await link.command("SCRIPT FLUSH", key=key)
            assert await link.evaluate(script, [key]) == first

    asyncio.run(body())


def test_errors_are_raised_whichever_way_a_command_goes(url: str) -> None:
    fails = Script("return redis.call('HGET', KEYS[1], 'x')")

    async def body() -> None:
        async with linked(url) as (link, key):
            await link.command("SET", key, b"1")
            for call in (
                lambda: link.command("HGET", key, "x"),
                lambda: link.evaluate(fails, [key]),
                lambda: link.pipelined(("GET", key), ("HGET", key, "x"), key=key),
                lambda: link.each([("GET", key), ("HGET", key, "x")]),
                lambda: link.blocking("XREAD", "STREAMS", key, "0", key=key),
            ):
                with pytest.raises(ResponseError, match="WRONGTYPE"):
                    await call()
            assert await link.command("GET", key) == b"1"

    asyncio.run(body())


def test_one_command_may_wait_while_others_are_answered_and_its_connection_serves_again(url: str) -> None:
    async def body() -> None:
        async with linked(url) as (link, key):
            seen, connections = "0-0", set()
            for number in range(3):
                waiting = asyncio.create_task(link.blocking("XREAD", "BLOCK", 10_000, "STREAMS", key, seen, key=key))
                await eventually(lambda: is_number(blocked(link, key), 1))
                seen = (await link.command("XADD", key, "*", "number", number)).decode()
                assert seen.encode() in repr(await waiting).encode()
                connections.add(await link.blocking("CLIENT ID", key=key))
            assert len(connections) == 1

    asyncio.run(body())


def test_what_waits_takes_nothing_from_reads_and_ends_when_cancelled(url: str) -> None:
    async def body() -> None:
        async with linked(url) as (link, key):
            tier = RedisTier(link)
            waiting = [
                asyncio.create_task(link.blocking("XREAD", "BLOCK", 10_000, "STREAMS", key, "$", key=key))
                for _ in range(2 * MAX_AT_ONCE if url.startswith("redis:") else 8)
            ]
            await eventually(lambda: is_number(blocked(link, key), len(waiting)))
            await tier.set_many([Write("a", b"1", 60.0)])
            answers = await asyncio.gather(*(tier.get_many(["a"]) for _ in range(4 * MAX_AT_ONCE)))
            assert answers == [[b"1"]] * len(answers)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            await eventually(lambda: is_number(blocked(link, key), 0))

    asyncio.run(body())


def test_closing_ends_what_waits(url: str) -> None:
    async def body() -> None:
        async with linked(url) as (link, key):
            waiting = asyncio.create_task(link.blocking("XREAD", "BLOCK", 10_000, "STREAMS", key, "$", key=key))
            await eventually(lambda: is_number(blocked(link, key), 1))
            await link.aclose()
            await asyncio.wait([waiting])
            assert waiting.exception() is not None
            await eventually(lambda: is_number(blocked(link, key), 0))

    asyncio.run(body())


def test_a_scan_finds_what_fits_wherever_it_is(url: str) -> None:
    prefix = f"scan-{secrets.token_hex(4)}:"

    async def body() -> None:
        async with linked(url) as (link, _):
            await RedisTier(link).set_many([Write(f"{prefix}{number}", b"1", 60.0) for number in range(300)])
            found = [key async for batch in link.scan(f"{prefix}*", count=50) for key in batch]
            assert set(found) == {f"{prefix}{number}".encode() for number in range(300)}

    asyncio.run(body())


def test_a_loop_that_ends_without_closing_leaves_no_connection_and_no_warning(url: str) -> None:
    key, name = "{ends}", secrets.token_hex(8)
    link = RedisLink(named(url, name))

    async def body() -> None:
        await asyncio.gather(*(link.each([("GET", key), ("GET", str(number))]) for number in range(20)))
        waiting = asyncio.create_task(link.blocking("XREAD", "BLOCK", 10_000, "STREAMS", key, "$", key=key))
        await eventually(lambda: is_number(blocked(link, key), 1))
        assert not waiting.done()

    async def gone() -> None:
        async with linked(url) as (other, _):
            await eventually(lambda: no_client(other, key, name))

    asyncio.run(body())
    gc.collect()
    asyncio.run(gone())


async def no_client(link: RedisLink, key: str, name: str) -> bool:
    return not await clients(link, key, name)


# ---- a client that was handed in ----


@pytest.fixture(params=["server", "cluster", "sentinel"])
def make_client(request: pytest.FixtureRequest) -> Callable[[], Any]:
    if request.param == "server":
        server: RedisServer = request.getfixturevalue("redis_server")
        return lambda: Redis.from_url(server.url)
    if request.param == "cluster":
        cluster: ClusterServers = request.getfixturevalue("redis_cluster")
        return lambda: RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)
    sentinels: SentinelServers = request.getfixturevalue("redis_sentinels")
    return lambda: _Sentinel([("127.0.0.1", each.port) for each in sentinels.sentinels]).master_for(SERVICE)


def test_a_given_client_is_used_as_it_is_and_left_open(make_client: Callable[[], Any]) -> None:
    async def body() -> None:
        client = make_client()
        try:
            link = RedisLink(client=client)
            assert link.client() is client
            tier = RedisTier(link, prefix=f"given-{secrets.token_hex(4)}:")
            await tier.ping()
            await tier.set_many([Write("a", b"1", 60.0), Write("b", b"2", 60.0)])
            assert await tier.get_many(["a"]) == [b"1"]
            assert await tier.get_many(["b", "none", "a"]) == [b"2", None, b"1"]
            entry = await link.command("XADD", "{given}", "*", "a", "b")
            assert await link.blocking("XREAD", "BLOCK", 1, "STREAMS", "{given}", entry, key="{given}") in (
                None,
                [],
                {},
            )
            await tier.delete_many(["a", "b"])
            assert await tier.get_many(["a", "b"]) == [None, None]
            await tier.aclose()
            assert await client.ping()
        finally:
            await client.aclose()
            for sentinel in getattr(getattr(client, "connection_pool", None), "sentinel_manager", NOTHING).sentinels:
                await sentinel.aclose()

    asyncio.run(body())


def test_a_given_client_is_refused_on_another_loop_than_its_own(redis_server: RedisServer) -> None:
    async def body() -> None:
        async with Redis.from_url(redis_server.url) as client:
            tier = RedisTier(RedisLink(client=client))
            await tier.ping()
            with pytest.raises(TierError, match="belongs to another event loop"):
                await asyncio.to_thread(asyncio.run, tier.get_many(["a"]))
            await tier.ping()

    asyncio.run(body())


def test_a_given_client_with_few_connections_makes_calls_wait_instead_of_failing(redis_server: RedisServer) -> None:
    async def body() -> None:
        async with Redis.from_url(redis_server.url, max_connections=2) as client:
            tier = RedisTier(RedisLink(client=client))
            assert await asyncio.gather(*(tier.get_many(["none"]) for _ in range(50))) == [[None]] * 50

    asyncio.run(body())


def test_a_master_that_has_become_a_replica_is_left_without_a_read_that_fails(own_redis: RedisServer) -> None:
    async def body() -> None:
        link = RedisLink(own_redis.url)
        tier = RedisTier(link)
        refused = 0

        async def read() -> None:
            while refused < 8:
                assert await tier.get_many(["a"]) == [b"1"]
                assert await link.each([("GET", "none")]) == [None]

        async def write() -> None:
            nonlocal refused
            while refused < 8:
                await asyncio.sleep(LEAVE_EVERY / 5)
                with pytest.raises(TierError, match="ReadOnlyError"):
                    await tier.set_many([Write("a", b"2", 60.0)])
                refused += 1

        await tier.set_many([Write("a", b"1", 60.0)])
        with SyncRedis.from_url(own_redis.url) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            await asyncio.gather(*(tier.get_many(["a"]) for _ in range(20)))
            before = {each["id"] for each in client.client_list()} - {str(client.client_id())}
            await asyncio.gather(*(read() for _ in range(20)), write())
            assert before & {each["id"] for each in client.client_list()} == set()
        await tier.aclose()

    asyncio.run(body())


# ---- a cluster whose slots move ----


def test_keys_are_found_while_their_slot_moves_and_after_it_did(redis_cluster: ClusterServers) -> None:
    key = f"{{moves-{secrets.token_hex(4)}}}"
    script = Script("return redis.call('INCR', KEYS[1])")
    source = redis_cluster.owner(key)
    slot = ask(source, "CLUSTER", "KEYSLOT", key)
    target = next(node for node in redis_cluster.nodes if ask(node, "ROLE")[0] == b"master" and node is not source)
    source_id, target_id = ask(source, "CLUSTER", "MYID"), ask(target, "CLUSTER", "MYID")

    async def used(link: RedisLink, number: int) -> None:
        plain, counter = f"{key}a{number}", f"{key}n"
        assert await link.each([("SET", plain, b"1"), ("GET", "elsewhere")]) == [True, None]
        assert await link.ask(b"GET", plain.encode()) == b"1"
        assert await link.ask_many([b"elsewhere", plain.encode()]) == [None, b"1"]
        assert await link.evaluate(script, [counter]) == number
        assert await link.each([("UNLINK", plain)]) == [1]

    async def body() -> None:
        async with linked(redis_cluster.url) as (link, _):
            await used(link, 1)
            ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
            ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
            await used(link, 2)
            ask(source, "MIGRATE", "127.0.0.1", target.port, f"{key}n", 0, 5000)
            await used(link, 3)
            for node in (target, source):
                ask(node, "CLUSTER", "SETSLOT", slot, "NODE", target_id)
            await used(link, 4)
            assert await link.pipelined(("GET", f"{key}n"), key=key) == [b"4"]
        async with linked(redis_cluster.url) as (link, _):
            assert await link.command("GET", f"{key}n") == b"4"

    asyncio.run(body())


def test_a_cluster_that_cannot_be_reached_is_a_redis_error_or_told_as_such() -> None:
    async def body() -> None:
        async with linked("redis+cluster://127.0.0.1:1,127.0.0.1:2") as (link, _):
            with pytest.raises(TierError, match="cannot be connected"):
                await RedisTier(link).get_many(["a"])
            with pytest.raises(TierError):
                await RedisTier(link).ping()

    asyncio.run(body())


def test_sentinels_that_cannot_be_reached_are_an_error(redis_sentinels: SentinelServers) -> None:
    async def body() -> None:
        async with linked("redis+sentinel://127.0.0.1:1/shop") as (link, key):
            with pytest.raises(RedisError, match="No master found"):
                await link.command("GET", key)
        unknown = redis_sentinels.url.replace(SERVICE, "unknown")
        async with linked(unknown) as (link, key):
            with pytest.raises(RedisError, match="No master found for 'unknown'"):
                await link.ask(b"GET", key.encode())

    asyncio.run(body())
