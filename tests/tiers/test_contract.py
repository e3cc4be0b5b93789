"""What every tier does, whatever is behind it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from asgi_tiercache.testing import ScriptedTier, TickingClock
from asgi_tiercache.tiers.breaker import Breaker
from asgi_tiercache.tiers.guard import Guarded
from asgi_tiercache.tiers.redis import RedisLink, RedisTier
from asgi_tiercache.types import SystemClock, Tier, Write
from tests.conftest import BINARIES
from tests.servers import RedisServer
from tests.tiers import doubles
from tests.tiers.doubles import Recorder, until

SERVERS = [*BINARIES, "cluster", "sentinel"]
KINDS = ["own", "scripted", *(f"{kind} {server}" for server in SERVERS for kind in ("redis", "guarded"))]
_prefixes = itertools.count()

Opened = Callable[[Callable[[Tier], Awaitable[None]]], None]
"""Runs a test's body on a loop of its own, with a tier that is empty and closed afterwards."""


class RunningClock(TickingClock):
    """Ticks by itself, as the clock of a real tier does."""

    def monotonic(self) -> float:
        return SystemClock().monotonic()


def url_of(server: str, request: pytest.FixtureRequest) -> str:
    if server in BINARIES:
        servers: dict[str, RedisServer] = request.getfixturevalue("redis_servers")
        return servers[server].url
    url: str = request.getfixturevalue("redis_cluster" if server == "cluster" else "redis_sentinels").url
    return url


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest) -> Opened:
    kind, _, server = str(request.param).partition(" ")
    tier: Tier = doubles.ScriptedTier() if kind == "own" else ScriptedTier(clock=RunningClock())
    if server:
        tier = RedisTier(RedisLink(url_of(server, request)), prefix=f"contract{next(_prefixes)}:")
    if kind == "guarded":
        signals = Recorder()
        breaker = Breaker(tier=tier.name, deadline=5.0, clock=SystemClock(), signals=signals)
        tier = Guarded(tier, breaker, clock=SystemClock(), signals=signals)

    async def run(body: Callable[[Tier], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(20):
                await body(tier)
        finally:
            await tier.aclose()

    return lambda body: asyncio.run(run(body))


def test_a_tier_has_a_name(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        assert tier.name == "L2"

    opened(body)


def test_what_was_not_kept_is_none(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        assert await tier.get_many(["a"]) == [None]
        assert await tier.get_many(["a", "b"]) == [None, None]

    opened(body)


def test_what_was_kept_comes_back_in_the_order_asked(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        await tier.set_many([Write("a", b"1", 60.0), Write("b", b"2", 60.0), Write("c", b"3", 60.0)])
        assert await tier.get_many(["c", "none", "a", "c"]) == [b"3", None, b"1", b"3"]
        assert await tier.get_many(["b"]) == [b"2"]

    opened(body)


@pytest.mark.parametrize("data", [b"", b"\x00\r\n$-1\r\n\xff", bytes(range(256)) * 4096], ids=["none", "odd", "1 MiB"])
def test_bytes_come_back_as_they_are(opened: Opened, data: bytes) -> None:
    async def body(tier: Tier) -> None:
        await tier.set_many([Write("a", data, 60.0)])
        assert await tier.get_many(["a"]) == [data]

    opened(body)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nb\x00", "ключ", "\udc80", "{a}:*", "k" * 5000])
def test_any_text_is_a_key(opened: Opened, key: str) -> None:
    async def body(tier: Tier) -> None:
        await tier.set_many([Write(key, b"1", 60.0)])
        assert await tier.get_many([key, "other"]) == [b"1", None]
        await tier.delete_many([key])
        assert await tier.get_many([key]) == [None]

    opened(body)


def test_keeping_replaces_what_was_there(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        await tier.set_many([Write("a", b"1", 60.0)])
        await tier.set_many([Write("a", b"2", 60.0)])
        assert await tier.get_many(["a"]) == [b"2"]

    opened(body)


def test_of_two_writes_in_one_batch_the_last_wins(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        await tier.set_many([Write("a", b"1", 60.0), Write("a", b"2", 60.0)])
        assert await tier.get_many(["a"]) == [b"2"]

    opened(body)


def test_what_was_kept_is_forgotten_after_its_lifetime(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        await tier.set_many([Write("short", b"1", 0.0004), Write("long", b"2", 60.0)])
        async with asyncio.timeout(5):
            while await tier.get_many(["short"]) != [None]:
                pass
        assert await tier.get_many(["long"]) == [b"2"]

    opened(body)


def test_what_was_deleted_is_gone_and_absent_keys_do_not_matter(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        await tier.set_many([Write("a", b"1", 60.0), Write("b", b"2", 60.0)])
        await tier.delete_many(["a", "none"])
        assert await tier.get_many(["a", "b"]) == [None, b"2"]

    opened(body)


def test_nothing_asked_is_nothing_done(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        assert await tier.get_many([]) == []
        await tier.set_many([])
        await tier.delete_many([])

    opened(body)


def test_it_answers_a_ping(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        await tier.ping()
        assert getattr(tier, "available", True)

    opened(body)


def test_many_calls_at_once_all_succeed(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        keys = [str(number) for number in range(300)]
        await asyncio.gather(*(tier.set_many([Write(key, key.encode(), 60.0)]) for key in keys))
        answers = await asyncio.gather(*(tier.get_many([key]) for key in keys))
        assert answers == [[key.encode()] for key in keys]

    opened(body)


def test_a_call_that_is_cancelled_spoils_no_other(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        await tier.set_many([Write("a", b"1", 60.0), Write("b", b"2", 60.0)])
        for step in range(12):
            cancelled = asyncio.create_task(tier.get_many(["a"]))
            for _ in range(step):
                await asyncio.sleep(0)
            cancelled.cancel()
            assert await tier.get_many(["b"]) == [b"2"]
            await until(cancelled.done)

    opened(body)


def test_it_can_be_used_again_after_closing_and_closed_twice(opened: Opened) -> None:
    async def body(tier: Tier) -> None:
        await tier.set_many([Write("a", b"1", 60.0)])
        await tier.aclose()
        await tier.aclose()
        assert await tier.get_many(["a"]) == [b"1"]

    opened(body)


def test_it_serves_one_event_loop_after_another(opened: Opened) -> None:
    async def first(tier: Tier) -> None:
        await tier.set_many([Write("a", b"1", 60.0)])

    async def second(tier: Tier) -> None:
        assert await tier.get_many(["a"]) == [b"1"]

    opened(first)
    opened(second)
