"""The access rules of docs/redis.md: they suffice for everything, and nothing that the cache needs can be left out."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from asgi_tiercache import TierCache
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.breaker import Breaker
from asgi_tiercache.tiers.leases import Busy, Ended, Lease
from asgi_tiercache.tiers.redis import RedisLink
from asgi_tiercache.tiers.redisleases import RedisLeases
from asgi_tiercache.types import SystemClock
from tests.clusters import ClusterServers, ask
from tests.conftest import BINARIES
from tests.engine.doubles import written
from tests.servers import RedisServer
from tests.tiers.doubles import Recorder

PAGE = Path(__file__).parents[1] / "docs" / "redis.md"
NEEDED = [
    *("+get", "+mget", "+set", "+unlink", "+ping", "+hmget", "+hset", "+eval", "+evalsha"),
    *("+xadd", "+xrevrange", "+time", "~shop:*", "~{shop}:*"),
]
"""What this version of the cache does not do without; the page names more for a log that is read."""

# Each as a command of its own kind uses it, on keys that the rule covers.
LISTED: list[tuple[str | int, ...]] = [
    ("GET", "shop:k"),
    ("MGET", "shop:k"),
    ("GETRANGE", "shop:k", 0, 9),
    ("SET", "shop:k", "1", "PX", 1000),
    ("UNLINK", "shop:k"),
    ("DEL", "{shop}:control"),
    ("EXISTS", "{shop}:control"),
    ("PTTL", "shop:k"),
    ("PEXPIRE", "shop:k", 1000),
    ("PUBLISH", "shop:k{}lease", "stored"),
    ("HSET", "{shop}:control", "a", "1"),
    ("HGET", "{shop}:control", "a"),
    ("HMGET", "{shop}:control", "a", "b"),
    ("HLEN", "{shop}:control"),
    ("HSCAN", "{shop}:control", 0),
    ("HDEL", "{shop}:control", "a"),
    ("XADD", "{shop}:log", "*", "a", "1"),
    ("XLEN", "{shop}:log"),
    ("XRANGE", "{shop}:log", "-", "+", "COUNT", 1),
    ("XREVRANGE", "{shop}:log", "+", "-", "COUNT", 1),
    ("XREAD", "COUNT", 1, "STREAMS", "{shop}:log", "0"),
    ("EVAL", "return redis.call('XADD', KEYS[1], '*', 'a', '1')", 1, "{shop}:log"),
    ("SCRIPT LOAD", "return 1"),
    ("TIME",),
    ("INFO", "server"),
    ("WAIT", 0, 1),
    ("SCAN", 0, "MATCH", "shop:*", "TYPE", "string"),
    ("PING",),
]


def rules(block: int) -> list[str]:
    """The words of one of the page's blocks of rules."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    text = [text for language, text in blocks if not language][block]
    return [word for word in text.split() if word[0] in "+-~&" or word in ("resetkeys", "resetchannels")]


def grant(servers: Sequence[RedisServer], words: Sequence[str]) -> str:
    """Make a user by `words` on every server, and return its name, which is its password, too."""
    user = f"user-{secrets.token_hex(4)}"
    for server in servers:
        ask(server, "ACL", "SETUSER", user, "on", f">{user}", *words)
    return user


async def failures(url: str) -> list[str]:
    """Use all of a cache as the user of `url`; what went wrong."""
    clock = TickingClock()
    first, second = (TierCache.from_url(url, namespace="shop", clock=clock, deadline=5.0) for _ in range(2))
    problems = []
    async with first, second:
        for number in range(3):
            await first.set(f"k{number}", number, ttl=1000, tags=["t", f"t{number}"])
        await written(first)
        if await second.get_many(["k0", "k1", "k2"]) != {"k0": 0, "k1": 1, "k2": 2}:
            problems.append("what one has stored, the other does not find")
        if await second.get("none") is not None:
            problems.append("something is there that nobody stored")
        receipts = [await first.invalidate("t0"), await first.invalidate_key("k1"), await first.clear()]
        problems += [f"not durable: {receipt}" for receipt in receipts if not receipt.durable]
        await first.delete("k2")
        clock.tick(1.0)
        if await second.get_many(["k0", "k1", "k2"]):
            problems.append("what one has invalidated, the other still finds")
        for cache in (first, second):
            assert cache.engine.stack is not None
            problems += [str(failed) for failed in cache.stats()["failures"].items()]
    link = RedisLink(url)
    try:
        await link.ping(b"shop:{}probe")
    except Exception as error:
        problems.append(f"ping: {error}")
    finally:
        await link.aclose()
    return problems


@pytest.fixture(params=list(BINARIES))
def server(request: pytest.FixtureRequest, redis_servers: dict[str, RedisServer]) -> Iterator[RedisServer]:
    """A server without control state and without scripts, so that everything has to be made anew."""
    found = redis_servers[request.param]
    ask(found, "DEL", "{shop}:control", "{shop}:log")
    ask(found, "SCRIPT", "FLUSH")
    yield found
    ask(found, "DEL", "{shop}:control", "{shop}:log")


def with_user(server: RedisServer, user: str) -> str:
    return f"redis://{user}:{user}@127.0.0.1:{server.port}"


def test_the_rules_of_the_page_suffice(server: RedisServer) -> None:
    assert asyncio.run(failures(with_user(server, grant([server], rules(0))))) == []


def test_the_rules_of_the_page_suffice_for_each_command_that_they_name(server: RedisServer) -> None:
    url = with_user(server, grant([server], rules(0)))

    async def body() -> None:
        link = RedisLink(f"{url}/1?client_name=shop")
        for command in LISTED:
            await link.command(*command)
        await link.aclose()

    asyncio.run(body())
    named = {str(command[0]).lower().replace(" ", "|") for command in LISTED} | {"evalsha", "select", "client|setname"}
    named |= {"subscribe", "unsubscribe"}  # not on a connection that is asked other things
    assert {f"+{name}" for name in named} == {word for word in rules(0) if word[0] == "+"}


async def lease_ends(url: str) -> list[Ended | None]:
    """How two waits for leases end, the second listening to another channel, as the user of `url`."""
    signals = Recorder()
    breaker = Breaker(tier="L2", deadline=5.0, clock=SystemClock(), signals=signals)
    links = [RedisLink(url) for _ in range(2)]
    first, second = (RedisLeases(link, breaker, clock=SystemClock(), signals=signals) for link in links)
    ends: list[Ended | None] = []
    for key in ("shop:a", "shop:b"):
        lease, busy = await first.acquire(key, 30.0), await second.acquire(key, 30.0)
        assert isinstance(lease, Lease)
        assert isinstance(busy, Busy)
        waiting = asyncio.create_task(busy.wait(30.0))
        await asyncio.sleep(0.2)
        lease.end(Ended.STORED)
        ends.append(await waiting)
    for leases, link in zip((first, second), links, strict=True):
        await leases.aclose()
        await link.aclose()
    assert signals.seen == []
    return ends


def test_the_rules_of_the_page_suffice_for_leases(server: RedisServer) -> None:
    url = with_user(server, grant([server], rules(0)))
    assert asyncio.run(lease_ends(url)) == [Ended.STORED, Ended.STORED]


@pytest.mark.parametrize("word", NEEDED)
def test_without_one_of_them_something_fails(server: RedisServer, word: str) -> None:
    words = rules(0)
    words.remove(word)

    assert asyncio.run(failures(with_user(server, grant([server], words)))) != []


@pytest.mark.parametrize(
    "command", [("GET", "other:k"), ("XLEN", "{other}:log"), ("FLUSHALL",), ("CONFIG", "GET", "*")]
)
def test_other_keys_and_commands_stay_closed(server: RedisServer, command: tuple[str, ...]) -> None:
    user = grant([server], rules(0))

    async def body() -> None:
        link = RedisLink(with_user(server, user))
        try:
            with pytest.raises(Exception, match=r"(?i)permission"):
                await link.command(*command)
        finally:
            await link.aclose()

    asyncio.run(body())


@pytest.mark.parametrize("word", [None, "+cluster|slots", "+command", "+evalsha", "~shop:*"])
def test_a_cluster_takes_a_few_more(redis_cluster: ClusterServers, word: str | None) -> None:
    words = [*rules(0), *rules(1)]
    if word is not None:
        words.remove(word)
    user = grant(redis_cluster.nodes, words)
    problems = asyncio.run(failures(redis_cluster.url.replace("://", f"://{user}:{user}@")))
    assert bool(problems) == (word is not None), problems
